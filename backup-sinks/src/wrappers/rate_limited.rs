//! Transferring no faster than allowed.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::resources::RateLimit;
use backup_core::{Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;

/// Holds puts back to one rate and gets to another.
///
/// A put waits for its turn before it starts, a get after it has ended, when its length is known: bursts are as long as
/// an object. Jobs limit themselves by their [`Resources`](backup_core::Resources); this is for one store among several,
/// or for callers that are not jobs.
pub struct RateLimited<S: ?Sized> {
    upload: RateLimit,
    download: RateLimit,
    inner: Arc<S>,
}

impl<S: ?Sized> RateLimited<S> {
    /// Limits the transfers of `inner`; clones of the limits share them and can change them at any time.
    pub fn over(inner: Arc<S>, upload: RateLimit, download: RateLimit) -> Self {
        Self { upload, download, inner }
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for RateLimited<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.upload.acquire(count(&bytes)).await;
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let fetched = self.inner.get(key, range).await?;
        self.download.acquire(count(&fetched.bytes)).await;
        Ok(fetched)
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }
}

impl<S: Sink + ?Sized> fmt::Debug for RateLimited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimited").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn count(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
