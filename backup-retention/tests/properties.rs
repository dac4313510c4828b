//! Laws of the policies over arbitrary histories, and a second, naive implementation to compare with.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::retention::SnapshotFacts;
use backup_core::testing::retention::{facts, laws};
use backup_core::{RetentionPolicy, SnapshotId, Timestamp};
use backup_retention::{
    GrandfatherFatherSon, GroupBy, KeepCalendar, KeepLast, KeepTagged, KeepWithin, PerGroup, Period, Union,
    Zone,
};
use common::kept;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use proptest::prelude::*;

/// Ordinary zones, one without a whole hour of summer time, one that left out a day, one off by 45 minutes.
const ZONES: [&str; 6] =
    ["UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"];
const PERIODS: [Period; 5] = [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year];
const WEEKDAYS: [Weekday; 3] = [Weekday::Monday, Weekday::Saturday, Weekday::Sunday];

/// Times that are dense around changes of the clock and of the date line, and sparse over decades.
fn any_time() -> impl Strategy<Value = Timestamp> {
    let around =
        |seconds: i64| (seconds - 200_000..seconds + 200_000).prop_map(|seconds| Timestamp::new(seconds, 0));
    prop_oneof![
        // 2026-10-25 and 2026-03-29 in Europe, 2011-12-30 in Samoa, a New Year.
        around(1_792_890_000),
        around(1_774_746_000),
        around(1_325_239_200),
        around(1_767_225_600),
        (0_i64..1_900_000_000).prop_map(|seconds| Timestamp::new(seconds, 0)),
        // Many at the very same time.
        (0_i64..4).prop_map(|n| Timestamp::new(1_774_746_000 + n * 1800, 0)),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<SnapshotFacts>> {
    let snapshot = (any_time(), 0..4_u8, 0..3_u8, any::<bool>());
    prop::collection::vec(snapshot, 0..60).prop_map(|snapshots| {
        let numbered = snapshots.into_iter().zip(1_u64..);
        numbered
            .map(|((time, partial, label, tagged), number)| {
                let mut facts = facts(number * 7919 % 1009, time);
                facts.complete = partial > 0;
                facts.label = (label > 0).then(|| label.to_string());
                if tagged {
                    facts.tags.insert("hold".to_owned(), "yes".to_owned());
                }
                facts
            })
            .collect()
    })
}

/// What a calendar policy must keep, by its definition: of each period the newest, if fewer than `count` later periods
/// have a snapshot.
fn naive(
    snapshots: &[&SnapshotFacts],
    period: Period,
    count: usize,
    zone: &str,
    first: Weekday,
) -> BTreeSet<SnapshotId> {
    let zone = TimeZone::get(zone).unwrap();
    let name = |facts: &SnapshotFacts| {
        let time = jiff::Timestamp::from_second(facts.time.seconds()).unwrap().to_zoned(zone.clone());
        let mut day = time.date();
        match period {
            Period::Hour => time.strftime("%Y-%m-%d %H %z").to_string(),
            Period::Day => time.strftime("%Y-%m-%d").to_string(),
            Period::Week => {
                while day.weekday() != first {
                    day = day.yesterday().unwrap();
                }
                day.to_string()
            }
            Period::Month => time.strftime("%Y-%m").to_string(),
            _ => time.strftime("%Y").to_string(),
        }
    };
    let newest_of_its_period = |facts: &&SnapshotFacts| {
        snapshots
            .iter()
            .all(|other| name(other) != name(facts) || (other.time, other.id) <= (facts.time, facts.id))
    };
    let newest: Vec<_> = snapshots.iter().copied().filter(newest_of_its_period).collect();
    let later = |facts: &SnapshotFacts| {
        newest.iter().filter(|other| (other.time, other.id) > (facts.time, facts.id)).count()
    };
    newest.iter().filter(|facts| later(facts) < count).map(|facts| facts.id).collect()
}

fn any_policy() -> impl Strategy<Value = Arc<dyn RetentionPolicy>> {
    let zone = prop::sample::select(&ZONES[..]).prop_map(|name| Zone::named(name).unwrap());
    let count = 0..9_u32;
    prop_oneof![
        count.clone().prop_map(|count| Arc::new(KeepLast(count)) as Arc<dyn RetentionPolicy>),
        (prop::sample::select(&PERIODS[..]), count, zone.clone(), prop::sample::select(&WEEKDAYS[..]))
            .prop_map(|(period, count, zone, first)| {
                let policy = KeepCalendar::new(period, count).in_zone(zone).with_first_weekday(first);
                Arc::new(policy) as Arc<dyn RetentionPolicy>
            }),
        (1..900_u32, zone).prop_map(|(days, zone)| {
            let span = format!("{days}d").parse().unwrap();
            Arc::new(KeepWithin::new(span).in_zone(zone)) as Arc<dyn RetentionPolicy>
        }),
        Just(Arc::new(KeepTagged::new("hold", None)) as Arc<dyn RetentionPolicy>),
    ]
}

fn any_gfs() -> impl Strategy<Value = GrandfatherFatherSon> {
    (0..5_u32, 0..5_u32, 0..5_u32, 0..5_u32, prop::sample::select(&ZONES[..])).prop_map(
        |(d, w, m, y, zone)| GrandfatherFatherSon::new(d, w, m, y).in_zone(Zone::named(zone).unwrap()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn calendar_policies_agree_with_their_definition(
        history in any_history(),
        now in any_time(),
        period in prop::sample::select(&PERIODS[..]),
        count in 0..9_u32,
        zone in prop::sample::select(&ZONES[..]),
        first in prop::sample::select(&WEEKDAYS[..]),
    ) {
        let policy = KeepCalendar::new(period, count).in_zone(Zone::named(zone).unwrap()).with_first_weekday(first);
        let past: Vec<_> = history.iter().filter(|facts| facts.time <= now).collect();
        let complete: Vec<_> = past.iter().copied().filter(|facts| facts.complete).collect();
        let mut expected = naive(&past, period, count as usize, zone, first);
        expected.extend(naive(&complete, period, count as usize, zone, first));
        expected.extend(history.iter().filter(|facts| facts.time > now).map(|facts| facts.id));
        prop_assert_eq!(kept(&policy, &history, now), expected);
    }

    #[test]
    fn every_policy_keeps_the_laws(history in any_history(), now in any_time(), policy in any_policy(), gfs in any_gfs()) {
        laws(&*policy, &history, now).unwrap();
        laws(&gfs, &history, now).unwrap();
        laws(&Union::new([Arc::clone(&policy), Arc::new(gfs)]), &history, now).unwrap();
        laws(&PerGroup::new([GroupBy::Label], policy), &history, now).unwrap();
    }

    #[test]
    fn an_older_snapshot_never_drops_a_newer_one(
        history in any_history(),
        now in any_time(),
        time in any_time(),
        complete in any::<bool>(),
        policy in any_policy(),
        other in any_policy(),
    ) {
        let mut older = facts(5000, time);
        older.complete = complete;
        let policy = PerGroup::new([], Arc::new(Union::new([policy, other])));
        let before = kept(&policy, &history, now);
        let newer = |facts: &&SnapshotFacts| (facts.time, facts.id) > (older.time, older.id);
        let newer: BTreeSet<_> = history.iter().filter(newer).map(|facts| facts.id).collect();
        // Where there was no complete snapshot at all, the first complete one takes the guard's place.
        prop_assume!(history.iter().any(|facts| facts.complete && facts.time <= now) || !complete);
        let mut longer = history.clone();
        longer.push(older);
        let after = kept(&policy, &longer, now);
        prop_assert!(before.intersection(&newer).all(|id| after.contains(id)));
    }

    #[test]
    fn the_newest_complete_snapshot_of_a_group_is_never_dropped(
        history in any_history(),
        now in any_time(),
        policy in any_policy(),
    ) {
        let kept = kept(&PerGroup::new([GroupBy::Label], policy), &history, now);
        for label in [None, Some("1"), Some("2")] {
            let group = || history.iter().filter(|facts| facts.label.as_deref() == label);
            let newest = |facts: &&SnapshotFacts| (facts.time, facts.id);
            if let Some(newest) = group().filter(|facts| facts.complete && facts.time <= now).max_by_key(newest) {
                prop_assert!(kept.contains(&newest.id));
            }
            prop_assert!(group().next().is_none() || group().any(|facts| kept.contains(&facts.id)));
        }
    }

    /// Deleting as one goes is the same as deciding once: nothing that is needed later is dropped today.
    #[test]
    fn dropping_every_day_keeps_what_dropping_once_keeps(
        days in prop::collection::vec((0..4_u8, 0..86_400_i64), 1..500),
        gfs in any_gfs(),
        period in prop::sample::select(&PERIODS[1..]),
        count in 1..6_u32,
    ) {
        let policy = Union::new([Arc::new(gfs) as Arc<dyn RetentionPolicy>, Arc::new(KeepCalendar::new(period, count))]);
        let begin = 1_700_000_000_i64 / 86_400 * 86_400;
        let (mut stored, mut all) = (Vec::new(), Vec::new());
        let mut now = Timestamp::default();
        for ((number, (taken, second)), day) in days.iter().enumerate().zip(0_i64..) {
            // One day in four nothing is backed up.
            if *taken > 0 {
                now = Timestamp::new(begin + day * 86_400 + second, 0);
                all.push(facts(number as u64, now));
                stored.push(facts(number as u64, now));
                let kept = kept(&policy, &stored, now);
                stored.retain(|facts| kept.contains(&facts.id));
            }
        }
        let stored: BTreeSet<_> = stored.iter().map(|facts| facts.id).collect();
        prop_assert_eq!(stored, kept(&policy, &all, now));
    }
}
