//! What a place has, and had.

use std::collections::{BTreeMap, HashSet};

use crate::repository::control::Control;
use crate::repository::repair::REPAIRED_TAG;
use crate::repository::{Repository, keys};
use crate::{JobContext, RepositoryId, Result, SinkExt, SnapshotId, SnapshotInfo};

/// Whose copy something is: the first repository and snapshot, and the tags, by which a snapshot that was repaired differs
/// from its original.
type Copied = (RepositoryId, SnapshotId, BTreeMap<String, String>);

/// The snapshots of a place.
#[derive(Debug)]
pub(in crate::repository) struct Holdings {
    repository: RepositoryId,
    ids: HashSet<SnapshotId>,
    copies: HashSet<Copied>,
    fences: HashSet<SnapshotId>,
    control: Control,
}

impl Repository {
    /// What this place has and had. What stands there and cannot be read counts as there: repairing that is another matter.
    pub(in crate::repository) async fn holdings(&self, job: &JobContext) -> Result<Holdings> {
        let listed = self.store().sink.list_all(keys::SNAPSHOTS).await?;
        let (read, damaged) = self.load_listed(listed, job).await?;
        let control = self.listed_control(job).await?;
        let unreadable = damaged.iter().filter_map(|(key, _)| keys::id_of(key).ok());
        let ids = read.iter().map(|info| info.id).chain(unreadable).collect();
        let copies = read.iter().filter_map(|info| {
            let origin = info.origin?;
            Some((origin.repository, origin.snapshot, info.tags.clone()))
        });
        Ok(Holdings {
            repository: self.id(),
            ids,
            copies: copies.collect(),
            fences: self.held_fences().clone(),
            control,
        })
    }
}

impl Holdings {
    /// Whether the place has this snapshot, or had it, be it under the name of the one that it stands for because that was shut
    /// out somewhere. What was stored again without what is lost is another one than its original.
    pub(in crate::repository) fn has(&self, info: &SnapshotInfo) -> bool {
        let origin = info.origin_of_copy(self.repository);
        let stands_for = info
            .origin
            .filter(|origin| origin.repository == self.repository && !info.tags.contains_key(REPAIRED_TAG));
        let is_or_was = |id: SnapshotId| {
            self.ids.contains(&id) || self.control.has_expired(id) || !self.control.is_shown(id)
        };
        // Whoever writes can say of anything that it is a copy. Here one has another name only if its own was shut out.
        let may_be_copied = origin.repository != self.repository || self.is_fence(origin.snapshot);
        is_or_was(info.id)
            || stands_for.is_some_and(|origin| is_or_was(origin.snapshot))
            || (may_be_copied
                && self.copies.contains(&(origin.repository, origin.snapshot, info.tags.clone())))
    }

    /// Whether a session of this identity was shut out there.
    pub(super) fn is_fence(&self, id: SnapshotId) -> bool {
        self.fences.contains(&id)
    }
}
