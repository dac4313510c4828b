//! What a snapshot says of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::report::Outcome;
use crate::{Anomaly, Change, Error, Random, RepositoryId, Result, Skipped, Timestamp, Workload};

/// The identity of a snapshot, which is that of the session that made it: 16 random bytes, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId([u8; 16]);

impl SnapshotId {
    /// The identity with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A new identity.
    pub fn random(random: &dyn Random) -> Result<Self> {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        Ok(Self(id))
    }

    /// The identity's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SnapshotId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| {
            Error::invalid_input(format!("`{text}` is not a snapshot id (32 hexadecimal digits)"))
        })?;
        Ok(Self(id))
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// Where a copy comes from: what it was first, however often it was copied since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The repository in which it was made.
    pub repository: RepositoryId,
    /// The snapshot there.
    pub snapshot: SnapshotId,
    /// When that repository's store first had it, by its clock; where that was not known, the writer's time. It is what
    /// retention counts copies by.
    pub stored: Timestamp,
}

/// One committed run of one source, as listings show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its identity.
    pub id: SnapshotId,
    /// When the run began, by the writer's clock; of a copy, the original's time.
    pub time: Timestamp,
    /// When the store first had it, by the store's clock, where known.
    pub stored: Option<Timestamp>,
    /// The kind of its source.
    pub source: String,
    /// What distinguishes the source: the paths, the database.
    pub identity: Vec<String>,
    /// The host it was taken on.
    pub host: String,
    /// The series it belongs to.
    pub label: Option<String>,
    /// The tenant whose data it holds.
    pub tenant: Option<String>,
    /// Free words about it.
    pub description: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Named positions of the source: log sequence numbers and the like.
    pub position: BTreeMap<String, String>,
    /// The snapshot that unchanged entries were taken from.
    pub parent: Option<SnapshotId>,
    /// Whether everything was read.
    pub outcome: Outcome,
    /// Entries in it.
    pub entries: u64,
    /// Bytes of content in it.
    pub bytes_logical: u64,
    /// Bytes that were new with it, before compression.
    pub bytes_added: u64,
    /// Items that were skipped, by name.
    pub skipped: Vec<Skipped>,
    /// How many were skipped, named or not.
    pub skipped_count: u64,
    /// Of a copy, where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// How it differs from its parent, where it has one whose entries were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Whether that is how things change, as its writer judged; none where there was nothing unusual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
    /// What the run had to do; none in snapshots of versions that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

impl SnapshotInfo {
    /// What a copy of it says of where it comes from; `repository` is the one that it stands in.
    pub fn origin_of_copy(&self, repository: RepositoryId) -> Origin {
        let stored = self.stored.unwrap_or(self.time);
        self.origin.unwrap_or(Origin { repository, snapshot: self.id, stored })
    }
}
