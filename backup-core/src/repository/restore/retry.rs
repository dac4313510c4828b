//! Second tries: pieces whose place turned out to be damaged while their chunk has another.

use std::sync::{Arc, Mutex};

use super::totals::Totals;
use super::window::Piece;
use crate::repository::reader::Reader;
use crate::{Error, JobContext, Result};

/// Filled by the workers, emptied by the planner before each window, so it holds what a few windows do at most.
#[derive(Debug, Default)]
pub(crate) struct Retries(Mutex<Vec<Piece>>);

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
        if reader.index.find(piece.chunk.id.short(), piece.chunk.len)?.len() > 1 {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(piece);
        } else {
            piece.entry.fail_piece(reason, totals, job);
        }
        Ok(())
    }

    /// Writes what was kept from whichever place is whole.
    pub(crate) async fn run(&self, reader: &Reader, totals: &Arc<Totals>, job: &JobContext) -> Result<()> {
        let pieces = std::mem::take(&mut *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        for piece in pieces {
            match reader.chunk(&piece.chunk.id, piece.chunk.len, job).await {
                Ok(bytes) => {
                    let (totals, job) = (totals.clone(), job.clone());
                    let write = move || {
                        piece.entry.write(&bytes, piece.offset, &mut Vec::new(), &totals, &job);
                    };
                    tokio::task::spawn_blocking(write)
                        .await
                        .map_err(|e| Error::internal("a write ended without a word").with_source(e))?;
                }
                Err(error) if error.is_corruption() => {
                    piece.entry.fail_piece(&error.to_string(), totals, job);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
