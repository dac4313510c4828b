//! Hours, days, weeks, months and years, as periods that snapshots fall into.

use std::fmt;

use jiff::Zoned;
use jiff::civil::{Date, Weekday};
use jiff::tz::Offset;

/// A length of calendar periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Period {
    /// Hours of the clock; where it is set back, the repeated hour is another one.
    Hour,
    /// Days from midnight to midnight.
    Day,
    /// Weeks from the first weekday on.
    Week,
    /// Months.
    Month,
    /// Years.
    Year,
}

/// One period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bucket {
    Hour(Date, i8, Offset),
    Day(Date),
    /// By its first day.
    Week(Date),
    Month(i16, i8),
    Year(i16),
}

impl Period {
    /// `hourly`, `daily`, `weekly`, `monthly`, `yearly`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// The period that `time` falls into.
    pub(crate) fn of(self, time: &Zoned, first_weekday: Weekday) -> Bucket {
        let date = time.date();
        match self {
            Self::Hour => Bucket::Hour(date, time.hour(), time.offset()),
            Self::Day => Bucket::Day(date),
            Self::Week => Bucket::Week(on_or_before(date, first_weekday)),
            Self::Month => Bucket::Month(date.year(), date.month()),
            Self::Year => Bucket::Year(date.year()),
        }
    }
}

/// The last `weekday` that is not after `date`; the calendar's first day where it begins later.
pub(crate) fn on_or_before(date: Date, weekday: Weekday) -> Date {
    let days = i64::from(date.weekday().since(weekday));
    date.checked_sub(jiff::Span::new().days(days)).unwrap_or(Date::MIN)
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour(date, hour, offset) => write!(f, "{date} {hour:02}h (UTC{})", offset_text(*offset)),
            Self::Day(date) => write!(f, "{date}"),
            Self::Week(date) => write!(f, "week of {date}"),
            Self::Month(year, month) => write!(f, "{year:04}-{month:02}"),
            Self::Year(year) => write!(f, "{year:04}"),
        }
    }
}

fn offset_text(offset: Offset) -> String {
    let text = offset.to_string();
    if text.is_empty() || offset == Offset::UTC { "+00".to_owned() } else { text }
}
