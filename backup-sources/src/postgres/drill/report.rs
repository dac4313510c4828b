//! What a drill has shown.

use std::time::Duration;

use backup_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::CheckResult;
use crate::postgres::Lsn;
use crate::postgres::recovery::{Reached, RecoveryState, Refusal};

/// The evidence of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Whether everything was as it should be.
    pub passed: bool,
    /// What was not, in the order in which it was found.
    pub failures: Vec<DrillFailure>,
    /// When it began.
    pub started: Timestamp,
    /// The base backup that was recovered.
    pub base: Option<String>,
    /// The cluster.
    pub system_identifier: Option<u64>,
    /// The moment that was recovered, as text.
    pub target: String,
    /// What proves that the archive's log reaches it.
    pub reached: Option<Reached>,
    /// Where the server got to.
    pub state: Option<RecoveryState>,
    /// How far it has replayed.
    pub replayed: Option<Lsn>,
    /// The latest transaction that it replayed had ended at this time.
    pub recovered_until: Option<Timestamp>,
    /// How long it took from nothing to a server that answers at the target: the recovery time.
    pub rto: Option<Duration>,
    /// How long before the drill began the latest recovered transaction had ended: what would have been lost, at most, had the database
    /// been lost at that moment. Only where all that is archived was to be recovered; a database in which nothing happens shows its idle
    /// time.
    pub rpo: Option<Duration>,
    /// What each part took.
    pub phases: Vec<DrillPhase>,
    /// Bytes of files that were restored.
    pub file_bytes: u64,
    /// Bytes of log that were planned to be replayed.
    pub log_bytes: u64,
    /// The questions.
    pub checks: Vec<CheckResult>,
    /// What `pg_verifybackup` said of the files.
    pub verified: Examination,
    /// What `pg_amcheck` said of tables and indexes.
    pub amcheck: Examination,
    /// Whether the cluster is gone again.
    pub removed: bool,
}

/// Something that was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFailure {
    /// The part of the drill: `plan`, `restore`, `verify`, `start`, `recover`, `check`, `amcheck`, `remove`.
    pub part: String,
    /// What was wrong.
    pub why: String,
    /// Why the recovery was refused, where it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
}

/// A part of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPhase {
    /// The part.
    pub part: String,
    /// How long it took.
    pub duration: Duration,
}

/// What one of PostgreSQL's own programs said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Examination {
    /// Nothing is wrong.
    Passed,
    /// Something is.
    Failed {
        /// What.
        why: String,
    },
    /// It was not asked.
    NotDone {
        /// Why.
        why: String,
    },
}

impl Examination {
    pub(super) fn not_done(why: impl Into<String>) -> Self {
        Self::NotDone { why: why.into() }
    }
}

impl DrillReport {
    /// A report of nothing so far.
    pub(super) fn new(target: String, started: Timestamp) -> Self {
        let not_yet = || Examination::not_done("the drill did not get there");
        Self {
            passed: false,
            failures: Vec::new(),
            started,
            base: None,
            system_identifier: None,
            target,
            reached: None,
            state: None,
            replayed: None,
            recovered_until: None,
            rto: None,
            rpo: None,
            phases: Vec::new(),
            file_bytes: 0,
            log_bytes: 0,
            checks: Vec::new(),
            verified: not_yet(),
            amcheck: not_yet(),
            removed: false,
        }
    }

    pub(super) fn fail(&mut self, part: &str, why: impl Into<String>) {
        self.failures.push(DrillFailure { part: part.to_owned(), why: why.into(), refusals: Vec::new() });
    }
}
