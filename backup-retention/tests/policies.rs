//! Each policy, by example.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use backup_core::RetentionPolicy;
use backup_core::testing::retention::{conformance, facts};
use backup_retention::{
    GrandfatherFatherSon, GroupBy, KeepAll, KeepCalendar, KeepLast, KeepTagged, KeepWithin, Override,
    PerGroup, Period, Union, Zone,
};
use common::{at, kept_times, reasons, time};
use jiff::civil::Weekday;

const NOW: &str = "2026-11-20T12:00:00Z";

fn zurich() -> Zone {
    Zone::named("Europe/Zurich").unwrap()
}

#[test]
fn every_policy_keeps_the_contract() {
    let policies: Vec<Arc<dyn RetentionPolicy>> = vec![
        Arc::new(KeepLast(3)),
        Arc::new(KeepLast(0)),
        Arc::new(KeepLast(u32::MAX)),
        Arc::new(KeepCalendar::new(Period::Hour, 5).in_zone(zurich())),
        Arc::new(KeepCalendar::new(Period::Week, 5).with_first_weekday(Weekday::Sunday)),
        Arc::new(KeepCalendar::new(Period::Year, u32::MAX)),
        Arc::new(KeepWithin::new("9999y".parse().unwrap())),
        Arc::new(KeepWithin::new("90d".parse().unwrap()).in_zone(zurich())),
        Arc::new(KeepTagged::new("n", Some("1"))),
        Arc::new(KeepAll),
        Arc::new(Union::new([])),
        Arc::new(GrandfatherFatherSon::new(7, 4, 12, 5).in_zone(zurich())),
    ];
    for policy in &policies {
        conformance(&**policy).unwrap();
        let group_by = [GroupBy::Label, GroupBy::Tag("n".to_owned())];
        conformance(&PerGroup::new(group_by, Arc::clone(policy))).unwrap();
    }
    conformance(&Union::new(policies)).unwrap();
}

#[test]
fn last_counts_snapshots() {
    let snapshots = at(&["2026-11-20T08:00:00Z", "2026-11-18T08:00:00Z", "2026-11-19T08:00:00Z"]);
    let expected: [&[&str]; 3] = [&["last 1 of 2"], &[], &["last 2 of 2"]];
    assert_eq!(reasons(&KeepLast(2), &snapshots, NOW), expected);
}

#[test]
fn of_each_day_of_the_zone_the_newest_is_kept() {
    // 23:30 UTC is the next day in Zurich.
    let snapshots = at(&["2026-11-18T10:00:00Z", "2026-11-18T23:30:00Z", "2026-11-19T22:30:00Z"]);
    let days = KeepCalendar::new(Period::Day, 7);
    assert_eq!(
        reasons(&days, &snapshots, NOW),
        [vec![], vec!["daily 2026-11-18".to_owned()], vec!["daily 2026-11-19".to_owned()]]
    );
    let days = days.in_zone(zurich());
    assert_eq!(
        reasons(&days, &snapshots, NOW),
        [vec!["daily 2026-11-18".to_owned()], vec![], vec!["daily 2026-11-19".to_owned()]]
    );
}

#[test]
fn periods_without_snapshots_do_not_count() {
    let snapshots = at(&["2020-01-01T00:00:00Z", "2023-06-01T00:00:00Z", "2026-01-01T00:00:00Z"]);
    for period in [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year] {
        let times = kept_times(&KeepCalendar::new(period, 2), &snapshots, time(NOW), 4);
        assert_eq!(times, ["2023", "2026"], "{period:?}");
    }
}

#[test]
fn weeks_begin_on_the_day_that_is_given() {
    // A Saturday, a Sunday, a Monday.
    let snapshots = at(&["2026-11-14T00:00:00Z", "2026-11-15T00:00:00Z", "2026-11-16T00:00:00Z"]);
    let monday = KeepCalendar::new(Period::Week, 9);
    assert_eq!(kept_times(&monday, &snapshots, time(NOW), 10), ["2026-11-15", "2026-11-16"]);
    let sunday = monday.clone().with_first_weekday(Weekday::Sunday);
    assert_eq!(kept_times(&sunday, &snapshots, time(NOW), 10), ["2026-11-14", "2026-11-16"]);
    assert_eq!(reasons(&sunday, &snapshots, NOW)[2], ["weekly week of 2026-11-15"]);
}

#[test]
fn the_hour_that_comes_twice_is_two_hours_and_the_one_that_is_skipped_is_none() {
    // 02:30 in summer time, 02:30 in winter time, 02:45 in winter time.
    let autumn = at(&["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T01:45:00Z"]);
    let hours = KeepCalendar::new(Period::Hour, 9).in_zone(zurich());
    let expected: [&[&str]; 3] =
        [&["hourly 2026-10-25 02h (UTC+02)"], &[], &["hourly 2026-10-25 02h (UTC+01)"]];
    assert_eq!(reasons(&hours, &autumn, NOW), expected);
    // 01:59 and 03:00 follow each other.
    let spring = at(&["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z"]);
    assert_eq!(kept_times(&hours, &spring, time(NOW), 30).len(), 2);
    // The days of 23 and 25 hours are days.
    let days = KeepCalendar::new(Period::Day, 9).in_zone(zurich());
    for (first, last) in
        [("2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z"), ("2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z")]
    {
        assert_eq!(kept_times(&days, &at(&[first, last]), time(NOW), 30), [last]);
    }
}

#[test]
fn within_counts_by_the_calendar_and_includes_its_edge() {
    let snapshots =
        at(&["2025-05-20T11:59:59Z", "2025-05-20T12:00:00Z", "2026-11-20T12:00:00Z", "2027-01-01T00:00:00Z"]);
    let policy = KeepWithin::new("1y6m".parse().unwrap());
    let within = || vec!["within 1y6m".to_owned()];
    assert_eq!(reasons(&policy, &snapshots, NOW), [vec![], within(), within(), within()]);
}

#[test]
fn tags_keep_for_ever() {
    let mut snapshots = at(&["1990-01-01T00:00:00Z", "1990-01-02T00:00:00Z", "1990-01-03T00:00:00Z"]);
    snapshots[0].tags.insert("hold".to_owned(), "legal".to_owned());
    snapshots[1].tags.insert("hold".to_owned(), "other".to_owned());
    let legal = KeepTagged::new("hold", Some("legal"));
    assert_eq!(reasons(&legal, &snapshots, NOW), [vec!["tag hold=legal".to_owned()], vec![], vec![]]);
    let any = KeepTagged::new("hold", None);
    assert_eq!(reasons(&any, &snapshots, NOW)[1], ["tag hold=other"]);
    assert!("=x".parse::<KeepTagged>().is_err());
}

#[test]
fn a_union_gives_all_reasons_once() {
    let snapshots = at(&["2026-11-20T08:00:00Z"]);
    let union = Union::new([
        Arc::new(KeepLast(1)) as Arc<dyn RetentionPolicy>,
        Arc::new(KeepCalendar::new(Period::Day, 1)),
        Arc::new(KeepLast(1)),
    ]);
    assert_eq!(reasons(&union, &snapshots, NOW), [["last 1 of 1", "daily 2026-11-20"]]);
}

#[test]
fn snapshots_from_the_future_are_kept_and_displace_nothing() {
    let snapshots =
        at(&["2026-11-19T08:00:00Z", "2026-11-20T08:00:00Z", "2031-01-01T00:00:00Z", "2099-01-01T00:00:00Z"]);
    let counted: [&dyn RetentionPolicy; 3] =
        [&KeepLast(1), &KeepCalendar::new(Period::Year, 1), &GrandfatherFatherSon::new(1, 0, 0, 0)];
    for policy in counted {
        assert_eq!(
            kept_times(policy, &snapshots, time(NOW), 10),
            ["2026-11-20", "2031-01-01", "2099-01-01"],
            "{policy:?}"
        );
    }
    assert_eq!(
        reasons(&KeepLast(1), &snapshots, NOW)[2],
        ["from the future: 2031-01-01T00:00:00Z is after now"]
    );
}

#[test]
fn partial_snapshots_displace_no_complete_one() {
    let mut snapshots =
        at(&["2026-11-17T08:00:00Z", "2026-11-18T08:00:00Z", "2026-11-19T08:00:00Z", "2026-11-20T08:00:00Z"]);
    snapshots[2].complete = false;
    snapshots[3].complete = false;
    let found = reasons(&KeepLast(2), &snapshots, NOW);
    let complete = |place| vec![format!("last {place} of 2 among the complete ones")];
    assert_eq!(found[..2], [complete(2), complete(1)]);
    assert_eq!(found[2..], [["last 2 of 2"], ["last 1 of 2"]]);
    // The newest of the day is partial: the newest complete one of that day stays, too.
    let mut day = at(&["2026-11-20T06:00:00Z", "2026-11-20T07:00:00Z", "2026-11-20T08:00:00Z"]);
    day[2].complete = false;
    let found = kept_times(&KeepCalendar::new(Period::Day, 7), &day, time(NOW), 16);
    assert_eq!(found, ["2026-11-20T07:00", "2026-11-20T08:00"]);
}

#[test]
fn snapshots_of_one_time_are_told_apart_by_their_ids() {
    let mut snapshots = at(&["2026-11-20T08:00:00Z"; 4]);
    snapshots.reverse();
    let found = reasons(&KeepLast(2), &snapshots, NOW);
    let expected: [&[&str]; 4] = [&["last 1 of 2"], &["last 2 of 2"], &[], &[]];
    assert_eq!(found, expected);
}

#[test]
fn a_snapshot_that_is_given_twice_counts_once() {
    let mut snapshots = at(&["2026-11-19T08:00:00Z", "2026-11-20T08:00:00Z"]);
    snapshots.push(snapshots[1].clone());
    assert!(reasons(&KeepLast(2), &snapshots, NOW).iter().all(|reasons| reasons.len() == 1));
}

#[test]
fn groups_are_counted_by_themselves_and_none_is_emptied() {
    let mut snapshots =
        at(&["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z", "2020-01-03T00:00:00Z", "2020-01-04T00:00:00Z"]);
    snapshots[0].label = Some("a".to_owned());
    snapshots[1].label = Some("a".to_owned());
    snapshots[1].complete = false;
    snapshots[3].complete = false;
    snapshots[2].tenant = Some("t".to_owned());
    let nothing: Arc<dyn RetentionPolicy> = Arc::new(KeepWithin::new("1d".parse().unwrap()));
    let group_by = [GroupBy::Label, GroupBy::Tenant];
    let guarded = PerGroup::new(group_by.clone(), Arc::clone(&nothing));
    let found = reasons(&guarded, &snapshots, NOW);
    assert_eq!(found[0], ["the newest complete one of its group"]);
    assert_eq!(found[1], Vec::<String>::new());
    assert_eq!(found[2], ["the newest complete one of its group"]);
    assert_eq!(found[3], ["the newest of its group, which has no complete one"]);
    let told = PerGroup::new(group_by, nothing).allow_empty(true);
    assert!(reasons(&told, &snapshots, NOW).iter().all(Vec::is_empty));
}

#[test]
fn overrides_decide_for_what_they_name_and_the_first_counts() {
    let mut snapshots: Vec<_> = (0..10)
        .map(|n| facts(n, time("2026-11-01T00:00:00Z").saturating_add_seconds(86_400 * n as i64)))
        .collect();
    snapshots[4..8].iter_mut().for_each(|facts| facts.label = Some("financial".to_owned()));
    snapshots[6..8].iter_mut().for_each(|facts| facts.source = "postgres".to_owned());
    let other = |source: Option<&str>, label: Option<&str>, policy: Arc<dyn RetentionPolicy>| Override {
        source: source.map(str::to_owned),
        host: None,
        label: label.map(str::to_owned),
        tenant: None,
        policy,
        allow_empty: false,
    };
    let policy = PerGroup::new([], Arc::new(KeepLast(2)))
        .with_override(other(Some("postgres"), None, Arc::new(KeepAll)))
        .with_override(other(None, Some("financial"), Arc::new(KeepLast(1))));
    let kept: Vec<_> = policy.decide(&snapshots, time(NOW)).iter().map(|decision| decision.keep()).collect();
    assert_eq!(kept, [false, false, false, false, false, true, true, true, true, true]);
}

#[test]
fn what_a_broken_policy_does_not_decide_is_kept() {
    #[derive(Debug)]
    struct Silent;
    impl RetentionPolicy for Silent {
        fn decide(
            &self,
            _: &[backup_core::retention::SnapshotFacts],
            _: backup_core::Timestamp,
        ) -> Vec<backup_core::retention::Decision> {
            Vec::new()
        }
    }
    let snapshots = at(&["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"]);
    let found = reasons(&PerGroup::new([], Arc::new(Silent)), &snapshots, NOW);
    assert!(found.iter().all(|reasons| reasons[0] == "its policy decided nothing"));
    assert!(conformance(&Silent).is_err());
}
