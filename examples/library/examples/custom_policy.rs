//! Which snapshots to keep, by a rule of your own, and the plan to look at before anything is done.
//!
//! ```text
//! cargo run -p library-examples --example custom_policy
//! ```
//!
//! A policy is a pure function: it is given what is known of every snapshot and the time, and names what to keep, and
//! why. `backup_core::testing::retention::conformance` checks one of yours. `backup-retention` has the usual ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::retention::{Decision, SnapshotFacts};
use backup_core::time::ManualClock;
use backup_core::{JobContext, RepositoryId, Result, RetentionPolicy, SystemRandom, Timestamp, Unprotected};
use backup_sinks::MemorySink;
use backup_sources::MemorySource;

/// Keeps every release for ever, and the newest complete snapshots of each host.
#[derive(Debug)]
pub(crate) struct ReleasesAndNewest {
    /// How many of each host.
    pub(crate) newest: usize,
}

impl RetentionPolicy for ReleasesAndNewest {
    fn decide(&self, snapshots: &[SnapshotFacts], _: Timestamp) -> Vec<Decision> {
        let reasons = |facts: &SnapshotFacts| {
            let mut reasons = Vec::new();
            if let Some(release) = facts.tags.get("release") {
                reasons.push(format!("release {release}"));
            }
            // Counted by the snapshots themselves, so that the order in which they are given does not matter. A set,
            // so that a snapshot given twice counts once.
            let newer = snapshots.iter().filter(|other| other.complete && other.host == facts.host);
            let newer = newer.filter(|other| (other.time, other.id) > (facts.time, facts.id));
            let rank = newer.map(|other| other.id).collect::<BTreeSet<_>>().len();
            if facts.complete && rank < self.newest {
                reasons.push(format!("{} of the newest {} of {}", rank + 1, self.newest, facts.host));
            }
            reasons
        };
        snapshots.iter().map(|facts| Decision { id: facts.id, reasons: reasons(facts) }).collect()
    }
}

/// Makes a snapshot a day for a week and asks the policy about them: the plan, the oldest snapshot first.
pub(crate) async fn run(policy: &dyn RetentionPolicy) -> Result<Vec<(SnapshotFacts, Decision)>> {
    // The store's clock is what retention goes by; here it is set by hand.
    let clock = Arc::new(ManualClock::new(Timestamp::default()));
    let job = JobContext::new().with_clock(clock.clone());
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let sink = Arc::new(MemorySink::with_clock(clock.clone()));
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
    for day in 14..21 {
        clock.set(format!("2026-11-{day}T02:00:00Z").parse()?);
        let source = MemorySource::new("site").with_file("index.html", format!("the page of day {day}"))?;
        let mut options = BackupOptions { host: "web".into(), ..BackupOptions::default() };
        if day == 15 {
            options.tags.insert("release".into(), "1.0".into());
        }
        repository.backup(&source, &options, &job).await?;
    }

    let snapshots = repository.snapshots(&job).await?;
    let facts: Vec<_> = snapshots.iter().map(SnapshotFacts::from).collect();
    let decisions = policy.decide(&facts, job.now());
    Ok(facts.into_iter().zip(decisions).collect())
}

#[tokio::main]
async fn main() -> Result<()> {
    for (facts, decision) in run(&ReleasesAndNewest { newest: 3 }).await? {
        let verdict = if decision.keep() { "keep" } else { "drop" };
        println!("{} {verdict} {}", facts.time, decision.reasons.join(", "));
    }
    Ok(())
}
