//! Evidence: who did what when, and what came of it. Objects of type 10.

use serde::{Deserialize, Serialize};

use super::control::Packed;
use crate::Timestamp;
use crate::report::VerifyLevel;
use crate::snapshot::SnapshotId;

/// That something was done: the object `evidence/<kind>/<id>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceDocument {
    /// Its identity, as in the key.
    pub evidence: SnapshotId,
    /// What was done: `verify`, `drill`, `backup`, `forget`, `prune`, `copy`, `repair`, or a word of one's own.
    pub kind: String,
    /// When it was begun, by the clock of whoever did it.
    pub time: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Where.
    pub host: String,
    /// By which program, in which version.
    pub program: String,
    /// Whether it went well.
    pub passed: bool,
    /// Of a verification of packs, which of them.
    pub verified: Option<VerifiedDocument>,
    /// The job's report, as JSON in a string: what it says is that version's affair.
    pub report: String,
}

/// Which packs were verified: all that were there then, whose names begin with certain bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedDocument {
    /// How thoroughly.
    pub level: VerifyLevel,
    /// The first bytes of the names.
    pub slices: Packed<1>,
}
