//! Reading without the means to change anything.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;

/// Refuses puts and deletes with [`ErrorKind::Denied`] and forwards the rest.
pub struct ReadOnly<S: ?Sized> {
    inner: Arc<S>,
}

impl<S: ?Sized> ReadOnly<S> {
    /// Reads from `inner` only.
    pub fn over(inner: Arc<S>) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for ReadOnly<S> {
    async fn put(&self, key: &ObjectKey, _: Bytes) -> Result<PutOutcome> {
        Err(refused(key))
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        Err(refused(key))
    }
}

impl<S: Sink + ?Sized> fmt::Debug for ReadOnly<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOnly").field("inner", &self.inner).finish()
    }
}

fn refused(key: &ObjectKey) -> Error {
    Error::new(ErrorKind::Denied, "the store is used for reading only").with_object(key)
}
