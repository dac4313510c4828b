//! Merging sorted runs.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::Result;

/// The items of several sorted iterators as one sorted iterator. Of equal items those of an earlier run come first.
/// After an error nothing further may be asked.
#[derive(Debug)]
pub(crate) struct Merge<R, T, K: Ord> {
    runs: Vec<R>,
    heads: BinaryHeap<Reverse<Head<T, K>>>,
    key: fn(&T) -> K,
}

impl<R: Iterator<Item = Result<T>>, T, K: Ord> Merge<R, T, K> {
    /// Merges `runs`, each sorted by `key`. Reads the first item of each.
    pub(crate) fn new(mut runs: Vec<R>, key: fn(&T) -> K) -> Result<Self> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            if let Some(item) = run.next() {
                let item = item?;
                heads.push(Reverse(Head { key: key(&item), run: number, item }));
            }
        }
        Ok(Self { runs, heads, key })
    }
}

impl<R: Iterator<Item = Result<T>>, T, K: Ord> Iterator for Merge<R, T, K> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        // Replacing the first is half the work of taking it out and putting the next one in.
        let mut first = self.heads.peek_mut()?;
        let number = first.0.run;
        match self.runs.get_mut(number).and_then(R::next) {
            Some(Ok(item)) => {
                let next = Head { key: (self.key)(&item), run: number, item };
                Some(Ok(std::mem::replace(&mut first.0, next).item))
            }
            Some(Err(error)) => Some(Err(error)),
            None => Some(Ok(PeekMut::pop(first).0.item)),
        }
    }
}

#[derive(Debug)]
struct Head<T, K> {
    key: K,
    run: usize,
    item: T,
}

impl<T, K: Ord> Ord for Head<T, K> {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.key, self.run).cmp(&(&other.key, other.run))
    }
}

impl<T, K: Ord> PartialOrd for Head<T, K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T, K: Ord> PartialEq for Head<T, K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T, K: Ord> Eq for Head<T, K> {}
