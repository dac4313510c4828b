//! The table of known chunks that the workers of a backup share.
//!
//! It is the index, and what this run has stored since. Of the latter so many are in memory as half of
//! [`Resources::index_bytes`](crate::Resources::index_bytes) allows, a million unless told otherwise; when there are more,
//! they go to a scratch file as a sorted run with a filter in front, of which 2 bytes a chunk stay in memory. Two runs of
//! one size become one, so that there are few to ask: seven for a hundred million chunks.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use super::index::{Bits, Index, SpilledRows};
use super::merge::Merge;
use crate::format::segment::IndexRow;
use crate::resources::Resources;
use crate::{Result, ShortId};

/// Shards of the table: contention is a matter of a few nanoseconds then.
const SHARDS: usize = 64;
/// Memory of a chunk in the table: it has room for up to twice as many as are in it.
const CHUNK_BYTES: usize = 64;

/// What is stored already, in the repository or by this run.
#[derive(Debug)]
pub(crate) struct KnownChunks {
    index: Arc<Index>,
    /// Packs that count as absent.
    barred: Arc<Bits>,
    scratch: Arc<Path>,
    fresh: Vec<Mutex<Shard>>,
    fresh_count: AtomicUsize,
    fresh_max: usize,
    /// Held for reading by whoever adds to `fresh`, so that nothing moves meanwhile.
    runs: RwLock<Vec<Run>>,
}

type Shard = HashSet<u128, BuildHasherDefault<IdHasher>>;

/// Chunks that were in `fresh`.
#[derive(Debug)]
struct Run {
    /// It is made of two to the power of this many.
    level: u32,
    rows: SpilledRows,
}

impl KnownChunks {
    pub(crate) fn new(index: Arc<Index>, barred: Arc<Bits>, resources: &Resources) -> Self {
        Self {
            index,
            barred,
            scratch: resources.scratch_directory().into(),
            fresh: (0..SHARDS).map(|_| Mutex::default()).collect(),
            fresh_count: AtomicUsize::new(0),
            fresh_max: resources.index_bytes() / CHUNK_BYTES,
            runs: RwLock::default(),
        }
    }

    /// Whether the caller must store the chunk: true for exactly one caller of each new chunk. May block.
    pub(crate) fn claim(&self, id: ShortId, len: u32) -> Result<bool> {
        if self.index.contains(id, len, &self.barred)? {
            return Ok(false);
        }
        // The length goes in, so that two chunks of one short identity cannot stand for each other.
        let key = id.0 ^ u128::from(len);
        let is_new = {
            let runs = self.runs.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            for run in runs.iter() {
                if !run.rows.find(ShortId(key), 0)?.is_empty() {
                    return Ok(false);
                }
            }
            let shard = usize::try_from(key >> 122).unwrap_or(0);
            let Some(shard) = self.fresh.get(shard) else { return Ok(true) };
            shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(key)
        };
        if is_new && self.fresh_count.fetch_add(1, Ordering::Relaxed) >= self.fresh_max {
            self.spill()?;
        }
        Ok(is_new)
    }

    /// Whether a chunk of the parent is still there.
    pub(crate) fn in_repository(&self, id: ShortId, len: u32) -> Result<bool> {
        self.index.contains(id, len, &self.barred)
    }

    fn spill(&self) -> Result<()> {
        let mut runs = self.runs.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.fresh_count.load(Ordering::Relaxed) < self.fresh_max {
            // Another worker did it.
            return Ok(());
        }
        let count = self.fresh_count.swap(0, Ordering::Relaxed);
        // Shards are ranges of keys, so one after the other they are sorted.
        let keys = self.fresh.iter().flat_map(|shard| {
            let shard = std::mem::take(&mut *shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
            let mut keys: Vec<u128> = shard.into_iter().collect();
            keys.sort_unstable();
            keys
        });
        let rows = keys.map(|key| Ok(IndexRow { id: ShortId(key), pack: 0, frame: 0, offset: 0, len: 0 }));
        let rows = SpilledRows::write(rows, count as u64, &self.scratch)?;
        runs.push(Run { level: 0, rows });
        while let [.., a, b] = &runs[..]
            && a.level == b.level
        {
            let count = a.rows.count().saturating_add(b.rows.count());
            let merged = Merge::new(vec![a.rows.iter(), b.rows.iter()], |row: &IndexRow| row.id)?;
            let run = Run { level: a.level + 1, rows: SpilledRows::write(merged, count, &self.scratch)? };
            let others = runs.len().saturating_sub(2);
            runs.truncate(others);
            runs.push(run);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ShortId {
        let hash = blake3::hash(&number.to_le_bytes());
        ShortId(u128::from_be_bytes(hash.as_bytes()[..16].try_into().unwrap()))
    }

    #[test]
    fn exactly_one_caller_stores_each_chunk_however_many_there_are() {
        let resources = Resources::new().with_index_bytes(0);
        let index = Arc::new(Index::empty().unwrap());
        let known = KnownChunks::new(index, Arc::default(), &resources);
        let stored = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (known, stored) = (&known, &stored);
                scope.spawn(move || {
                    for number in 0..10_000 {
                        // Each in its own order, and each chunk in two lengths.
                        let number = (number * [1, 3, 7, 9][worker] + worker as u64 * 777) % 10_000;
                        for len in [5, 6] {
                            let claimed = known.claim(id(number), len).unwrap();
                            stored.fetch_add(usize::from(claimed), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(stored.into_inner(), 20_000);
        let runs = known.runs.read().unwrap();
        assert!((2..8).contains(&runs.len()), "{} runs", runs.len());
        let held: usize = known.fresh.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= known.fresh_max + 4, "{held} in memory");
        drop(runs);
        assert!((0..10_000).all(|number| !known.claim(id(number), 5).unwrap()));
        assert!(known.claim(id(0), 7).unwrap());
    }

    #[test]
    fn what_cannot_be_written_fails_the_run() {
        let resources = Resources::new().with_index_bytes(0).with_scratch_directory("/nonexistent/scratch");
        let known = KnownChunks::new(Arc::new(Index::empty().unwrap()), Arc::default(), &resources);
        let error = (0..1000).find_map(|number| known.claim(id(number), 1).err()).unwrap();
        assert!(error.to_string().contains("/nonexistent/scratch"), "{error}");
    }
}
