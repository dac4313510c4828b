//! Owners that are left as they are, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use backup_core::EntryName;

/// Entries that are named as examples.
const EXAMPLES_MAX: usize = 3;

/// Entries whose owner in the snapshot is somebody else, and not restored.
#[derive(Debug, Default)]
pub(super) struct LeftOwners {
    count: AtomicU64,
    examples: Mutex<Vec<String>>,
}

impl LeftOwners {
    /// Counts one.
    pub(super) fn push(&self, name: &EntryName) {
        if self.count.fetch_add(1, Ordering::Relaxed) < EXAMPLES_MAX as u64 {
            self.examples.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_string());
        }
    }

    /// What a report says about them; nothing if there are none.
    pub(super) fn note(&self) -> Option<String> {
        let examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        let more = if self.count.load(Ordering::Relaxed) > examples.len() as u64 { ", ..." } else { "" };
        match self.count.load(Ordering::Relaxed) {
            0 => None,
            count => Some(format!(
                "{count} entries belong to others in the snapshot, and here to whoever restored them, since only root may \
                 give them away: {}{more}",
                examples.join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_make_one_sentence_with_a_count_and_examples() {
        let left = LeftOwners::default();
        assert_eq!(left.note(), None);
        for number in 0..5 {
            left.push(&EntryName::new(format!("file{number}")).unwrap());
        }
        let note = left.note().unwrap();
        assert!(note.starts_with("5 entries") && note.ends_with("file0, file1, file2, ..."), "{note}");
    }
}
