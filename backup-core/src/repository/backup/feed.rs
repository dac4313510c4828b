//! Walks the source beside the parent snapshot and decides for each entry: unchanged, or to be read.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::assemble::{WINDOW_BATCHES, Window};
use super::churn::Churn;
use super::kept::Parts;
use super::links::Cause;
use super::shared::Shared;
use super::stream::{PUMP_BUFFERS, StreamJob, check_chunking};
use super::worker::{Batch, BatchItem, Done, SMALL_BYTES_MAX, Work};
use crate::format::chunks::StoredContent;
use crate::format::entries::{StoredEntry, check_entry};
use crate::format::page::TreeRoot;
use crate::limits;
use crate::repository::content::ChunkStream;
use crate::repository::entries::{EntryStream, find_entry};
use crate::repository::guard;
use crate::repository::reader::Reader;
use crate::source::{ContentReader, SourceRun};
use crate::{Content, Entry, EntryKind, EntryName, EntryOrder, Error, Finished, Item, Result, Skipped};

/// Entries asked of a source at once.
const ITEMS_MAX: usize = 512;
/// Entries in one batch.
const BATCH_ENTRIES: usize = 512;
/// Bytes of content in one batch, about.
const BATCH_BYTES: u64 = 4 * limits::MIB as u64;

/// The parent snapshot, for merging.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) reader: Reader,
    pub(crate) root: TreeRoot,
}

/// Feeds the workers.
#[derive(Debug)]
pub(crate) struct Feeder {
    shared: Arc<Shared>,
    window: Arc<Window>,
    workers: usize,
    work: async_channel::Sender<Work>,
    done: async_channel::Sender<Done>,
    order: EntryOrder,
    parent: Option<Parent>,
    walk: Option<EntryStream>,
    /// The parent's entry that was read last and is not passed yet.
    head: Option<StoredEntry>,
    churn: Churn,
    items: Vec<BatchItem>,
    items_bytes: u64,
    sequence: u64,
    pumps: JoinSet<()>,
}

impl Feeder {
    pub(crate) fn new(
        shared: Arc<Shared>,
        window: Arc<Window>,
        workers: usize,
        work: async_channel::Sender<Work>,
        done: async_channel::Sender<Done>,
        order: EntryOrder,
        parent: Option<Parent>,
    ) -> Self {
        let walk = match (&parent, order) {
            (Some(parent), EntryOrder::Sorted) => {
                Some(EntryStream::new(parent.reader.clone(), [parent.root], None, shared.job.clone()))
            }
            _ => None,
        };
        Self {
            shared,
            window,
            workers,
            work,
            done,
            order,
            parent,
            walk,
            head: None,
            churn: Churn::default(),
            items: Vec::new(),
            items_bytes: 0,
            sequence: 0,
            pumps: JoinSet::new(),
        }
    }

    /// Feeds everything that the run yields, then what it knows at its end.
    pub(crate) async fn run(mut self, run: &mut dyn SourceRun) -> Result<(Finished, Churn)> {
        loop {
            self.shared.check()?;
            let items = run.next(ITEMS_MAX).await?;
            self.shared.set_bytes_total(run.bytes_total());
            if items.is_empty() {
                break;
            }
            for item in items {
                match item {
                    Item::Skipped(skipped) => self.shared.skip(skipped),
                    Item::Entry(entry) => self.feed(entry, run).await?,
                }
            }
        }
        self.count_rest().await?;
        self.drain().await?;
        self.window.trailing_from.store(self.sequence, Ordering::Release);
        self.feed_orphans(run).await?;
        // Every content was read: now the source may end its run.
        self.shared.check()?;
        let mut finished = run.finish().await?;
        for skipped in finished.skipped.drain(..) {
            self.shared.skip(skipped);
        }
        for (entry, content) in std::mem::take(&mut finished.trailing) {
            if let Err(error) = check_entry(&entry) {
                self.shared.skip_unfit(entry, error.message());
            } else if entry.kind.has_content() {
                self.feed_content(entry, content).await?;
            } else {
                self.push_ready(entry).await?;
            }
        }
        self.drain().await?;
        Ok((finished, self.churn))
    }

    /// What is left of the parent is gone.
    async fn count_rest(&mut self) -> Result<()> {
        let mut gone = self.head.take();
        loop {
            if let Some(gone) = gone {
                self.count_gone(&gone)?;
            }
            let Some(walk) = &mut self.walk else { return Ok(()) };
            gone = match walk.next().await {
                Ok(Some(next)) => Some(next),
                Ok(None) => return Ok(()),
                // It is only counted: damage in the parent costs nothing.
                Err(error) if error.is_corruption() => None,
                Err(error) => return Err(error),
            };
        }
    }

    fn count_gone(&mut self, gone: &StoredEntry) -> Result<()> {
        let Some(parent) = &self.parent else { return Ok(()) };
        self.churn.entries_deleted = self.churn.entries_deleted.saturating_add(1);
        self.churn.replaced(&gone.content, &parent.reader)
    }

    async fn feed(&mut self, entry: Entry, run: &dyn SourceRun) -> Result<()> {
        if let Err(error) = check_entry(&entry) {
            self.shared.skip_unfit(entry, error.message());
            return Ok(());
        }
        let before = self.parent_entry(&entry).await?;
        if before.is_none() {
            self.churn.entries_new = self.churn.entries_new.saturating_add(1);
        }
        if !entry.kind.has_content() {
            return self.push_ready(entry).await;
        }
        if let Some(before) = before.as_ref().filter(|before| !is_unchanged(&entry, &before.entry))
            && let Some(parent) = &self.parent
        {
            self.churn.entries_changed = self.churn.entries_changed.saturating_add(1);
            self.churn.replaced(&before.content, &parent.reader)?;
        }
        let before = match before {
            Some(before)
                if is_unchanged(&entry, &before.entry) && self.still_stored(&before.content).await? =>
            {
                return self.take_over(entry, before, run).await;
            }
            before => before,
        };
        let content = run.open(&entry).await?;
        let (Some(changed), Some(before)) = (content.changed.clone(), before) else {
            return self.feed_content(entry, content).await;
        };
        let is_same = changed.is_empty() && entry.size == Some(before.content.len());
        if is_same && self.still_stored(&before.content).await? {
            return self.take_over(entry, before, run).await;
        }
        self.feed_parts(entry, content, &changed, &before.content).await
    }

    /// Takes the parent's content.
    async fn take_over(&mut self, mut entry: Entry, before: StoredEntry, run: &dyn SourceRun) -> Result<()> {
        let counters = &self.shared.counters;
        counters.unchanged.fetch_add(1, Ordering::Relaxed);
        counters.bytes_logical.fetch_add(before.content.len(), Ordering::Relaxed);
        entry.size = Some(before.content.len());
        // What is known only of open content is as it was, too.
        self.shared.add_content_attributes(&mut entry, before.entry.attributes);
        run.unchanged(&entry);
        self.push(BatchItem::Ready(StoredEntry { entry, content: before.content }), 0).await
    }

    /// Takes the parent's content but for what lies in `changed`.
    async fn feed_parts(
        &mut self,
        entry: Entry,
        content: Content,
        changed: &[Range<u64>],
        before: &StoredContent,
    ) -> Result<()> {
        check_chunking(content.chunking)?;
        let size = entry.size.unwrap_or_default();
        let in_parts = size > SMALL_BYTES_MAX as u64 && !matches!(content.reader, ContentReader::Async(_));
        let (Some(parent), true) = (&self.parent, in_parts) else {
            return self.feed_content(entry, content).await;
        };
        let (window, reader, shared) = (self.window.clone(), parent.reader.clone(), self.shared.clone());
        let parts = window.room.parts(changed, content.chunking, size, before, &reader, &shared).await?;
        self.stream(|sequence| StreamJob::new(entry, sequence, content, parts)).await
    }

    // Of the further names of a file that was left out, the first that can be read becomes the file.
    async fn feed_orphans(&mut self, run: &dyn SourceRun) -> Result<()> {
        let mut files: HashMap<EntryName, EntryName> = HashMap::new();
        for mut link in self.shared.left_out.take_orphans() {
            let EntryKind::HardLink { to } = &link.kind else { continue };
            let mut entry = match (files.get(to), self.shared.left_out.cause(to)) {
                (Some(file), _) => {
                    link.kind = EntryKind::HardLink { to: file.clone() };
                    self.push_ready(link).await?;
                    continue;
                }
                (None, Some(Cause::Unread(entry))) => *entry,
                (None, Some(Cause::Unfit(reason))) => {
                    self.shared.skip(Skipped::new(&link.name, reason));
                    continue;
                }
                (None, None) => continue,
            };
            // All names of an inode have its metadata.
            entry.name = link.name.clone();
            match run.open(&entry).await {
                Ok(content) => self.feed_content(entry, content).await?,
                Err(error) if error.is_cancelled() => return Err(error),
                // Not every source can open what it called a link.
                Err(error) => {
                    self.shared.skip(Skipped::new(&link.name, error.message()));
                    continue;
                }
            }
            self.drain().await?;
            if self.shared.left_out.cause(&link.name).is_none() {
                files.insert(to.clone(), link.name);
            }
        }
        Ok(())
    }

    async fn push_ready(&mut self, entry: Entry) -> Result<()> {
        self.push(BatchItem::Ready(StoredEntry { entry, content: StoredContent::None }), 0).await
    }

    async fn feed_content(&mut self, entry: Entry, content: Content) -> Result<()> {
        check_chunking(content.chunking)?;
        let size = entry.size.unwrap_or(u64::MAX);
        match content.reader {
            ContentReader::Async(reader) => {
                let (send, buffers) = async_channel::bounded(PUMP_BUFFERS);
                let heard = send.clone();
                self.pumps.spawn(async move {
                    if let Err(panic) = AssertUnwindSafe(pump(reader, send)).catch_unwind().await {
                        // The worker may be gone; then nobody asks.
                        let _ = heard.send(Err(guard::reader_panicked(&*panic))).await;
                    }
                });
                self.stream(|sequence| StreamJob::pumped(entry, sequence, content.chunking, buffers)).await
            }
            _ if size > SMALL_BYTES_MAX as u64 => {
                self.stream(|sequence| StreamJob::new(entry, sequence, content, Parts::read())).await
            }
            _ => self.push(BatchItem::Open(entry, content), size).await,
        }
    }

    async fn push(&mut self, item: BatchItem, bytes: u64) -> Result<()> {
        self.items.push(item);
        self.items_bytes = self.items_bytes.saturating_add(bytes);
        if self.items.len() >= BATCH_ENTRIES || self.items_bytes >= BATCH_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        let items = std::mem::take(&mut self.items);
        self.items_bytes = 0;
        let sequence = self.next_sequence().await?;
        let to_read = items.iter().any(|item| matches!(item, BatchItem::Open(..)));
        let sent = if to_read {
            self.work.send(Work::Batch(Batch { sequence, items })).await.is_ok()
        } else {
            // Nothing to read: the workers need not see it.
            if let Some(BatchItem::Ready(last)) = items.last() {
                self.shared.set_current(last.entry.name.to_string());
            }
            let entries = items.into_iter().filter_map(|item| match item {
                BatchItem::Ready(entry) => Some(entry),
                BatchItem::Open(..) => None,
            });
            self.done.send(Done { sequence, entries: entries.collect() }).await.is_ok()
        };
        if sent { Ok(()) } else { Err(Error::cancelled()) }
    }

    async fn stream(&mut self, make: impl FnOnce(u64) -> StreamJob) -> Result<()> {
        self.flush().await?;
        let sequence = self.next_sequence().await?;
        let stream = Arc::new(make(sequence));
        for _ in 0..self.workers {
            self.work.send(Work::Stream(stream.clone())).await.map_err(|_| Error::cancelled())?;
        }
        Ok(())
    }

    async fn next_sequence(&mut self) -> Result<u64> {
        // The assembler gives the permit back when the batch's turn has come.
        self.window.permits.acquire().await.map_err(|_| Error::cancelled())?.forget();
        let sequence = self.sequence;
        self.sequence = sequence.saturating_add(1);
        Ok(sequence)
    }

    // Waits until the assembler has everything.
    async fn drain(&mut self) -> Result<()> {
        self.flush().await?;
        let all = u32::try_from(WINDOW_BATCHES).unwrap_or(u32::MAX);
        let _all = self.window.permits.acquire_many(all).await.map_err(|_| Error::cancelled())?;
        Ok(())
    }

    async fn parent_entry(&mut self, entry: &Entry) -> Result<Option<StoredEntry>> {
        let Some(parent) = &self.parent else { return Ok(None) };
        let mut gone = Vec::new();
        let result = match (self.order, &mut self.walk) {
            (EntryOrder::Unsorted, _) => {
                find_entry(&parent.reader, &parent.root, &entry.name, &self.shared.job).await
            }
            (EntryOrder::Sorted, None) => Ok(None),
            (EntryOrder::Sorted, Some(walk)) => loop {
                match self.head.take() {
                    Some(head) => match head.entry.name.cmp(&entry.name) {
                        std::cmp::Ordering::Less => gone.push(head),
                        std::cmp::Ordering::Equal => break Ok(Some(head)),
                        std::cmp::Ordering::Greater => {
                            self.head = Some(head);
                            break Ok(None);
                        }
                    },
                    None => match walk.next().await {
                        Ok(Some(next)) => self.head = Some(next),
                        Ok(None) => {
                            self.walk = None;
                            break Ok(None);
                        }
                        Err(error) => break Err(error),
                    },
                }
            },
        };
        for gone in gone {
            self.count_gone(&gone)?;
        }
        match result {
            // Damage in the parent costs reading, not the backup.
            Err(error) if error.is_corruption() => {
                tracing::warn!(%error, "a page of the parent snapshot is damaged; its entries are read again");
                Ok(None)
            }
            other => other,
        }
    }

    // Not `&self`: contents under way are `Send` and not `Sync`, and the future of a backup must be `Send`.
    async fn still_stored(&mut self, content: &StoredContent) -> Result<bool> {
        let Some(parent) = &self.parent else { return Ok(false) };
        let known = &self.shared.known;
        match content {
            StoredContent::None | StoredContent::Inline(_) => Ok(true),
            StoredContent::Chunks(chunks) => {
                for chunk in chunks {
                    if !known.in_repository(chunk.id.short(), chunk.len)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            StoredContent::Paged { .. } => {
                let mut chunks = ChunkStream::new(parent.reader.clone(), content)?.remembering_pages();
                loop {
                    let next = chunks.next(&self.shared.job).await;
                    // The pages of the list are taken over like its chunks; they can be read where they are barred.
                    for page in chunks.take_visited() {
                        if !known.in_repository(page.id.short(), page.len)? {
                            return Ok(false);
                        }
                    }
                    match next {
                        Ok(None) => return Ok(true),
                        Ok(Some(chunk)) if known.in_repository(chunk.id.short(), chunk.len)? => {}
                        Ok(Some(_)) => return Ok(false),
                        Err(error) if error.is_corruption() => return Ok(false),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
}

/// Whether the source says that the content is the parent's: same kind, size, time of modification and stamp.
fn is_unchanged(now: &Entry, before: &Entry) -> bool {
    now.stamp.is_some()
        && now.stamp == before.stamp
        && now.kind == before.kind
        && (now.size.is_none() || now.size == before.size)
        && now.posix.map(|posix| posix.modified) == before.posix.map(|posix| posix.modified)
}

// Reads on the runtime what workers process; an empty buffer is the end.
async fn pump(
    mut reader: std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>,
    buffers: async_channel::Sender<std::io::Result<Bytes>>,
) {
    loop {
        let mut buffer = BytesMut::with_capacity(limits::MIB);
        let mut result = Ok(());
        while buffer.len() < limits::MIB && result.is_ok() {
            match reader.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => result = Err(error),
            }
        }
        let ended = buffer.is_empty();
        let failed = result.is_err();
        if !(ended && failed) && buffers.send(Ok(buffer.freeze())).await.is_err() {
            return;
        }
        if let Err(error) = result {
            // The worker may be gone; then nobody asks.
            let _ = buffers.send(Err(error)).await;
            return;
        }
        if ended {
            return;
        }
    }
}
