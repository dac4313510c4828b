//! What stands between the engine and code that is not its own: sources, targets, sinks, transforms that hang or panic.
//!
//! A job must end when it is cancelled, whatever it waits for, and no public call panics. So every public call runs
//! through [`run`], and what worker threads call through [`caught`] or [`read`].

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use crate::{Error, ErrorKind, JobContext, Result};

/// Runs a call until it ends or the job is cancelled, and turns its panic into an error.
pub(crate) async fn run<T>(job: &JobContext, call: impl Future<Output = Result<T>>) -> Result<T> {
    let call = AssertUnwindSafe(call).catch_unwind();
    // Not `JobContext::until_cancelled`: each further function around a call holds it once more, and the futures of jobs are
    // so large that threads of 2 MiB ran out of stack.
    tokio::select! {
        // What is done is done, even if the job is cancelled at the same moment.
        biased;
        done = call => done.unwrap_or_else(|panic| Err(panicked(&*panic))),
        () = job.cancellation().cancelled() => Err(Error::cancelled()),
    }
}

/// Runs a thread's work and turns its panic into an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What was being changed when it panicked is not used again: the job has failed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// Runs work that blocks or takes long beside the runtime's threads. Dropping the future does not stop it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(|| caught(work))
        .await
        .map_err(|e| Error::internal("a part of the job ended without a word").with_source(e))?
}

/// Calls a reader of content and turns its panic into a failure of that content alone.
pub(crate) fn read<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(reader_panicked(&*panic)))
}

/// A failure of a reader that fails its content alone; one of a store that does not answer for now fails the job, which
/// may go well another time.
pub(crate) fn of_content_alone(failure: io::Error) -> Result<io::Error> {
    match failure.downcast::<Error>() {
        Ok(error) if matches!(error.kind(), ErrorKind::Transient | ErrorKind::Cancelled) => Err(error),
        Ok(error) => Ok(error.into()),
        Err(failure) => Ok(failure),
    }
}

/// The failure of a reader that panicked.
pub(crate) fn reader_panicked(panic: &(dyn Any + Send)) -> io::Error {
    io::Error::other(format!("the reader of the content panicked: {}", words(panic)))
}

/// The error of a job in which something panicked.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    Error::internal(format!("a part of the job panicked: {}", words(panic)))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}
