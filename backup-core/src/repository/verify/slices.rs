//! Parts of the packs that a verification can take one after the other: by the first byte of their names.

use serde::{Deserialize, Serialize};

/// Some of the 256 parts that all packs fall into by the first byte of their names, which are hashes: each holds about as many
/// as the others, now and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slices([u64; 4]);

impl Slices {
    /// How many there are.
    pub const COUNT: usize = 256;

    /// All of them.
    pub fn all() -> Self {
        Self([u64::MAX; 4])
    }

    /// Adds one.
    pub fn insert(&mut self, slice: u8) {
        if let Some(word) = self.0.get_mut(usize::from(slice >> 6)) {
            *word |= 1 << (slice & 63);
        }
    }

    /// Whether one is among them.
    pub fn contains(&self, slice: u8) -> bool {
        self.0.get(usize::from(slice >> 6)).is_some_and(|word| word & (1 << (slice & 63)) != 0)
    }

    /// Those among them.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|slice| self.contains(*slice))
    }

    /// How many are among them.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

impl FromIterator<u8> for Slices {
    fn from_iter<I: IntoIterator<Item = u8>>(slices: I) -> Self {
        let mut all = Self::default();
        slices.into_iter().for_each(|slice| all.insert(slice));
        all
    }
}
