//! What jobs return. Reports serialize; that is the schema of the command line's `--json`.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Anomaly, Change, Skipped, SnapshotId};

mod health;
mod life;
mod places;
mod stats;

pub use health::{HealthCheck, HealthReport, HealthStatus};
pub use life::{
    CollectReport, CollectionOutcome, CompactReport, CopiedSnapshot, CopyReport, ForgottenSnapshot,
    HeldSnapshot, ThawReport,
};
pub use places::{HealReport, PlaceReport, PlacesReport, ReplicateReport, ReplicatedSnapshot};
pub use stats::{DataKindStats, KindStats, RunEstimate, RunStats, SeriesStats, StatsReport};

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
