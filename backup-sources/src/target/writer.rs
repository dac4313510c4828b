//! Any asynchronous writer as a target for content.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::{Entry, Error, JobContext, Result, Skipped, Target, WriteOrder, Writer};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::lent::{Lent, Slot};

/// Writes the content of entries to a writer, one after the other, without names or metadata.
///
/// ```
/// use backup_sources::WriterTarget;
///
/// // One dump to standard output, or a place in memory.
/// let target = WriterTarget::one(tokio::io::sink());
/// ```
pub struct WriterTarget<W> {
    slot: Slot<W>,
    one: bool,
    written: AtomicBool,
}

impl<W: AsyncWrite + Unpin + Send + 'static> WriterTarget<W> {
    /// For the content of exactly one entry; a second one is an error, and so is none.
    pub fn one(writer: W) -> Self {
        Self { slot: Slot::new(writer), one: true, written: AtomicBool::new(false) }
    }

    /// For the content of all entries, joined in the order of the snapshot.
    pub fn all(writer: W) -> Self {
        Self { slot: Slot::new(writer), one: false, written: AtomicBool::new(false) }
    }

    /// The writer, once the restore has ended.
    pub fn into_inner(self) -> Result<W> {
        self.slot.take()
    }
}

impl<W> fmt::Debug for WriterTarget<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterTarget").field("one", &self.one).finish_non_exhaustive()
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send + 'static> Target for WriterTarget<W> {
    fn order(&self) -> WriteOrder {
        WriteOrder::Sequential
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        Ok(())
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        if !entry.kind.has_content() {
            return Ok(Writer::Skip);
        }
        if self.written.swap(true, Ordering::Relaxed) && self.one {
            let message = "a second file was selected where only one can be written; select exactly one";
            return Err(Error::invalid_input(message).with_entry(&entry.name));
        }
        let writer = self.slot.take()?;
        Ok(Writer::Async(Box::pin(Lent::new(self.slot.clone(), writer, None, 0))))
    }

    async fn complete(&self, _: Vec<Entry>) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        if self.one && !self.written.load(Ordering::Relaxed) {
            return Err(Error::invalid_input("no file was selected to be written; select exactly one"));
        }
        let mut writer = self.slot.take()?;
        let flushed = writer.flush().await;
        self.slot.give_back(writer);
        flushed.map_err(|error| Error::io("the writer failed", error))?;
        Ok(Vec::new())
    }
}
