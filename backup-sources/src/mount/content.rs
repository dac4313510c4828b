//! Open files: ranges of their content, read ahead where they are read in order.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use backup_core::repository::{Piece, PieceReader};
use backup_core::{EntryName, Error, SnapshotId};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::pieces::Pieces;

/// Content whose pieces are looked up at once, and read ahead at most.
const AHEAD_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes read in order after which reading ahead begins.
const ORDERLY_BYTES_MIN: u64 = 128 * 1024;
/// How far out of order requests for an orderly reader may come: the kernel sends several at once.
const DISORDER_BYTES_MAX: u64 = 1024 * 1024;
/// Pieces that one task reads ahead, in bytes: what stands together is opened together.
const TASK_BYTES: u64 = 1024 * 1024;

/// A file that somebody has open.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) inode: u64,
    pub(super) snapshot: SnapshotId,
    pub(super) name: EntryName,
    content: PieceReader,
    /// The pieces looked up last.
    window: Mutex<Arc<[Piece]>>,
    order: Mutex<Order>,
}

/// How a file was read so far.
#[derive(Debug, Default)]
struct Order {
    /// Where an orderly reader goes on.
    next: u64,
    /// How much was read in order.
    bytes: u64,
    /// Up to where it was read ahead.
    ahead: u64,
}

impl OpenFile {
    pub(super) fn new(inode: u64, snapshot: SnapshotId, name: EntryName, content: PieceReader) -> Self {
        let window = Mutex::new(Arc::from([]));
        Self { inode, snapshot, name, content, window, order: Mutex::default() }
    }

    /// The bytes of a range, as far as the content goes. One error fails all of it: for the kernel, fewer bytes would be
    /// the end of the file.
    pub(super) async fn read(&self, range: Range<u64>, pieces: &Pieces) -> Result<Bytes, Arc<Error>> {
        let end = range.end.min(self.content.len());
        let mut at = range.start;
        let mut read = Vec::new();
        while at < end {
            for piece in self.pieces(at..end).await?.iter() {
                let bytes = pieces.read(self.inode, &self.content, piece).await?;
                let within = |position: u64| {
                    let offset = position.min(piece.end()).saturating_sub(piece.offset);
                    usize::try_from(offset).unwrap_or(usize::MAX)
                };
                let wanted = within(at)..within(end);
                if bytes.get(wanted.clone()).is_none() || wanted.is_empty() {
                    return Err(Arc::new(Error::corruption("a chunk is shorter than its list says")));
                }
                let part = bytes.slice(wanted);
                at = at.saturating_add(part.len() as u64);
                if read.is_empty() && at >= end {
                    return Ok(part);
                }
                read.extend_from_slice(&part);
            }
        }
        Ok(read.into())
    }

    /// Starts to read what an orderly reader will ask for next. `readers` bounds how many tasks do so at once.
    pub(super) async fn read_ahead(
        self: &Arc<Self>,
        read: Range<u64>,
        pieces: &Arc<Pieces>,
        readers: &Arc<Semaphore>,
    ) {
        // A part of what is held: other readers hold some, too.
        let most = AHEAD_BYTES_MAX.min(pieces.bytes_max() as u64 / 4);
        let Some(ahead) = self.note(read, most) else { return };
        let Ok(found) = self.pieces(ahead.clone()).await else { return };
        let mut waiting = found.iter().filter(|piece| !pieces.has(self.inode, piece)).copied().peekable();
        while waiting.peek().is_some() {
            let Ok(permit) = readers.clone().try_acquire_owned() else {
                // Begun again from here when the next range is read.
                self.order().ahead = waiting.peek().map_or(ahead.end, |piece| piece.offset);
                return;
            };
            let mut together = Vec::new();
            let mut bytes = 0_u64;
            while let Some(piece) = waiting.next_if(|_| bytes < TASK_BYTES) {
                bytes = bytes.saturating_add(u64::from(piece.len));
                together.push(piece);
            }
            let (file, pieces) = (self.clone(), pieces.clone());
            tokio::spawn(async move {
                for piece in together {
                    // Whoever asks for it will be told.
                    let _ = pieces.read(file.inode, &file.content, &piece).await;
                }
                drop(permit);
            });
        }
    }

    /// Notes that a range was read; what is to be read ahead, if anything.
    fn note(&self, read: Range<u64>, most: u64) -> Option<Range<u64>> {
        let mut order = self.order();
        if read.start.abs_diff(order.next) > DISORDER_BYTES_MAX {
            *order = Order { next: read.end, bytes: 0, ahead: read.end };
            return None;
        }
        order.bytes = order.bytes.saturating_add(read.end.saturating_sub(read.start));
        order.next = order.next.max(read.end);
        if order.bytes < ORDERLY_BYTES_MIN {
            return None;
        }
        let from = order.ahead.max(order.next);
        let to = order.next.saturating_add(most.min(order.bytes)).min(self.content.len());
        // Not a few bytes at a time, unless they are the last.
        if to < from.saturating_add(TASK_BYTES) && (to < self.content.len() || to <= from) {
            return None;
        }
        order.ahead = to;
        Some(from..to)
    }

    /// Pieces from the one that holds the beginning of a range on; enough for all of it or as many as are named at once.
    async fn pieces(&self, range: Range<u64>) -> Result<Arc<[Piece]>, Arc<Error>> {
        let held = self.window().clone();
        let is_in = |piece: &Piece| piece.end() > range.start && piece.offset < range.end;
        let start = held.partition_point(|piece| piece.end() <= range.start);
        let stop = held.partition_point(|piece| piece.offset < range.end);
        let covers = held.first().is_some_and(|first| first.offset <= range.start)
            && held.last().is_some_and(|last| last.end() >= range.end);
        if covers {
            return Ok(held.get(start..stop).unwrap_or_default().into());
        }
        let end = range.end.max(range.start.saturating_add(AHEAD_BYTES_MAX));
        let found: Arc<[Piece]> = self.content.pieces(range.start..end).await.map_err(Arc::new)?.into();
        *self.window() = found.clone();
        let wanted = found.iter().take_while(|piece| is_in(piece)).copied().collect();
        Ok(wanted)
    }

    fn window(&self) -> MutexGuard<'_, Arc<[Piece]>> {
        self.window.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
