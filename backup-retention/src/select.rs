//! What the policies share: the order of snapshots, the two counts, and reasons by snapshot.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::retention::{Decision, SnapshotFacts};
use backup_core::{SnapshotId, Timestamp};

/// Why each snapshot is kept.
#[derive(Debug, Default)]
pub(crate) struct Reasons(BTreeMap<SnapshotId, Vec<String>>);

impl Reasons {
    /// Gives one more reason to keep `id`; the same words count once.
    pub(crate) fn add(&mut self, id: SnapshotId, reason: String) {
        let reasons = self.0.entry(id).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    /// One decision for every snapshot given, in the order given.
    pub(crate) fn into_decisions(self, snapshots: &[SnapshotFacts]) -> Vec<Decision> {
        let reasons = |id| self.0.get(id).cloned().unwrap_or_default();
        snapshots.iter().map(|facts| Decision { id: facts.id, reasons: reasons(&facts.id) }).collect()
    }
}

/// The snapshots, each once, the newest first.
pub(crate) fn newest_first(snapshots: &[SnapshotFacts]) -> Vec<&SnapshotFacts> {
    let mut sorted: Vec<_> = snapshots.iter().collect();
    sorted.sort_by_key(|facts| std::cmp::Reverse((facts.time, facts.id)));
    let mut seen = BTreeSet::new();
    sorted.retain(|facts| seen.insert(facts.id));
    sorted
}

/// Why a snapshot is kept whose writer's time is not to be believed.
pub(crate) const QUARANTINED: &str = "quarantined: its own time is not when the store had it";

/// Decides by a rule that counts: among all snapshots up to `now`, and again among the complete ones; those that are
/// younger than `now`, or quarantined, are kept uncounted. `choose` is given snapshots, newest first, and returns some with reasons.
pub(crate) fn decide_counted<'a>(
    snapshots: &'a [SnapshotFacts],
    now: Timestamp,
    choose: impl Fn(&[&'a SnapshotFacts]) -> Vec<(SnapshotId, String)>,
) -> Vec<Decision> {
    let mut reasons = Reasons::default();
    let (quarantined, rest): (Vec<_>, Vec<_>) =
        newest_first(snapshots).into_iter().partition(|facts| facts.quarantined);
    for facts in quarantined {
        reasons.add(facts.id, QUARANTINED.to_owned());
    }
    let (future, past): (Vec<_>, Vec<_>) = rest.into_iter().partition(|facts| facts.time > now);
    for facts in future {
        reasons.add(facts.id, format!("from the future: {} is after now", facts.time));
    }
    let complete: Vec<_> = past.iter().copied().filter(|facts| facts.complete).collect();
    let mut kept_by = BTreeSet::new();
    for (id, reason) in choose(&past) {
        kept_by.insert((id, rule_of(&reason).to_owned()));
        reasons.add(id, reason);
    }
    if complete.len() < past.len() {
        for (id, reason) in choose(&complete) {
            // What the same rule keeps anyway needs no second reason.
            if !kept_by.contains(&(id, rule_of(&reason).to_owned())) {
                reasons.add(id, format!("{reason} among the complete ones"));
            }
        }
    }
    reasons.into_decisions(snapshots)
}

/// The rule that a reason begins with: `last`, `daily` ...
fn rule_of(reason: &str) -> &str {
    reason.split(' ').next().unwrap_or_default()
}
