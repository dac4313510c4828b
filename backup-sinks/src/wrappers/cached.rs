//! Copies on a local disk of what is read often.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;
use tokio::sync::Mutex;

mod store;

use store::Store;

/// What is kept: objects under names that never mean anything else, which list and find things. Content is not among
/// them, nor is `config`, whose name a new repository at the same place would use again, nor are key slots.
const KEPT: [&str; 4] = ["meta/", "index/", "snapshots/", "control/digests/"];
/// Objects that are fetched at once.
const FETCHES: usize = 32;

/// Keeps copies of packs of pages, index segments and snapshots in a directory.
///
/// For sinks that are far away. The first read of such an object reads all of it; later ones come from the directory, in
/// this and other processes. Listings and everything else go to the sink, so what is deleted there can no longer be found,
/// although its copy is read by whoever still knows its name, until the copy is evicted.
///
/// A copy holds the SHA-256 of its content and is checked when this process reads it for the first time, against the
/// object's name, too, where that is its digest. A damaged one is removed and read again from the sink. Files are written
/// aside and renamed. Beyond the given number of bytes those unused for longest are removed. What goes wrong in the
/// directory only makes it slower.
///
/// Verification must not read from it: it would check the copies.
pub struct Cached<S: ?Sized> {
    store: Arc<Store>,
    /// So that one object is fetched once by those who want it at the same time.
    fetching: Vec<Mutex<()>>,
    inner: Arc<S>,
}

impl<S: ?Sized> Cached<S> {
    /// Keeps at most about `bytes_max` bytes of copies of objects of `inner` in `directory`, which is made. It is for one
    /// repository: two must not share one. Does file system calls.
    pub fn open(inner: Arc<S>, directory: impl AsRef<Path>, bytes_max: u64) -> Result<Self> {
        let store = Arc::new(Store::open(directory.as_ref(), bytes_max)?);
        let fetching = (0..FETCHES).map(|_| Mutex::new(())).collect();
        Ok(Self { store, fetching, inner })
    }

    fn kept(key: &ObjectKey) -> bool {
        KEPT.iter().any(|prefix| key.as_str().starts_with(prefix))
    }

    async fn find(&self, key: &ObjectKey, range: &GetRange) -> Option<Result<Fetched>> {
        let (store, key, range) = (Arc::clone(&self.store), key.clone(), range.clone());
        tokio::task::spawn_blocking(move || store.read(&key, &range)).await.ok().flatten()
    }

    async fn keep(&self, key: &ObjectKey, bytes: Bytes) {
        let (store, key) = (Arc::clone(&self.store), key.clone());
        let kept = tokio::task::spawn_blocking(move || store.write(&key, &bytes)).await;
        if let Ok(Err(error)) = kept {
            tracing::debug!(%error, "a copy could not be kept");
        }
    }

    async fn drop_copy(&self, key: &ObjectKey) {
        let (store, key) = (Arc::clone(&self.store), key.clone());
        // Removing a copy cannot fail in a way that matters: see `Store::remove`.
        let _ = tokio::task::spawn_blocking(move || store.remove(&key)).await;
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for Cached<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let outcome = self.inner.put(key, bytes.clone()).await?;
        if outcome == PutOutcome::Created && Self::kept(key) {
            self.keep(key, bytes).await;
        }
        Ok(outcome)
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        if !Self::kept(key) {
            return self.inner.get(key, range).await;
        }
        if let Some(found) = self.find(key, &range).await {
            return found;
        }
        let one = self.fetching.get(store::slot(key, FETCHES));
        let _fetching = match one {
            Some(one) => Some(one.lock().await),
            None => None,
        };
        // Perhaps it was fetched meanwhile.
        if let Some(found) = self.find(key, &range).await {
            return found;
        }
        let whole = match self.inner.get(key, GetRange::Full).await {
            // Too long to be an object of a repository: not to be kept.
            Err(e) if e.kind() == ErrorKind::LimitExceeded => return self.inner.get(key, range).await,
            other => other?,
        };
        // A part that passes for the whole would stay where the name is no digest: a snapshot could be read no more.
        if u64::try_from(whole.bytes.len()) != Ok(whole.object_len) {
            return self.inner.get(key, range).await;
        }
        let whole = whole.bytes;
        self.keep(key, whole.clone()).await;
        range.cut(&whole).map_err(|e| e.with_object(key))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        if Self::kept(key) {
            self.drop_copy(key).await;
        }
        self.inner.delete(key).await?;
        // Another reader may have fetched it in between.
        if Self::kept(key) {
            self.drop_copy(key).await;
        }
        Ok(())
    }
}

impl<S: Sink + ?Sized> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("store", &self.store)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
