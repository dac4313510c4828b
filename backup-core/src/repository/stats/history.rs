//! What snapshots say of their runs, one after the other.

use std::collections::BTreeMap;

use crate::report::{DataKindStats, RunEstimate, RunStats, SeriesStats};
use crate::{SnapshotInfo, Timestamp};

/// Runs that an estimate goes by: the last ones, so that it follows what changes.
const ESTIMATE_RUNS: usize = 7;
const DAY_SECONDS: f64 = 86_400.0;

/// What tells series apart.
type Key<'a> = (&'a str, &'a [String], &'a str, Option<&'a str>, Option<&'a str>);

/// The series of these snapshots, and their kinds of data.
pub(super) fn of(snapshots: &[SnapshotInfo]) -> (Vec<SeriesStats>, BTreeMap<String, DataKindStats>) {
    let mut grouped: BTreeMap<Key<'_>, Vec<&SnapshotInfo>> = BTreeMap::new();
    for info in snapshots {
        let key =
            (&*info.source, &*info.identity, &*info.host, info.label.as_deref(), info.tenant.as_deref());
        grouped.entry(key).or_default().push(info);
    }
    let mut kinds = BTreeMap::new();
    let mut all = Vec::with_capacity(grouped.len());
    for mut runs in grouped.into_values() {
        runs.sort_by_key(|info| (time(info), info.id));
        add_kinds(&runs, &mut kinds);
        all.extend(series(&runs));
    }
    for kind in kinds.values_mut() {
        finish(kind);
    }
    (all, kinds)
}

/// What the next run will probably need. The first one of a series reads and stores everything, which no later one does.
pub(super) fn next_run(snapshots: &[SnapshotInfo]) -> Option<RunEstimate> {
    let mut runs: Vec<&SnapshotInfo> = snapshots.iter().collect();
    runs.sort_by_key(|info| (time(info), info.id));
    estimate(&runs)
}

fn time(info: &SnapshotInfo) -> Timestamp {
    info.origin.map_or(info.stored.unwrap_or(info.time), |origin| origin.stored)
}

fn series(runs: &[&SnapshotInfo]) -> Option<SeriesStats> {
    let (oldest, newest) = (*runs.first()?, *runs.last()?);
    let days = time(newest).seconds().saturating_sub(time(oldest).seconds()) as f64 / DAY_SECONDS;
    let per_day = |bytes: f64| (days >= 1.0).then_some(bytes / days);
    let stored = runs.iter().skip(1).filter_map(|info| info.workload.as_ref());
    let stored = stored.map(|workload| workload.bytes_stored as f64).sum();
    Some(SeriesStats {
        source: newest.source.clone(),
        identity: newest.identity.clone(),
        host: newest.host.clone(),
        label: newest.label.clone(),
        tenant: newest.tenant.clone(),
        snapshots: runs.len() as u64,
        oldest: time(oldest),
        newest: time(newest),
        entries: newest.entries,
        bytes_logical: newest.bytes_logical,
        bytes_logical_per_day: per_day(newest.bytes_logical as f64 - oldest.bytes_logical as f64),
        bytes_stored_per_day: per_day(stored),
        next: estimate(runs),
        runs: runs.iter().map(|info| run(info)).collect(),
    })
}

fn run(info: &SnapshotInfo) -> RunStats {
    let workload = info.workload.as_ref();
    RunStats {
        snapshot: info.id,
        time: time(info),
        entries: info.entries,
        bytes_logical: info.bytes_logical,
        bytes_added: info.bytes_added,
        bytes_stored: workload.map(|workload| workload.bytes_stored),
        bytes_read: workload.map(|workload| workload.bytes_read),
        seconds: workload.map(|workload| workload.seconds),
    }
}

fn estimate(runs: &[&SnapshotInfo]) -> Option<RunEstimate> {
    let last = |with_parent: bool| -> Vec<_> {
        let known = runs.iter().rev().filter(|info| info.parent.is_some() || !with_parent);
        known.filter_map(|info| info.workload.as_ref()).take(ESTIMATE_RUNS).collect()
    };
    let mut last_runs = last(true);
    if last_runs.is_empty() {
        last_runs = last(false);
    }
    let bytes =
        |of: fn(&crate::Workload) -> u64| median(last_runs.iter().map(|workload| of(workload) as f64));
    Some(RunEstimate {
        runs: last_runs.len() as u64,
        seconds: median(last_runs.iter().map(|workload| workload.seconds))?,
        bytes_read: bytes(|workload| workload.bytes_read)? as u64,
        bytes_stored: bytes(|workload| workload.bytes_stored)? as u64,
    })
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

// Every run counts for what was stored, the newest one for what there is.
fn add_kinds(runs: &[&SnapshotInfo], kinds: &mut BTreeMap<String, DataKindStats>) {
    for (back, info) in runs.iter().rev().enumerate() {
        for (name, load) in info.workload.iter().flat_map(|workload| &workload.kinds) {
            let kind = kinds.entry(name.clone()).or_default();
            if back == 0 {
                kind.files = kind.files.saturating_add(load.files);
                kind.bytes = kind.bytes.saturating_add(load.bytes);
            }
            kind.bytes_logical = kind.bytes_logical.saturating_add(load.bytes);
            kind.bytes_new = kind.bytes_new.saturating_add(load.bytes_new);
            kind.bytes_stored = kind.bytes_stored.saturating_add(load.bytes_stored);
        }
    }
}

fn finish(kind: &mut DataKindStats) {
    if kind.bytes_new > 0 {
        kind.compression_percent = 100.0 - kind.bytes_stored as f64 * 100.0 / kind.bytes_new as f64;
        kind.dedup_ratio = kind.bytes_logical as f64 / kind.bytes_new as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;
    use crate::{KindLoad, SnapshotId, Workload};

    fn snapshot(day: i64, parent: bool, bytes: u64, seconds: f64) -> SnapshotInfo {
        let number = u8::try_from(day).unwrap();
        let kinds = [("sql".to_owned(), KindLoad { files: 1, bytes, bytes_new: 100, bytes_stored: 20 })];
        SnapshotInfo {
            id: SnapshotId::from_bytes([number; 16]),
            time: Timestamp::new(day * 86_400, 0),
            stored: None,
            source: "files".into(),
            identity: vec!["/srv".into()],
            host: "db1".into(),
            label: None,
            tenant: None,
            description: None,
            tags: BTreeMap::new(),
            position: BTreeMap::new(),
            parent: parent.then_some(SnapshotId::from_bytes([0; 16])),
            outcome: Outcome::Complete,
            entries: 2,
            bytes_logical: bytes,
            bytes_added: 100,
            skipped: Vec::new(),
            skipped_count: 0,
            origin: None,
            change: None,
            anomaly: None,
            workload: Some(Workload {
                seconds,
                bytes_read: bytes,
                bytes_stored: 30,
                objects_stored: 3,
                kinds: kinds.into(),
            }),
        }
    }

    #[test]
    fn what_grows_is_told_by_day_and_by_kind() {
        let other = SnapshotInfo { host: "db2".into(), ..snapshot(3, false, 50, 9.0) };
        let all =
            [snapshot(4, true, 400, 2.0), other, snapshot(2, false, 200, 60.0), snapshot(3, true, 300, 1.0)];
        let (series, kinds) = of(&all);
        assert_eq!(series.len(), 2);
        let first = &series[0];
        assert_eq!((first.host.as_str(), first.snapshots, first.bytes_logical), ("db1", 3, 400));
        assert_eq!((first.bytes_logical_per_day, first.bytes_stored_per_day), (Some(100.0), Some(30.0)));
        assert_eq!(first.runs.iter().map(|run| run.bytes_logical).collect::<Vec<_>>(), [200, 300, 400]);
        assert_eq!(
            first.next,
            Some(RunEstimate { runs: 2, seconds: 2.0, bytes_read: 400, bytes_stored: 30 })
        );
        assert_eq!(series[1].bytes_stored_per_day, None, "one run is no time");
        assert_eq!(series[1].next.unwrap().seconds, 9.0, "of a series with one run it is that one");
        let sql = &kinds["sql"];
        assert_eq!((sql.files, sql.bytes, sql.bytes_logical), (2, 450, 950));
        assert_eq!((sql.bytes_new, sql.bytes_stored, sql.compression_percent), (400, 80, 80.0));
        assert_eq!(sql.dedup_ratio, 950.0 / 400.0);
    }

    #[test]
    fn an_estimate_follows_the_last_runs() {
        let mut all: Vec<_> = (0..20).map(|day| snapshot(day, day > 0, 1, 10.0)).collect();
        all.extend((20..27).map(|day| snapshot(day, true, 1, 40.0)));
        assert_eq!(next_run(&all).unwrap().seconds, 40.0);
        for info in &mut all {
            info.workload = None;
        }
        assert_eq!(next_run(&all), None);
        assert_eq!(next_run(&[]), None);
    }
}
