//! Grandfather, father, son: days, weeks, months and years, by fixed days.

use std::collections::BTreeMap;

use backup_core::retention::{Decision, SnapshotFacts};
use backup_core::{RetentionPolicy, SnapshotId, Timestamp};
use jiff::civil::{Date, Weekday};

use crate::Zone;
use crate::period::on_or_before;
use crate::select::decide_counted;

/// Keeps the snapshots of the newest days, and for longer those of fixed days: of a weekday, of the first of a month, of
/// the first of January.
///
/// In contrast to [`KeepCalendar`](crate::KeepCalendar), the snapshot of a week, month or year is that of its first day
/// (the week begins on `weekday`), and stays the same from then on. Of several on that day it is the newest.
///
/// If there was none on that day, the next day of the same week, month or year that has one stands in for it, so that an
/// outage on a Sunday costs no weekly snapshot; its reason says so. A snapshot of the day itself that turns up later
/// takes the place back. Weeks, months and years without any snapshot do not count.
///
/// ```
/// use backup_retention::GrandfatherFatherSon;
///
/// let production = GrandfatherFatherSon::new(7, 4, 12, 5);
/// let staging = GrandfatherFatherSon::new(3, 2, 3, 1);
/// # let _ = (production, staging);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrandfatherFatherSon {
    daily: u32,
    weekly: u32,
    monthly: u32,
    yearly: u32,
    zone: Zone,
    weekday: Weekday,
}

impl GrandfatherFatherSon {
    /// So many days, weeks (by their Sunday), months and years, in UTC; 0 for none.
    pub fn new(daily: u32, weekly: u32, monthly: u32, yearly: u32) -> Self {
        Self { daily, weekly, monthly, yearly, zone: Zone::utc(), weekday: Weekday::Sunday }
    }

    /// Days of this time zone.
    #[must_use]
    pub fn in_zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// The day whose snapshot is the week's, and with which the week begins.
    #[must_use]
    pub fn with_weekday(mut self, weekday: Weekday) -> Self {
        self.weekday = weekday;
        self
    }

    /// The newest snapshot of each day that has one.
    fn of_days(&self, newest_first: &[&SnapshotFacts]) -> BTreeMap<Date, SnapshotId> {
        let mut days = BTreeMap::new();
        for facts in newest_first {
            days.entry(self.zone.at(facts.time).date()).or_insert(facts.id);
        }
        days
    }
}

impl RetentionPolicy for GrandfatherFatherSon {
    fn decide(&self, snapshots: &[SnapshotFacts], now: Timestamp) -> Vec<Decision> {
        decide_counted(snapshots, now, |newest_first| {
            let days = self.of_days(newest_first);
            let mut chosen = Vec::new();
            chosen.extend(representatives(&days, "daily", self.daily, |date| date));
            chosen.extend(representatives(&days, "weekly", self.weekly, |date| {
                on_or_before(date, self.weekday)
            }));
            chosen.extend(representatives(&days, "monthly", self.monthly, Date::first_of_month));
            chosen.extend(representatives(&days, "yearly", self.yearly, Date::first_of_year));
            chosen
        })
    }
}

/// Of each of the newest `count` periods, which `first_day` tells apart, the snapshot of the first day that has one.
fn representatives(
    days: &BTreeMap<Date, SnapshotId>,
    word: &str,
    count: u32,
    first_day: impl Fn(Date) -> Date,
) -> Vec<(SnapshotId, String)> {
    let mut periods: BTreeMap<Date, (Date, SnapshotId)> = BTreeMap::new();
    for (date, id) in days {
        periods.entry(first_day(*date)).or_insert((*date, *id));
    }
    let newest = periods.into_iter().rev().take(usize::try_from(count).unwrap_or(usize::MAX));
    newest
        .map(|(first, (date, id))| match first == date {
            true => (id, format!("{word} {date}")),
            false => (id, format!("{word} {first}: {date} stands in, the first day with a snapshot")),
        })
        .collect()
}
