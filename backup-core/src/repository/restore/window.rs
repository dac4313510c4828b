//! A window: the pieces of some entries, sorted by where their chunks are.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::files::RestoringEntry;
use super::popular::{Reading, Shared};
use crate::format::chunks::ChunkRef;
use crate::format::segment::IndexRow;
use crate::limits;
use crate::repository::reader::Reader;
use crate::{ErrorKind, GetRange, JobContext, Result};

/// Plaintext in one window, about. Whatever two windows need is fetched and opened twice.
pub(crate) const WINDOW_BYTES: usize = 16 * limits::MIB;
/// Stored bytes that one window fetches at most, unless one frame has more. Small files whose chunks are scattered over
/// many packs need far more than their own length: a frame each.
const WINDOW_STORED_BYTES: u64 = 8 * limits::MIB as u64;
/// Plaintext in one window that windows before it read.
const AWAITED_BYTES_MAX: usize = limits::MIB;
/// Entries in one window.
pub(crate) const WINDOW_ENTRIES: usize = 2048;
/// Pieces of one window. A few pages can name tiny chunks by the million, and each costs about a hundred bytes here.
const WINDOW_PIECES: usize = 16 * 1024;
/// Bytes fetched by one request at most, unless one frame is longer.
const REQUEST_BYTES: u64 = 8 * limits::MIB as u64;
/// Unwanted bytes between two frames that cost less than a request of their own.
const GAP_BYTES: u64 = 64 * 1024;

/// Where a chunk must be written.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) entry: Arc<RestoringEntry>,
    pub(crate) offset: u64,
    pub(crate) chunk: ChunkRef,
    pub(crate) row: IndexRow,
    /// Where others need the same chunk.
    pub(crate) reading: Option<Reading>,
}

/// Work for one worker: entries that need no content, and pieces.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) pieces: Vec<Piece>,
    /// Entries to be ended here, once the pieces are written: those without any, above all.
    pub(crate) announced: Vec<Arc<RestoringEntry>>,
    /// Content that stands in the entries themselves.
    pub(crate) inline: Vec<(Arc<RestoringEntry>, Box<[u8]>)>,
    /// Pieces that somebody before reads.
    pub(crate) awaited: Vec<(Piece, Arc<Shared>)>,
    awaited_bytes: usize,
    bytes: usize,
    entries: usize,
    /// The frames that the pieces need, by pack and ordinal, and their length together.
    frames: HashSet<(u32, u32)>,
    stored_bytes: u64,
}

/// Frames fetched by one request.
#[derive(Debug)]
pub(crate) struct FetchedRun {
    pub(crate) pack: u32,
    /// Where `bytes` start in the pack.
    pub(crate) start: u64,
    pub(crate) bytes: Result<Bytes>,
    /// The pieces in it, sorted by frame.
    pub(crate) pieces: Vec<Piece>,
}

/// A window whose frames are at hand.
#[derive(Debug)]
pub(crate) struct FetchedWindow {
    pub(crate) runs: Vec<FetchedRun>,
    pub(crate) announced: Vec<Arc<RestoringEntry>>,
    pub(crate) inline: Vec<(Arc<RestoringEntry>, Box<[u8]>)>,
    pub(crate) awaited: Vec<(Piece, Arc<Shared>)>,
}

impl Window {
    /// Whether `row`'s chunk, in a frame of `stored_len` bytes, should rather begin the next window. A frame that the
    /// window needs anyway is not fetched again if that can be avoided.
    pub(crate) fn is_full_before(&self, row: &IndexRow, stored_len: u64) -> bool {
        if self.pieces.len() >= WINDOW_PIECES {
            return true;
        }
        let beyond = self.bytes >= 2 * WINDOW_BYTES || self.entries >= 2 * WINDOW_ENTRIES;
        if self.frames.contains(&(row.pack, row.frame)) || self.pieces.is_empty() {
            return beyond;
        }
        let stored = self.stored_bytes.saturating_add(stored_len);
        stored > WINDOW_STORED_BYTES || self.bytes >= WINDOW_BYTES || self.entries >= WINDOW_ENTRIES
    }

    /// Whether entries without content have filled the window.
    pub(crate) fn is_full(&self) -> bool {
        self.entries >= 2 * WINDOW_ENTRIES
    }

    /// Takes an entry all of whose pieces were named.
    pub(crate) fn announce(&mut self, entry: Arc<RestoringEntry>) {
        self.entries = self.entries.saturating_add(1);
        if !entry.leave_to_pieces() {
            self.announced.push(entry);
        }
    }

    pub(crate) fn push(&mut self, piece: Piece, stored_len: u64) {
        if self.frames.insert((piece.row.pack, piece.row.frame)) {
            self.stored_bytes = self.stored_bytes.saturating_add(stored_len);
        }
        self.bytes = self.bytes.saturating_add(piece.chunk.len as usize);
        self.pieces.push(piece);
    }

    /// Whether there is room for a piece that somebody before reads: what windows under way hold on to is bounded.
    pub(crate) fn may_await(&self, len: u32) -> bool {
        self.awaited.len() < WINDOW_PIECES
            && self.awaited_bytes.saturating_add(len as usize) <= AWAITED_BYTES_MAX
    }

    pub(crate) fn push_awaited(&mut self, piece: Piece, shared: Arc<Shared>) {
        self.awaited_bytes = self.awaited_bytes.saturating_add(piece.chunk.len as usize);
        self.bytes = self.bytes.saturating_add(piece.chunk.len as usize);
        self.awaited.push((piece, shared));
    }

    /// Bytes that fetching it takes, about.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
            && self.awaited.is_empty()
            && self.announced.is_empty()
            && self.inline.is_empty()
    }

    /// Fetches what the window needs, pack by pack.
    pub(crate) async fn fetch(self, reader: &Reader, job: &JobContext) -> Result<FetchedWindow> {
        let Self { mut pieces, announced, inline, awaited, .. } = self;
        pieces.sort_by_key(|piece| (piece.row.pack, piece.row.frame, piece.row.offset));
        let mut runs: Vec<Run> = Vec::new();
        for piece in pieces {
            let range = reader.index.pack(piece.row.pack)?.frame_range(piece.row.frame)?;
            match runs.last_mut().filter(|run| run.takes(&piece.row, &range)) {
                Some(run) => {
                    run.end = run.end.max(range.end);
                    run.pieces.push(piece);
                }
                None => runs.push(Run {
                    pack: piece.row.pack,
                    start: range.start,
                    end: range.end,
                    pieces: vec![piece],
                }),
            }
        }
        // Requests at once are bounded: each may take a thread and a buffer of its own.
        let fetches = runs.into_iter().map(|run| run.fetch(reader, job));
        let runs = stream::iter(fetches).buffered(job.resources().requests()).try_collect().await?;
        Ok(FetchedWindow { runs, announced, inline, awaited })
    }
}

struct Run {
    pack: u32,
    start: u64,
    end: u64,
    pieces: Vec<Piece>,
}

impl Run {
    fn takes(&self, row: &IndexRow, range: &std::ops::Range<u64>) -> bool {
        self.pack == row.pack
            && range.start <= self.end.saturating_add(GAP_BYTES)
            && range.end.saturating_sub(self.start) <= REQUEST_BYTES
    }

    async fn fetch(self, reader: &Reader, job: &JobContext) -> Result<FetchedRun> {
        let Self { pack, start, end, pieces } = self;
        let key = reader.index.pack(pack)?.key.clone();
        let bytes = match reader.store.get(&key, GetRange::Bounded(start..end), job).await {
            Ok(fetched) => Ok(fetched.bytes),
            // A pack that is damaged or gone harms only the entries that need it; one that cannot be read for now other places
            // may have.
            Err(error)
                if error.is_corruption()
                    || error.kind() == ErrorKind::NotFound
                    || (reader.others.are_elsewhere() && !error.is_cancelled()) =>
            {
                Err(error)
            }
            Err(error) => return Err(error),
        };
        Ok(FetchedRun { pack, start, bytes, pieces })
    }
}
