//! Inode numbers: what each that the kernel knows stands for.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard};

use backup_core::{EntryName, SnapshotId};
use fuser::Errno;

/// What an inode number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// A directory or link above the snapshots, by its path.
    Above(Box<str>),
    /// An entry of a snapshot, or its top. Of a hard link, the entry that it is a name of.
    Entry {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The entry; none for the top.
        name: Option<EntryName>,
    },
}

/// The inode number of the root (`FUSE_ROOT_ID`, linux/fuse.h).
pub(super) const ROOT: u64 = 1;

/// The inodes that the kernel has looked up and not forgotten. As many as it keeps in its own cache, which it shrinks when
/// memory gets scarce: then it says which it has forgotten.
///
/// A number is a hash of what it stands for, so that it is the same when it is looked up again. The hash has a key of its
/// own in each process, so nobody can choose names that collide; where two do, the second is an error.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    hasher: RandomState,
    known: Mutex<HashMap<u64, Known>>,
}

#[derive(Debug)]
struct Known {
    node: Node,
    lookups: u64,
}

impl Nodes {
    /// The number of a node.
    pub(super) fn number(&self, node: &Node) -> u64 {
        match node {
            Node::Above(path) if path.is_empty() => ROOT,
            // Not the numbers with a meaning of their own.
            _ => self.hasher.hash_one(node).max(ROOT.saturating_add(1)),
        }
    }

    /// The number of a node that the kernel is told of.
    pub(super) fn remember(&self, node: &Node) -> Result<u64, Errno> {
        let number = self.number(node);
        match self.lock().entry(number) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                if known.node != *node {
                    return Err(Errno::EIO);
                }
                known.lookups = known.lookups.saturating_add(1);
            }
            Entry::Vacant(place) => {
                place.insert(Known { node: node.clone(), lookups: 1 });
            }
        }
        Ok(number)
    }

    /// What a number stands for.
    pub(super) fn get(&self, number: u64) -> Result<Node, Errno> {
        if number == ROOT {
            return Ok(Node::Above("".into()));
        }
        self.lock().get(&number).map(|known| known.node.clone()).ok_or(Errno::ESTALE)
    }

    /// The kernel has forgotten so many of its lookups.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        if let Entry::Occupied(mut known) = self.lock().entry(number) {
            let left = known.get().lookups.saturating_sub(lookups);
            if left == 0 {
                known.remove();
            } else {
                known.get_mut().lookups = left;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_until_every_lookup_is_forgotten() {
        let nodes = Nodes::default();
        let node = |name: &str| Node::Entry {
            snapshot: SnapshotId::from_bytes([7; 16]),
            name: Some(EntryName::new(name).unwrap()),
        };
        let number = nodes.remember(&node("a")).unwrap();
        assert_eq!(nodes.remember(&node("a")).unwrap(), number);
        assert_ne!(nodes.remember(&node("b")).unwrap(), number);
        nodes.forget(number, 1);
        assert_eq!(nodes.get(number).unwrap(), node("a"));
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_err());
        assert_eq!(nodes.remember(&node("a")).unwrap(), number, "the same again");
        assert_eq!(nodes.number(&Node::Above("".into())), ROOT);
        assert_eq!(nodes.get(ROOT).unwrap(), Node::Above("".into()));
    }
}
