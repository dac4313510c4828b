//! Reports of the places of a repository.

use serde::{Deserialize, Serialize};

use super::DamagedObject;
use crate::{SnapshotId, Timestamp};

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
    /// Log segments, and pieces of some, that were copied.
    #[serde(default)]
    pub log_objects_copied: u64,
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
        sum(&mut self.log_objects_copied, more.log_objects_copied);
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
