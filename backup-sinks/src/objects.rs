//! Objects in any store of the crate `object_store`.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt};

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(crate) mod answer;
pub(crate) mod class;
pub(crate) mod error;
mod get;
mod list;
mod mark;
mod put;

use class::StorageClasses;
use mark::Abandoned;

/// How long a request may stand still unless [`ObjectStoreSink::with_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
/// The slowest transfer that is waited for, in bytes a second.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 * 1024;

/// A sink over a store of the crate `object_store`: bring your own, or have one made from settings or a URL by
/// [`register`](crate::register).
///
/// ```
/// use std::sync::Arc;
/// use backup_core::{ObjectKey, PutOutcome, Sink};
/// use backup_sinks::ObjectStoreSink;
/// use object_store::memory::InMemory;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> backup_core::Result<()> {
/// let sink = ObjectStoreSink::new(Arc::new(InMemory::new()), "some/prefix")?;
/// assert_eq!(sink.put(&ObjectKey::new("config")?, "bytes".into()).await?, PutOutcome::Created);
/// # Ok(())
/// # }
/// ```
///
/// # What a put promises
/// An object is created by one request with the store's own condition (`PutMode::Create`), never by looking first. It
/// says [`PutOutcome::Created`] only when an answer proves that a request of this sink made the object: either the
/// store said so, or the object carries the random mark that was sent with it, as `backupmark` among its metadata.
/// So a put whose first answer was lost says `Created` when it is repeated over the same sink with the same bytes, and of
/// several racing puts exactly one says it, also where they put the same bytes. Where a store does not keep metadata, or
/// the repetition comes from another process, it says `AlreadyExists`, as it does for anyone else's object; the engine
/// then compares the bytes. A conflict (409) after which there is no object is not taken for an object: the put is sent
/// again, a few times. All of that rests on the store keeping its condition; [`probe`](crate::probe()) finds those that do
/// not.
///
/// # Bounds
/// Objects have at most [`OBJECT_BYTES_MAX`](backup_core::limits::OBJECT_BYTES_MAX) bytes and are sent in one request. A
/// request that stands still for a minute, or transfers less than 16 KiB a second on top of that, ends with
/// [`ErrorKind::Transient`]. Nothing is repeated but conflicts: see [`Retry`](crate::Retry) for that. A store of one's own
/// should be made with its retries off.
///
/// # Errors
/// They name the place and the key, and what the store answered; never credentials. Dropping a future drops its request.
#[derive(Clone)]
pub struct ObjectStoreSink {
    store: Arc<dyn ObjectStore>,
    /// Before each key: nothing, or components with a slash after each.
    root: String,
    place: String,
    ordered: bool,
    patience: Duration,
    classes: StorageClasses,
    learnt: Arc<Learnt>,
}

/// What was found out about the store, and what was begun there.
#[derive(Debug, Default)]
struct Learnt {
    no_suffixes: AtomicBool,
    no_metadata: AtomicBool,
    abandoned: Mutex<Abandoned>,
}

impl ObjectStoreSink {
    /// Keeps objects in `store` below `prefix`, which is empty or of the form of an [`ObjectKey`].
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let prefix = prefix.trim_end_matches('/');
        let root = match prefix {
            "" => String::new(),
            _ => format!("{}/", ObjectKey::new(prefix)?),
        };
        Ok(Self {
            place: if prefix.is_empty() { "the store".into() } else { format!("the store below {prefix}") },
            store,
            root,
            ordered: false,
            patience: PATIENCE,
            classes: StorageClasses::default(),
            learnt: Arc::default(),
        })
    }

    /// What errors call it, like `s3://bucket/prefix`. No secrets belong here.
    #[must_use]
    pub fn named(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// Says that the store lists in ascending order of keys, as S3 (directory buckets apart), Google and Azure do. A page
    /// of a listing is then read up to its limit; otherwise each page reads all that is listed below its directory.
    #[must_use]
    pub fn with_ordered_listing(mut self, ordered: bool) -> Self {
        self.ordered = ordered;
        self
    }

    /// How long a request may stand still.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// In which of the store's classes objects are created.
    #[must_use]
    pub fn with_storage_classes(mut self, classes: StorageClasses) -> Self {
        self.classes = classes;
        self
    }

    fn path(&self, key: &ObjectKey) -> Result<Path> {
        Path::parse(format!("{}{key}", self.root))
            .map_err(|_| Error::invalid_input("cannot be a key in this store").with_object(key))
    }

    /// Metadata of an object, without its content.
    async fn head(&self, key: &ObjectKey) -> Result<GetResult> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        self.within(0, self.store.get_opts(&self.path(key)?, options), "look at", key).await
    }

    /// Awaits a request that transfers `bytes`, as long as is reasonable.
    async fn within<T>(
        &self,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
        doing: &str,
        key: &ObjectKey,
    ) -> Result<T> {
        let answer = self.timed(bytes, request).await?;
        answer.map_err(|e| error::of(&e, &self.place, doing).with_object(key))
    }

    async fn timed<T>(&self, bytes: u64, request: impl Future<Output = T>) -> Result<T> {
        let transfer = Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        let limit = self.patience.saturating_add(transfer);
        tokio::time::timeout(limit, request).await.map_err(|_| {
            let message = format!("{}: no answer within {} s", self.place, limit.as_secs_f32());
            Error::new(ErrorKind::Transient, message)
        })
    }
}

#[async_trait]
impl Sink for ObjectStoreSink {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        put::put(self, key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        get::get(self, key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        list::list(self, prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        match self.within(0, self.store.delete(&self.path(key)?), "delete", key).await {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl fmt::Debug for ObjectStoreSink {
    /// Leaves the store itself out: it holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreSink").field("place", &self.place).field("ordered", &self.ordered).finish()
    }
}
