//! Where entries come from: the contract of sources.
//!
//! A [`Source`] is a description that can be run any number of times; [`Source::begin`] starts a [`SourceRun`], which has
//! the state of one backup (a connection, a snapshot of a volume, the hard links seen). The engine asks for entries in
//! batches, opens content only where it decides to, and finishes or drops the run.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::{Attribute, Entry, JobContext, OwnerNames, Result, Skipped, SnapshotInfo};

/// In which order a source yields its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryOrder {
    /// Ascending by [`EntryName`](crate::EntryName), each name once. Checked: a name out of order fails the job.
    Sorted,
    /// Any order; the engine sorts. A name yielded twice fails the job.
    Unsorted,
}

/// What a source is, as recorded in its snapshots and used to find a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// The kind of source: `files`, `command`, `postgres` ...
    pub kind: String,
    /// What distinguishes this source from others of its kind on the same host: the paths, the database. Without secrets.
    pub identity: Vec<String>,
    /// The order of its entries.
    pub order: EntryOrder,
    /// Whether extended attributes of its files come with their content, and stay with content that is not read again.
    pub xattrs_with_content: bool,
}

impl SourceInfo {
    /// A source of `kind` that yields sorted entries.
    pub fn new(kind: impl Into<String>, identity: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            kind: kind.into(),
            identity: identity.into_iter().map(Into::into).collect(),
            order: EntryOrder::Sorted,
            xattrs_with_content: false,
        }
    }

    /// The same source, yielding in any order.
    #[must_use]
    pub fn unsorted(mut self) -> Self {
        self.order = EntryOrder::Unsorted;
        self
    }

    /// The same source, whose files have their extended attributes from [`BlockingContent::attributes`]: an unchanged file then
    /// costs no look at them. Its stamps must change when they do.
    #[must_use]
    pub fn xattrs_with_content(mut self) -> Self {
        self.xattrs_with_content = true;
        self
    }
}

/// Something that can be backed up.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// What this source is.
    fn info(&self) -> SourceInfo;

    /// Starts a run: connects, takes a consistent view, runs the hook before.
    ///
    /// Cancellation: the future may be dropped; whatever it started must end by then.
    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>>;
}

/// One run of a source, from its begin hook to its finish hook.
///
/// Dropping a run without [`finish`](SourceRun::finish) abandons it; it must release what it holds.
#[async_trait]
pub trait SourceRun: Send + Sync {
    /// Called before the first entry is asked for, with the snapshot that this run is compared with, if there is one. A source
    /// that can tell what changed since then says so of [its contents](Content::changed_in).
    ///
    /// # Errors
    ///
    /// An error fails the job: a source that merely cannot tell what changed reads everything.
    async fn since(&mut self, parent: &SnapshotInfo) -> Result<()> {
        let _ = parent;
        Ok(())
    }

    /// The next entries, at most `max`; empty at the end.
    ///
    /// An error fails the job. What merely cannot be read is an [`Item::Skipped`]; what exceeds the format's
    /// [limits](crate::limits) the engine skips itself.
    async fn next(&mut self, max: usize) -> Result<Vec<Item>>;

    /// Gives access to the content of an entry that this run yielded.
    ///
    /// Called only where the engine needs the content, in the order of the entries. It should return at once: slow work
    /// belongs into the content's reader, which runs beside others. When the last entry was yielded, it may be called for
    /// hard links as well: where a file could not be read by its first name, one of them becomes the file. An error then
    /// skips the link.
    async fn open(&self, entry: &Entry) -> Result<Content>;

    /// Called for an entry whose content is taken from the parent snapshot instead of being opened. The entry has the parent's
    /// [content attributes](crate::entry::CONTENT_PREFIX), so a source that ends with a list of what it yielded knows of this
    /// content what it noted when it read it.
    fn unchanged(&self, entry: &Entry) {
        let _ = entry;
    }

    /// Bytes of content that the run will yield, read or not, as far as it can tell by now: what progress is measured
    /// against. Asked for after each [`next`](SourceRun::next); it may change.
    fn bytes_total(&self) -> Option<u64> {
        None
    }

    /// Ends the run after the last content was read: the hook after, and what is known only now.
    async fn finish(&mut self) -> Result<Finished> {
        Ok(Finished::default())
    }
}

/// What [`SourceRun::next`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An entry.
    Entry(Entry),
    /// Something that exists and could not be read. The snapshot becomes partial.
    Skipped(Skipped),
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        Self::Entry(entry)
    }
}

/// What a source knows when everything has been read.
#[derive(Debug, Default)]
pub struct Finished {
    /// Entries that only now exist, with their content: labels, manifests. They stand in the snapshot's trailing list. A
    /// name that the run has yielded before, or that stands here twice, fails the job.
    pub trailing: Vec<(Entry, Content)>,
    /// Named positions of the source for this snapshot: a log sequence number, a file and offset, a time.
    pub position: Vec<(String, String)>,
    /// The names of the owners that entries have by number.
    pub owners: OwnerNames,
    /// What turned out at the end to be missing. The snapshot becomes partial.
    pub skipped: Vec<Skipped>,
}

/// How content is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chunking {
    /// Where the content says so, so that insertions move nothing else.
    #[default]
    ContentDefined,
    /// Every so many bytes from the start: database pages. A power of two from 4 KiB to 1 MiB is sensible; the engine
    /// refuses what lies outside the limits of chunks.
    Fixed {
        /// Bytes of each chunk but the last.
        bytes: u32,
    },
}

/// Content that does not exist any more, and is not missed: between the listing of an entry and its opening the source
/// removed it in a way that a restore of this snapshot does as well, as the replay of a log removes a dropped table.
///
/// Where opening or reading content fails with an [`io::Error`] that holds it, the entry is left out of the snapshot, which
/// is complete without it. What merely cannot be found any more is no such case: it fails with an ordinary error, and is skipped
/// by name.
///
/// ```
/// use backup_core::source::Gone;
///
/// let error = Gone.into_error();
/// assert!(Gone::is(&error));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Gone {
    /// The failure of a reader that says so.
    pub fn into_error(self) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, self)
    }

    /// Whether a failure says so.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was removed meanwhile, and a restore does without it")
    }
}

impl std::error::Error for Gone {}

/// Access to the content of one entry.
pub struct Content {
    /// How to read it.
    pub reader: ContentReader,
    /// How to cut it.
    pub chunking: Chunking,
    /// What of it can differ from the parent's; see [`changed_in`](Content::changed_in).
    pub changed: Option<Arc<[Range<u64>]>>,
}

/// The ways in which content can be read.
pub enum ContentReader {
    /// By blocking calls, on a worker thread of the job; opened there, too.
    Blocking(Box<dyn FnOnce() -> io::Result<Box<dyn BlockingContent>> + Send>),
    /// By asynchronous reads on the caller's runtime.
    Async(Pin<Box<dyn AsyncRead + Send>>),
    /// At any position by several threads at once; of known length.
    Random(Arc<dyn ReadAt>),
}

/// Content that is read by blocking calls from start to end.
pub trait BlockingContent: Send {
    /// As [`io::Read::read`]: 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Passes over the next bytes, which are taken from the parent: see [`Content::changed_in`]. They may lie beyond the end.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        let mut buffer = vec![0; SKIPPED_BYTES];
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match self.read(buffer.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => left = left.saturating_sub(count as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Called once after the end was read, before [`finish`](BlockingContent::finish): attributes of the entry that are
    /// known only now that its content is open. Their names begin with [`CONTENT_PREFIX`](crate::entry::CONTENT_PREFIX), or,
    /// where the source [says so](field@SourceInfo::xattrs_with_content), with [`XATTR_PREFIX`](crate::entry::XATTR_PREFIX); others
    /// are ignored, and so are those that the entry has already. They stay with the content: an entry whose content is
    /// taken from the parent snapshot has the parent's.
    fn attributes(&mut self) -> Vec<Attribute> {
        Vec::new()
    }

    /// Called after the end was read: what happened to the content meanwhile (it changed, shrank), if anything. The
    /// content is stored as read, the notice reported, and the snapshot becomes partial. The next backup reads it again, whatever
    /// its [stamp](crate::Entry::stamp) says.
    fn finish(&mut self) -> Option<String> {
        None
    }
}

/// Content that can be read at any position.
pub trait ReadAt: Send + Sync {
    /// Bytes of content.
    fn len(&self) -> u64;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` on; less is an error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// What is read at once only to be passed over.
const SKIPPED_BYTES: usize = 64 * 1024;

struct Reader<R>(R);

impl<R: io::Read + Send> BlockingContent for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Content {
    /// Content read by blocking calls; `open` runs on a worker thread.
    pub fn blocking<C, F>(open: F) -> Self
    where
        C: BlockingContent + 'static,
        F: FnOnce() -> io::Result<C> + Send + 'static,
    {
        let open = move || open().map(|content| Box::new(content) as Box<dyn BlockingContent>);
        Self { reader: ContentReader::Blocking(Box::new(open)), chunking: Chunking::default(), changed: None }
    }

    /// Content read from a blocking reader that is open already.
    pub fn from_reader(reader: impl io::Read + Send + 'static) -> Self {
        Self::blocking(move || Ok(Reader(reader)))
    }

    /// Content in memory.
    pub fn from_bytes(bytes: impl Into<bytes::Bytes>) -> Self {
        Self::from_reader(io::Cursor::new(bytes.into()))
    }

    /// Content from an asynchronous reader.
    pub fn from_async(reader: impl AsyncRead + Send + 'static) -> Self {
        Self { reader: ContentReader::Async(Box::pin(reader)), chunking: Chunking::default(), changed: None }
    }

    /// Content that can be read at any position.
    pub fn from_random(content: Arc<dyn ReadAt>) -> Self {
        Self { reader: ContentReader::Random(content), chunking: Chunking::default(), changed: None }
    }

    /// The same content, cut every `bytes` bytes.
    #[must_use]
    pub fn fixed(mut self, bytes: u32) -> Self {
        self.chunking = Chunking::Fixed { bytes };
        self
    }

    /// The same content, of which the source knows that outside of these ranges of bytes every byte is what the parent has under
    /// the same name, as far as both reach. `changed` is ascending and nothing in it overlaps; empty where nothing changed.
    ///
    /// The engine believes it: what lies outside is not read. It makes use of it where content is [cut](Self::fixed) into chunks
    /// of one length, is read by blocking calls or at any position, and is longer than 2 MiB.
    #[must_use]
    pub fn changed_in(mut self, changed: impl Into<Arc<[Range<u64>]>>) -> Self {
        self.changed = Some(changed.into());
        self
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reader = match self.reader {
            ContentReader::Blocking(_) => "blocking",
            ContentReader::Async(_) => "async",
            ContentReader::Random(_) => "random",
        };
        f.debug_struct("Content")
            .field("reader", &reader)
            .field("chunking", &self.chunking)
            .field("changed", &self.changed.as_ref().map(|changed| changed.len()))
            .finish()
    }
}
