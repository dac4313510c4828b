//! Where a restore writes: the contract of targets.
//!
//! The engine announces entries in the order of the snapshot, fills their content and closes them. A target that accepts
//! [`WriteOrder::Any`] gets the content of many entries, and several parts of one, at once from several threads; one that needs
//! [`WriteOrder::Sequential`] gets one entry after the other, front to back.

use std::fmt;
use std::io;
use std::pin::Pin;

use async_trait::async_trait;
use tokio::io::AsyncWrite;

use crate::{Entry, JobContext, OwnerNames, Result, Skipped};

/// In which order a target can take content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOrder {
    /// Several entries at once, and several parts of one, at any position, on worker threads.
    Any,
    /// One entry after the other, each from front to back.
    Sequential,
}

/// A place that a restore writes to.
#[async_trait]
pub trait Target: fmt::Debug + Send + Sync + 'static {
    /// The order this target needs.
    fn order(&self) -> WriteOrder;

    /// Called once before [`begin`](Target::begin): the names that numeric owners of the snapshot's entries had where it
    /// was taken. A target that restores owners may give them to those who have the names here.
    fn owner_names(&self, names: &OwnerNames) {
        let _ = names;
    }

    /// Called once before the first entry.
    async fn begin(&self, job: &JobContext) -> Result<()>;

    /// Whether content of entries may stand in the target already: asked once, after [`begin`](Target::begin). Where it
    /// may, what [`BlockingWriter::read_exact_at`] gives is compared with the snapshot before anything is fetched, and only
    /// what differs is. For targets of [`WriteOrder::Any`].
    fn holds_content(&self) -> bool {
        false
    }

    /// Whether an entry that breaks off spoils what follows, as in an archive, where the length stands before the content.
    /// All content is then looked at before its entry is announced, so that a damaged one can be left out; what is long is
    /// read twice. Otherwise damage in long content fails the restore. For targets of [`WriteOrder::Sequential`].
    fn needs_whole_entries(&self) -> bool {
        false
    }

    /// Announces an entry and says how its content is to be written. Called in the order of the snapshot.
    ///
    /// With [`WriteOrder::Any`] it should return at once and leave the work to the [`Writer::Blocking`] closure, which
    /// runs on a worker thread; closures of different entries run in no particular order, so each makes the parents
    /// it needs.
    async fn entry(&self, entry: &Entry) -> Result<Writer>;

    /// Called after all content is written, in batches, for what must come last: first every hard link in the order of
    /// the snapshot, when what it links to stands there, then every directory, deepest first. Returns what could not be
    /// done.
    async fn complete(&self, entries: Vec<Entry>) -> Result<Vec<Skipped>>;

    /// Called once after everything else; makes the result durable where the target promises that.
    async fn finish(&self) -> Result<Vec<Skipped>>;

    /// Asked for after [`finish`](Target::finish): what was left out of many entries alike, a sentence for each kind, for
    /// [`RestoreReport::notes`](crate::report::RestoreReport::notes). What concerns single entries is named by what the
    /// other methods return.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// How an entry's content is written.
pub enum Writer {
    /// Nothing to write: the entry is unwanted or present already.
    Skip,
    /// By blocking calls on a worker thread; opened there, too. Entries without content only open and finish.
    Blocking(Box<dyn FnOnce() -> io::Result<Box<dyn BlockingWriter>> + Send>),
    /// By asynchronous writes, front to back, then a shutdown.
    Async(Pin<Box<dyn AsyncWrite + Send>>),
}

/// The content of one entry while it is being written.
///
/// Several worker threads call it at once, so that a single long file is restored by all of them: each reads and writes
/// parts of its own, which overlap no other's. What a writer keeps in mind of them it guards itself. It should hold no lock
/// over the writing itself: with one, the others wait. [`finish`](Self::finish), [`abort`](Self::abort) and
/// [`suspend`](Self::suspend) come when no other call is under way, and end the writer.
pub trait BlockingWriter: Send + Sync {
    /// Bytes that stand there already, from an earlier restore or the entry's former self; 0 for a new one. Wherever nothing
    /// is written they stay.
    fn existing_len(&self) -> u64 {
        0
    }

    /// Whether what stands there is to be left as it is: it has the right content already, or must not be overwritten.
    /// The engine then neither reads nor writes content and only finishes the entry.
    fn is_current(&self) -> bool {
        false
    }

    /// Reads what stands there already, so that the engine can leave equal parts alone. A part is read before it is written,
    /// if at all.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let _ = (buffer, offset);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes all of `bytes` at `offset`. Others may be writing other parts meanwhile.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Ends the entry at `len` bytes and applies its metadata. Returns what could not be applied.
    fn finish(self: Box<Self>, len: u64) -> io::Result<Vec<String>>;

    /// Gives up: the content could not be read in full. Removes what is incomplete, so that it is not taken for whole,
    /// and leaves what stood there before.
    fn abort(self: Box<Self>);

    /// Stops: the job was cancelled, or failed as a whole. As [`abort`](BlockingWriter::abort), but what was written may be
    /// kept where another restore finds it and nobody takes it for whole.
    fn suspend(self: Box<Self>) {
        self.abort();
    }
}

impl Writer {
    /// A writer that opens on a worker thread.
    pub fn blocking<W, F>(open: F) -> Self
    where
        W: BlockingWriter + 'static,
        F: FnOnce() -> io::Result<W> + Send + 'static,
    {
        Self::Blocking(Box::new(move || open().map(|writer| Box::new(writer) as Box<dyn BlockingWriter>)))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skip => "Skip",
            Self::Blocking(_) => "Blocking",
            Self::Async(_) => "Async",
        })
    }
}
