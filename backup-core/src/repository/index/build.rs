//! Building an index from rows and packs in any order, within the memory that it may take.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::bits::PackStates;
use super::packs::PackTable;
use super::resident::ResidentRows;
use super::sorter::{Order, RowSorter};
use super::spilled::SpilledRows;
use super::{Index, Rows};
use crate::format::segment::{IndexRow, PackRecord};
use crate::resources::Resources;
use crate::{ObjectKey, Result};

/// An index in the making. Its calls block where it writes to scratch files.
#[derive(Debug)]
pub(super) struct IndexBuilder {
    bytes_max: usize,
    scratch: Arc<Path>,
    spilled: bool,
    rows: RowSorter,
    packs: PackTable,
    states: PackStates,
    segments: BTreeSet<ObjectKey>,
    unreadable: Vec<(ObjectKey, String)>,
}

impl IndexBuilder {
    /// One without rows and packs.
    pub(super) fn new(resources: &Resources) -> Self {
        let scratch: Arc<Path> = resources.scratch_directory().into();
        let bytes_max = resources.index_bytes();
        Self {
            bytes_max,
            spilled: false,
            rows: RowSorter::new(Order::Chunk, bytes_max, scratch.clone()),
            scratch,
            packs: PackTable::default(),
            states: PackStates::default(),
            segments: BTreeSet::new(),
            unreadable: Vec::new(),
        }
    }

    /// One with what an index has: the index itself if nobody else holds it, otherwise a copy.
    pub(super) fn extend(index: Arc<Index>, resources: &Resources) -> Result<Self> {
        let Index { rows, packs, states, segments, unreadable } = match Arc::try_unwrap(index) {
            Ok(index) => index,
            Err(shared) => Index {
                rows: match &shared.rows {
                    Rows::Resident(rows) => Rows::Resident(rows.clone()),
                    Rows::Spilled(rows) => Rows::Spilled(rows.without_lookup()),
                },
                packs: shared.packs.copy()?,
                states: shared.states.copy(),
                segments: shared.segments.clone(),
                unreadable: shared.unreadable.clone(),
            },
        };
        let mut builder = Self { packs, states, segments, unreadable, ..Self::new(resources) };
        match rows {
            Rows::Resident(rows) => {
                builder.rows.push_all(rows.into_rows())?;
                builder.spill_if_large()?;
            }
            Rows::Spilled(rows) => {
                let run = rows.iter();
                // Its filter goes before the new one comes.
                drop(rows);
                builder.spill()?;
                builder.rows.push_run(run)?;
            }
        }
        Ok(builder)
    }

    /// Adds a pack, or notes what else is known of it, and returns its number.
    pub(super) fn push_pack(&mut self, record: PackRecord, committed: bool, orphan: bool) -> Result<u32> {
        let data = record.object_type == crate::transform::ObjectType::Data;
        let number = match self.packs.number_of(&record.digest)? {
            Some(number) => number,
            None => {
                let number = self.packs.push(record)?;
                self.states.reserve(number);
                if orphan {
                    self.states.orphan.insert(number);
                }
                if data {
                    self.states.data.insert(number);
                }
                number
            }
        };
        if committed {
            self.states.committed.insert(number);
        }
        self.spill_if_large()?;
        Ok(number)
    }

    /// Adds a row, whose pack is numbered as [`push_pack`](Self::push_pack) said.
    pub(super) fn push_row(&mut self, row: IndexRow) -> Result<()> {
        self.rows.push(row)?;
        self.spill_if_large()
    }

    pub(super) fn number_of(&self, digest: &[u8; 32]) -> Result<Option<u32>> {
        self.packs.number_of(digest)
    }

    pub(super) fn segments_mut(&mut self) -> &mut BTreeSet<ObjectKey> {
        &mut self.segments
    }

    pub(super) fn unreadable_mut(&mut self) -> &mut Vec<(ObjectKey, String)> {
        &mut self.unreadable
    }

    /// Sorts what was pushed. Takes long where there is much.
    pub(super) fn finish(mut self) -> Result<Index> {
        self.packs.finish()?;
        let rows = if !self.spilled
            && let Some(rows) = self.rows.take_resident()
        {
            Rows::Resident(ResidentRows::new(rows))
        } else {
            let count = self.rows.count();
            Rows::Spilled(SpilledRows::write(self.rows.finish()?, count, &self.scratch)?)
        };
        let Self { packs, states, segments, unreadable, .. } = self;
        let index = Index { rows, packs, states, segments, unreadable };
        tracing::debug!(
            packs = index.pack_count(),
            bytes = index.bytes(),
            spilled = index.is_spilled(),
            "the index is loaded"
        );
        Ok(index)
    }

    fn spill_if_large(&mut self) -> Result<()> {
        let large = self.rows.bytes().saturating_add(self.packs.bytes()) >= self.bytes_max;
        if large && !self.spilled { self.spill() } else { Ok(()) }
    }

    // Rows and packs go together, so that there are two forms of an index and not four.
    fn spill(&mut self) -> Result<()> {
        self.spilled = true;
        self.packs.spill(&self.scratch)?;
        self.rows.write_run()
    }
}
