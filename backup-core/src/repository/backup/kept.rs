//! Content of which only parts are read: the source knows what changed since the parent, and the rest is taken from there.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shared::Shared;
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::repository::content::ChunkStream;
use crate::repository::reader::Reader;
use crate::{Chunking, Error, Result};

/// Chunks that all contents under way may take from the parent, 36 bytes each: content of more is read in full.
const CHUNKS_MAX: u32 = 1 << 20;

/// A part of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// So many bytes are read; at the end of the content as many as there are.
    Read(u64),
    /// These chunks are the parent's.
    Kept(Vec<ChunkRef>),
}

/// The parts of a content, in their order. The last one is read, as far as there is something.
#[derive(Debug)]
pub(crate) struct Parts {
    parts: VecDeque<Part>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Parts {
    /// All is read.
    pub(crate) fn read() -> Self {
        Self { parts: [Part::Read(u64::MAX)].into(), _room: None }
    }

    /// The parent's chunks that come next, if that is what comes next.
    pub(crate) fn take_kept(&mut self) -> Option<Vec<ChunkRef>> {
        match self.parts.pop_front()? {
            Part::Kept(chunks) => Some(chunks),
            read @ Part::Read(_) => {
                self.parts.push_front(read);
                None
            }
        }
    }

    /// Bytes that are to be read next.
    pub(crate) fn to_read(&self) -> u64 {
        match self.parts.front() {
            Some(Part::Read(bytes)) => *bytes,
            Some(Part::Kept(_)) => 0,
            None => u64::MAX,
        }
    }

    /// Notes that bytes were read.
    pub(crate) fn was_read(&mut self, bytes: u64) {
        // The last part ends where the content does.
        if let Some(Part::Read(left)) = self.parts.front_mut()
            && *left != u64::MAX
        {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.parts.pop_front();
            }
        }
    }

    fn add(&mut self, chunk: ChunkRef, is_kept: bool) {
        match (self.parts.back_mut(), is_kept) {
            (Some(Part::Kept(chunks)), true) => chunks.push(chunk),
            (_, true) => self.parts.push_back(Part::Kept(vec![chunk])),
            (Some(Part::Read(bytes)), false) => *bytes = bytes.saturating_add(chunk.len.into()),
            (_, false) => self.parts.push_back(Part::Read(chunk.len.into())),
        }
    }

    /// After these the content is read to its end.
    fn read_rest(&mut self) {
        match self.parts.back_mut() {
            Some(Part::Read(bytes)) => *bytes = u64::MAX,
            _ => self.parts.push_back(Part::Read(u64::MAX)),
        }
    }
}

/// Memory for chunks that are taken from the parent.
#[derive(Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CHUNKS_MAX as usize)))
    }
}

impl Room {
    /// Nobody gets any more.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Which parts of a content of `size` bytes are read, where only what lies in `changed` differs from `before`, the
    /// parent's. Waits while other contents take up the memory for it.
    pub(crate) async fn parts(
        &self,
        changed: &[Range<u64>],
        chunking: Chunking,
        size: u64,
        before: &StoredContent,
        parent: &Reader,
        shared: &Shared,
    ) -> Result<Parts> {
        let Chunking::Fixed { bytes } = chunking else { return Ok(Parts::read()) };
        let end = size.min(before.len());
        let count = end.checked_div(bytes.into()).unwrap_or_default();
        let Some(count) = u32::try_from(count).ok().filter(|count| (1..=CHUNKS_MAX).contains(count)) else {
            return Ok(Parts::read());
        };
        let room = self.0.clone().acquire_many_owned(count).await.map_err(|_| Error::cancelled())?;
        let mut parts = Parts { parts: VecDeque::new(), _room: Some(room) };
        let mut chunks = ChunkStream::new(parent.clone(), before)?;
        let mut changed = changed.iter().peekable();
        let mut at = 0_u64;
        loop {
            let chunk = match chunks.next(&shared.job).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) if error.is_corruption() => {
                    tracing::warn!(%error, "a page of the parent snapshot is damaged; content is read again");
                    break;
                }
                Err(error) => return Err(error),
            };
            let next = at.saturating_add(chunk.len.into());
            // What was cut in another way tells nothing of chunks of this length.
            if next > end || chunk.len != bytes {
                break;
            }
            while changed.next_if(|range| range.end <= at).is_some() {}
            let is_same = changed.peek().is_none_or(|range| range.start >= next);
            parts.add(chunk, is_same && shared.known.in_repository(chunk.id.short(), chunk.len)?);
            at = next;
        }
        parts.read_rest();
        Ok(parts)
    }
}
