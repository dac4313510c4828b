//! The rows of an index in the order of packs, for what reads packs from front to back or names them again.

use std::iter::Peekable;

use super::Index;
use super::sorter::{Order, RowSorter, SortedRows};
use crate::format::segment::IndexRow;
use crate::resources::Resources;
use crate::{Result, limits};

/// Rows grouped by pack, packs ascending.
#[derive(Debug)]
pub(crate) struct RowsByPack(Peekable<SortedRows>);

impl Index {
    /// The rows of the packs that `wanted` chooses. Takes long where there is much: not for async code.
    pub(crate) fn rows_by_pack(
        &self,
        wanted: impl Fn(u32) -> bool,
        resources: &Resources,
    ) -> Result<RowsByPack> {
        // A quarter: the index itself is in memory, too.
        let bytes_max = resources.index_bytes() / 4;
        let mut sorter = RowSorter::new(Order::Pack, bytes_max, resources.scratch_directory().into());
        for row in self.rows() {
            let row = row?;
            if wanted(row.pack) {
                sorter.push(row)?;
            }
        }
        Ok(RowsByPack(sorter.finish()?.peekable()))
    }
}

impl RowsByPack {
    /// The next pack and its rows.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Vec<IndexRow>)>> {
        let pack = match self.0.peek() {
            None => return Ok(None),
            Some(Ok(row)) => row.pack,
            Some(Err(_)) => return self.0.next().transpose().map(|_| None),
        };
        Ok(Some((pack, self.of(pack)?)))
    }

    /// The rows of a pack. Packs must be asked for in ascending order; rows of those passed over are gone.
    pub(crate) fn of(&mut self, pack: u32) -> Result<Vec<IndexRow>> {
        let mut rows = Vec::new();
        while let Some(row) = self.0.next_if(|row| row.as_ref().map_or(true, |row| row.pack <= pack)) {
            let row = row?;
            // A pack has no more chunks than that, whatever segments claim.
            if row.pack == pack && rows.len() < limits::PACK_CHUNKS_MAX {
                rows.push(row);
            }
        }
        Ok(rows)
    }
}
