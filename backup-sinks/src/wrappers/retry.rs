//! Trying again what may succeed later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;
use tokio::time::Instant;

use crate::jitter::random_part;

/// How often and how long something is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// Time after the first attempt began from which on no further one begins.
    pub deadline: Duration,
    /// The longest pause after the first attempt. It doubles with each attempt, and a random part of it is taken (full
    /// jitter).
    pub first_pause: Duration,
    /// What the longest pause does not grow beyond.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    /// 12 attempts within 5 minutes, with pauses of up to 0.2 s, then 0.4 s, and so on to 30 s.
    fn default() -> Self {
        Self {
            attempts_max: 12,
            deadline: Duration::from_secs(300),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// Repeats calls that fail with a retryable error (see [`Error::is_retryable`](backup_core::Error::is_retryable)), and no
/// others.
///
/// A put is repeated, too, although its first attempt may have had its effect: objects are only ever created. Over
/// [`ObjectStoreSink`](crate::ObjectStoreSink), which looks what became of it, the repetition still says
/// `Created`; over other sinks it may say `AlreadyExists` of an object that this call made, and callers compare
/// the bytes, as [`put_or_same`](backup_core::SinkExt::put_or_same) does.
///
/// Dropping the future ends the attempt or pause that is under way. The last error is returned as it is.
pub struct Retry<S: ?Sized> {
    policy: RetryPolicy,
    inner: Arc<S>,
}

impl<S> Retry<S> {
    /// Repeats the calls of `inner` by the default policy.
    pub fn new(inner: S) -> Self {
        Self::over(Arc::new(inner))
    }
}

impl<S: ?Sized> Retry<S> {
    /// Repeats the calls of a sink that others may share.
    pub fn over(inner: Arc<S>) -> Self {
        Self { policy: RetryPolicy::default(), inner }
    }

    /// Repeats them by this policy.
    #[must_use]
    pub fn with_policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    async fn again<T, F>(&self, call: impl Fn() -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let started = Instant::now();
        let mut pause = self.policy.first_pause;
        let mut attempt = 1_u32;
        loop {
            let error = match call().await {
                Err(error) if error.is_retryable() => error,
                done => return done,
            };
            let wait = random_part(pause.min(self.policy.longest_pause));
            let late = started.elapsed().saturating_add(wait) >= self.policy.deadline;
            if attempt >= self.policy.attempts_max || late {
                return Err(error);
            }
            tracing::info!(%error, attempt, ?wait, "trying again");
            tokio::time::sleep(wait).await;
            pause = pause.saturating_mul(2);
            attempt = attempt.saturating_add(1);
        }
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for Retry<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.again(|| self.inner.put(key, bytes.clone())).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.again(|| self.inner.get(key, range.clone())).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.again(|| self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.again(|| self.inner.delete(key)).await
    }
}

impl<S: Sink + ?Sized> fmt::Debug for Retry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("policy", &self.policy).field("inner", &self.inner).finish()
    }
}
