//! Sizes, ratios, and how they grow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DamagedObject;
use crate::{SnapshotId, Timestamp};

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
    pub by_kind: BTreeMap<String, KindStats>,
    /// Snapshots and index segments that cannot be read: with any, the other figures are less than certain.
    #[serde(default)]
    pub damaged_objects: Vec<DamagedObject>,
    /// By kind of data, by [name](crate::DataKind::name): as far as snapshots say what their runs had to do.
    #[serde(default)]
    pub by_data: BTreeMap<String, DataKindStats>,
    /// Each series of snapshots: of one source, host, label and tenant.
    #[serde(default)]
    pub series: Vec<SeriesStats>,
}

/// How much of one kind there is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KindStats {
    /// Objects.
    pub objects: u64,
    /// Bytes in the store.
    pub bytes_stored: u64,
}

/// How much data of one kind there is, and what became of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DataKindStats {
    /// Files in the newest snapshot of each series.
    pub files: u64,
    /// Bytes of content in them.
    pub bytes: u64,
    /// Bytes of content in all snapshots together.
    pub bytes_logical: u64,
    /// Bytes of content that were new when they came, before compression.
    pub bytes_new: u64,
    /// What the new ones took in packs.
    pub bytes_stored: u64,
    /// By how many hundredths compression made the new ones smaller.
    pub compression_percent: f64,
    /// `bytes_logical / bytes_new`: how often each byte would have been stored without deduplication.
    pub dedup_ratio: f64,
}

/// The runs of one series of snapshots over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesStats {
    /// The kind of its source.
    pub source: String,
    /// What distinguishes the source.
    pub identity: Vec<String>,
    /// The host.
    pub host: String,
    /// The label.
    pub label: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// Snapshots in it.
    pub snapshots: u64,
    /// When a store first had the oldest of them.
    pub oldest: Timestamp,
    /// When a store first had the newest of them.
    pub newest: Timestamp,
    /// Entries in the newest.
    pub entries: u64,
    /// Bytes of content in the newest.
    pub bytes_logical: u64,
    /// By how many bytes the content grew a day, from the oldest to the newest; none for less than a day.
    pub bytes_logical_per_day: Option<f64>,
    /// How many bytes were stored a day, without the oldest; none for less than a day.
    pub bytes_stored_per_day: Option<f64>,
    /// What the next run will probably need; none where no snapshot says what its run had to do.
    pub next: Option<RunEstimate>,
    /// Each run, the oldest first.
    pub runs: Vec<RunStats>,
}

/// What a run will probably need: the medians of the last ones.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RunEstimate {
    /// How many runs it is from.
    pub runs: u64,
    /// Seconds.
    pub seconds: f64,
    /// Bytes of content to read.
    pub bytes_read: u64,
    /// Bytes to store.
    pub bytes_stored: u64,
}

/// What one run made, and what it took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunStats {
    /// Its snapshot.
    pub snapshot: SnapshotId,
    /// When a store first had it.
    pub time: Timestamp,
    /// Entries in it.
    pub entries: u64,
    /// Bytes of content in it.
    pub bytes_logical: u64,
    /// Bytes of content that were new, before compression.
    pub bytes_added: u64,
    /// Bytes that were put; none where the snapshot does not say.
    pub bytes_stored: Option<u64>,
    /// Bytes of content that were read.
    pub bytes_read: Option<u64>,
    /// How long it took.
    pub seconds: Option<f64>,
}
