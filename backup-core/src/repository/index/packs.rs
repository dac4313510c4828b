//! The packs of an index by number, and their numbers by name: in memory, or as records in a scratch file.

use std::path::Path;
use std::sync::Arc;

use hashbrown::HashTable;

use super::cache::Cache;
use super::pack::Pack;
use crate::format::control::SweptName;
use crate::format::segment::PackRecord;
use crate::repository::scratch::ScratchFile;
use crate::{Error, ErrorKind, Result};

/// Bytes of packs kept of those in a file. Opening a pack derives its key, so this saves more than reads.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Packs numbered in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct PackTable {
    numbers: HashTable<Tagged>,
    records: Records,
}

// Four bytes of a name instead of 32: what fits is compared with the record.
#[derive(Debug, Clone, Copy)]
struct Tagged {
    tag: u32,
    number: u32,
}

#[derive(Debug)]
enum Records {
    Resident { packs: Vec<Arc<Pack>>, bytes: usize },
    Spilled(PackFile),
}

#[derive(Debug)]
struct PackFile {
    /// Records as in an index segment: each begins with the pack's name.
    file: ScratchFile,
    offsets: Vec<u64>,
    cache: Cache<Arc<Pack>>,
}

impl PackTable {
    /// A table of its own with the same packs.
    pub(super) fn copy(&self) -> Result<Self> {
        let records = match &self.records {
            Records::Resident { packs, bytes } => Records::Resident { packs: packs.clone(), bytes: *bytes },
            Records::Spilled(packs) => Records::Spilled(PackFile {
                file: packs.file.copy()?,
                offsets: packs.offsets.clone(),
                cache: Cache::new(CACHE_BYTES),
            }),
        };
        Ok(Self { numbers: self.numbers.clone(), records })
    }

    pub(super) fn len(&self) -> u32 {
        let len = match &self.records {
            Records::Resident { packs, .. } => packs.len(),
            Records::Spilled(packs) => packs.offsets.len(),
        };
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let numbers = self.numbers.allocation_size();
        numbers.saturating_add(match &self.records {
            Records::Resident { bytes, .. } => *bytes,
            Records::Spilled(packs) => {
                packs.offsets.capacity().saturating_mul(8).saturating_add(packs.cache.bytes())
            }
        })
    }

    /// The pack of a number that a row names.
    pub(super) fn get(&self, number: u32) -> Result<Arc<Pack>> {
        match &self.records {
            Records::Resident { packs, .. } => packs.get(number as usize).cloned().ok_or_else(gone),
            Records::Spilled(packs) => packs.get(number),
        }
    }

    /// The numbers of the packs of this name.
    pub(super) fn numbers_of(&self, name: SweptName) -> Result<Vec<u32>> {
        let mut numbers = Vec::new();
        let tag = tag_of(&name.0);
        for candidate in self.numbers.iter_hash(hash_of(tag)) {
            if candidate.tag == tag && SweptName::of_pack(&self.digest(candidate.number)?) == name {
                numbers.push(candidate.number);
            }
        }
        Ok(numbers)
    }

    /// The number of the pack of this name.
    pub(super) fn number_of(&self, digest: &[u8; 32]) -> Result<Option<u32>> {
        let tag = tag_of(digest);
        for candidate in self.numbers.iter_hash(hash_of(tag)) {
            if candidate.tag == tag && self.digest(candidate.number)? == *digest {
                return Ok(Some(candidate.number));
            }
        }
        Ok(None)
    }

    /// Adds a pack that is not in the table.
    pub(super) fn push(&mut self, record: PackRecord) -> Result<u32> {
        let number = self.len();
        if number == u32::MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "the index has too many packs"));
        }
        let tag = tag_of(&record.digest);
        match &mut self.records {
            Records::Resident { packs, bytes } => {
                *bytes = bytes.saturating_add(Pack::bytes(&record));
                packs.push(Arc::new(Pack::new(record)?));
            }
            Records::Spilled(packs) => packs.push(&record)?,
        }
        self.numbers.insert_unique(hash_of(tag), Tagged { tag, number }, |known| hash_of(known.tag));
        Ok(number)
    }

    /// Moves the records to a file in `scratch`.
    pub(super) fn spill(&mut self, scratch: &Arc<Path>) -> Result<()> {
        if let Records::Resident { packs, .. } = &self.records {
            let mut spilled = PackFile {
                file: ScratchFile::create(scratch)?,
                offsets: Vec::new(),
                cache: Cache::new(CACHE_BYTES),
            };
            packs.iter().try_for_each(|pack| spilled.push(&pack.record))?;
            self.records = Records::Spilled(spilled);
        }
        Ok(())
    }

    /// Gives back memory that only filling needed.
    pub(super) fn finish(&mut self) -> Result<()> {
        match &mut self.records {
            Records::Resident { .. } => Ok(()),
            Records::Spilled(packs) => packs.file.flush(),
        }
    }

    /// The name of a pack.
    pub(super) fn digest(&self, number: u32) -> Result<[u8; 32]> {
        match &self.records {
            Records::Resident { packs, .. } => {
                packs.get(number as usize).map(|pack| pack.record.digest).ok_or_else(gone)
            }
            Records::Spilled(packs) => {
                let mut digest = [0; 32];
                let offset = packs.offsets.get(number as usize).ok_or_else(gone)?;
                packs.file.read_at(&mut digest, *offset)?;
                Ok(digest)
            }
        }
    }
}

impl PackFile {
    fn push(&mut self, record: &PackRecord) -> Result<()> {
        if self.offsets.len() == self.offsets.capacity() {
            // In small steps: the table of millions of packs has no twin beside it.
            self.offsets.reserve_exact((self.offsets.len() / 8).max(1024));
        }
        self.offsets.push(self.file.len());
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.file.append(&bytes)
    }

    fn get(&self, number: u32) -> Result<Arc<Pack>> {
        self.cache.get_or_read(u64::from(number), || {
            let start = *self.offsets.get(number as usize).ok_or_else(gone)?;
            let next = self.offsets.get((number as usize).saturating_add(1)).copied();
            let len = next.unwrap_or(self.file.len()).saturating_sub(start);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            self.file.read_at(&mut bytes, start)?;
            let mut records = PackRecord::decode_all(&bytes).map_err(changed)?;
            let record = records.pop().ok_or_else(gone)?;
            let bytes = Pack::bytes(&record);
            Ok((Arc::new(Pack::new(record)?), bytes))
        })
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::Resident { packs: Vec::new(), bytes: 0 }
    }
}

fn tag_of(name: &[u8]) -> u32 {
    u32::from_le_bytes(name.first_chunk().copied().unwrap_or_default())
}

// The table takes its place from the lower bits and a mark from the upper ones.
fn hash_of(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

fn gone() -> Error {
    Error::internal("a row names a pack that is gone")
}

// Not the repository's damage.
fn changed(error: Error) -> Error {
    Error::new(ErrorKind::Io, "a temporary file of the index does not hold what was written to it")
        .with_source(error)
}
