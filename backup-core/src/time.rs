//! Points in time, and the clock that jobs are given.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// A point in time: seconds since 1970-01-01T00:00:00Z (negative before it) and nanoseconds within the second.
///
/// It holds whatever a file system holds, also far outside the years 0 to 9999. As text it is RFC 3339 where that
/// can express it, otherwise `@seconds.nanoseconds`.
///
/// ```
/// use backup_core::Timestamp;
///
/// let time: Timestamp = "2026-11-20T08:00:00.5Z".parse()?;
/// assert_eq!(time, Timestamp::new(1_795_161_600, 500_000_000));
/// assert_eq!(time.to_string(), "2026-11-20T08:00:00.5Z");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

impl Timestamp {
    /// `nanoseconds` beyond a second are cut to 999,999,999.
    pub const fn new(seconds: i64, nanoseconds: u32) -> Self {
        let nanoseconds = if nanoseconds > 999_999_999 { 999_999_999 } else { nanoseconds };
        Self { seconds, nanoseconds }
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second, 0 to 999,999,999.
    pub const fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// The time `seconds` later (earlier where negative), stopping at the ends of the range.
    #[must_use]
    pub const fn saturating_add_seconds(self, seconds: i64) -> Self {
        Self { seconds: self.seconds.saturating_add(seconds), nanoseconds: self.nanoseconds }
    }

    /// This time as jiff's, where it lies in the years -9999 to 9999.
    pub fn to_jiff(self) -> Option<jiff::Timestamp> {
        let nanoseconds = i32::try_from(self.nanoseconds).ok()?;
        jiff::Timestamp::new(self.seconds, nanoseconds).ok()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::new(i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self::new(seconds.saturating_neg(), 0),
                    nanoseconds => Self::new(
                        seconds.saturating_neg().saturating_sub(1),
                        1_000_000_000_u32.saturating_sub(nanoseconds),
                    ),
                }
            }
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        let nanoseconds = time.as_nanosecond();
        let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or_default();
        let rest = u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default();
        Self::new(seconds, rest)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The year must have four digits for RFC 3339.
        match self.to_jiff().filter(|_| (-62_167_219_200..=253_402_300_799).contains(&self.seconds)) {
            Some(time) => write!(f, "{time}"),
            None => write!(f, "@{}.{:09}", self.seconds, self.nanoseconds),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid_input(format!("`{text}` is not a time; write it like 2026-11-20T08:00:00Z"));
        if let Some(raw) = text.strip_prefix('@') {
            let (seconds, nanoseconds) = raw.split_once('.').unwrap_or((raw, "0"));
            let seconds = seconds.parse().map_err(|_| wrong())?;
            let nanoseconds = nanoseconds.parse::<u32>().map_err(|_| wrong())?;
            return if nanoseconds < 1_000_000_000 {
                Ok(Self::new(seconds, nanoseconds))
            } else {
                Err(wrong())
            };
        }
        text.parse::<jiff::Timestamp>().map(Self::from).map_err(|_| wrong())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where jobs take the time from, so that tests can set it.
///
/// Clocks serve reports and liveness. Nothing that the engine promises depends on one being right.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// A clock that stands still until it is set.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Sets the clock.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_rfc_3339_survive_as_text() {
        for time in [
            Timestamp::new(i64::MAX, 999_999_999),
            Timestamp::new(i64::MIN, 1),
            Timestamp::new(-1, 999_999_999),
            Timestamp::new(0, 0),
            Timestamp::new(253_402_300_800, 0),
            Timestamp::new(-62_167_219_201, 5),
        ] {
            assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }

    #[test]
    fn system_time_before_the_epoch_keeps_its_nanoseconds() {
        let before = UNIX_EPOCH - std::time::Duration::new(1, 250_000_000);
        assert_eq!(Timestamp::from(before), Timestamp::new(-2, 750_000_000));
    }
}
