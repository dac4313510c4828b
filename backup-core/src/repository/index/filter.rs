//! A blocked Bloom filter over the chunks of a spilled index, so that a chunk that is not there costs no read.
//!
//! Each chunk sets 6 bits in one block of 64 bytes, a line of the processor's cache
//! (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007). With 10 bits a row about one chunk in
//! eighty that is not there is looked for in vain. It is filled row by row and needs no memory beside its own, unlike
//! filters that are built from all keys at once.

use crate::ShortId;

/// Bits a row.
const ROW_BITS: u64 = 10;
const BLOCK_BITS: u64 = 512;
const BLOCK_WORDS: u64 = BLOCK_BITS / 64;
/// Bits that a chunk sets.
const PROBES: u32 = 6;

/// Says of a chunk that it is not there, or that it may be.
#[derive(Debug)]
pub(super) struct Filter {
    words: Vec<u64>,
    blocks: u64,
}

impl Filter {
    /// A filter for so many rows.
    pub(super) fn new(rows: u64) -> Self {
        let blocks = rows.saturating_mul(ROW_BITS).div_ceil(BLOCK_BITS).max(1);
        let words = usize::try_from(blocks.saturating_mul(BLOCK_WORDS)).unwrap_or(usize::MAX);
        Self { words: vec![0; words], blocks }
    }

    pub(super) fn insert(&mut self, id: ShortId) {
        for (word, mask) in probes(self.blocks, id) {
            if let Some(word) = self.words.get_mut(word) {
                *word |= mask;
            }
        }
    }

    pub(super) fn may_contain(&self, id: ShortId) -> bool {
        probes(self.blocks, id).all(|(word, mask)| self.words.get(word).is_some_and(|word| word & mask != 0))
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.words.capacity().saturating_mul(8)
    }
}

// Identities are uniform: the upper half chooses the block, so that sorted rows fill one block after the other, the lower
// half the bits.
fn probes(blocks: u64, id: ShortId) -> impl Iterator<Item = (usize, u64)> {
    let upper = id.0 >> 64;
    let block = ((upper * u128::from(blocks)) >> 64) as u64;
    let lower = id.0 as u64;
    (0..PROBES).map(move |probe| {
        let bit = (lower >> (probe * 9)) % BLOCK_BITS;
        let word = block * BLOCK_WORDS + bit / 64;
        (usize::try_from(word).unwrap_or(usize::MAX), 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u64, number: u64) -> ShortId {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let hash = blake3::keyed_hash(&key, &number.to_le_bytes());
        ShortId(u128::from_be_bytes(hash.as_bytes()[..16].try_into().unwrap()))
    }

    #[test]
    fn what_is_there_is_never_denied_and_what_is_not_there_nearly_always() {
        let mut filter = Filter::new(100_000);
        (0..100_000).for_each(|number| filter.insert(id(1, number)));
        assert!((0..100_000).all(|number| filter.may_contain(id(1, number))));
        let wrong = (0..100_000).filter(|number| filter.may_contain(id(2, *number))).count();
        assert!(wrong < 2000, "{wrong} of 100,000");
        assert!(filter.bytes() <= 100_000 * 10 / 8 + 64);
    }

    #[test]
    fn a_filter_of_nothing_denies_everything() {
        assert!(!Filter::new(0).may_contain(ShortId(u128::MAX)));
        let mut filter = Filter::new(1);
        filter.insert(ShortId(u128::MAX));
        assert!(filter.may_contain(ShortId(u128::MAX)));
    }
}
