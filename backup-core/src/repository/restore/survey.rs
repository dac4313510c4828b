//! What stands in the target already: compared with the identities of chunks, so that nothing is fetched for it.

use std::sync::Arc;

use super::files::RestoringEntry;
use super::totals::Totals;
use super::window::{Piece, Window};
use crate::repository::reader::Reader;
use crate::{JobContext, Result};

/// Entries that a survey leaves open at most because they differ; those after them are compared when their content is at
/// hand. Windows under way times this bounds the files open.
const OPEN_MAX: usize = 64;

impl Window {
    /// Takes out of the window what stands in the target. Blocking.
    pub(crate) fn survey(mut self, reader: &Reader, totals: &Totals, job: &JobContext) -> Result<Self> {
        let mut found = Vec::new();
        let (mut differing, mut open) = (None::<Arc<RestoringEntry>>, 0_usize);
        let mut left = Vec::with_capacity(self.pieces.len());
        for piece in std::mem::take(&mut self.pieces) {
            job.check()?;
            let known = differing.as_ref().is_some_and(|entry| Arc::ptr_eq(entry, &piece.entry));
            if (known || open < OPEN_MAX) && stands(&piece, &mut found, reader, totals, job) {
                continue;
            }
            if !known {
                open = open.saturating_add(1);
                differing = Some(piece.entry.clone());
            }
            left.push(piece);
        }
        self.pieces = left;
        Ok(self)
    }
}

/// Whether a piece needs no fetching; then it is done.
fn stands(piece: &Piece, found: &mut Vec<u8>, reader: &Reader, totals: &Totals, job: &JobContext) -> bool {
    let (entry, len) = (&piece.entry, piece.chunk.len as usize);
    if entry.is_current(totals, job) {
        entry.write(&[], piece.offset, found, totals, job);
        return true;
    }
    found.resize(len, 0);
    if !entry.read(found, piece.offset) {
        return false;
    }
    let same = {
        let _processor = job.resources().processor();
        reader.store.protection.chunk_id(found) == piece.chunk.id
    };
    if same {
        entry.stands(u64::from(piece.chunk.len), totals, job);
    }
    same
}
