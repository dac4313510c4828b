//! The planner of a restore: walks entries, looks up chunks, fills windows, fetches them for the workers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::oneshot;

use super::files::RestoringEntry;
use super::popular::{Popular, Reader as Who};
use super::retry::Retries;
use super::selected::{Chosen, Selected};
use super::totals::Totals;
use super::window::{FetchedWindow, Piece, Window};
use super::worker::RestoreWorker;
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::entries::StoredEntry;
use crate::format::segment::IndexRow;
use crate::limits;
use crate::repository::content::ChunkStream;
use crate::repository::guard;
use crate::repository::reader::Reader;
use crate::repository::snapshot::Snapshot;
use crate::resources::Lease;
use crate::target::{Target, Writer};
use crate::{EntryKind, Error, JobContext, Result};

/// Stored bytes of the windows that are being fetched at once, unless one window has more. With those being written and one
/// that waits this bounds memory.
const FETCHED_BYTES_MAX: u64 = 16 * limits::MIB as u64;
/// Windows being fetched at once: what compresses well takes many to fill a line that is long.
const FETCHES_MAX: usize = 12;

/// Restores in any order, on worker threads.
pub(crate) async fn restore_parallel(
    snapshot: &Snapshot,
    target: &dyn Target,
    selected: &mut Selected<'_>,
    totals: &Arc<Totals>,
    lease: &Arc<Lease>,
    job: &JobContext,
) -> Result<()> {
    let reader = snapshot.reader(job).await?;
    let (windows_send, windows) = async_channel::bounded(1);
    let retries = Arc::new(Retries::default());
    let mut ended = Vec::new();
    for number in 0..lease.workers() {
        let (send, end) = oneshot::channel();
        let worker = RestoreWorker::new(reader.clone(), totals.clone(), retries.clone(), job.clone());
        let (windows, closer) = (windows.clone(), windows.clone());
        let lease = lease.clone();
        let body = move || {
            // Memory counts as taken until the last worker is gone.
            let _lease = lease;
            let result = guard::caught(|| worker.run(windows));
            if result.is_err() {
                closer.close();
            }
            // Nobody may be left to hear it.
            let _ = send.send(result);
        };
        let thread = thread::Builder::new().name(format!("backup-restore-{number}"));
        thread.spawn(body).map_err(|e| Error::io("a worker thread could not be started", e))?;
        ended.push(end);
    }
    // Whoever waits for a window must not wait for ever once the planner is gone.
    let _close = CloseOnDrop(windows.clone());
    drop(windows);
    let mut planner = Planner {
        reader: reader.clone(),
        job: job.clone(),
        totals: totals.clone(),
        retries: retries.clone(),
        window: Window::default(),
        popular: Popular::default(),
        fetching: FuturesOrdered::new(),
        fetching_bytes: VecDeque::new(),
        send: windows_send,
        survey: target.holds_content(),
    };
    let planned = planner.run(target, selected).await;
    drop(planner);
    let mut result = planned;
    for end in ended {
        let end = end.await.unwrap_or_else(|_| Err(Error::internal("a worker thread ended without a word")));
        // A worker's failure is the cause of the planner's.
        match (&result, end) {
            (Ok(()), end) => result = end,
            (Err(error), Err(cause)) if error.is_cancelled() => result = Err(cause),
            _ => {}
        }
    }
    result?;
    retries.run(&reader, totals, job).await
}

struct CloseOnDrop(async_channel::Receiver<FetchedWindow>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

type Fetch = futures_core::future::BoxFuture<'static, Result<FetchedWindow>>;

struct Planner {
    reader: Reader,
    job: JobContext,
    totals: Arc<Totals>,
    retries: Arc<Retries>,
    window: Window,
    popular: Popular,
    fetching: FuturesOrdered<Fetch>,
    /// Stored bytes of each window that is being fetched, in their order.
    fetching_bytes: VecDeque<u64>,
    send: async_channel::Sender<FetchedWindow>,
    /// What stands in the target is looked at before anything is fetched.
    survey: bool,
}

impl Planner {
    async fn run(&mut self, target: &dyn Target, selected: &mut Selected<'_>) -> Result<()> {
        while let Some(chosen) = selected.next().await? {
            match chosen {
                Chosen::Entry(stored) => self.plan(stored, target).await?,
                Chosen::Lost(skipped) => self.totals.fail(skipped, &self.job),
            }
        }
        self.flush().await?;
        while !self.fetching.is_empty() {
            self.pass_on().await?;
        }
        Ok(())
    }

    async fn plan(&mut self, stored: StoredEntry, target: &dyn Target) -> Result<()> {
        let StoredEntry { entry, content } = stored;
        if matches!(entry.kind, EntryKind::HardLink { .. }) {
            // What it links to may not stand there yet: the target completes it later.
            self.totals.hard_link();
            self.totals.entry_written(&entry.name);
            return Ok(());
        }
        let open = match target.entry(&entry).await? {
            Writer::Skip => {
                self.totals.entry_unchanged(content.len());
                return Ok(());
            }
            Writer::Blocking(open) => open,
            Writer::Async(_) => {
                let message = "a target that takes entries in any order gave an asynchronous writer";
                return Err(Error::internal(message).with_entry(&entry.name));
            }
        };
        let restoring = Arc::new(RestoringEntry::new(entry.name.clone(), content.len(), open));
        match &content {
            StoredContent::None => {}
            StoredContent::Inline(bytes) if bytes.is_empty() => {}
            StoredContent::Inline(bytes) => {
                restoring.expect_piece();
                self.window.inline.push((restoring.clone(), bytes.clone()));
            }
            StoredContent::Chunks(_) | StoredContent::Paged { .. } => {
                let mut chunks = ChunkStream::new(self.reader.clone(), &content)?;
                let mut offset = 0_u64;
                while !restoring.has_failed() {
                    match chunks.next(&self.job).await {
                        Ok(None) => break,
                        Ok(Some(chunk)) => {
                            self.plan_chunk(&restoring, offset, chunk).await?;
                            offset = offset.saturating_add(u64::from(chunk.len));
                        }
                        Err(error) if error.is_corruption() => {
                            restoring.expect_piece();
                            restoring.fail_piece(
                                &format!("its list of chunks: {error}"),
                                &self.totals,
                                &self.job,
                            );
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        self.window.announce(restoring);
        if self.window.is_full() { self.flush().await } else { Ok(()) }
    }

    async fn plan_chunk(&mut self, entry: &Arc<RestoringEntry>, offset: u64, chunk: ChunkRef) -> Result<()> {
        entry.expect_piece();
        match self.place(&chunk)? {
            Some(row) => {
                let pack = self.reader.index.pack(row.pack)?;
                let Some(frame) = pack.record.frames.get(row.frame as usize) else {
                    // An index can say anything; maybe the chunk has another place.
                    let piece = Piece { entry: entry.clone(), offset, chunk, row, reading: None };
                    let reason = "an index names a frame that its pack does not have";
                    return self.retries.fail(piece, reason, &self.reader, &self.totals, &self.job);
                };
                let stored_len = u64::from(frame.stored_len);
                let mut piece = Piece { entry: entry.clone(), offset, chunk, row, reading: None };
                // What stands in the target may spare anybody the reading, on which nobody then can rely.
                if !self.survey {
                    match self.popular.reader(&piece.chunk) {
                        Who::Before(shared) if self.window.may_await(piece.chunk.len) => {
                            self.window.push_awaited(piece, shared);
                            return Ok(());
                        }
                        Who::Before(_) => {}
                        Who::Here(reading) => piece.reading = reading,
                    }
                }
                if self.window.is_full_before(&row, stored_len) {
                    self.flush().await?;
                }
                self.window.push(piece, stored_len);
            }
            None if self.reader.others.are_there() => {
                if self.retries.try_again(entry.clone(), offset, chunk) {
                    self.retries.run(&self.reader, &self.totals, &self.job).await?;
                }
            }
            None => {
                let reason = crate::repository::frames::chunk_not_found(&chunk.id).to_string();
                entry.fail_piece(&reason, &self.totals, &self.job);
            }
        }
        Ok(())
    }

    fn place(&self, chunk: &ChunkRef) -> Result<Option<IndexRow>> {
        let rows = self.reader.index.find(chunk.id.short(), chunk.len)?;
        // Of several places the one in the frame at hand costs nothing.
        let last = self.window.pieces.last().map(|piece| (piece.row.pack, piece.row.frame));
        let at_hand = rows.iter().find(|row| Some((row.pack, row.frame)) == last);
        Ok(at_hand.or_else(|| rows.first()).copied())
    }

    async fn flush(&mut self) -> Result<()> {
        if self.window.is_empty() {
            return Ok(());
        }
        let window = std::mem::take(&mut self.window);
        let bytes = window.stored_bytes();
        while self.fetching.len() >= FETCHES_MAX
            || (!self.fetching.is_empty()
                && self.fetching_bytes.iter().sum::<u64>().saturating_add(bytes) > FETCHED_BYTES_MAX)
        {
            self.pass_on().await?;
        }
        self.fetching_bytes.push_back(bytes);
        let (reader, job, totals) = (self.reader.clone(), self.job.clone(), self.totals.clone());
        let survey = self.survey;
        // A task of its own, so that it goes on while the planner plans.
        let fetch = tokio::spawn(async move {
            let window = if survey {
                let (reader, job) = (reader.clone(), job.clone());
                guard::blocking(move || window.survey(&reader, &totals, &job)).await?
            } else {
                window
            };
            window.fetch(&reader, &job).await
        });
        let fetch = tokio_util::task::AbortOnDropHandle::new(fetch);
        self.fetching.push_back(Box::pin(async move {
            fetch.await.unwrap_or_else(|ended| match ended.try_into_panic() {
                Ok(panic) => Err(guard::panicked(&*panic)),
                Err(_) => Err(Error::cancelled()),
            })
        }));
        Ok(())
    }

    async fn pass_on(&mut self) -> Result<()> {
        self.retries.run(&self.reader, &self.totals, &self.job).await?;
        if let Some(fetched) = self.fetching.next().await {
            self.fetching_bytes.pop_front();
            self.send.send(fetched?).await.map_err(|_| Error::cancelled())?;
        }
        Ok(())
    }
}
