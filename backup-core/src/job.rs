//! What every job is given: cancellation, shared resources, an observer, a clock, randomness.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use tokio_util::sync::CancellationToken;

use crate::observer::{Event, NoObserver, Observer};
use crate::random::{Random, SystemRandom};
use crate::resources::Resources;
use crate::time::{Clock, SystemClock, Timestamp};
use crate::{Error, Result};

/// The surroundings of a job. Cheap to clone; clones share everything.
///
/// ```
/// use backup_core::JobContext;
///
/// let job = JobContext::new();
/// job.cancellation().cancel();
/// assert!(job.check().is_err());
/// ```
#[derive(Debug, Clone)]
pub struct JobContext {
    cancellation: CancellationToken,
    resources: Resources,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl JobContext {
    /// The system's clock and randomness, resources of its own, nobody observing.
    pub fn new() -> Self {
        Self {
            cancellation: CancellationToken::new(),
            resources: Resources::default(),
            observer: Arc::new(NoObserver),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        }
    }

    /// The same job, stopped by `token`.
    #[must_use]
    pub fn with_cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// The same job, drawing on `resources`, which other jobs may share.
    #[must_use]
    pub fn with_resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// The same job, telling `observer` what happens.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// The same job with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same job with another source of randomness.
    #[must_use]
    pub fn with_random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// What stops the job.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Memory, threads and rate limits.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Who is told what happens.
    pub fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// Tells the observer. One that panics loses the event; the job goes on.
    pub fn emit(&self, event: &Event) {
        let told = catch_unwind(AssertUnwindSafe(|| self.observer.on_event(event)));
        if told.is_err() {
            tracing::error!("the observer of a job panicked; the job goes on");
        }
    }

    /// The time by the job's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Where salts and identifiers come from.
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.random
    }

    /// An error if the job was cancelled.
    pub fn check(&self) -> Result<()> {
        if self.cancellation.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Awaits `call` until it ends or the job is cancelled. A call that is cancelled is dropped where it waits, so that a store
    /// that never answers keeps nobody.
    ///
    /// ```
    /// # async fn example() {
    /// let job = backup_core::JobContext::new();
    /// job.cancellation().cancel();
    /// let never = std::future::pending::<backup_core::Result<()>>();
    /// assert_eq!(job.until_cancelled(never).await.unwrap_err().kind(), backup_core::ErrorKind::Cancelled);
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example());
    /// ```
    pub async fn until_cancelled<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            // What is done is done, even if the job is cancelled at the same moment.
            biased;
            done = call => done,
            () = self.cancellation.cancelled() => Err(Error::cancelled()),
        }
    }
}

impl Default for JobContext {
    fn default() -> Self {
        Self::new()
    }
}
