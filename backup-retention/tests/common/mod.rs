//! What the tests of this crate share.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::collections::BTreeSet;

use backup_core::retention::SnapshotFacts;
use backup_core::testing::retention::facts;
use backup_core::{RetentionPolicy, SnapshotId, Timestamp};

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Snapshots of these times, numbered from 1.
pub fn at(times: &[&str]) -> Vec<SnapshotFacts> {
    times.iter().zip(1..).map(|(text, number)| facts(number, time(text))).collect()
}

/// The reasons of every snapshot, in the order given.
pub fn reasons(policy: &dyn RetentionPolicy, snapshots: &[SnapshotFacts], now: &str) -> Vec<Vec<String>> {
    policy.decide(snapshots, time(now)).into_iter().map(|decision| decision.reasons).collect()
}

/// Which are kept.
pub fn kept(
    policy: &dyn RetentionPolicy,
    snapshots: &[SnapshotFacts],
    now: Timestamp,
) -> BTreeSet<SnapshotId> {
    policy
        .decide(snapshots, now)
        .into_iter()
        .filter(|decision| decision.keep())
        .map(|decision| decision.id)
        .collect()
}

/// The times that are kept, oldest first, cut to so many characters.
pub fn kept_times(
    policy: &dyn RetentionPolicy,
    snapshots: &[SnapshotFacts],
    now: Timestamp,
    length: usize,
) -> Vec<String> {
    let kept = kept(policy, snapshots, now);
    let mut times: Vec<_> = snapshots
        .iter()
        .filter(|facts| kept.contains(&facts.id))
        .map(|facts| facts.time.to_string())
        .collect();
    times.sort();
    times.iter().map(|time| time.chars().take(length).collect()).collect()
}
