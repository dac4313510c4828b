//! What every [`RetentionPolicy`] must do, as a suite that anyone can run over their own.

use std::collections::BTreeMap;

use super::broken;
use crate::retention::{Decision, SnapshotFacts};
use crate::{Result, RetentionPolicy, SnapshotId, Timestamp};

/// Checks the contract of [`RetentionPolicy`] over many histories and returns an error that names the law that is
/// broken: one decision for every snapshot in the order given; the same decisions for the same snapshots, whatever
/// their order; no empty reason; no panic on times far outside of any calendar, in the future, or equal.
pub fn conformance(policy: &dyn RetentionPolicy) -> Result<()> {
    let now = Timestamp::new(1_795_161_600, 0);
    for history in histories(now) {
        for now in
            [now, Timestamp::default(), Timestamp::new(i64::MAX, 999_999_999), Timestamp::new(i64::MIN, 0)]
        {
            laws(policy, &history, now)?;
        }
    }
    Ok(())
}

/// Checks the contract over one history.
pub fn laws(policy: &dyn RetentionPolicy, history: &[SnapshotFacts], now: Timestamp) -> Result<()> {
    let decisions = policy.decide(history, now);
    let given: Vec<_> = history.iter().map(|facts| facts.id).collect();
    let decided: Vec<_> = decisions.iter().map(|decision| decision.id).collect();
    if given != decided {
        return Err(broken(
            "one decision for every snapshot, in the order given",
            format_args!("{decided:?}"),
        ));
    }
    for decision in &decisions {
        if decision.reasons.iter().any(|reason| reason.trim().is_empty()) {
            return Err(broken("a reason is given in words", format_args!("{decision:?}")));
        }
    }
    if policy.decide(history, now) != decisions {
        return Err(broken("the same snapshots get the same decisions", "another answer the second time"));
    }
    let by_id: BTreeMap<SnapshotId, &Decision> =
        decisions.iter().map(|decision| (decision.id, decision)).collect();
    for turn in 1..4 {
        let shuffled = shuffle(history, turn);
        for decision in policy.decide(&shuffled, now) {
            if by_id.get(&decision.id) != Some(&&decision) {
                let found = format!("{decision:?} instead of {:?}", by_id.get(&decision.id));
                return Err(broken("the order in which snapshots are given does not matter", found));
            }
        }
    }
    Ok(())
}

/// A snapshot for tests: complete, of the source `files` on the host `host`, without label, tenant or tags.
pub fn facts(number: u64, time: Timestamp) -> SnapshotFacts {
    let mut id = [0; 16];
    id.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    SnapshotFacts {
        id: SnapshotId::from_bytes(id),
        time,
        source: "files".to_owned(),
        host: "host".to_owned(),
        label: None,
        tenant: None,
        tags: BTreeMap::new(),
        complete: true,
        origin: None,
        quarantined: false,
    }
}

/// Histories in which policies have gone wrong.
fn histories(now: Timestamp) -> Vec<Vec<SnapshotFacts>> {
    let every = |seconds: i64, count: i64| -> Vec<SnapshotFacts> {
        (0..count)
            .map(|n| facts(n.unsigned_abs(), now.saturating_add_seconds(n.saturating_mul(-seconds))))
            .collect()
    };
    let ends = [i64::MIN, i64::MIN + 1, -62_167_219_201, -1, 0, 1, 253_402_300_800, i64::MAX - 1, i64::MAX];
    let mut mixed = every(7000, 200);
    for (number, facts) in mixed.iter_mut().enumerate() {
        facts.host = format!("host-{}", number % 3);
        facts.label = (number % 2 == 0).then(|| format!("label-{}", number % 4));
        facts.tenant = (number % 5 == 0).then(|| "tenant".to_owned());
        facts.complete = number % 7 != 0;
        facts.tags.insert("n".to_owned(), (number % 3).to_string());
    }
    let mut incomplete = every(86_400, 10);
    incomplete.iter_mut().for_each(|facts| facts.complete = false);
    vec![
        Vec::new(),
        vec![facts(0, now)],
        every(3600, 100),
        every(86_400, 800),
        every(0, 20),
        every(-86_400, 20),
        mixed,
        incomplete,
        ends.iter().zip(0..).map(|(seconds, number)| facts(number, Timestamp::new(*seconds, 0))).collect(),
    ]
}

/// The same snapshots in another order, the same in every run.
fn shuffle(history: &[SnapshotFacts], turn: usize) -> Vec<SnapshotFacts> {
    let mut shuffled = history.to_vec();
    shuffled.sort_by_key(|facts| {
        blake3::hash(&[&facts.id.as_bytes()[..], &turn.to_le_bytes()].concat()).to_hex()
    });
    shuffled
}
