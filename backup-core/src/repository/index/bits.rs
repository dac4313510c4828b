//! One bit a pack.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of pack numbers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.get(word(number)).is_some_and(|word| word & mask(number) != 0)
    }

    pub(crate) fn insert(&mut self, number: u32) {
        let at = word(number);
        if self.0.len() <= at {
            self.0.resize(at.saturating_add(1), 0);
        }
        if let Some(word) = self.0.get_mut(at) {
            *word |= mask(number);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The numbers in it, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let words = (0_u32..).zip(&self.0);
        words.flat_map(|(at, word)| {
            let first = at.saturating_mul(u64::BITS);
            (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first.saturating_add(bit))
        })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity().saturating_mul(8)
    }
}

/// What is known of each pack beside its record.
#[derive(Debug, Default)]
pub(super) struct PackStates {
    /// A committed session has named it; others may be used only by naming them again.
    pub(super) committed: Bits,
    /// No segment names it at all.
    pub(super) orphan: Bits,
    /// It holds content, not pages.
    pub(super) data: Bits,
    /// This process has used it.
    used: Vec<AtomicU64>,
}

impl PackStates {
    /// The same without what was used.
    pub(super) fn copy(&self) -> Self {
        let Self { committed, orphan, data, used } = self;
        Self {
            committed: committed.clone(),
            orphan: orphan.clone(),
            data: data.clone(),
            used: used.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Makes room for a pack.
    pub(super) fn reserve(&mut self, number: u32) {
        while self.used.len() <= word(number) {
            self.used.push(AtomicU64::new(0));
        }
    }

    pub(super) fn set_used(&self, number: u32) {
        if let Some(word) = self.used.get(word(number))
            // Most are set already, and workers need not take the line from each other.
            && word.load(Ordering::Relaxed) & mask(number) == 0
        {
            word.fetch_or(mask(number), Ordering::Relaxed);
        }
    }

    pub(super) fn is_used(&self, number: u32) -> bool {
        let word = self.used.get(word(number)).map_or(0, |word| word.load(Ordering::Relaxed));
        word & mask(number) != 0
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let sets = [&self.committed, &self.orphan, &self.data].map(Bits::bytes);
        sets.iter().sum::<usize>().saturating_add(self.used.capacity().saturating_mul(8))
    }
}

fn word(number: u32) -> usize {
    (number / 64) as usize
}

fn mask(number: u32) -> u64 {
    1 << (number % 64)
}
