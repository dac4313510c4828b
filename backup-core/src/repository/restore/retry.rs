//! Second tries: pieces whose place turned out to be damaged while their chunk has another, here or elsewhere.

use std::sync::{Arc, Mutex};

use super::files::RestoringEntry;
use super::totals::Totals;
use super::window::Piece;
use crate::format::chunks::ChunkRef;
use crate::repository::reader::Reader;
use crate::{Error, JobContext, Result};

/// Pieces that the planner keeps at most before it runs them.
const AGAIN_MAX: usize = 1024;

/// What is tried again.
#[derive(Debug)]
struct Again {
    entry: Arc<RestoringEntry>,
    offset: u64,
    chunk: ChunkRef,
    /// Its only pack is gone, as this says: it may have been written anew since the index was read.
    gone: Option<String>,
}

/// Filled by the workers and the planner, emptied by the planner before each window, so it holds what a few windows do at
/// most.
#[derive(Debug, Default)]
pub(crate) struct Retries(Mutex<Vec<Again>>);

impl Retries {
    /// Keeps a piece for a second try where its chunk has another place, and gives it up otherwise.
    pub(crate) fn fail(
        &self,
        piece: Piece,
        reason: &str,
        reader: &Reader,
        totals: &Totals,
        job: &JobContext,
    ) -> Result<()> {
        let Piece { entry, offset, chunk, .. } = piece;
        let has_another =
            reader.others.are_elsewhere() || reader.index.find(chunk.id.short(), chunk.len)?.len() > 1;
        if has_another {
            self.try_again(entry, offset, chunk);
        } else {
            entry.fail_piece(reason, totals, job);
        }
        Ok(())
    }

    /// The same of a piece whose pack is not there.
    pub(crate) fn gone(
        &self,
        piece: Piece,
        reason: &str,
        reader: &Reader,
        totals: &Totals,
        job: &JobContext,
    ) -> Result<()> {
        let alone = !reader.others.are_elsewhere()
            && reader.index.find(piece.chunk.id.short(), piece.chunk.len)?.len() <= 1;
        if !alone || !reader.others.are_there() {
            return self.fail(piece, reason, reader, totals, job);
        }
        let Piece { entry, offset, chunk, .. } = piece;
        self.keep(Again { entry, offset, chunk, gone: Some(reason.to_owned()) });
        Ok(())
    }

    /// Keeps a piece for a second try. Returns whether so many are kept that they should be [run](Self::run).
    pub(crate) fn try_again(&self, entry: Arc<RestoringEntry>, offset: u64, chunk: ChunkRef) -> bool {
        self.keep(Again { entry, offset, chunk, gone: None })
    }

    fn keep(&self, again: Again) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.push(again);
        kept.len() >= AGAIN_MAX
    }

    /// Writes what was kept from whichever place is whole.
    pub(crate) async fn run(&self, reader: &Reader, totals: &Arc<Totals>, job: &JobContext) -> Result<()> {
        let pieces = std::mem::take(&mut *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        for Again { entry, offset, chunk, gone } in pieces {
            let read = match gone {
                // Where the index says it need not be asked for again.
                Some(reason) => {
                    let failure = Error::corruption(reason);
                    reader.others.chunk(&chunk.id, chunk.len, &reader.index, failure, job).await
                }
                None => reader.chunk(&chunk.id, chunk.len, job).await,
            };
            match read {
                Ok(bytes) => {
                    let (totals, job) = (totals.clone(), job.clone());
                    let write = move || entry.write(&bytes, offset, &mut Vec::new(), &totals, &job);
                    tokio::task::spawn_blocking(write)
                        .await
                        .map_err(|e| Error::internal("a write ended without a word").with_source(e))?;
                }
                Err(error) if error.is_corruption() => {
                    entry.fail_piece(&error.to_string(), totals, job);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
