//! Open directories: what they hold, from any offset on.

use std::sync::Arc;

use backup_core::repository::{Children, TreeEntry};
use backup_core::{EntryName, Error, JobContext, Result};

use super::catalogue::{Catalogue, Item, NAME_BYTES_MAX, join};
use super::nodes::Node;
use super::views::View;

/// A directory that somebody has open.
#[derive(Debug)]
pub(super) enum OpenDirectory {
    /// One above the snapshots, as it was when it was opened.
    Above { catalogue: Arc<Catalogue>, path: Box<str> },
    /// One of a snapshot.
    Entry(Box<EntryDirectory>),
}

/// A directory of a snapshot, read as far as it was asked for.
#[derive(Debug)]
pub(super) struct EntryDirectory {
    pub(super) view: Arc<View>,
    name: Option<EntryName>,
    children: Children,
    /// Which child comes next, counted from none.
    next: u64,
    /// The child that comes next, where it is known.
    pending: Option<TreeEntry>,
    /// Something in it cannot be read; whoever lists it is told so at its end.
    damage: Option<Error>,
}

/// A name in a directory.
#[derive(Debug)]
pub(super) enum Listed {
    /// Something above the snapshots, or the top of one.
    Above { name: String, item: Item, path: String },
    /// Something in a snapshot.
    Entry(TreeEntry),
}

impl Listed {
    /// The name.
    pub(super) fn name(&self) -> &[u8] {
        match self {
            Self::Above { name, .. } => name.as_bytes(),
            Self::Entry(child) => child.name.file_name(),
        }
    }
}

impl OpenDirectory {
    /// What stands at a place, counted from none; none behind the last.
    pub(super) async fn at(&mut self, place: u64, job: &JobContext) -> Result<Option<Listed>> {
        match self {
            Self::Above { catalogue, path } => {
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                let found = catalogue.list(path).and_then(|directory| directory.iter().nth(place));
                Ok(found.map(|(name, item)| Listed::Above {
                    name: name.clone(),
                    item: item.clone(),
                    path: join(path, name),
                }))
            }
            Self::Entry(directory) => Ok(directory.at(place, job).await?.map(Listed::Entry)),
        }
    }

    /// What was damaged on the way to the end.
    pub(super) fn damage(&self) -> Option<&Error> {
        match self {
            Self::Above { .. } => None,
            Self::Entry(directory) => directory.damage.as_ref(),
        }
    }

    /// The node of the directory.
    pub(super) fn node(&self) -> Node {
        match self {
            Self::Above { path, .. } => Node::Above(path.clone()),
            Self::Entry(directory) => {
                Node::Entry { snapshot: directory.view.id, name: directory.name.clone() }
            }
        }
    }
}

impl EntryDirectory {
    pub(super) fn new(view: Arc<View>, name: Option<EntryName>, job: &JobContext) -> Self {
        let children = view.tree.children(name.as_ref(), job);
        Self { view, name, children, next: 0, pending: None, damage: None }
    }

    // Children come in the same order whenever they are read, so a place is a number. Going back, which few do, begins
    // anew.
    async fn at(&mut self, place: u64, job: &JobContext) -> Result<Option<TreeEntry>> {
        if place < self.next {
            self.children = self.view.tree.children(self.name.as_ref(), job);
            (self.next, self.pending) = (0, None);
        }
        loop {
            if self.pending.is_none() {
                match self.children.next().await {
                    Ok(found) => self.pending = found,
                    Err(error) if error.is_corruption() => {
                        self.damage = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            match &self.pending {
                None => return Ok(None),
                // Some sources have names that no file system could hold.
                Some(child) if child.name.file_name().len() > NAME_BYTES_MAX => self.pending = None,
                Some(child) if self.next == place => return Ok(Some(child.clone())),
                Some(_) => {
                    self.pending = None;
                    self.next = self.next.saturating_add(1);
                }
            }
        }
    }
}
