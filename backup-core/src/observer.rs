//! What a job tells while it runs.

use std::fmt;

use serde::Serialize;

use crate::{Anomaly, Skipped};

/// Something that happened in a job. Counters are cumulative within the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// A phase began: `open`, `read`, `commit`, `plan`, `write`, `verify` ...
    Phase {
        /// Its name.
        name: &'static str,
    },
    /// How far the job is. Sent at most about ten times a second.
    Progress(Progress),
    /// Something was left out. The same is counted and named in the report.
    Skipped(Skipped),
    /// An object was stored.
    ObjectStored {
        /// Its key.
        key: String,
        /// Its length.
        bytes: u64,
    },
    /// What a backup found is not how things change: somebody should look.
    Anomaly(Anomaly),
    /// Somebody must see to something before it becomes a loss. The job goes on.
    Alert {
        /// What it concerns.
        subject: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// An object is damaged or missing.
    ObjectDamaged {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Counters of a running job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Entries dealt with.
    pub entries_done: u64,
    /// Entries in all, where known.
    pub entries_total: Option<u64>,
    /// Bytes of content dealt with.
    pub bytes_done: u64,
    /// Bytes of content in all, where known.
    pub bytes_total: Option<u64>,
    /// Bytes put to the store.
    pub bytes_stored: u64,
    /// What is being read, or else the entry dealt with last.
    pub current: Option<String>,
}

/// Receives a job's events, on whichever thread they happen; it should return at once.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: &Event);
}

/// Ignores every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn on_event(&self, _: &Event) {}
}
