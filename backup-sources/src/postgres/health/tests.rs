//! Judgements over audits and servers that are made up.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::postgres::Timeline;
use crate::postgres::archive::Gap;
use crate::postgres::wal::{SegmentName, SegmentSize};

const MINUTE: Duration = Duration::from_secs(60);

fn size() -> SegmentSize {
    SegmentSize::default()
}

fn segment(number: u64) -> SegmentName {
    SegmentName::numbered(Timeline::FIRST, number, size())
}

/// A log from segment 1 to 9.
fn audit() -> WalAudit {
    WalAudit {
        system_identifier: 7,
        other_systems: Vec::new(),
        segment_size: Some(size()),
        timelines: vec![TimelineAudit {
            timeline: Timeline::FIRST,
            begin: None,
            parent: None,
            left_at: None,
            lacks_history: false,
            first: Some(segment(1)),
            last: Some(segment(9)),
            segments: 9,
            bytes_stored: 9000,
            gaps: Vec::new(),
            lost: Vec::new(),
        }],
        frontier: Some(segment(9).end(size())),
        newest: Some(Timestamp::new(1000, 0)),
        lag_bytes: None,
        behind: vec![0],
        behind_since: None,
    }
}

/// A backup in segment 4.
fn base() -> BaseBackup {
    BaseBackup {
        id: "a".into(),
        system_identifier: 7,
        timeline: Timeline::FIRST,
        start_lsn: segment(4).start(size()).saturating_add(40),
        stop_lsn: segment(4).start(size()).saturating_add(4000),
        start_time: Timestamp::new(500, 0),
        stop_time: Timestamp::new(510, 0),
        server_version: 150_018,
        block_bytes: 8192,
        segment_size: size(),
        data_checksums: true,
        from_standby: false,
        tablespaces: BTreeMap::<u32, PathBuf>::new(),
        damaged_pages: 0,
        bytes: 0,
    }
}

fn server() -> ServerState {
    ServerState {
        system_identifier: 7,
        end: segment(9).end(size()),
        archives: true,
        archiving_fails: false,
        archive_timeout: Some(MINUTE),
        slot: None,
    }
}

fn gap(first: u64, last: u64) -> Gap {
    Gap { first: segment(first), last: segment(last), segments: last - first + 1 }
}

fn with(change: impl FnMut(&mut TimelineAudit)) -> WalAudit {
    let mut audit = audit();
    audit.timelines.iter_mut().for_each(change);
    audit
}

#[test]
fn a_gap_counts_from_the_newest_backup_on() {
    let judged = |audit: &WalAudit| judge_gaps(audit, Some(&base()));
    assert_eq!(judged(&audit()).0, HealthStatus::Ok);
    assert_eq!(judged(&with(|log| log.gaps.push(gap(2, 3)))).0, HealthStatus::Warning);
    let (status, why) = judged(&with(|log| log.gaps.push(gap(6, 7))));
    assert_eq!(status, HealthStatus::Critical);
    assert!(why.contains(&segment(6).to_string()) && why.contains(&segment(7).to_string()), "{why}");
    // One that reaches into the segment in which the backup began.
    assert_eq!(judged(&with(|log| log.gaps.push(gap(2, 4)))).0, HealthStatus::Critical);
    assert_eq!(judged(&with(|log| log.lost.push(segment(2).start(size())))).0, HealthStatus::Warning);
    assert_eq!(judged(&with(|log| log.lost.push(segment(8).start(size())))).0, HealthStatus::Critical);
}

#[test]
fn a_log_without_a_backup_is_of_no_use() {
    assert_eq!(judge_gaps(&audit(), None).0, HealthStatus::Critical);
}

#[test]
fn a_history_that_is_missing_cuts_off_what_follows() {
    let mut later = audit();
    let second = TimelineAudit {
        timeline: Timeline::new(2),
        lacks_history: true,
        ..later.timelines.first().unwrap().clone()
    };
    later.timelines.push(second);
    let (status, why) = judge_gaps(&later, Some(&base()));
    assert!(status == HealthStatus::Critical && why.contains(".history"), "{why}");
}

#[test]
fn a_timeline_whose_beginning_is_missing_is_not_reached() {
    let on = |number: u64| segment(number).on(Timeline::new(2));
    let begins = segment(9).start(size()).saturating_add(100);
    let judged = |first: Option<SegmentName>, begin: Lsn, left_at: Option<Lsn>| {
        let mut later = audit();
        let second = TimelineAudit {
            timeline: Timeline::new(2),
            begin: Some(begin),
            parent: Some(Timeline::FIRST),
            first,
            last: first.map(|_| on(20)),
            left_at,
            ..later.timelines.first().unwrap().clone()
        };
        later.timelines.push(second);
        judge_gaps(&later, Some(&base()))
    };
    assert_eq!(judged(Some(on(9)), begins, None).0, HealthStatus::Ok);
    let (status, why) = judged(Some(on(12)), begins, None);
    assert!(status == HealthStatus::Critical && why.contains(&on(9).to_string()), "{why}");
    // Nothing of it is there yet, or all of it is in a segment that the next one has as well; or all of it is lost.
    let left = |number: u64| Some(segment(number).start(size()).saturating_add(200));
    assert_eq!(judged(None, begins, None).0, HealthStatus::Ok);
    assert_eq!(judged(None, begins, left(9)).0, HealthStatus::Ok);
    assert_eq!(judged(None, begins, left(10)).0, HealthStatus::Critical);
    // The backup does not lead to one that began before it.
    assert_eq!(judged(Some(on(12)), segment(2).start(size()), None).0, HealthStatus::Ok);
}

#[test]
fn the_log_is_late_when_the_server_has_what_is_not_archived() {
    let behind = |bytes: u64| WalAudit { lag_bytes: Some(bytes), ..audit() };
    let judged = |audit: &WalAudit, server: Option<&ServerState>, now: i64| {
        judge_lag(audit, server, 15 * MINUTE, Timestamp::new(1000 + now, 0)).0
    };
    // Nobody asked the server: the age counts.
    assert_eq!(judged(&audit(), None, 899), HealthStatus::Ok);
    assert_eq!(judged(&audit(), None, 901), HealthStatus::Critical);
    // Nothing is missing, however old it is.
    assert_eq!(judged(&behind(0), Some(&server()), 100_000), HealthStatus::Ok);
    // What a server does not archive while nothing happens.
    assert_eq!(judged(&behind(100), Some(&server()), 100_000), HealthStatus::Ok);
    let slow = ServerState { archive_timeout: Some(60 * MINUTE), ..server() };
    assert_eq!(judged(&behind(100), Some(&slow), 901), HealthStatus::Critical);
    let failing = ServerState { archiving_fails: true, ..server() };
    assert_eq!(judged(&behind(100), Some(&failing), 901), HealthStatus::Critical);
    let silent = ServerState { archives: false, ..server() };
    assert_eq!(judged(&behind(100), Some(&silent), 901), HealthStatus::Critical);
    assert_eq!(judged(&behind(size().bytes()), Some(&server()), 901), HealthStatus::Critical);
    assert_eq!(judged(&behind(size().bytes()), Some(&server()), 800), HealthStatus::Ok);
}

#[test]
fn a_slot_that_keeps_nothing_is_critical() {
    let state =
        |wal_status, active| SlotState { wal_status, restart_lsn: None, active, safe_wal_size: Some(12) };
    for (slot, expected) in [
        (None, HealthStatus::Critical),
        (Some(state(WalStatus::Lost, false)), HealthStatus::Critical),
        (Some(state(WalStatus::Unreserved, true)), HealthStatus::Critical),
        (Some(state(WalStatus::Reserved, false)), HealthStatus::Warning),
        (Some(state(WalStatus::Extended, true)), HealthStatus::Ok),
    ] {
        let mut report = HealthReport::default();
        let server = ServerState { archives: false, slot: Some(("backup".into(), slot.clone())), ..server() };
        judge_server(&server, &mut report);
        assert_eq!(report.status, expected, "{slot:?}: {report:?}");
    }
    let judged = |server: &ServerState| {
        let mut report = HealthReport::default();
        judge_server(server, &mut report);
        report.status
    };
    assert_eq!(judged(&server()), HealthStatus::Ok);
    assert_eq!(judged(&ServerState { archiving_fails: true, ..server() }), HealthStatus::Critical);
    assert_eq!(judged(&ServerState { archives: false, ..server() }), HealthStatus::Warning);
}

#[test]
fn a_drill_of_one_cluster_that_passed_hides_none_of_another_that_failed() {
    let one = |system: u64, passed: bool| {
        (serde_json::json!({ "system_identifier": system, "passed": passed }).to_string(), passed)
    };
    let found = |drills: &[(String, bool)]| {
        last_failed(drills.iter().map(|(report, passed)| (report.as_str(), *passed)))
    };
    // The newest first.
    assert_eq!(found(&[one(1, true), one(2, false), one(2, true), one(1, false)]), [(Some(2), 1)]);
    assert!(found(&[one(2, true), one(1, true), one(2, false)]).is_empty());
    assert_eq!(found(&[one(1, false), one(1, true)]), [(Some(1), 0)]);
    // Several to one moment.
    let both = serde_json::json!({ "passed": false, "drills": [
        { "system_identifier": 1, "passed": true }, { "system_identifier": 2, "passed": false },
    ] });
    assert_eq!(found(&[one(1, true), (both.to_string(), false)]), [(Some(2), 1)]);
    // Nobody knows of what.
    let broken = || (serde_json::json!({ "error": { "kind": "io" } }).to_string(), false);
    assert_eq!(found(&[broken(), one(1, true)]), [(None, 0)]);
    assert!(found(&[one(1, true), broken(), ("no JSON".to_owned(), false)]).is_empty());
}
