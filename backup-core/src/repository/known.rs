//! The table of known chunks that the workers of a backup share.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex};

use super::index::Index;
use crate::{Result, ShortId};

/// Shards of the table: contention is a matter of a few nanoseconds then.
const SHARDS: usize = 64;

/// What is stored already, in the repository or by this run.
#[derive(Debug)]
pub(crate) struct KnownChunks {
    index: Arc<Index>,
    fresh: Vec<Mutex<HashSet<u128, BuildHasherDefault<IdHasher>>>>,
}

impl KnownChunks {
    pub(crate) fn new(index: Arc<Index>) -> Self {
        Self { index, fresh: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Whether the caller must store the chunk: true for exactly one caller of each new chunk.
    pub(crate) fn claim(&self, id: ShortId, len: u32) -> Result<bool> {
        if self.index.contains(id, len)? {
            return Ok(false);
        }
        // The length goes in, so that two chunks of one short identity cannot stand for each other.
        let key = id.0 ^ u128::from(len);
        let shard = usize::try_from(id.0 >> 122).unwrap_or(0);
        let Some(shard) = self.fresh.get(shard) else { return Ok(true) };
        Ok(shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(key))
    }

    /// Whether a chunk of the parent is still there.
    pub(crate) fn in_repository(&self, id: ShortId, len: u32) -> Result<bool> {
        self.index.contains(id, len)
    }
}

/// Identities are hashes already.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = (value ^ (value >> 64)) as u64;
    }
}
