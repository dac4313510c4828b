//! Names that must not be relied upon.

use std::collections::HashSet;
use std::sync::Arc;

use crate::Result;
use crate::format::control::{Packed, SweptName};
use crate::repository::index::{Bits, Index};

/// What is condemned, what is swept, and what ever was swept: whoever writes treats it as if it were not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bars {
    /// Of collections that are not finished.
    now: HashSet<SweptName>,
    /// Of digests, each sorted.
    ever: Vec<Arc<Packed<16>>>,
}

impl Bars {
    pub(super) fn new(ever: Vec<Arc<Packed<16>>>) -> Self {
        Self { now: HashSet::new(), ever }
    }

    /// Takes what all digests say by now in place of what they said.
    pub(super) fn renew(&mut self, ever: Vec<Arc<Packed<16>>>) {
        self.ever = ever;
    }

    pub(in crate::repository) fn extend(&mut self, names: impl IntoIterator<Item = SweptName>) {
        self.now.extend(names);
    }

    pub(super) fn remove(&mut self, names: impl IntoIterator<Item = SweptName>) {
        for name in names {
            self.now.remove(&name);
        }
    }

    /// Whether a name is barred.
    pub(crate) fn contains(&self, name: SweptName) -> bool {
        self.now.contains(&name) || self.was_swept(name)
    }

    /// Whether a digest names it: then it is final, and what stands there may be deleted.
    pub(crate) fn was_swept(&self, name: SweptName) -> bool {
        self.ever.iter().any(|names| names.0.binary_search(&name.0).is_ok())
    }

    /// The packs of an index that are barred.
    pub(crate) fn packs(&self, index: &Index) -> Result<Bits> {
        let mut barred = Bits::default();
        let ever = self.ever.iter().flat_map(|names| names.0.iter().map(|name| SweptName(*name)));
        for name in self.now.iter().copied().chain(ever) {
            for number in index.numbers_of(name)? {
                barred.insert(number);
            }
        }
        Ok(barred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rescued_is_not_barred_and_what_is_digested_always_is() {
        let name = |byte| SweptName([byte; 16]);
        let mut bars = Bars::new(vec![Arc::new(Packed(vec![[1; 16], [3; 16]]))]);
        bars.extend([name(2), name(4)]);
        bars.remove([name(4), name(1)]);
        let barred: Vec<u8> = (0..6).filter(|byte| bars.contains(name(*byte))).collect();
        assert_eq!(barred, [1, 2, 3]);
        assert!(bars.was_swept(name(3)) && !bars.was_swept(name(2)));
    }
}
