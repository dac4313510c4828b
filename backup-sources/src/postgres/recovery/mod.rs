//! Recovery of a cluster from a base backup and its log: planned first, then done in an order in which nothing can go wrong unseen.
//!
//! 1. [`RecoveryPlan::make`] chooses the base backup, follows the histories of timelines, and proves that all segments are there and the
//!    target is among them. What cannot work is [refused](Refusal) here, before anything is copied or removed.
//! 2. [`prepare`] makes the place ready, so that nothing starts there, and gives a [`ClusterTarget`].
//! 3. [`Repository::restore`](backup_core::Repository::restore) writes the files into it.
//! 4. [`finish`] removes what does not belong there, writes the [`RecoverySettings`], and puts `pg_control` into its place, last of all.
//! 5. A [`Server`] is started, and [`watch`]ed until it is paused at its target or has come to its end.
//!
//! See the chapter "Backup and Restore" of the PostgreSQL manual, "Recovering Using a Continuous Archive Backup".

mod base;
mod control;
mod files;
mod finish;
mod history;
mod inventory;
mod living;
mod log_directory;
mod owner;
mod path;
mod place;
mod plan;
mod prepare;
mod programs;
mod refusal;
mod server;
mod settings;
mod target;
mod tree;
mod watch;

#[cfg(test)]
mod tests;

pub use base::BaseBackup;
pub use files::ClusterTarget;
pub use finish::{Recovered, finish};
pub use history::Leg;
pub use inventory::{
    LogGap, LogHistory, LogInventory, LogLineage, LogSegment, LogTimeline, RestorePoint, SegmentFacts,
    SegmentState,
};
pub use owner::user_of;
pub use place::{DirectoryState, Place, PlaceSurvey, Space};
pub use plan::{PlanRequest, Reached, RecoveryPlan, SegmentRun, Speed};
pub use prepare::prepare;
pub use programs::Programs;
pub use refusal::{Refusal, Refused};
pub use server::Server;
pub use settings::{RecoverySettings, TargetAction};
pub use target::{RecoveryTarget, StopAt, TargetTimeline, parse_time};
pub use watch::{RecoveryState, WatchUntil, watch};
