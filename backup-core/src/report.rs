//! What jobs return. Reports serialize; that is the schema of the command line's `--json`.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Anomaly, Change, Skipped, SnapshotId, Timestamp};

/// Whether a snapshot holds everything that its source had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was read.
    Complete,
    /// Something was skipped; the report and the snapshot name it.
    Partial,
}

/// The items that a job skipped: the first by name, up to [`limits::REPORT_SKIPPED_MAX`] and
/// [`limits::REPORT_SKIPPED_BYTES_MAX`], the rest counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SkippedItems {
    items: Vec<Skipped>,
    #[serde(skip)]
    bytes: usize,
    #[serde(skip)]
    more: u64,
}

impl SkippedItems {
    /// Adds one.
    pub fn push(&mut self, item: Skipped) {
        let bytes = self.bytes.saturating_add(written_bytes(&item));
        // The first one that is too many ends the list: what is named are the first ones, and not a choice.
        let named = self.more == 0 && bytes <= limits::REPORT_SKIPPED_BYTES_MAX;
        if named && self.items.len() < limits::REPORT_SKIPPED_MAX {
            self.bytes = bytes;
            self.items.push(item);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// The items named.
    pub fn named(&self) -> &[Skipped] {
        &self.items
    }

    /// How many there are, named or not.
    pub fn count(&self) -> u64 {
        u64::try_from(self.items.len()).unwrap_or(u64::MAX).saturating_add(self.more)
    }

    /// Whether nothing was skipped.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl Extend<Skipped> for SkippedItems {
    fn extend<T: IntoIterator<Item = Skipped>>(&mut self, items: T) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

/// What an item takes in a JSON document, about: reports stand in snapshots, which have a limit.
fn written_bytes(item: &Skipped) -> usize {
    let character = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        // \u001b
        0..0x20 => 6,
        _ => 1,
    };
    let bytes = item.name.bytes().chain(item.reason.bytes()).map(character);
    bytes.fold("{'name':'','reason':''},".len(), usize::saturating_add)
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The snapshot; none for a dry run.
    pub snapshot: Option<SnapshotId>,
    /// Whether everything was read.
    pub outcome: Outcome,
    /// The snapshot that unchanged entries were taken from.
    pub parent: Option<SnapshotId>,
    /// Entries in the snapshot.
    pub entries: u64,
    /// Entries taken from the parent without being opened.
    pub entries_unchanged: u64,
    /// Bytes of content in the snapshot.
    pub bytes_logical: u64,
    /// Bytes of content read.
    pub bytes_read: u64,
    /// Bytes of content that the repository did not have, before compression.
    pub bytes_added: u64,
    /// Every byte put: packs, index and control objects.
    pub bytes_stored: u64,
    /// Objects put.
    pub objects_stored: u64,
    /// How long it took.
    pub duration_seconds: f64,
    /// What was skipped.
    pub skipped: SkippedItems,
    /// How the snapshot differs from its parent, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Whether that is how things change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Entries written, wholly or in part.
    pub entries_written: u64,
    /// Entries that were there already as they should be, or unwanted by the target.
    pub entries_unchanged: u64,
    /// Bytes of content written.
    pub bytes_written: u64,
    /// Bytes of content found in place.
    pub bytes_unchanged: u64,
    /// What could not be restored, by name.
    pub failed: SkippedItems,
    /// What the target left out as a whole, in words: no failure of single entries.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The snapshot that was made before of what the restore replaces or deletes, where one was asked for and there was
    /// anything; set by who makes it.
    #[serde(default)]
    pub safety_snapshot: Option<SnapshotId>,
    /// How long it took.
    pub duration_seconds: f64,
}

/// An object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedObject {
    /// Its key.
    pub object: String,
    /// What is wrong.
    pub reason: String,
}

/// An entry that cannot be restored in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedEntry {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The entry; the empty name stands for pages of the snapshot that cannot be read.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// What a verification looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checked {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes read from the store.
    pub bytes: u64,
    /// Snapshots walked.
    pub snapshots: u64,
    /// Entries walked.
    pub entries: u64,
    /// Chunks whose content was compared with their identity.
    pub chunks: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Objects damaged or missing.
    pub damaged_objects: Vec<DamagedObject>,
    /// Entries that need them.
    pub damaged_entries: Vec<DamagedEntry>,
    /// What was looked at.
    pub checked: Checked,
    /// How long it took.
    pub duration_seconds: f64,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damaged_objects.is_empty() && self.damaged_entries.is_empty()
    }
}

/// What a repair of the index or of snapshots did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairReport {
    /// Packs whose content is indexed anew, or snapshots that are stored again.
    pub rebuilt: u64,
    /// Objects that could not be read, and entries of snapshots.
    pub lost: Vec<DamagedObject>,
    /// The snapshots that are stored again; none of a repair of the index.
    pub snapshots: Vec<RepairedSnapshot>,
}

/// A damaged snapshot that is stored again, without what is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedSnapshot {
    /// The damaged one.
    pub original: SnapshotId,
    /// The new one; none if nothing was to be stored.
    pub repaired: Option<SnapshotId>,
}

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
    /// Bytes of the packs among them.
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

/// One snapshot that was brought to another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicatedSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What it is called there: the same, unless a session that was bringing it there was shut out.
    pub replica: SnapshotId,
}

/// What was brought to another place of the repository.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReplicateReport {
    /// The snapshots that were brought.
    pub snapshots: Vec<ReplicatedSnapshot>,
    /// Snapshots that were there.
    pub already_there: u64,
    /// Snapshots that somebody else is bringing at this time.
    pub busy: Vec<SnapshotId>,
    /// Packs that were copied as they are.
    pub packs_copied: u64,
    /// Packs of which chunks were copied, and packed anew.
    pub packs_copied_in_part: u64,
    /// Bytes that were put into the other place.
    pub bytes_copied: u64,
    /// Snapshots that could not be brought, and why.
    pub damaged_objects: Vec<DamagedObject>,
    /// What is damaged here; it was read from another place.
    pub read_elsewhere: Vec<DamagedObject>,
    /// How long it took.
    pub duration_seconds: f64,
}

impl ReplicateReport {
    /// Adds what was brought besides.
    pub fn add(&mut self, more: Self) {
        let sum = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        self.snapshots.extend(more.snapshots);
        sum(&mut self.already_there, more.already_there);
        self.busy.extend(more.busy);
        sum(&mut self.packs_copied, more.packs_copied);
        sum(&mut self.packs_copied_in_part, more.packs_copied_in_part);
        sum(&mut self.bytes_copied, more.bytes_copied);
        self.damaged_objects.extend(more.damaged_objects);
        self.read_elsewhere.extend(more.read_elsewhere);
        self.duration_seconds += more.duration_seconds;
    }

    /// Whether everything that was asked for is there now.
    pub fn is_complete(&self) -> bool {
        self.busy.is_empty() && self.damaged_objects.is_empty()
    }
}

/// What a place of a repository has and lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlaceReport {
    /// What it is called.
    pub name: String,
    /// Whether it must have what is acknowledged.
    pub required: bool,
    /// What it is on.
    pub medium: Option<String>,
    /// Whether it is somewhere else than what is backed up.
    pub off_site: bool,
    /// Snapshots that it shows.
    pub snapshots: u64,
    /// When a store first had the newest of them.
    pub newest: Option<Timestamp>,
    /// Snapshots that other places have, and that it should have and lacks.
    pub missing: u64,
    /// What these added when they were made, before compression: about what has to be brought.
    pub missing_bytes: u64,
    /// The age of the oldest of them; 0 where nothing is missing, none where that is not known.
    pub lag_seconds: Option<u64>,
    /// Why nothing is known of it.
    pub error: Option<String>,
}

/// Whether a repository is kept well: three copies, on two media, one of them off-site.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlacesReport {
    /// Snapshots that any place shows.
    pub snapshots: u64,
    /// Places that have everything; archives, which are to have only what is old, do not count.
    pub copies: u32,
    /// Media that these are on.
    pub media: u32,
    /// How many of these are off-site.
    pub off_site: u32,
    /// Whether that is three copies or more, two media or more, and one or more off-site.
    pub is_3_2_1: bool,
    /// Each place.
    pub places: Vec<PlaceReport>,
}

/// What came back into a place from others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HealReport {
    /// Objects that are there again as they were.
    pub healed: Vec<String>,
    /// Packs that no place has as they were; what they held was packed anew.
    pub rewritten: Vec<String>,
    /// Objects that are whole: they had merely been misread.
    pub misread: Vec<String>,
    /// What could not be healed, and why.
    pub lost: Vec<DamagedObject>,
    /// Packs that the index names again.
    pub packs_indexed: u64,
    /// Bytes that were put.
    pub bytes_copied: u64,
    /// How long it took.
    pub duration_seconds: f64,
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyLevel {
    /// Documents open, pages are whole, every chunk that an entry needs has a place in a pack that exists.
    Structure,
    /// Also, every pack and index segment has the bytes it is named by.
    Checksum,
    /// Also, every frame opens, and every chunk is what its identity says.
    #[default]
    Content,
}

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// As expected.
    #[default]
    Ok,
    /// Somebody should look at it.
    Warning,
    /// Somebody must look at it now.
    Critical,
}

/// One thing that was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What.
    pub name: String,
    /// How well it is.
    pub status: HealthStatus,
    /// Why.
    pub message: String,
}

/// How well a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthReport {
    /// The worst of all checks.
    pub status: HealthStatus,
    /// What was judged.
    pub checks: Vec<HealthCheck>,
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

/// Sizes and ratios.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StatsReport {
    /// Snapshots in the repository.
    pub snapshots: u64,
    /// Bytes of content in all snapshots together.
    pub bytes_logical: u64,
    /// Bytes of distinct content, before compression.
    pub bytes_unique: u64,
    /// Bytes in the store.
    pub bytes_stored: u64,
    /// Objects in the store.
    pub objects: u64,
    /// `bytes_logical / bytes_stored`.
    pub ratio: f64,
    /// Objects and bytes per kind of object: `data`, `meta`, `index`, `snapshots`, `keys`, `control` ...
    pub by_kind: std::collections::BTreeMap<String, KindStats>,
    /// Snapshots and index segments that cannot be read: with any, the other figures are less than certain.
    #[serde(default)]
    pub damaged_objects: Vec<DamagedObject>,
}

/// How much of one kind there is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KindStats {
    /// Objects.
    pub objects: u64,
    /// Bytes in the store.
    pub bytes_stored: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_number_and_in_bytes_as_written() {
        for name in ["n".repeat(40_000), "\u{1}\"".repeat(20_000), String::new()] {
            let mut items = SkippedItems::default();
            items.extend((0..20_000).map(|_| Skipped::new(&name, "why")));
            assert_eq!(items.count(), 20_000);
            assert!(!items.is_empty() && items.named().len() <= limits::REPORT_SKIPPED_MAX);
            let written = serde_json::to_vec(&items).unwrap().len();
            assert!(written <= limits::REPORT_SKIPPED_BYTES_MAX + 2, "{written} bytes");
            assert!(name.is_empty() || written > limits::REPORT_SKIPPED_BYTES_MAX / 2, "{written} bytes");
        }
    }
}
