//! Snapshots that are open: their trees, and which of their files have several names.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use backup_core::repository::{Snapshot, SnapshotTree, StoredEntry, TreeEntry};
use backup_core::{EntryKind, EntryName, Error, JobContext, Repository, Result, SnapshotId};
use tokio::sync::OnceCell;

/// Snapshots held open; beyond that the one used longest ago is opened anew when it is needed.
const OPEN_MAX: usize = 8;
/// Files with several names that are known of an open snapshot. Of further ones the names are not counted.
const LINKED_MAX: usize = 128 * 1024;

/// An open snapshot.
#[derive(Debug)]
pub(super) struct View {
    pub(super) id: SnapshotId,
    pub(super) tree: SnapshotTree,
    snapshot: Snapshot,
    /// How many further names entries have.
    links: OnceCell<HashMap<EntryName, u32>>,
}

impl View {
    /// What stands under a name. A hard link is followed to the entry that it is a name of.
    pub(super) async fn entry(&self, name: &EntryName, job: &JobContext) -> Result<Option<TreeEntry>> {
        let found = self.tree.entry(name, job).await?;
        match found {
            Some(TreeEntry { stored: Some(stored), .. }) if is_link(&stored) => {
                self.behind(&stored, job).await.map(Some)
            }
            other => Ok(other),
        }
    }

    /// The entry that a hard link is a name of.
    pub(super) async fn behind(&self, link: &StoredEntry, job: &JobContext) -> Result<TreeEntry> {
        let EntryKind::HardLink { to } = &link.entry.kind else {
            return Err(Error::internal("no hard link").with_entry(&link.entry.name));
        };
        let found = self.tree.entry(to, job).await?;
        let whole = found.filter(|found| {
            found
                .stored
                .as_ref()
                .is_some_and(|stored| !is_link(stored) && stored.entry.kind != EntryKind::Directory)
        });
        whole.ok_or_else(|| {
            Error::corruption("is a name of another entry, which the snapshot lacks")
                .with_entry(&link.entry.name)
        })
    }

    /// How many names an entry has.
    pub(super) async fn names(&self, entry: &StoredEntry, job: &JobContext) -> Result<u32> {
        if entry.entry.kind == EntryKind::Directory {
            return Ok(1);
        }
        let links = self.links.get_or_try_init(|| self.count_links(job)).await?;
        Ok(links.get(&entry.entry.name).copied().unwrap_or_default().saturating_add(1))
    }

    // Pages that cannot be read hide names; what else they cost is told where it matters.
    async fn count_links(&self, job: &JobContext) -> Result<HashMap<EntryName, u32>> {
        let mut links = HashMap::new();
        let mut entries = self.snapshot.entries(None, job).await?;
        loop {
            match entries.next().await {
                Ok(None) => return Ok(links),
                Err(error) if error.is_corruption() => {}
                Err(error) => return Err(error),
                Ok(Some(stored)) => {
                    let EntryKind::HardLink { to } = stored.entry.kind else { continue };
                    if links.len() < LINKED_MAX || links.contains_key(&to) {
                        let more = links.entry(to).or_insert(0_u32);
                        *more = more.saturating_add(1);
                    }
                }
            }
        }
    }
}

/// Whether an entry is another's further name.
pub(super) fn is_link(stored: &StoredEntry) -> bool {
    matches!(stored.entry.kind, EntryKind::HardLink { .. })
}

/// The open snapshots of a mount.
#[derive(Debug)]
pub(super) struct Views {
    repository: Repository,
    /// The one used last in front.
    open: Mutex<VecDeque<Arc<View>>>,
    /// One is opened at a time, and nobody opens what another is just opening.
    opening: tokio::sync::Mutex<()>,
}

impl Views {
    pub(super) fn new(repository: Repository) -> Self {
        Self { repository, open: Mutex::default(), opening: tokio::sync::Mutex::default() }
    }

    /// The snapshot, opened where it is not.
    pub(super) async fn get(&self, id: SnapshotId, job: &JobContext) -> Result<Arc<View>> {
        if let Some(view) = self.held(id) {
            return Ok(view);
        }
        let _opening = self.opening.lock().await;
        if let Some(view) = self.held(id) {
            return Ok(view);
        }
        let snapshot = self.repository.snapshot(id, job).await?;
        let tree = snapshot.tree(job).await?;
        let view = Arc::new(View { id, tree, snapshot, links: OnceCell::new() });
        let mut open = self.lock();
        open.push_front(view.clone());
        open.truncate(OPEN_MAX);
        Ok(view)
    }

    /// Opens a snapshot anew when it is needed again: with the index as it is then.
    pub(super) fn close(&self, id: SnapshotId) {
        self.lock().retain(|view| view.id != id);
    }

    /// The same for all.
    pub(super) fn close_all(&self) {
        self.lock().clear();
    }

    fn held(&self, id: SnapshotId) -> Option<Arc<View>> {
        let mut open = self.lock();
        let at = open.iter().position(|view| view.id == id)?;
        let view = open.remove(at)?;
        open.push_front(view.clone());
        Some(view)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<View>>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
