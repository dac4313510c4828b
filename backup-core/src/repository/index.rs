//! Which chunk is where, as far as this process knows.
//!
//! An index is immutable once it is built; a refreshed index is a new one. It has two forms that answer the same:
//!
//! - **In memory** as long as rows and packs take at most [`Resources::index_bytes`](crate::Resources::index_bytes), 64 MiB
//!   unless told otherwise, which is one to two million chunks: rows sorted by chunk, searched by interpolation.
//! - **Spilled** beyond that: rows are sorted externally into a scratch file of 32 bytes a row and read by position, a page
//!   of 128 rows at a time; the packs' records stand in another one. Nothing is mapped into memory.
//!
//! What 100 million chunks in 3 million packs of the second form keep in memory:
//!
//! | | | MiB |
//! |---|---|---|
//! | filter | 10 bits a row | 119.2 |
//! | fences | 8 bytes a page of 128 rows | 6.0 |
//! | where packs' records stand | 8 bytes a pack, up to an eighth of that unused | 25.8 |
//! | numbers of packs by name | 9 bytes a slot, 4,194,304 slots | 36.0 |
//! | committed, orphan, content, used | 4 bits a pack, up to half of that unused | 2.9 |
//! | caches of pages and packs | at most | 9.0 |
//! | together | | 198.9 |
//!
//! While it is built there are, before the filter is made, up to 64 MiB of rows instead of it, 32 MiB of segments fetched
//! ahead and the plaintext of one (about 4 MiB, at most 64), and afterwards buffers of 8 MiB for merging. The scratch files
//! take 3.2 GB and 1 to 2 GB, and another 3.2 GB while rows are sorted. A chunk that is not there is answered from the
//! filter; one that is there costs a read of 4 KiB, mostly from the system's page cache.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::format::control::SweptName;
use crate::format::segment::IndexRow;
use crate::resources::Resources;
use crate::{Error, ErrorKind, ObjectKey, ObjectMeta, Result, ShortId};

mod bits;
mod build;
mod by_pack;
mod cache;
mod filter;
mod load;
mod pack;
mod packs;
mod resident;
mod scan;
mod sorter;
mod spilled;
#[cfg(test)]
mod tests;

pub(crate) use bits::Bits;
pub(crate) use load::{LISTINGS_MAX, Segment, Which};
pub(crate) use pack::Pack;
pub(crate) use scan::{read_directory, rows_of};
pub(crate) use spilled::SpilledRows;

use bits::PackStates;
use packs::PackTable;
use resident::ResidentRows;
use sorter::RowReader;

/// Places of one chunk that are looked at; more serve nobody, whatever segments claim.
pub(crate) const PLACES_MAX: usize = 256;

/// A multimap from chunks to places.
///
/// Every call may fail: where the index is spilled, and its file cannot be read, nothing may be said to be missing.
#[derive(Debug)]
pub(crate) struct Index {
    rows: Rows,
    packs: PackTable,
    states: PackStates,
    /// The segments it was made from.
    pub(crate) segments: BTreeSet<ObjectKey>,
    /// Segments that could not be read, and why.
    pub(crate) unreadable: Vec<(ObjectKey, String)>,
}

#[derive(Debug)]
enum Rows {
    Resident(ResidentRows),
    Spilled(SpilledRows),
}

impl Index {
    /// One that knows nothing.
    pub(crate) fn empty() -> Result<Self> {
        build::IndexBuilder::new(&Resources::new()).finish()
    }

    /// Whether it was made from just these segments.
    pub(crate) fn is_of(&self, listed: &[ObjectMeta]) -> bool {
        self.segments.len().saturating_add(self.unreadable.len()) == listed.len()
            && listed.iter().all(|meta| {
                self.segments.contains(&meta.key) || self.unreadable.iter().any(|(key, _)| *key == meta.key)
            })
    }

    /// The places of a chunk of this length.
    pub(crate) fn find(&self, id: ShortId, len: u32) -> Result<Cow<'_, [IndexRow]>> {
        match &self.rows {
            Rows::Resident(rows) => Ok(rows.find(id, len)),
            Rows::Spilled(rows) => rows.find(id, len).map(Cow::Owned),
        }
    }

    /// Whether a chunk of this length has a place in a pack that is not barred; notes that the pack is used.
    pub(crate) fn contains(&self, id: ShortId, len: u32, barred: &Bits) -> Result<bool> {
        let rows = self.find(id, len)?;
        let usable = rows.iter().map(|row| row.pack).filter(|pack| !barred.contains(*pack));
        // A committed place needs nothing further.
        let best = usable.max_by_key(|pack| self.states.committed.contains(*pack));
        let Some(pack) = best else { return Ok(false) };
        self.states.set_used(pack);
        Ok(true)
    }

    /// Notes that a pack is used.
    pub(crate) fn set_used(&self, pack: u32) {
        self.states.set_used(pack);
    }

    /// The packs that were used, by name.
    pub(crate) fn used(&self) -> Result<Vec<[u8; 32]>> {
        let used = (0..self.pack_count()).filter(|number| self.states.is_used(*number));
        used.map(|number| self.packs.digest(number)).collect()
    }

    /// The packs that must be named again by whoever used this index: used ones that no committed session has named,
    /// and those that no segment names at all, unless they are barred.
    pub(crate) fn adopted(&self, barred: &Bits) -> Bits {
        let mut adopted = Bits::default();
        for number in 0..self.pack_count() {
            let named = self.states.committed.contains(number) || barred.contains(number);
            if !named && (self.states.orphan.contains(number) || self.states.is_used(number)) {
                adopted.insert(number);
            }
        }
        adopted
    }

    /// Where the rows of a chunk begin among all rows, counted from 0; none if it has no place.
    pub(crate) fn position(&self, id: ShortId) -> Result<Option<u64>> {
        match &self.rows {
            Rows::Resident(rows) => Ok(rows.position(id)),
            Rows::Spilled(rows) => rows.position(id),
        }
    }

    /// The same as the number of a bit.
    pub(crate) fn bit(&self, id: ShortId) -> Result<Option<u32>> {
        let too_many = |_| {
            Error::new(ErrorKind::LimitExceeded, "an index of more than 2^32 rows is more than can be walked")
        };
        self.position(id)?.map(|at| u32::try_from(at).map_err(too_many)).transpose()
    }

    /// All rows, sorted by chunk. Takes long where there are many: not for async code.
    pub(crate) fn rows(&self) -> RowIter<'_> {
        match &self.rows {
            Rows::Resident(rows) => RowIter::Resident(rows.iter()),
            Rows::Spilled(rows) => RowIter::Spilled(rows.iter()),
        }
    }

    /// Packs are numbered from 0.
    pub(crate) fn pack_count(&self) -> u32 {
        self.packs.len()
    }

    /// The pack of a number that a row names.
    pub(crate) fn pack(&self, number: u32) -> Result<Arc<Pack>> {
        self.packs.get(number)
    }

    /// The number of a pack by its name.
    pub(crate) fn number_of(&self, digest: &[u8; 32]) -> Result<Option<u32>> {
        self.packs.number_of(digest)
    }

    /// The numbers of the packs of this name: one, unless names are forged.
    pub(crate) fn numbers_of(&self, name: SweptName) -> Result<Vec<u32>> {
        self.packs.numbers_of(name)
    }

    /// Whether a committed session has named a pack.
    pub(crate) fn is_committed(&self, pack: u32) -> bool {
        self.states.committed.contains(pack)
    }

    /// Whether a pack holds content, not pages.
    pub(crate) fn is_data(&self, pack: u32) -> bool {
        self.states.data.contains(pack)
    }

    /// Whether no segment names a pack.
    pub(crate) fn is_orphan(&self, pack: u32) -> bool {
        self.states.orphan.contains(pack)
    }

    /// Whether there are packs that no segment names.
    pub(crate) fn has_orphans(&self) -> bool {
        !self.states.orphan.is_empty()
    }

    /// Whether it is so large that no second one should stand beside it.
    pub(crate) fn is_spilled(&self) -> bool {
        matches!(self.rows, Rows::Spilled(_))
    }

    /// Bytes of memory that it holds, about.
    pub(crate) fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Rows::Resident(rows) => rows.bytes(),
            Rows::Spilled(rows) => rows.bytes(),
        };
        rows.saturating_add(self.packs.bytes()).saturating_add(self.states.bytes())
    }
}

/// The rows of an index in order.
#[derive(Debug)]
pub(crate) enum RowIter<'a> {
    Resident(std::slice::Iter<'a, IndexRow>),
    Spilled(RowReader),
}

impl Iterator for RowIter<'_> {
    type Item = Result<IndexRow>;

    fn next(&mut self) -> Option<Result<IndexRow>> {
        match self {
            Self::Resident(rows) => rows.next().map(|row| Ok(*row)),
            Self::Spilled(rows) => rows.next(),
        }
    }
}

/// Whether an error tells of one object and not of the store: the object can be set aside then. A repair removes segments
/// that are, so this is no place for doubt.
fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::LimitExceeded
    )
}

/// A header of another epoch is damage or another's: either way the object cannot be opened. A store's refusal to hand
/// out an object is neither.
fn not_ours(error: Error) -> Error {
    if error.kind() == ErrorKind::Denied { error.with_kind(ErrorKind::Corruption) } else { error }
}
