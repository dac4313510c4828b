//! A restore worker: opens fetched frames, checks their chunks, writes them.

use std::ops::Range;
use std::sync::Arc;

use super::files::RestoringEntry;
use super::popular::{Found, Shared};
use super::retry::Retries;
use super::totals::Totals;
use super::window::{FetchedRun, FetchedWindow, Piece};
use crate::format::object::Scratch;
use crate::repository::frames::slice_of;
use crate::repository::reader::Reader;
use crate::{Error, ErrorKind, JobContext, Result};

/// One worker thread's state; its buffers live as long as it.
#[derive(Debug)]
pub(crate) struct RestoreWorker {
    reader: Reader,
    totals: Arc<Totals>,
    retries: Arc<Retries>,
    job: JobContext,
    scratch: Scratch,
    plain: Vec<u8>,
    compare: Vec<u8>,
}

/// Checked pieces of an entry that stand behind each other in the open frame and in the entry, and are written at once: chunks may be as small as
/// pages of a database.
struct Joined {
    entry: Arc<RestoringEntry>,
    /// Where in the entry they begin.
    offset: u64,
    /// Where in the frame they are.
    range: Range<usize>,
    lens: Vec<usize>,
}

impl Joined {
    fn is_followed_by(&self, piece: &Piece) -> bool {
        Arc::ptr_eq(&self.entry, &piece.entry)
            && piece.offset == self.offset.saturating_add(self.range.len() as u64)
            && piece.row.offset as usize == self.range.end
    }
}

impl RestoreWorker {
    pub(crate) fn new(reader: Reader, totals: Arc<Totals>, retries: Arc<Retries>, job: JobContext) -> Self {
        Self {
            reader,
            totals,
            retries,
            job,
            scratch: Scratch::default(),
            plain: Vec::new(),
            compare: Vec::new(),
        }
    }

    /// Works until there are no more windows.
    pub(crate) fn run(mut self, windows: async_channel::Receiver<FetchedWindow>) -> Result<()> {
        while let Ok(window) = windows.recv_blocking() {
            self.write(window)?;
        }
        Ok(())
    }

    fn write(&mut self, window: FetchedWindow) -> Result<()> {
        for (entry, bytes) in window.inline {
            entry.write(&bytes, 0, &mut self.compare, &self.totals, &self.job);
        }
        for run in window.runs {
            self.job.check()?;
            self.write_run(run)?;
        }
        for (piece, shared) in window.awaited {
            self.job.check()?;
            self.write_awaited(piece, &shared)?;
        }
        for entry in window.announced {
            entry.all_announced(&self.totals, &self.job);
        }
        Ok(())
    }

    fn write_run(&mut self, run: FetchedRun) -> Result<()> {
        let bytes = match run.bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                let (reason, gone) = (error.to_string(), error.kind() == ErrorKind::NotFound);
                return run.pieces.into_iter().try_for_each(|piece| match gone {
                    true => self.gone(piece, &reason),
                    false => self.fail(piece, &reason),
                });
            }
        };
        let index = self.reader.index.clone();
        let pack = index.pack(run.pack)?;
        let mut opened: Option<(u32, std::result::Result<(), String>)> = None;
        let mut joined: Option<Joined> = None;
        for piece in run.pieces {
            self.job.check()?;
            let is_open = opened.as_ref().is_some_and(|(frame, _)| *frame == piece.row.frame);
            if !(is_open && joined.as_ref().is_some_and(|joined| joined.is_followed_by(&piece))) {
                self.write_joined(joined.take());
                // Asked first, so that what stands there already costs no opening of frames.
                if piece.entry.is_current(&self.totals, &self.job) {
                    piece.entry.write(&[], piece.offset, &mut self.compare, &self.totals, &self.job);
                    continue;
                }
            }
            if opened.as_ref().is_none_or(|(frame, _)| *frame != piece.row.frame) {
                self.plain.clear();
                let range = pack.frame_range(piece.row.frame)?;
                let start = usize::try_from(range.start.saturating_sub(run.start)).unwrap_or(usize::MAX);
                let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
                let stored = bytes.get(start..start.saturating_add(len)).unwrap_or_default();
                let _processor = self.job.resources().processor();
                let result = pack.open_frame(
                    &self.reader.store,
                    piece.row.frame,
                    stored,
                    &mut self.scratch,
                    &mut self.plain,
                );
                opened = Some((piece.row.frame, result.map_err(|error| error.to_string())));
            }
            match &opened {
                Some((_, Ok(()))) => self.check_piece(piece, &mut joined)?,
                Some((_, Err(reason))) => self.fail(piece, reason)?,
                None => return Err(Error::internal("no frame is open")),
            }
        }
        self.write_joined(joined);
        Ok(())
    }

    fn write_joined(&mut self, joined: Option<Joined>) {
        let Some(Joined { entry, offset, range, lens }) = joined else { return };
        let bytes = self.plain.get(range).unwrap_or_default();
        entry.write_joined(bytes, offset, &lens, &mut self.compare, &self.totals, &self.job);
    }

    fn write_awaited(&mut self, piece: Piece, shared: &Shared) -> Result<()> {
        match shared.wait() {
            Found::Bytes(bytes) => {
                piece.entry.write(&bytes, piece.offset, &mut self.compare, &self.totals, &self.job);
            }
            Found::Damaged(reason) => self.fail(piece, &reason)?,
            Found::Nothing => {
                self.retries.try_again(piece.entry, piece.offset, piece.chunk);
            }
        }
        Ok(())
    }

    /// Checks a piece and leaves it to be written, with those before it that it follows.
    fn check_piece(&mut self, piece: Piece, joined: &mut Option<Joined>) -> Result<()> {
        let reason = match slice_of(&self.plain, &piece.row) {
            Ok(bytes) if self.reader.store.protection.chunk_id(bytes) == piece.chunk.id => {
                if let Some(reading) = &piece.reading {
                    reading.is(bytes);
                }
                let len = bytes.len();
                match joined.as_mut().filter(|joined| joined.is_followed_by(&piece)) {
                    Some(joined) => {
                        joined.range.end = joined.range.end.saturating_add(len);
                        joined.lens.push(len);
                    }
                    None => {
                        let start = piece.row.offset as usize;
                        let next = Joined {
                            entry: piece.entry,
                            offset: piece.offset,
                            range: start..start.saturating_add(len),
                            lens: vec![len],
                        };
                        let before = joined.replace(next);
                        self.write_joined(before);
                    }
                }
                return Ok(());
            }
            Ok(_) => "a chunk is not what its identity says".to_owned(),
            Err(error) => error.to_string(),
        };
        self.fail(piece, &reason)
    }

    /// Its pack is not there. What others were to get of it they look for themselves.
    fn gone(&self, piece: Piece, reason: &str) -> Result<()> {
        self.retries.gone(piece, reason, &self.reader, &self.totals, &self.job)
    }

    fn fail(&self, piece: Piece, reason: &str) -> Result<()> {
        if let Some(reading) = &piece.reading {
            reading.is_damaged(reason);
        }
        self.retries.fail(piece, reason, &self.reader, &self.totals, &self.job)
    }
}
