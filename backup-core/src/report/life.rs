//! Reports of what keeps a repository in shape: collections, merges, copies, and what is forgotten or held.

use serde::{Deserialize, Serialize};

use super::{DamagedObject, Outcome, SkippedItems};
use crate::{SnapshotId, Timestamp};

/// What came of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectionOutcome {
    /// There was nothing to condemn, or nothing was to be done.
    #[default]
    Nothing,
    /// What was condemned and not rescued may be deleted, and was, as far as the report says so.
    Swept,
    /// Sessions that were open before have not ended; the next call goes on.
    Waiting,
    /// Nothing may be deleted: something that is needed cannot be read, or everything was rescued.
    Abandoned,
    /// Nothing is deleted until somebody has looked at what the report names as anomalous.
    Paused,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CollectReport {
    /// Its number; none of a dry run.
    pub collection: Option<u64>,
    /// What came of it.
    pub outcome: CollectionOutcome,
    /// Forgotten snapshots whose time to be undeleted is over; they are gone.
    pub expired: Vec<SnapshotId>,
    /// Snapshots that are kept.
    pub snapshots: u64,
    /// Packs that are needed, wholly or in part.
    pub packs_kept: u64,
    /// Their bytes.
    pub bytes_kept: u64,
    /// About so many of these bytes are not needed, and stay because others in the same packs are.
    pub bytes_unused: u64,
    /// Packs that nothing needs.
    pub packs_unneeded: u64,
    /// Their bytes.
    pub bytes_unneeded: u64,
    /// Objects of logs that nothing needs.
    #[serde(default)]
    pub log_objects_unneeded: u64,
    /// Their bytes.
    #[serde(default)]
    pub log_bytes_unneeded: u64,
    /// Packs that were condemned, and turned out to be used by somebody who did not know.
    pub packs_rescued: u64,
    /// There is more that nothing needs than one collection takes.
    pub more_unneeded: bool,
    /// Packs that were written anew, or in a dry run would be: of what they held only what is needed is stored again.
    pub packs_repacked: u64,
    /// Their bytes.
    pub bytes_repacked: u64,
    /// There is more that is worth writing anew than the options permit, or than there is room for.
    pub more_to_repack: bool,
    /// Objects that were deleted, by this call and whichever collection they are of.
    pub objects_deleted: u64,
    /// Their bytes, as far as they are packs or parts of logs.
    pub bytes_freed: u64,
    /// Packs that may be deleted when those who may be reading them have had their time.
    pub packs_waiting: u64,
    /// Sessions that have to end first.
    pub sessions_waiting: Vec<SnapshotId>,
    /// What cannot be read and is needed. As long as there is any nothing is condemned.
    pub damaged_objects: Vec<DamagedObject>,
    /// Snapshots whose change from the one before is not how things change, and which nobody has confirmed.
    #[serde(default)]
    pub anomalies: Vec<SnapshotId>,
    /// Evidence that was deleted because it was older than it need be.
    #[serde(default)]
    pub evidence_deleted: u64,
    /// How long it took.
    pub duration_seconds: f64,
}

impl CollectReport {
    /// Forgets what an earlier collection of the same call found; what it did stays.
    pub(crate) fn begin_collection(&mut self) {
        *self = Self {
            expired: std::mem::take(&mut self.expired),
            packs_rescued: self.packs_rescued,
            packs_repacked: self.packs_repacked,
            bytes_repacked: self.bytes_repacked,
            more_to_repack: self.more_to_repack,
            objects_deleted: self.objects_deleted,
            bytes_freed: self.bytes_freed,
            damaged_objects: std::mem::take(&mut self.damaged_objects),
            packs_unneeded: self.packs_unneeded,
            bytes_unneeded: self.bytes_unneeded,
            log_objects_unneeded: self.log_objects_unneeded,
            log_bytes_unneeded: self.log_bytes_unneeded,
            ..Self::default()
        };
    }

    /// Counts a pack of `len` bytes as kept, of whose `all` bytes of content `live` are needed.
    pub(crate) fn note_kept(&mut self, len: u64, live: u64, all: u64) {
        self.packs_kept = self.packs_kept.saturating_add(1);
        self.bytes_kept = self.bytes_kept.saturating_add(len);
        let unused = u128::from(len).saturating_mul(u128::from(all.saturating_sub(live)));
        let unused = unused.checked_div(u128::from(all)).unwrap_or(0);
        self.bytes_unused = self.bytes_unused.saturating_add(u64::try_from(unused).unwrap_or(u64::MAX));
    }

    /// Counts a pack as unneeded.
    pub(crate) fn note_unneeded(&mut self, len: u64) {
        self.packs_unneeded = self.packs_unneeded.saturating_add(1);
        self.bytes_unneeded = self.bytes_unneeded.saturating_add(len);
    }

    /// Counts an object of a log as unneeded.
    pub(crate) fn note_unneeded_log(&mut self, len: u64) {
        self.log_objects_unneeded = self.log_objects_unneeded.saturating_add(1);
        self.log_bytes_unneeded = self.log_bytes_unneeded.saturating_add(len);
    }
}

/// A snapshot that was copied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopiedSnapshot {
    /// The original.
    pub snapshot: SnapshotId,
    /// The copy, in the other repository.
    pub copy: SnapshotId,
    /// Whether all of it could be read, when it was made and now.
    pub outcome: Outcome,
    /// What is missing in the copy.
    pub skipped: SkippedItems,
}

/// What was copied into another repository.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CopyReport {
    /// The snapshots that were copied.
    pub copied: Vec<CopiedSnapshot>,
    /// Snapshots that were there.
    pub already_there: u64,
    /// Snapshots that could not be copied, and why.
    pub damaged_objects: Vec<DamagedObject>,
    /// Bytes of content that were read.
    pub bytes_read: u64,
    /// Bytes that were put into the other store.
    pub bytes_copied: u64,
    /// How long it took.
    pub duration_seconds: f64,
}

/// What a merge of index segments did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CompactReport {
    /// Segments that there were.
    pub segments_before: u64,
    /// Segments that were written.
    pub segments_written: u64,
    /// Segments that were deleted: those replaced, now or before, and those of sessions that were shut out.
    pub segments_deleted: u64,
}

/// A snapshot that is forgotten and can be undeleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgottenSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When it was forgotten, by the clock of whoever did it.
    pub forgotten: Timestamp,
    /// When the store had that, by its clock, where known.
    pub stored: Option<Timestamp>,
    /// For so many seconds after that it can be undeleted for certain.
    pub undelete_seconds: u64,
    /// Why it was forgotten.
    pub reason: String,
}

/// A snapshot that must not be forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The hold.
    pub hold: SnapshotId,
    /// Until when, by the store's clock; for ever if that is not said.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

/// What was asked for of a store that cannot read everything at once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ThawReport {
    /// Packs that are needed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that cannot be read yet; they were asked for.
    pub waiting: u64,
    /// Their bytes.
    pub bytes_waiting: u64,
    /// How long it took.
    pub duration_seconds: f64,
}
