//! The objects of a bucket as a source.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Error, JobContext, Result, Source, SourceInfo, SourceRun};
use object_store::ObjectStore;
use object_store::path::Path;

mod content;
mod error;
mod fetch;
mod keys;
mod listing;
mod run;
#[cfg(test)]
mod tests;
mod xml;

pub use error::Explain;
use run::BucketRun;
pub use xml::readable;

/// How long a request may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything below a prefix of a bucket, as one snapshot.
///
/// An entry is named by its object's key below the prefix. It has the object's size and its last modification as the time
/// of modification; mode 0600 and who runs the backup stand in for the rest of a file's metadata. What the store lists as
/// ETag and version is kept in the attributes `object:etag` and `object:version` and is the entry's stamp: an object whose
/// size, time, ETag and version are as before is not asked for again. The get that reads content also yields
/// `file:content-type`, `file:content-encoding`, `file:content-language`, `file:content-disposition`, `file:cache-control`
/// and, for a field `x` of the user's, `file:metadata:x`.
///
/// # Keys that are no names
///
/// | Key | What becomes of it |
/// |---|---|
/// | `a/` without content, a "directory marker" | a directory `a` |
/// | `a/` with content; `a//b`, `/a`; `.` or `..` as a part; control characters; spaces only | named as skipped: the snapshot is partial |
/// | `a` beside `a/b` | both are stored; a restore to a directory names what it cannot write beside the other |
/// | `a` beside the marker `a/` | the object is stored; the marker says nothing more |
///
/// The crate `object_store` has no paths for those in the second line and does not tell `a/` from `a`. So where its HTTP client
/// hands over a listing, [`readable`] must see it first, as in the program `backup`. Otherwise a listing fails the job at a
/// key that has no path, and a marker is an object that vanished: it is named, too. In a listing without order, markers
/// are passed over.
///
/// # Changes meanwhile
///
/// Content is never mixed of two versions: later requests for an object carry the ETag of the first answer (`If-Match`).
/// An object that vanishes, or changes in the middle, is named and not in the snapshot. One that changed after it was listed
/// and before it is read is stored as it is then, and named, as its time and ETag are those of the listing. A bucket
/// as a whole is not frozen: versions of different objects can be of different moments.
///
/// # Bounds
///
/// At most sixteen objects are read at once, long ones in ranges of 4 MiB of which several are fetched ahead; all together
/// hold about 40 MiB. A request that stands still for a minute, or transfers less than 16 KiB a second on top of that, counts
/// as lost. What may go well another time is repeated up to five times, reading on where it broke off; then the job fails with
/// [`ErrorKind::Transient`](backup_core::ErrorKind::Transient). A bucket without a single object below the prefix is
/// [`ErrorKind::NotFound`](backup_core::ErrorKind::NotFound): a mistyped prefix must not become empty snapshots.
///
/// Dropping the run ends its requests.
///
/// ```
/// use std::sync::Arc;
///
/// use backup_core::Source;
/// use backup_sources::BucketSource;
/// use object_store::memory::InMemory;
///
/// let source = BucketSource::new(Arc::new(InMemory::new()), "uploads/2026")?.named("s3://media/uploads/2026");
/// assert_eq!(source.info().identity, ["s3://media/uploads/2026"]);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone)]
pub struct BucketSource {
    store: Arc<dyn ObjectStore>,
    prefix: Option<Path>,
    place: String,
    ordered: bool,
    patience: Duration,
    explain: Explain,
}

impl BucketSource {
    /// The objects of `store` below `prefix`: those with a key that starts with it and a slash, or all if it is empty.
    ///
    /// # Errors
    ///
    /// `prefix` is no path in an object store.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let path = Path::parse(prefix)
            .map_err(|e| Error::invalid_input(format!("`{prefix}` cannot be the prefix of keys: {e}")))?;
        let place = match path.as_ref() {
            "" => store.to_string(),
            prefix => format!("{store}/{prefix}"),
        };
        let prefix = Some(path).filter(|path| !path.is_root());
        Ok(Self { store, prefix, place, ordered: false, patience: PATIENCE, explain: error::explain })
    }

    /// What errors and snapshots call it, like `s3://bucket/prefix`: this is how the next backup finds the one before. No
    /// secrets belong here.
    #[must_use]
    pub fn named(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// Says that the store lists in ascending order of the bytes of keys, as S3 (directory buckets apart), Google and
    /// Azure do. A listing that broke off then goes on where it was; otherwise it fails the job.
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

    /// Says what failures of the store mean, for who knows more of it than the variants of their errors tell; otherwise what
    /// has no variant is taken for what may pass.
    #[must_use]
    pub fn with_failures(mut self, explain: Explain) -> Self {
        self.explain = explain;
        self
    }
}

impl fmt::Debug for BucketSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store may hold credentials.
        f.debug_struct("BucketSource").field("place", &self.place).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for BucketSource {
    fn info(&self) -> SourceInfo {
        // Stores list in the order of bytes, where `a-b` stands before `a/b`; names order by component.
        SourceInfo::new("bucket", [self.place.as_str()]).unsorted()
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(BucketRun::start(self.clone())))
    }
}
