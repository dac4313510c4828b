//! The time zone that days begin in.

use backup_core::{Error, Result, Timestamp};
use jiff::Zoned;
use jiff::tz::TimeZone;

/// A time zone, by which instants become days and hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of this name in the time zone database, such as `Europe/Zurich`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](backup_core::ErrorKind::InvalidInput) if there is none.
    pub fn named(name: &str) -> Result<Self> {
        TimeZone::get(name).map(Self).map_err(|_| {
            let message =
                format!("`{name}` is not a time zone; write it like UTC, Europe/Zurich or America/New_York");
            Error::invalid_input(message)
        })
    }

    /// The time in this zone; what lies outside of the calendar is its first or last moment.
    pub(crate) fn at(&self, time: Timestamp) -> Zoned {
        let end = if time < Timestamp::default() { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        time.to_jiff().unwrap_or(end).to_zoned(self.0.clone())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl From<TimeZone> for Zone {
    fn from(zone: TimeZone) -> Self {
        Self(zone)
    }
}
