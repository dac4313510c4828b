//! The rows of an index that fits in memory.

use std::borrow::Cow;

use super::PLACES_MAX;
use crate::ShortId;
use crate::format::segment::IndexRow;

/// Rows sorted by chunk.
#[derive(Debug, Default, Clone)]
pub(super) struct ResidentRows(Vec<IndexRow>);

impl ResidentRows {
    /// From rows that are sorted.
    pub(super) fn new(mut rows: Vec<IndexRow>) -> Self {
        rows.dedup();
        Self(rows)
    }

    pub(super) fn into_rows(self) -> Vec<IndexRow> {
        self.0
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, IndexRow> {
        self.0.iter()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity().saturating_mul(size_of::<IndexRow>())
    }

    /// Where the rows of a chunk begin.
    pub(super) fn position(&self, id: ShortId) -> Option<u64> {
        let at = self.lower_bound(id);
        self.0.get(at).is_some_and(|row| row.id == id).then_some(at as u64)
    }

    /// The places of a chunk of this length.
    pub(super) fn find(&self, id: ShortId, len: u32) -> Cow<'_, [IndexRow]> {
        let rest = self.0.get(self.lower_bound(id)..).unwrap_or_default();
        let count = rest.iter().take_while(|row| row.id == id).count();
        let rows = rest.get(..count).unwrap_or_default();
        if rows.len() <= PLACES_MAX && rows.iter().all(|row| row.len == len) {
            return Cow::Borrowed(rows);
        }
        Cow::Owned(rows.iter().filter(|row| row.len == len).take(PLACES_MAX).copied().collect())
    }

    // Identities are uniform, so the place of one can be guessed: a few steps instead of twenty.
    fn lower_bound(&self, id: ShortId) -> usize {
        let (mut low, mut high) = (0_usize, self.0.len());
        let mut bounds = (0_u128, u128::MAX);
        for _ in 0..8 {
            if high.saturating_sub(low) < 32 {
                break;
            }
            let span = (bounds.1.saturating_sub(bounds.0) >> 64).max(1);
            let part = id.0.saturating_sub(bounds.0) >> 64;
            let width = (high - low) as u128;
            let guess = low
                .saturating_add(usize::try_from(part.saturating_mul(width) / span).unwrap_or(0))
                .min(high - 1);
            let Some(row) = self.0.get(guess) else { break };
            if row.id < id {
                low = guess + 1;
                bounds.0 = row.id.0;
            } else {
                high = guess;
                bounds.1 = row.id.0;
            }
        }
        let slice = self.0.get(low..high).unwrap_or_default();
        low.saturating_add(slice.partition_point(|row| row.id < id))
    }
}
