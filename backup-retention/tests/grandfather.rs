//! Deployment B: 7 daily, 4 weekly (Sunday), 12 monthly (the first), 5 yearly (1 January), over simulated years.
#![allow(clippy::unwrap_used)]

mod common;

use backup_core::Timestamp;
use backup_core::retention::SnapshotFacts;
use backup_core::testing::retention::facts;
use backup_retention::GrandfatherFatherSon;
use common::{kept, kept_times, reasons, time};

/// A snapshot every day at 03:00 UTC, from the first day to the last; retention after each.
fn years(
    first: &str,
    last: &str,
    policy: &GrandfatherFatherSon,
    skip: &[&str],
) -> (Vec<SnapshotFacts>, Timestamp) {
    let mut stored: Vec<SnapshotFacts> = Vec::new();
    let mut now = time(&format!("{first}T03:00:00Z"));
    let end = time(&format!("{last}T03:00:00Z"));
    for number in 0.. {
        if !skip.iter().any(|day| now.to_string().starts_with(day)) {
            stored.push(facts(number, now));
        }
        let kept = kept(policy, &stored, now);
        stored.retain(|facts| kept.contains(&facts.id));
        if now >= end {
            break;
        }
        now = now.saturating_add_seconds(86_400);
    }
    (stored, now)
}

#[test]
fn seven_days_four_sundays_twelve_firsts_and_five_new_years_are_left_of_seven_years() {
    let policy = GrandfatherFatherSon::new(7, 4, 12, 5);
    let (stored, now) = years("2020-01-15", "2026-11-20", &policy, &[]);
    assert_eq!(
        kept_times(&policy, &stored, now, 10),
        [
            // 1 January of five years.
            "2022-01-01",
            "2023-01-01",
            "2024-01-01",
            "2025-01-01",
            // The first of twelve months; New Year's is one.
            "2025-12-01",
            "2026-01-01",
            "2026-02-01",
            "2026-03-01",
            "2026-04-01",
            "2026-05-01",
            "2026-06-01",
            "2026-07-01",
            "2026-08-01",
            "2026-09-01",
            "2026-10-01",
            // Four Sundays (1 November is one, and a first); seven days.
            "2026-10-25",
            "2026-11-01",
            "2026-11-08",
            "2026-11-14",
            "2026-11-15",
            "2026-11-16",
            "2026-11-17",
            "2026-11-18",
            "2026-11-19",
            "2026-11-20",
        ]
    );
}

#[test]
fn reasons_name_the_days() {
    let policy = GrandfatherFatherSon::new(7, 4, 12, 5);
    let (stored, _) = years("2025-12-20", "2026-02-01", &policy, &[]);
    let found = reasons(&policy, &stored, "2026-02-01T03:00:00Z");
    // A Sunday and a first.
    assert_eq!(found.last().unwrap(), &["daily 2026-02-01", "weekly 2026-02-01", "monthly 2026-02-01"]);
    let new_year = stored.iter().position(|facts| facts.time == time("2026-01-01T03:00:00Z")).unwrap();
    assert_eq!(found[new_year], ["monthly 2026-01-01", "yearly 2026-01-01"]);
    // The backups began in the middle of December: their first one stands in for month and year.
    assert_eq!(
        found[0],
        [
            "monthly 2025-12-01: 2025-12-20 stands in, the first day with a snapshot",
            "yearly 2025-01-01: 2025-12-20 stands in, the first day with a snapshot",
        ]
    );
}

#[test]
fn staging_keeps_less() {
    let policy = GrandfatherFatherSon::new(3, 2, 3, 1);
    let (stored, now) = years("2024-06-01", "2026-11-20", &policy, &[]);
    assert_eq!(
        kept_times(&policy, &stored, now, 10),
        [
            "2026-01-01",
            "2026-09-01",
            "2026-10-01",
            "2026-11-01",
            "2026-11-08",
            "2026-11-15",
            "2026-11-18",
            "2026-11-19",
            "2026-11-20"
        ]
    );
}

#[test]
fn the_next_day_stands_in_for_one_that_was_missed() {
    let policy = GrandfatherFatherSon::new(7, 4, 12, 5);
    // No backups on the first of October, on a Sunday and the Monday after it, and on New Year.
    let skip = ["2026-10-01", "2026-11-08", "2026-11-09", "2025-01-01"];
    let (stored, now) = years("2020-01-01", "2026-11-28", &policy, &skip);
    let found = kept_times(&policy, &stored, now, 10);
    for stands_in in ["2026-10-02", "2026-11-10", "2025-01-02"] {
        assert!(found.iter().any(|day| day == stands_in), "{stands_in} of {found:?}");
    }
    assert_eq!(found.len(), years("2020-01-01", "2026-11-28", &policy, &[]).0.len());
}

#[test]
fn of_several_snapshots_on_sunday_the_newest_is_the_weekly_one() {
    let snapshots = common::at(&["2026-11-15T03:00:00Z", "2026-11-15T15:00:00Z", "2026-11-16T03:00:00Z"]);
    let found = reasons(&GrandfatherFatherSon::new(0, 4, 0, 0), &snapshots, "2026-11-20T00:00:00Z");
    assert_eq!(found, [vec![], vec!["weekly 2026-11-15".to_owned()], vec![]]);
}
