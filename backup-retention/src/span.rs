//! Lengths of time in terms of the calendar: `90d`, `1y6m`.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Zone;

/// The largest number before a unit.
const NUMBER_MAX: u32 = 9999;

/// Years, months, weeks, days and hours, written like `90d` or `1y6m`: `y`, `m` or `mo` (months), `w`, `d`, `h`.
///
/// One year before the 29th of February is the 28th. Each number is at most 9999, and one of them is not 0.
///
/// ```
/// use backup_retention::CalendarSpan;
///
/// let span: CalendarSpan = "1y6m".parse()?;
/// assert_eq!(span.to_string(), "1y6m");
/// assert!("90".parse::<CalendarSpan>().is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CalendarSpan {
    years: u32,
    months: u32,
    weeks: u32,
    days: u32,
    hours: u32,
}

impl CalendarSpan {
    /// So many days.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](backup_core::ErrorKind::InvalidInput) for 0 and for more than 9999.
    pub fn days(days: u32) -> Result<Self> {
        format!("{days}d").parse()
    }

    /// The moment this long before `now`; the beginning of all time where the calendar does not reach so far.
    pub(crate) fn before(&self, now: Timestamp, zone: &Zone) -> Timestamp {
        let beginning = Timestamp::new(i64::MIN, 0);
        let span = || {
            jiff::Span::new()
                .try_years(self.years)?
                .try_months(self.months)?
                .try_weeks(self.weeks)?
                .try_days(self.days)?
                .try_hours(self.hours)
        };
        // A now outside of the calendar is no time that anything is old by: nothing is.
        if now.to_jiff().is_none() {
            return beginning;
        }
        span()
            .and_then(|span| zone.at(now).checked_sub(span))
            .map_or(beginning, |then| then.timestamp().into())
    }

    fn parts(&self) -> [(u32, &'static str); 5] {
        [(self.years, "y"), (self.months, "m"), (self.weeks, "w"), (self.days, "d"), (self.hours, "h")]
    }
}

impl fmt::Display for CalendarSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts()
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

impl FromStr for CalendarSpan {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let message =
                format!("`{text}` is not a span of the calendar: {why}; write it like 90d, 36h, 4w or 1y6m");
            Error::invalid_input(message)
        };
        let mut span = Self { years: 0, months: 0, weeks: 0, days: 0, hours: 0 };
        let mut rest = text;
        let mut last = 0;
        while !rest.is_empty() {
            let digits =
                rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| wrong("a number has no unit"))?;
            let (number, after) = rest.split_at(digits);
            let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_end);
            let number: u32 =
                number.parse().map_err(|_| wrong("a unit needs a number of at most 9999 before it"))?;
            let (place, slot) = match unit {
                "y" => (1, &mut span.years),
                "m" | "mo" => (2, &mut span.months),
                "w" => (3, &mut span.weeks),
                "d" => (4, &mut span.days),
                "h" => (5, &mut span.hours),
                _ => return Err(wrong("the units are y, m (months), w, d and h")),
            };
            if number > NUMBER_MAX {
                return Err(wrong("no number may be greater than 9999"));
            }
            if place <= last {
                return Err(wrong("each unit stands once, the longest first"));
            }
            (last, rest) = (place, after);
            *slot = number;
        }
        match span.parts().iter().any(|(number, _)| *number > 0) {
            true => Ok(span),
            false => Err(wrong("it is empty")),
        }
    }
}

impl Serialize for CalendarSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CalendarSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for CalendarSpan {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CalendarSpan".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A span of the calendar, like \"90d\", \"4w\" or \"1y6m\"",
            "pattern": "^([0-9]+y)?([0-9]+(m|mo))?([0-9]+w)?([0-9]+d)?([0-9]+h)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_with_words() {
        for text in [
            "",
            "0d",
            "90",
            "d",
            "1x",
            "1d1y",
            "1d1d",
            "10000d",
            "99999999999999999999d",
            "-1d",
            "1.5d",
            "1 d",
            "ä",
        ] {
            let error = text.parse::<CalendarSpan>().unwrap_err().to_string();
            assert!(error.contains("write it like 90d"), "{error}");
        }
    }

    #[test]
    fn months_are_those_of_the_calendar_and_days_those_of_the_zone() {
        let before = |span: &str, now: &str, zone: &str| {
            let span: CalendarSpan = span.parse().unwrap();
            span.before(now.parse().unwrap(), &Zone::named(zone).unwrap()).to_string()
        };
        assert_eq!(before("1m", "2026-03-31T12:00:00Z", "UTC"), "2026-02-28T12:00:00Z");
        assert_eq!(before("1y", "2028-02-29T12:00:00Z", "UTC"), "2027-02-28T12:00:00Z");
        assert_eq!(before("1y6m", "2026-11-20T00:00:00Z", "UTC"), "2025-05-20T00:00:00Z");
        // Noon to noon over the change to summer time is 23 hours.
        assert_eq!(before("1d", "2026-03-29T10:00:00Z", "Europe/Zurich"), "2026-03-28T11:00:00Z");
        assert_eq!(before("24h", "2026-03-29T10:00:00Z", "Europe/Zurich"), "2026-03-28T10:00:00Z");
        assert_eq!(
            before("9999y", "2026-03-29T10:00:00Z", "UTC"),
            "-007973-03-29T10:00:00Z".parse::<Timestamp>().unwrap().to_string()
        );
    }
}
