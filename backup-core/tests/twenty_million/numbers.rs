//! What the repository has, as numbers: where each chunk stands and which snapshots need it. Nothing of it is held.
//!
//! Packs and chunks are in the proportion that `repository/index.rs` reckons with, 3 million to 100 million. Of one pack in
//! fifty there is another one with the same chunks, as two writers leave them that store the same at once. What is needed
//! together is a run of chunks that does not end where packs do. Six runs of ten are in every snapshot since they came, two in
//! two snapshots only, two in none.

use std::ops::Range;

use backup_core::ChunkId;
use backup_core::format::chunks::ChunkRef;

/// Snapshots, each with runs of its own.
pub(super) const SNAPSHOTS: u64 = 20;
/// Of these the first ones are forgotten.
pub(super) const FORGOTTEN: u64 = 10;
/// Chunks of one run: no whole number of packs.
pub(super) const RUN_CHUNKS: u64 = 990;
/// Of so many packs one has a twin.
const TWINS: u64 = 50;

/// Who needs a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// Every snapshot since it came.
    Always,
    /// The snapshot it came with and the next one.
    Briefly,
    Never,
}

/// All of it, by the number of chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) chunks: u64,
}

impl Numbers {
    /// Packs, with twins.
    pub(super) fn packs(self) -> u64 {
        self.singles() + self.singles().div_ceil(TWINS)
    }

    /// Packs without twins.
    fn singles(self) -> u64 {
        self.chunks * 3 / 100
    }

    /// The pack, and the one with the same chunks if there is one.
    pub(super) fn twins(self, pack: u64) -> impl Iterator<Item = u64> {
        let first = self.first_of_twins(pack);
        let second = first.is_multiple_of(TWINS).then(|| self.singles() + first / TWINS);
        [first].into_iter().chain(second)
    }

    fn first_of_twins(self, pack: u64) -> u64 {
        if pack < self.singles() { pack } else { (pack - self.singles()) * TWINS }
    }

    /// The chunks in a pack.
    pub(super) fn chunks_of(self, pack: u64) -> Range<u64> {
        let pack = self.first_of_twins(pack);
        pack * 100 / 3..(pack + 1) * 100 / 3
    }

    /// Runs of chunks; what is left behind the last one nobody needs.
    pub(super) fn runs(self) -> u64 {
        self.chunks / RUN_CHUNKS
    }

    /// The snapshot that a run came with.
    pub(super) fn snapshot_of(self, run: u64) -> u64 {
        run * SNAPSHOTS / self.runs()
    }

    /// The snapshot that a pack came with.
    pub(super) fn snapshot_of_pack(self, pack: u64) -> u64 {
        pack * SNAPSHOTS / self.packs()
    }

    /// Whether a pack holds anything that the snapshots need which are not forgotten.
    pub(super) fn is_needed(self, pack: u64) -> bool {
        self.chunks_of(pack).any(|chunk| {
            let run = chunk / RUN_CHUNKS;
            run < self.runs()
                && match needed(run) {
                    Needed::Always => true,
                    Needed::Briefly => self.snapshot_of(run) + 1 >= FORGOTTEN,
                    Needed::Never => false,
                }
        })
    }
}

/// Who needs a run.
pub(super) fn needed(run: u64) -> Needed {
    match run % 10 {
        0..6 => Needed::Always,
        6..8 => Needed::Briefly,
        _ => Needed::Never,
    }
}

/// A chunk: half a mebibyte, as they are on average.
pub(super) fn chunk(number: u64) -> ChunkRef {
    let id = ChunkId(blake3::hash(&number.to_le_bytes()).into());
    ChunkRef { id, len: 400_000 + (number * 7919 % 200_000) as u32 }
}

/// The name of a pack of content.
pub(super) fn digest(pack: u64) -> [u8; 32] {
    blake3::keyed_hash(&[7; 32], &pack.to_le_bytes()).into()
}
