//! Which snapshots to keep, and why: the contract of retention policies.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::Outcome;
use crate::{SnapshotId, SnapshotInfo, Timestamp};

/// What a policy knows of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFacts {
    /// The snapshot.
    pub id: SnapshotId,
    /// When the store first had it; what retention counts by.
    pub time: Timestamp,
    /// The kind of its source.
    pub source: String,
    /// The host it was taken on.
    pub host: String,
    /// Its label: which series of snapshots it belongs to.
    pub label: Option<String>,
    /// The tenant whose data it holds.
    pub tenant: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Whether everything was read.
    pub complete: bool,
}

impl From<&SnapshotInfo> for SnapshotFacts {
    /// What a listing says of a snapshot; where the store has no clock, the writer's time has to do.
    fn from(info: &SnapshotInfo) -> Self {
        Self {
            id: info.id,
            time: info.stored.unwrap_or(info.time),
            source: info.source.clone(),
            host: info.host.clone(),
            label: info.label.clone(),
            tenant: info.tenant.clone(),
            tags: info.tags.clone(),
            complete: info.outcome == Outcome::Complete,
        }
    }
}

/// A policy's verdict on one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The snapshot.
    pub id: SnapshotId,
    /// Why it is kept, one line a reason; empty: nothing keeps it.
    pub reasons: Vec<String>,
}

impl Decision {
    /// Whether anything keeps the snapshot.
    pub fn keep(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Names what to keep, and why. A pure function: same snapshots, same `now`, same decisions.
pub trait RetentionPolicy: fmt::Debug + Send + Sync + 'static {
    /// One decision for every snapshot given, in the order given.
    fn decide(&self, snapshots: &[SnapshotFacts], now: Timestamp) -> Vec<Decision>;
}
