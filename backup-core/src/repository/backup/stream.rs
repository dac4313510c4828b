//! Long content: one cursor that all workers draw regions from.
//!
//! Reading and cutting must be done in order and is quick; identifying, compressing and sealing is slow and can be done
//! for several regions at once. So a worker takes the cursor, reads and cuts a region, lets the cursor go and
//! processes the region, while the next worker takes the cursor. The cuts are those of a serial run. What is taken from the
//! parent is a region, too, in which there is nothing to do.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::kept::Parts;
use crate::chunker::Chunker;
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::limits;
use crate::repository::guard;
use crate::repository::tree::{ChunkListBuilder, PageSink};
use crate::source::{BlockingContent, Chunking, Content, ContentReader, ReadAt};
use crate::{Attribute, Entry, Error, Result};

/// Bytes that a worker takes from a cursor at once, about.
pub(crate) const REGION_BYTES: usize = 4 * limits::MIB;

/// Buffers of an asynchronous reader that wait to be processed.
pub(crate) const PUMP_BUFFERS: usize = 4;

/// Content being read by several workers.
#[derive(Debug)]
pub(crate) struct StreamJob {
    pub(crate) entry: Entry,
    pub(crate) sequence: u64,
    chunking: Chunking,
    cursor: Mutex<Cursor>,
    progress: Mutex<Progress>,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct StreamEnd {
    pub(crate) content: StoredContent,
    /// The reader failed: the content is not whole and must not pass for it.
    pub(crate) failure: Option<io::Error>,
    /// What the reader knows of the entry.
    pub(crate) attributes: Vec<Attribute>,
    /// What the reader had to say at the end.
    pub(crate) notice: Option<String>,
}

/// A region's memory, reused from region to region.
#[derive(Debug, Default)]
pub(crate) struct Region {
    number: u64,
    pub(crate) bytes: Vec<u8>,
    /// Where each chunk ends.
    pub(crate) cuts: Vec<usize>,
    /// Chunks of the parent instead of bytes.
    pub(crate) kept: Vec<ChunkRef>,
}

#[derive(Debug)]
struct Cursor {
    reader: Reader,
    // What is left of the content.
    parts: Parts,
    // What was read beyond the last cut.
    carry: Vec<u8>,
    next: u64,
    ended: bool,
    failure: Option<io::Error>,
    attributes: Vec<Attribute>,
    notice: Option<String>,
}

enum Reader {
    Unopened(Option<ContentReader>),
    Blocking(Box<dyn BlockingContent>),
    Pump { buffers: async_channel::Receiver<io::Result<Bytes>>, rest: Bytes },
    Random { content: Arc<dyn ReadAt>, at: u64 },
}

#[derive(Debug, Default)]
struct Progress {
    finished: BTreeMap<u64, Vec<ChunkRef>>,
    next: u64,
    list: ChunkListBuilder,
    regions: Option<u64>,
    done: bool,
}

impl StreamJob {
    /// Content that is read on worker threads.
    pub(crate) fn new(entry: Entry, sequence: u64, content: Content, parts: Parts) -> Self {
        Self::with_reader(entry, sequence, content.chunking, Reader::Unopened(Some(content.reader)), parts)
    }

    /// Content that a task on the runtime reads into `buffers`; an empty buffer is the end.
    pub(crate) fn pumped(
        entry: Entry,
        sequence: u64,
        chunking: Chunking,
        buffers: async_channel::Receiver<io::Result<Bytes>>,
    ) -> Self {
        let reader = Reader::Pump { buffers, rest: Bytes::new() };
        Self::with_reader(entry, sequence, chunking, reader, Parts::read())
    }

    fn with_reader(entry: Entry, sequence: u64, chunking: Chunking, reader: Reader, parts: Parts) -> Self {
        let cursor = Cursor {
            reader,
            parts,
            carry: Vec::new(),
            next: 0,
            ended: false,
            failure: None,
            attributes: Vec::new(),
            notice: None,
        };
        Self { entry, sequence, chunking, cursor: Mutex::new(cursor), progress: Mutex::default() }
    }

    /// Reads and cuts the next region; false if there is none.
    pub(crate) fn next_region(&self, chunker: &Chunker, region: &mut Region) -> Result<bool> {
        let mut cursor = self.cursor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if cursor.ended {
            return Ok(false);
        }
        cursor.fill(region, self.chunking, chunker);
        region.number = cursor.next;
        cursor.next = cursor.next.saturating_add(1);
        if cursor.ended {
            let mut progress = self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            progress.regions = Some(cursor.next);
        }
        Ok(true)
    }

    /// Notes the chunks of a region. The call that completes the content returns how it ended.
    pub(crate) fn finish_region(
        &self,
        region: &Region,
        chunks: Vec<ChunkRef>,
        pages: &mut dyn PageSink,
    ) -> Result<Option<StreamEnd>> {
        let mut guard = self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let progress = &mut *guard;
        progress.finished.insert(region.number, chunks);
        while let Some(chunks) = progress.finished.remove(&progress.next) {
            for chunk in chunks {
                progress.list.push(chunk, pages)?;
            }
            progress.next = progress.next.saturating_add(1);
        }
        if progress.done || progress.regions != Some(progress.next) {
            return Ok(None);
        }
        progress.done = true;
        let content = std::mem::take(&mut progress.list).finish(pages)?;
        drop(guard);
        let mut cursor = self.cursor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (failure, notice) = (cursor.failure.take(), cursor.notice.take());
        Ok(Some(StreamEnd { content, failure, attributes: std::mem::take(&mut cursor.attributes), notice }))
    }
}

impl Cursor {
    fn fill(&mut self, region: &mut Region, chunking: Chunking, chunker: &Chunker) {
        region.cuts.clear();
        region.bytes.clear();
        region.kept.clear();
        if let Some(chunks) = self.parts.take_kept() {
            self.keep(region, chunks);
            return;
        }
        region.bytes.append(&mut self.carry);
        let carried = region.bytes.len();
        let mut filled = carried;
        // What is carried over is shorter than a chunk, so each round makes progress.
        let goal = REGION_BYTES.max(filled.saturating_add(limits::CHUNK_BYTES_MAX / 2));
        let left = usize::try_from(self.parts.to_read()).unwrap_or(usize::MAX);
        let goal = goal.min(carried.saturating_add(left));
        region.bytes.resize(goal, 0);
        while filled < goal && !self.ended {
            let reader = &mut self.reader;
            match region.bytes.get_mut(filled..).map_or(Ok(0), |free| guard::read(|| reader.read(free))) {
                Ok(0) => {
                    self.ended = true;
                    match guard::read(|| Ok((reader.attributes(), reader.finish()))) {
                        Ok((attributes, notice)) => (self.attributes, self.notice) = (attributes, notice),
                        Err(error) => self.failure = Some(error),
                    }
                }
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    self.failure = Some(error);
                }
            }
        }
        region.bytes.truncate(filled);
        self.parts.was_read(filled.saturating_sub(carried) as u64);
        let consumed = match chunking {
            Chunking::ContentDefined => chunker.cuts(&region.bytes, self.ended, &mut region.cuts),
            Chunking::Fixed { bytes } => fixed_cuts(filled, bytes as usize, self.ended, &mut region.cuts),
        };
        self.carry.extend_from_slice(region.bytes.get(consumed..).unwrap_or_default());
        region.bytes.truncate(consumed);
        if self.ended {
            self.reader = Reader::Unopened(None);
        }
    }

    fn keep(&mut self, region: &mut Region, chunks: Vec<ChunkRef>) {
        let reader = &mut self.reader;
        let bytes = chunks.iter().map(|chunk| u64::from(chunk.len)).fold(0, u64::saturating_add);
        match guard::read(|| reader.skip(bytes)) {
            Ok(()) => region.kept = chunks,
            Err(error) => {
                self.ended = true;
                self.failure = Some(error);
            }
        }
    }
}

impl Reader {
    fn open(&mut self) -> io::Result<()> {
        let Self::Unopened(unopened) = self else { return Ok(()) };
        *self = match unopened.take() {
            None => return Ok(()),
            Some(ContentReader::Blocking(open)) => Self::Blocking(open()?),
            Some(ContentReader::Random(content)) => Self::Random { content, at: 0 },
            Some(ContentReader::Async(_)) => {
                return Err(io::Error::other("an asynchronous reader reached a worker"));
            }
        };
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.open()?;
        match self {
            Self::Blocking(content) => content.skip(bytes),
            Self::Random { at, .. } => {
                *at = at.saturating_add(bytes);
                Ok(())
            }
            Self::Unopened(_) | Self::Pump { .. } => {
                Err(io::Error::other("nothing of an asynchronous reader can be skipped"))
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.open()?;
        match self {
            Self::Unopened(_) => Ok(0),
            Self::Blocking(content) => content.read(buffer),
            Self::Random { content, at } => {
                let left = content.len().saturating_sub(*at);
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                if let Some(part) = buffer.get_mut(..count) {
                    content.read_exact_at(part, *at)?;
                }
                *at = at.saturating_add(count as u64);
                Ok(count)
            }
            Self::Pump { buffers, rest } => {
                if rest.is_empty() {
                    *rest = match buffers.recv_blocking() {
                        Ok(next) => next?,
                        Err(_) => return Err(io::Error::other("the reader was stopped")),
                    };
                }
                let count = rest.len().min(buffer.len());
                let part = rest.split_to(count);
                if let Some(space) = buffer.get_mut(..count) {
                    space.copy_from_slice(&part);
                }
                Ok(count)
            }
        }
    }

    fn attributes(&mut self) -> Vec<Attribute> {
        match self {
            Self::Blocking(content) => content.attributes(),
            _ => Vec::new(),
        }
    }

    fn finish(&mut self) -> Option<String> {
        match self {
            Self::Blocking(content) => content.finish(),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unopened(_) => "Unopened",
            Self::Blocking(_) => "Blocking",
            Self::Pump { .. } => "Pump",
            Self::Random { .. } => "Random",
        })
    }
}

/// Cuts every `bytes` bytes; the rest at the end is a chunk, too. Returns the bytes cut.
pub(crate) fn fixed_cuts(len: usize, bytes: usize, at_end: bool, cuts: &mut Vec<usize>) -> usize {
    let bytes = bytes.max(1);
    let whole = len - len % bytes;
    cuts.extend((bytes..=whole).step_by(bytes));
    if at_end && whole < len {
        cuts.push(len);
        return len;
    }
    whole
}

/// Whether a source's wish for chunks can be met.
pub(crate) fn check_chunking(chunking: Chunking) -> Result<()> {
    match chunking {
        Chunking::Fixed { bytes } if (bytes as usize) < 512 || bytes as usize > REGION_BYTES => {
            Err(Error::invalid_input(format!(
                "chunks of {bytes} bytes were asked for; fixed chunks have 512 bytes to {REGION_BYTES} bytes"
            )))
        }
        _ => Ok(()),
    }
}
