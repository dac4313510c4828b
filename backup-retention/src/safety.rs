//! A safety catch: a plan that drops much of a series waits until somebody has looked at it.

use std::collections::BTreeMap;

use backup_core::SnapshotId;
use backup_core::retention::{Decision, SnapshotFacts};
use sha2::{Digest, Sha256};

/// Holds up plans that would drop more than a share of any series of snapshots: those of one source, host, label, tenant
/// and origin.
///
/// A rule with a slip in it, a clock that jumped, or somebody who floods a repository: all look like a plan that drops much
/// more than yesterday's did.
///
/// ```
/// use backup_core::RetentionPolicy;
/// use backup_core::testing::retention::facts;
/// use backup_retention::{KeepLast, SafetyCatch};
///
/// let day = |n: u64| facts(n, backup_core::Timestamp::new(86_400 * n as i64, 0));
/// let snapshots: Vec<_> = (1..=10).map(day).collect();
/// let now = "1970-01-12T00:00:00Z".parse()?;
/// let catch = SafetyCatch::new(50);
///
/// assert!(catch.check(&snapshots, &KeepLast(5).decide(&snapshots, now)).is_none());
/// let caught = catch.check(&snapshots, &KeepLast(4).decide(&snapshots, now)).unwrap();
/// assert_eq!((caught.dropped, caught.of), (6, 10));
/// // Whoever has looked at this plan, and at no other, knows this:
/// assert_eq!(caught.confirmation.len(), 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafetyCatch {
    percent: u8,
}

/// A plan that waits for a second confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// The series of which the largest share is dropped: its source, host, label, and tenant.
    pub series: String,
    /// How many snapshots of it are dropped.
    pub dropped: usize,
    /// How many it has.
    pub of: usize,
    /// What confirms this very plan: 16 hexadecimal digits of the SHA-256 of what it drops.
    pub confirmation: String,
}

type Series<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>, Option<backup_core::RepositoryId>);

impl SafetyCatch {
    /// A plan may drop so many hundredths of a series without being confirmed.
    pub fn new(percent: u8) -> Self {
        Self { percent: percent.min(100) }
    }

    /// What must be confirmed of a plan; nothing if it may be carried out as it is. `decisions` are those for `snapshots`.
    pub fn check(&self, snapshots: &[SnapshotFacts], decisions: &[Decision]) -> Option<Caught> {
        let kept: BTreeMap<SnapshotId, bool> =
            decisions.iter().map(|decision| (decision.id, decision.keep())).collect();
        // What nothing was decided on is not dropped.
        let is_dropped = |facts: &SnapshotFacts| kept.get(&facts.id) == Some(&false);
        let mut series: BTreeMap<Series<'_>, (usize, usize)> = BTreeMap::new();
        for facts in snapshots {
            let label = facts.label.as_deref();
            let name = (&*facts.source, &*facts.host, label, facts.tenant.as_deref(), facts.origin);
            let (dropped, of) = series.entry(name).or_default();
            *dropped = dropped.saturating_add(usize::from(is_dropped(facts)));
            *of = of.saturating_add(1);
        }
        let share =
            |(dropped, of): (usize, usize)| dropped.saturating_mul(10_000).checked_div(of).unwrap_or(0);
        let (name, (dropped, of)) = series.into_iter().max_by_key(|(_, counts)| share(*counts))?;
        if dropped.saturating_mul(100) <= of.saturating_mul(self.percent.into()) {
            return None;
        }
        let mut ids: Vec<SnapshotId> = snapshots.iter().filter(|f| is_dropped(f)).map(|f| f.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut hasher = Sha256::new();
        ids.iter().for_each(|id| hasher.update(id.as_bytes()));
        let confirmation = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let (source, host, label, tenant, _) = name;
        let mut series = format!("{source} on {host}");
        for (what, value) in [("label", label), ("tenant", tenant)] {
            if let Some(value) = value {
                series.push_str(&format!(", {what} {value}"));
            }
        }
        Some(Caught { series, dropped, of, confirmation })
    }
}

#[cfg(test)]
mod tests {
    use backup_core::Timestamp;
    use backup_core::testing::retention::facts;

    use super::*;

    fn plan(hosts: &[(&str, usize, usize)]) -> (Vec<SnapshotFacts>, Vec<Decision>) {
        let mut snapshots = Vec::new();
        let mut decisions = Vec::new();
        for (host, dropped, of) in hosts {
            for number in 0..*of {
                let mut facts = facts(snapshots.len() as u64, Timestamp::new(number as i64, 0));
                facts.host = (*host).to_owned();
                let reasons = if number < *dropped { Vec::new() } else { vec!["so".to_owned()] };
                decisions.push(Decision { id: facts.id, reasons });
                snapshots.push(facts);
            }
        }
        (snapshots, decisions)
    }

    fn caught(percent: u8, hosts: &[(&str, usize, usize)]) -> Option<(String, usize, usize)> {
        let (snapshots, decisions) = plan(hosts);
        let caught = SafetyCatch::new(percent).check(&snapshots, &decisions)?;
        Some((caught.series, caught.dropped, caught.of))
    }

    #[test]
    fn a_series_is_not_hidden_by_the_others() {
        assert_eq!(caught(50, &[("a", 5, 10), ("b", 1, 1000)]), None);
        assert_eq!(caught(50, &[("a", 6, 10), ("b", 1, 1000)]), Some(("files on a".into(), 6, 10)));
        assert_eq!(caught(0, &[("a", 0, 10)]), None);
        assert_eq!(caught(0, &[("a", 1, 10)]), Some(("files on a".into(), 1, 10)));
        assert_eq!(caught(100, &[("a", 10, 10)]), None);
        assert_eq!(caught(100, &[]), None);
    }

    #[test]
    fn what_confirms_a_plan_confirms_no_other() {
        let code = |hosts: &[(&str, usize, usize)]| {
            let (mut snapshots, decisions) = plan(hosts);
            snapshots.reverse();
            SafetyCatch::new(10).check(&snapshots, &decisions).unwrap().confirmation
        };
        assert_eq!(code(&[("a", 6, 10)]), code(&[("a", 6, 12)]), "what is kept beside it does not matter");
        assert_ne!(code(&[("a", 6, 10)]), code(&[("a", 7, 10)]));
    }

    #[test]
    fn what_nothing_was_decided_on_is_not_dropped() {
        let (snapshots, _) = plan(&[("a", 10, 10)]);
        assert_eq!(SafetyCatch::new(0).check(&snapshots, &[]), None);
    }
}
