//! Which inodes were seen under another name.

use std::collections::HashMap;

use backup_core::{EntryKind, EntryName};
use rustix::fs::Stat;

/// Inodes whose further names are still awaited. Beyond this number, further ones are stored as files of their own,
/// which costs nothing but the link, and the run says so at its end.
pub(super) const AWAITED_MAX: usize = 1_000_000;

/// The inodes with several names of which not all were seen yet.
#[derive(Debug, Default)]
pub(super) struct HardLinks {
    awaited: HashMap<(u64, u64), Awaited>,
    forgotten: u64,
}

#[derive(Debug)]
struct Awaited {
    first: EntryName,
    names_left: u64,
}

impl HardLinks {
    /// Notes that `name` was seen; the link to its first name if there is one.
    pub(super) fn see(&mut self, stat: &Stat, name: &EntryName) -> Option<EntryKind> {
        let links = stat.st_nlink;
        if links < 2 {
            return None;
        }
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(awaited) = self.awaited.get_mut(&inode) {
            awaited.names_left = awaited.names_left.saturating_sub(1);
            let to = awaited.first.clone();
            if awaited.names_left == 0 {
                self.awaited.remove(&inode);
            }
            return Some(EntryKind::HardLink { to });
        }
        if self.awaited.len() >= AWAITED_MAX {
            self.forgotten = self.forgotten.saturating_add(1);
            return None;
        }
        self.awaited.insert(inode, Awaited { first: name.clone(), names_left: links.saturating_sub(1) });
        None
    }

    /// Takes back that `name` was seen: it was skipped after all, and the next name is the first.
    pub(super) fn unsee(&mut self, stat: &Stat, name: &EntryName) {
        let inode = (stat.st_dev, stat.st_ino);
        if self.awaited.get(&inode).is_some_and(|awaited| awaited.first == *name) {
            self.awaited.remove(&inode);
        }
    }

    /// How many names were stored as files of their own because too many were awaited.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Names still awaited.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.awaited.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_forgotten_when_its_last_name_was_seen() {
        let mut stat = rustix::fs::fstat(tempfile::tempfile().unwrap()).unwrap();
        let name = |name: &str| EntryName::new(name).unwrap();
        let mut links = HardLinks::default();
        stat.st_nlink = 1;
        assert_eq!(links.see(&stat, &name("single")), None);
        assert_eq!(links.awaited(), 0);
        stat.st_nlink = 3;
        assert_eq!(links.see(&stat, &name("a")), None);
        assert_eq!(links.see(&stat, &name("b")), Some(EntryKind::HardLink { to: name("a") }));
        assert_eq!(links.awaited(), 1);
        assert_eq!(links.see(&stat, &name("c")), Some(EntryKind::HardLink { to: name("a") }));
        assert_eq!(links.awaited(), 0);
    }

    #[test]
    fn a_name_that_was_skipped_is_not_linked_to() {
        let mut stat = rustix::fs::fstat(tempfile::tempfile().unwrap()).unwrap();
        let name = |name: &str| EntryName::new(name).unwrap();
        let mut links = HardLinks::default();
        stat.st_nlink = 3;
        assert_eq!(links.see(&stat, &name("a")), None);
        links.unsee(&stat, &name("a"));
        assert_eq!(links.see(&stat, &name("b")), None);
        assert_eq!(links.see(&stat, &name("c")), Some(EntryKind::HardLink { to: name("b") }));
        links.unsee(&stat, &name("c"));
        assert_eq!(links.awaited(), 1, "others may link to the first name");
    }
}
