//! Which snapshots to keep, and why: the contract of retention policies.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::Outcome;
use crate::{RepositoryId, SnapshotId, SnapshotInfo, Timestamp, limits};

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
    /// Of a copy, the repository in which it was made; `time` then is when that one's store had it. Copies are told apart from
    /// what was made here, and those of one repository from those of another.
    pub origin: Option<RepositoryId>,
    /// Its writer's time deviates from the store's by more than clocks and long runs explain. It is kept, and displaces
    /// nothing.
    pub quarantined: bool,
}

impl From<&SnapshotInfo> for SnapshotFacts {
    /// What a listing says of a snapshot; where the store has no clock, the writer's time has to do.
    /// [`Repository::facts`](crate::Repository::facts) knows more.
    fn from(info: &SnapshotInfo) -> Self {
        let here = info.stored.unwrap_or(info.time);
        let first = info.origin.map_or(here, |origin| origin.stored);
        Self {
            id: info.id,
            time: first,
            origin: info.origin.map(|origin| origin.repository),
            quarantined: deviates(info.time, first) || first > ahead_of(here),
            source: info.source.clone(),
            host: info.host.clone(),
            label: info.label.clone(),
            tenant: info.tenant.clone(),
            tags: info.tags.clone(),
            complete: info.outcome == Outcome::Complete,
        }
    }
}

/// Whether a run cannot have begun at `time` if the store had its snapshot at `stored`.
pub(crate) fn deviates(time: Timestamp, stored: Timestamp) -> bool {
    time > ahead_of(stored) || time < stored.saturating_add_seconds(-limits::RUN_SECONDS_MAX)
}

fn ahead_of(stored: Timestamp) -> Timestamp {
    stored.saturating_add_seconds(limits::CLOCKS_DIFFER_SECONDS_MAX)
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
