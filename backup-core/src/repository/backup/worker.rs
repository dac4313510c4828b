//! A worker: takes a batch from reading to sealed frames by itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::packer::{Packer, SharedPages};
use super::shared::Shared;
use super::stream::{Region, StreamEnd, StreamJob, fixed_cuts};
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::entries::StoredEntry;
use crate::limits;
use crate::repository::guard;
use crate::repository::tree::ChunkListBuilder;
use crate::source::{BlockingContent, Chunking, Content, ContentReader, Gone};
use crate::{Attribute, DataKind, Entry, Error, Result, Skipped};

/// Content that is read in one piece by one worker; longer content is drawn from a [`StreamJob`].
pub(crate) const SMALL_BYTES_MAX: usize = 2 * limits::MIB;

/// What the feeder gives to the workers.
#[derive(Debug)]
pub(crate) enum Work {
    /// A run of entries in order, some of them with content to read.
    Batch(Batch),
    /// Long content; given once to every worker, and all of them draw regions from it.
    Stream(Arc<StreamJob>),
}

/// A run of entries in order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) sequence: u64,
    pub(crate) items: Vec<BatchItem>,
}

/// An entry of a batch.
#[derive(Debug)]
pub(crate) enum BatchItem {
    /// Nothing to read: it has no content, or the parent's.
    Ready(StoredEntry),
    /// To be read.
    Open(Entry, Content),
}

/// What workers and feeder give to the assembler.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) sequence: u64,
    pub(crate) entries: Vec<StoredEntry>,
}

/// One worker thread's state.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) content: Packer,
    pub(crate) pages: SharedPages,
    pub(crate) work: async_channel::Receiver<Work>,
    pub(crate) done: async_channel::Sender<Done>,
    region: Region,
    buffer: Vec<u8>,
    cuts: Vec<usize>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        content: Packer,
        pages: SharedPages,
        work: async_channel::Receiver<Work>,
        done: async_channel::Sender<Done>,
    ) -> Self {
        Self {
            shared,
            content,
            pages,
            work,
            done,
            region: Region::default(),
            buffer: Vec::new(),
            cuts: Vec::new(),
        }
    }

    /// Works until the feeder has nothing more.
    pub(crate) fn run(mut self) -> Result<()> {
        while let Ok(work) = self.work.recv_blocking() {
            self.shared.check()?;
            match work {
                Work::Batch(batch) => {
                    let opened = |item: &BatchItem| match item {
                        BatchItem::Open(entry, _) => Some(entry.name.to_string()),
                        BatchItem::Ready(_) => None,
                    };
                    if let Some(name) = batch.items.iter().find_map(opened) {
                        self.shared.set_current(name);
                    }
                    self.run_batch(batch)?;
                }
                Work::Stream(stream) => {
                    while self.run_region(&stream)? {
                        self.shared.check()?;
                    }
                }
            }
        }
        self.content.finish()
    }

    fn run_region(&mut self, stream: &StreamJob) -> Result<bool> {
        let mut region = std::mem::take(&mut self.region);
        let took = stream.next_region(&self.shared.chunker, &mut region)?;
        if took {
            self.shared.set_current(stream.entry.name.to_string());
            self.content.set_kind(DataKind::of(&stream.entry.name));
            let (mut chunks, _) = self.store_chunks(&region.bytes, &region.cuts)?;
            chunks.append(&mut region.kept);
            let bytes = chunks.iter().map(|chunk| u64::from(chunk.len)).fold(0, u64::saturating_add);
            self.shared.counters.bytes_read.fetch_add(region.bytes.len() as u64, Ordering::Relaxed);
            self.shared.counters.bytes_logical.fetch_add(bytes, Ordering::Relaxed);
            if let Some(end) = stream.finish_region(&region, chunks, &mut self.pages)? {
                self.finish_stream(stream, end)?;
            }
        }
        self.region = region;
        Ok(took)
    }

    fn finish_stream(&mut self, stream: &StreamJob, end: StreamEnd) -> Result<()> {
        let mut entries = Vec::new();
        if let Some(failure) = end.failure {
            // Content that is not whole is not stored as if it were, and does not count.
            self.shared.counters.bytes_logical.fetch_sub(end.content.len(), Ordering::Relaxed);
            self.give_up(stream.entry.clone(), failure)?;
        } else {
            let mut entry = stream.entry.clone();
            if let Some(notice) = end.notice {
                self.note(&mut entry, notice);
            }
            entries.push(self.stored(entry, end.attributes, end.content));
        }
        self.send(Done { sequence: stream.sequence, entries })
    }

    fn run_batch(&mut self, batch: Batch) -> Result<()> {
        let mut entries = Vec::with_capacity(batch.items.len());
        for item in batch.items {
            self.shared.check()?;
            match item {
                BatchItem::Ready(entry) => entries.push(entry),
                BatchItem::Open(mut entry, content) => match self.read_whole(&entry, content)? {
                    Ok((content, attributes, notice)) => {
                        self.shared.counters.bytes_logical.fetch_add(content.len(), Ordering::Relaxed);
                        if let Some(notice) = notice {
                            self.note(&mut entry, notice);
                        }
                        entries.push(self.stored(entry, attributes, content));
                    }
                    Err(error) => self.give_up(entry, error)?,
                },
            }
        }
        self.send(Done { sequence: batch.sequence, entries })
    }

    // The entry whose content failed is named as skipped, unless nobody misses it.
    fn give_up(&self, entry: Entry, failure: io::Error) -> Result<()> {
        if Gone::is(&failure) {
            self.shared.leave_out(entry);
        } else {
            self.shared.skip_unread(entry, guard::of_content_alone(failure)?);
        }
        Ok(())
    }

    // The outer error fails the job, the inner one only the entry.
    fn read_whole(&mut self, entry: &Entry, content: Content) -> Result<Result<Whole, io::Error>> {
        self.content.set_kind(DataKind::of(&entry.name));
        let chunking = content.chunking;
        let mut reader: Box<dyn BlockingContent> = match content.reader {
            ContentReader::Blocking(open) => match guard::read(open) {
                Ok(reader) => reader,
                Err(error) => return Ok(Err(error)),
            },
            ContentReader::Random(content) => Box::new(Random { content, at: 0 }),
            ContentReader::Async(_) => {
                return Err(Error::internal("an asynchronous reader reached a worker"));
            }
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(SMALL_BYTES_MAX + 1, 0);
        let mut cuts = std::mem::take(&mut self.cuts);
        let result = self.read_and_cut(&mut *reader, chunking, &mut buffer, &mut cuts);
        self.buffer = buffer;
        self.cuts = cuts;
        Ok(match result? {
            Ok(content) => guard::read(|| Ok((reader.attributes(), reader.finish())))
                .map(|(attributes, notice)| (content, attributes, notice)),
            Err(error) => Err(error),
        })
    }

    fn read_and_cut(
        &mut self,
        reader: &mut dyn BlockingContent,
        chunking: Chunking,
        buffer: &mut Vec<u8>,
        cuts: &mut Vec<usize>,
    ) -> Result<Result<StoredContent, io::Error>> {
        let mut list = ChunkListBuilder::default();
        let mut any_new = false;
        let mut filled = 0_usize;
        let mut first = true;
        loop {
            let mut ended = false;
            while filled < buffer.len() && !ended {
                match buffer.get_mut(filled..).map_or(Ok(0), |free| guard::read(|| reader.read(free))) {
                    Ok(0) => ended = true,
                    Ok(count) => {
                        filled = filled.saturating_add(count);
                        self.shared.counters.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Ok(Err(error)),
                }
            }
            let data = buffer.get(..filled).unwrap_or_default();
            if first && ended && filled <= limits::INLINE_BYTES_MAX {
                return Ok(Ok(StoredContent::Inline(data.into())));
            }
            first = false;
            cuts.clear();
            let consumed = match chunking {
                Chunking::ContentDefined => self.shared.chunker.cuts(data, ended, cuts),
                Chunking::Fixed { bytes } => fixed_cuts(filled, bytes as usize, ended, cuts),
            };
            let (chunks, new) = self.store_chunks(data, cuts)?;
            any_new |= new;
            for chunk in chunks {
                list.push(chunk, &mut self.pages)?;
            }
            if ended {
                if !any_new {
                    self.shared.counters.entries_known.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(Ok(list.finish(&mut self.pages)?));
            }
            // A file that grew beyond what its size said: go on with what is left over.
            buffer.copy_within(consumed..filled, 0);
            filled = filled.saturating_sub(consumed);
            if filled == buffer.len() {
                // Chunks may be longer than what is small: there is a cut as soon as the longest chunk fits.
                buffer.resize(limits::CHUNK_BYTES_MAX + 1, 0);
            }
            self.shared.check()?;
        }
    }

    /// The chunks, and whether any of them was new.
    fn store_chunks(&mut self, data: &[u8], cuts: &[usize]) -> Result<(Vec<ChunkRef>, bool)> {
        let mut chunks = Vec::with_capacity(cuts.len());
        let mut any_new = false;
        let mut start = 0;
        for end in cuts {
            let bytes =
                data.get(start..*end).ok_or_else(|| Error::internal("a cut lies outside its data"))?;
            start = *end;
            let (id, new) = self.content.add(bytes)?;
            any_new |= new;
            if new {
                self.shared.counters.bytes_added.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            let len = u32::try_from(bytes.len()).map_err(|_| Error::internal("a chunk exceeds 32 bits"))?;
            chunks.push(ChunkRef { id, len });
        }
        Ok((chunks, any_new))
    }

    // What a reader has to say of content that is stored as it was read. The next backup reads it again: taken from this one as
    // unchanged, what is wrong with it would not be said any more, and a snapshot that has it would pass for whole.
    fn note(&self, entry: &mut Entry, notice: String) {
        self.shared.skip(Skipped::new(&entry.name, notice));
        entry.stamp = None;
    }

    fn stored(&self, mut entry: Entry, attributes: Vec<Attribute>, content: StoredContent) -> StoredEntry {
        entry.size = Some(content.len());
        self.shared.add_content_attributes(&mut entry, attributes);
        StoredEntry { entry, content }
    }

    fn send(&self, done: Done) -> Result<()> {
        self.done.send_blocking(done).map_err(|_| Error::cancelled())
    }
}

/// Content that was read to its end, with what its reader knows of the entry and has to say.
type Whole = (StoredContent, Vec<Attribute>, Option<String>);

struct Random {
    content: Arc<dyn crate::source::ReadAt>,
    at: u64,
}

impl BlockingContent for Random {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.content.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        if let Some(part) = buffer.get_mut(..count) {
            self.content.read_exact_at(part, self.at)?;
        }
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}
