//! Lengths of time as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// A length of time, written like `90d`, `36h`, `1h30m` or `500ms`.
///
/// Units are `w`, `d` (24 hours), `h`, `m` (minutes), `s` and `ms`, largest first, each at most once. Months and years have
/// no fixed length and are not understood; what counts by the calendar has settings of its own.
///
/// ```
/// use backup_core::config::Span;
///
/// assert_eq!("90d".parse::<Span>()?.duration().as_secs(), 90 * 86_400);
/// assert_eq!("1h30m".parse::<Span>()?.to_string(), "1h30m");
/// assert!("90".parse::<Span>().is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(Duration);

impl Span {
    /// A length of time, rounded down to milliseconds.
    pub fn new(duration: Duration) -> Self {
        let rest = Duration::from_nanos(u64::from(duration.subsec_nanos() % 1_000_000));
        Self(duration.saturating_sub(rest))
    }

    /// The length.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

// Milliseconds of each unit, largest first.
const UNITS: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::invalid_input(format!(
                "`{text}` is not a length of time{why}; write it like 90d, 36h or 1h30m"
            ))
        };
        let mut rest = text.trim();
        let mut units = UNITS.iter();
        let mut total = 0_u64;
        if rest.is_empty() {
            return Err(wrong(""));
        }
        if rest == "0" {
            return Ok(Self::default());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at_checked(digits).ok_or_else(|| wrong(""))?;
            let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, after) = after.split_at_checked(letters).ok_or_else(|| wrong(""))?;
            let number: u64 = number.parse().map_err(|_| wrong(""))?;
            if unit.is_empty() {
                return Err(wrong(" (the unit is missing)"));
            }
            let (_, factor) = units
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| wrong(" (units are w, d, h, m, s and ms, largest first)"))?;
            total = number
                .checked_mul(*factor)
                .and_then(|milliseconds| total.checked_add(milliseconds))
                .ok_or_else(|| wrong(" that can be counted"))?;
            rest = after.trim_start();
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        // Weeks only where they say it exactly: 90d should stay 90d.
        let weeks_only = UNITS.first().is_some_and(|(_, week)| rest.is_multiple_of(*week));
        for (unit, factor) in UNITS.iter().skip(usize::from(!weeks_only)) {
            let count = rest / factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time like \"90d\" or \"1h30m\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("90d", 90 * 86_400_000),
            ("2w", 14 * 86_400_000),
            ("1d12h1ms", 129_600_001),
        ] {
            assert_eq!(text.parse::<Span>().unwrap().duration().as_millis(), milliseconds, "{text}");
        }
        for text in [
            "",
            "90",
            "d",
            "-1d",
            "1.5h",
            "1m1h",
            "1d1d",
            "3months",
            "1y",
            "99999999999999999999d",
            "1d,",
            "é",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0s", "1ms", "90d", "2w", "1h30m", "1d1h1m1s1ms", "25m"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string(), text);
            let json = serde_json::to_string(&span).unwrap();
            assert_eq!(serde_json::from_str::<Span>(&json).unwrap(), span);
        }
        assert!(serde_json::from_str::<Span>("90").is_err());
    }
}
