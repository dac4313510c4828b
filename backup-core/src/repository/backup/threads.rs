//! The threads of one job: started together, stopped together, never outliving their use.

use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use super::shared::Shared;
use crate::repository::guard;
use crate::{Error, Result};

/// Threads that end when the job does. Dropping this stops them; it does not wait for them.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    close: Arc<dyn Fn() + Send + Sync>,
    ended: Vec<oneshot::Receiver<Result<()>>>,
}

impl Threads {
    /// `close` must make every thread that waits for something wake up.
    pub(crate) fn new(shared: Arc<Shared>, close: impl Fn() + Send + Sync + 'static) -> Self {
        Self { shared, close: Arc::new(close), ended: Vec::new() }
    }

    /// Stops all threads at their next look.
    pub(crate) fn stop(&self) {
        self.shared.stop();
        (self.close)();
    }

    /// Starts a thread whose failure stops the job.
    pub(crate) fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let ended = self.spawn_with_result(name, run)?;
        self.ended.push(ended);
        Ok(())
    }

    /// Starts a thread with a result.
    pub(crate) fn spawn_with_result<T: Send + 'static>(
        &self,
        name: &str,
        run: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T>>> {
        let (send, ended) = oneshot::channel();
        let (shared, close) = (self.shared.clone(), self.close.clone());
        let span = tracing::Span::current();
        let body = move || {
            let _entered = span.enter();
            // A thread that unwinds must not leave the others waiting for it.
            let guard = CloseOnDrop { close, armed: true };
            let result = match guard::caught(run) {
                // The failure is the job's, whole, with what it names; this thread is merely over.
                Err(error) if !error.is_cancelled() => {
                    shared.fail(error);
                    Err(Error::cancelled())
                }
                other => other,
            };
            let failed = result.is_err();
            guard.end(failed);
            // Nobody may be left to hear it.
            let _ = send.send(result);
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|e| Error::io("a worker thread could not be started", e))?;
        Ok(ended)
    }

    /// Waits until every thread has ended; the first failure is returned.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let mut result = Ok(());
        for ended in std::mem::take(&mut self.ended) {
            let ended =
                ended.await.unwrap_or_else(|_| Err(Error::internal("a worker thread ended without a word")));
            if result.is_ok() {
                result = ended;
            }
        }
        result
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

struct CloseOnDrop {
    close: Arc<dyn Fn() + Send + Sync>,
    armed: bool,
}

impl CloseOnDrop {
    fn end(mut self, failed: bool) {
        self.armed = failed;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if self.armed {
            (self.close)();
        }
    }
}
