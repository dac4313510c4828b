//! A part of a sink as a sink.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;

/// The objects whose keys start with a prefix and a slash, under the rest of their keys.
///
/// The prefix counts against [`KEY_BYTES_MAX`](backup_core::limits::KEY_BYTES_MAX): longer keys are
/// refused with [`ErrorKind::InvalidInput`](backup_core::ErrorKind::InvalidInput).
pub struct Prefixed<S: ?Sized> {
    /// With the slash.
    prefix: String,
    inner: Arc<S>,
}

impl<S: ?Sized> Prefixed<S> {
    /// The part of `inner` below `prefix`.
    pub fn over(inner: Arc<S>, prefix: &ObjectKey) -> Self {
        Self { prefix: format!("{prefix}/"), inner }
    }

    fn outer(&self, key: &ObjectKey) -> Result<ObjectKey> {
        ObjectKey::new(format!("{}{key}", self.prefix))
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for Prefixed<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.inner.put(&self.outer(key)?, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.inner.get(&self.outer(key)?, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let after = after.map(|after| self.outer(after)).transpose()?;
        let mut page = self.inner.list(&format!("{}{prefix}", self.prefix), after.as_ref(), limit).await?;
        for meta in &mut page {
            meta.key = ObjectKey::new(meta.key.as_str().strip_prefix(&self.prefix).unwrap_or_default())?;
        }
        Ok(page)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(&self.outer(key)?).await
    }
}

impl<S: Sink + ?Sized> fmt::Debug for Prefixed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefixed").field("prefix", &self.prefix).field("inner", &self.inner).finish()
    }
}
