//! The newest snapshot of each hour, day, week, month or year.

use std::collections::BTreeSet;

use backup_core::retention::{Decision, SnapshotFacts};
use backup_core::{RetentionPolicy, Timestamp};
use jiff::civil::Weekday;

use crate::select::decide_counted;
use crate::{CalendarSpan, Period, Zone};

/// How far back periods count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// The newest so many periods that have a snapshot; those without one do not count.
    Count(u32),
    /// The snapshots that are not older.
    Within(CalendarSpan),
    /// All of them.
    Unlimited,
}

/// Keeps the newest snapshot of each period, as `restic forget --keep-daily` and its like do.
///
/// Periods without a snapshot do not count, so a machine that was off for a month loses none of its seven days. Of the
/// current period, too, the newest is kept, though it may not be the last.
///
/// ```
/// use backup_retention::{KeepCalendar, Period, Zone};
///
/// let week = KeepCalendar::new(Period::Day, 7).in_zone(Zone::named("Europe/Zurich")?);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepCalendar {
    period: Period,
    extent: Extent,
    zone: Zone,
    first_weekday: Weekday,
}

impl KeepCalendar {
    /// The newest snapshot of each of the newest `count` periods, in UTC, weeks beginning on Monday.
    pub fn new(period: Period, count: u32) -> Self {
        Self::with_extent(period, Extent::Count(count))
    }

    /// The newest snapshot of each period as far back as `extent` says.
    pub fn with_extent(period: Period, extent: Extent) -> Self {
        Self { period, extent, zone: Zone::utc(), first_weekday: Weekday::Monday }
    }

    /// Periods of this time zone.
    #[must_use]
    pub fn in_zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// Weeks that begin on this day.
    #[must_use]
    pub fn with_first_weekday(mut self, first_weekday: Weekday) -> Self {
        self.first_weekday = first_weekday;
        self
    }
}

impl RetentionPolicy for KeepCalendar {
    fn decide(&self, snapshots: &[SnapshotFacts], now: Timestamp) -> Vec<Decision> {
        let (count, oldest) = match &self.extent {
            Extent::Count(count) => (usize::try_from(*count).unwrap_or(usize::MAX), None),
            Extent::Within(span) => (usize::MAX, Some(span.before(now, &self.zone))),
            Extent::Unlimited => (usize::MAX, None),
        };
        decide_counted(snapshots, now, |newest_first| {
            let mut seen = BTreeSet::new();
            let mut chosen = Vec::new();
            for facts in newest_first {
                if oldest.is_some_and(|oldest| facts.time < oldest) {
                    break;
                }
                let bucket = self.period.of(&self.zone.at(facts.time), self.first_weekday);
                if seen.contains(&bucket) {
                    continue;
                }
                if seen.len() >= count {
                    break;
                }
                chosen.push((facts.id, format!("{} {bucket}", self.period.as_str())));
                seen.insert(bucket);
            }
            chosen
        })
    }
}
