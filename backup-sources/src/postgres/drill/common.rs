//! One moment for several clusters.

use std::time::Duration;

use backup_core::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::DrillReport;
use crate::postgres::Timeline;
use crate::postgres::recovery::{BaseBackup, LogHistory, LogInventory, LogLineage};

/// What drills of several clusters to one moment have shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonReport {
    /// Whether all of them passed.
    pub passed: bool,
    /// The moment.
    pub moment: Option<Timestamp>,
    /// The report of each cluster, in the order in which they were named.
    pub drills: Vec<DrillReport>,
}

impl CommonReport {
    /// The report of drills to `moment`.
    pub fn new(moment: Option<Timestamp>, drills: Vec<DrillReport>) -> Self {
        Self { passed: !drills.is_empty() && drills.iter().all(|drill| drill.passed), moment, drills }
    }

    /// How long it took until all of them answered, recovered one after the other; none if one of them never did.
    pub fn rto(&self) -> Option<Duration> {
        self.drills.iter().map(|drill| drill.rto).sum()
    }

    /// How much of the cluster that lost most would have been lost: from the moment to when the first drill began.
    pub fn rpo(&self) -> Option<Duration> {
        let started = self.drills.iter().map(|drill| drill.started).min()?;
        Some(super::between(self.moment?, started))
    }
}

/// The latest moment to which each of these clusters can be recovered, from the base backup and with the log that stand beside each other,
/// on the latest timeline.
///
/// A server proves that it has reached a time by a transaction that ended after it. So this is just before the earliest of the clusters' latest
/// transactions; where one of them has been idle for long, it lies as far back.
///
/// # Errors
///
/// A cluster's log has no transaction after its backup, or the moment lies before the end of one of the backups: which one is said.
pub fn common_moment(clusters: &[(&BaseBackup, &LogInventory)]) -> Result<Timestamp> {
    let mut earliest: Option<(Timestamp, &BaseBackup)> = None;
    for (base, inventory) in clusters {
        let latest = inventory.lineages.get(&base.system_identifier).and_then(|log| latest_end(log, base));
        let latest = latest.ok_or_else(|| {
            Error::invalid_input(format!(
                "the log of PostgreSQL {} has no transaction after the backup {}, so nothing proves that a moment was reached: \
                 wait until something is written there",
                base.system_identifier, base.id
            ))
        })?;
        if earliest.is_none_or(|(time, _)| latest < time) {
            earliest = Some((latest, base));
        }
    }
    let (time, limiting) = earliest.ok_or_else(|| Error::invalid_input("no cluster is named"))?;
    let moment = just_before(time);
    match clusters.iter().find(|(base, _)| base.stop_time > moment) {
        None => Ok(moment),
        Some((base, _)) => Err(Error::invalid_input(format!(
            "the clusters have no moment in common: the backup {} ended at {}, and the latest transaction of PostgreSQL {} that is archived \
             is of {time}",
            base.id, base.stop_time, limiting.system_identifier
        ))),
    }
}

/// When the latest transaction ended that a recovery on the latest timeline replays.
fn latest_end(log: &LogLineage, base: &BaseBackup) -> Option<Timestamp> {
    let latest = log.timelines.keys().next_back().copied()?.max(base.timeline);
    let first = base.first_segment().number(log.segment_size);
    let ends = legs(log, latest).into_iter().filter_map(|(timeline, until)| {
        let segments = &log.timelines.get(&timeline)?.segments;
        let facts = segments.range(first..until.max(first)).filter_map(|(_, segment)| segment.facts.as_ref());
        facts.filter_map(|facts| facts.last_time).max()
    });
    ends.max()
}

/// The timelines that lead to one, each with the number of the segment from which on it is another.
fn legs(log: &LogLineage, latest: Timeline) -> Vec<(Timeline, u64)> {
    let mut legs = vec![(latest, u64::MAX)];
    if let Some(LogHistory::Present(history)) = log.timelines.get(&latest).map(|timeline| &timeline.history) {
        legs.extend(
            history
                .ancestors()
                .iter()
                .map(|older| (older.timeline, log.segment_size.number_of(older.switched_at))),
        );
    }
    legs
}

fn just_before(time: Timestamp) -> Timestamp {
    // What a server counts in.
    const STEP: Duration = Duration::from_micros(1);
    let (seconds, nanos) = (time.seconds(), time.nanoseconds());
    match nanos.checked_sub(STEP.subsec_nanos()) {
        Some(nanos) => Timestamp::new(seconds, nanos),
        None => Timestamp::new(
            seconds.saturating_sub(1),
            nanos.saturating_add(1_000_000_000).saturating_sub(STEP.subsec_nanos()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::postgres::recovery::{LogSegment, SegmentFacts};
    use crate::postgres::wal::{SegmentName, SegmentSize};

    fn base(system: u64, stop: i64) -> BaseBackup {
        let size = SegmentSize::default();
        let start = SegmentName::numbered(Timeline::FIRST, 2, size).start(size);
        BaseBackup {
            id: format!("backup of {system}"),
            system_identifier: system,
            timeline: Timeline::FIRST,
            start_lsn: start.saturating_add(40),
            stop_lsn: start.saturating_add(400),
            start_time: Timestamp::new(stop - 1, 0),
            stop_time: Timestamp::new(stop, 0),
            server_version: 150_018,
            block_bytes: 8192,
            segment_size: size,
            data_checksums: true,
            from_standby: false,
            tablespaces: BTreeMap::new(),
            damaged_pages: 0,
            bytes: 0,
        }
    }

    /// A log whose segments, from the second on, end with transactions of these times.
    fn log(system: u64, timeline: Timeline, first: u64, times: &[i64]) -> LogInventory {
        let (mut inventory, size) = (LogInventory::default(), SegmentSize::default());
        for (number, time) in (first..).zip(times) {
            let facts = SegmentFacts { last_time: Some(Timestamp::new(*time, 0)), ..SegmentFacts::default() };
            let name = SegmentName::numbered(timeline, number, size);
            inventory.add_segment(system, size, name, LogSegment::whole().with_facts(facts));
        }
        inventory
    }

    #[test]
    fn the_cluster_that_was_written_to_first_says_when() {
        let (one, two) = (base(1, 100), base(2, 90));
        let (log_one, log_two) =
            (log(1, Timeline::FIRST, 2, &[110, 200]), log(2, Timeline::FIRST, 1, &[80, 95, 150]));
        let moment = common_moment(&[(&one, &log_one), (&two, &log_two)]).unwrap();
        assert_eq!(moment, Timestamp::new(149, 999_999_000));
    }

    #[test]
    fn what_cannot_be_common_is_said() {
        let (one, two) = (base(1, 100), base(2, 90));
        let idle = log(2, Timeline::FIRST, 1, &[80]);
        let busy = log(1, Timeline::FIRST, 2, &[110]);
        let error = common_moment(&[(&one, &busy), (&two, &idle)]).unwrap_err().to_string();
        assert!(error.contains("backup of 2"), "{error}");
        let old = log(2, Timeline::FIRST, 2, &[95]);
        let error = common_moment(&[(&one, &busy), (&two, &old)]).unwrap_err().to_string();
        assert!(error.contains("backup of 1") && error.contains("PostgreSQL 2"), "{error}");
        assert!(common_moment(&[]).is_err());
    }

    #[test]
    fn what_a_promotion_left_behind_does_not_count() {
        let (one, size, second) = (base(1, 100), SegmentSize::default(), Timeline::new(2));
        let mut left = log(1, Timeline::FIRST, 2, &[110, 500]);
        let lineage = log(1, second, 3, &[120]).lineages.remove(&1).unwrap();
        let timelines = &mut left.lineages.get_mut(&1).unwrap().timelines;
        timelines.extend(lineage.timelines);
        let switch = SegmentName::numbered(second, 3, size).start(size).saturating_add(64);
        left.add_history(1, size, second, &format!("1\t{switch}\tno recovery target specified\n"));
        assert_eq!(common_moment(&[(&one, &left)]).unwrap(), Timestamp::new(119, 999_999_000));
    }
}
