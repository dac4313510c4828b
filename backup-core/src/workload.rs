//! What a run had to do, and on which kinds of data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a run had to do for a snapshot. It stands in the snapshot: what a repository took over the years is there without
/// anybody having watched.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// How long it took before the snapshot was put.
    pub seconds: f64,
    /// Bytes of content read.
    pub bytes_read: u64,
    /// Every byte put before the snapshot: packs, index and control objects.
    pub bytes_stored: u64,
    /// Objects put before the snapshot.
    pub objects_stored: u64,
    /// The same by kinds of data, by [name](crate::DataKind::name).
    pub kinds: BTreeMap<String, KindLoad>,
}

/// What the entries of one kind hold and took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KindLoad {
    /// Files of this kind in the snapshot.
    pub files: u64,
    /// Bytes of content in them.
    pub bytes: u64,
    /// Bytes of content among those that were new, before compression. Content that stands in the listing itself is not counted.
    pub bytes_new: u64,
    /// What the new ones took in packs. Where kinds share what is compressed as one, by their shares.
    pub bytes_stored: u64,
}

impl KindLoad {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.bytes_new = self.bytes_new.saturating_add(other.bytes_new);
        self.bytes_stored = self.bytes_stored.saturating_add(other.bytes_stored);
    }
}
