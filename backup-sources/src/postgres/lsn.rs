//! Positions in the write-ahead log, and the branches that it has.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A position in the write-ahead log, in bytes from its beginning: a log sequence number. As text `16/B374D848`, as the server's
/// type `pg_lsn` has it; it serializes as this text.
///
/// ```
/// use backup_sources::postgres::Lsn;
///
/// let lsn: Lsn = "16/B374D848".parse()?;
/// assert_eq!(lsn.get(), 0x16_B374_D848);
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// `0/0`, at which no record ever stands: the server's way to say "none".
    pub const INVALID: Self = Self(0);

    /// So many bytes from the log's beginning.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the log's beginning.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether it is not `0/0`.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position `bytes` later; the last one there is where it would lie beyond that.
    #[must_use]
    pub const fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here; 0 if that is later.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<u64> for Lsn {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> Self {
        lsn.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('/').and_then(|(high, low)| Some((hex_u32(high)?, hex_u32(low)?)));
        let (high, low) = parsed.ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::invalid_input(format!(
                "`{}` is no position in a write-ahead log, like 16/B374D848",
                shown.escape_debug()
            ))
        })?;
        Ok(Self((u64::from(high) << 32) | u64::from(low)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A branch of the write-ahead log; every promotion begins one. As text eight hexadecimal digits, as in the names of the log's
/// files; it serializes as this text. Numbers ascend from parent to child, but not always by one.
///
/// ```
/// use backup_sources::postgres::Timeline;
///
/// assert_eq!(Timeline::new(26).to_string(), "0000001A");
/// assert_eq!("0000001A".parse::<Timeline>()?.get(), 26);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(u32);

impl Timeline {
    /// The one that a new cluster is on.
    pub const FIRST: Self = Self(1);

    /// The timeline of this number. Servers have none with the number 0.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<Timeline> for u32 {
    fn from(timeline: Timeline) -> Self {
        timeline.0
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timeline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = (text.len() == 8).then(|| hex_u32(text)).flatten();
        number.filter(|number| *number > 0).map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::invalid_input(format!(
                "`{}` is no timeline as in the names of its files, like 0000000A",
                shown.escape_debug()
            ))
        })
    }
}

impl Serialize for Timeline {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timeline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One to eight hexadecimal digits and nothing else: `from_str_radix` alone takes a sign, too.
pub(super) fn hex_u32(text: &str) -> Option<u32> {
    let is_hex = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_the_server_writes_them() {
        for text in ["0/0", "0/1", "1/0", "FFFFFFFF/FFFFFFFF", "A0/28"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!(
            "0/00000028".parse::<Lsn>().unwrap(),
            Lsn::new(40),
            "of 9 digits, as 18 and older write it"
        );
        for text in ["", "/", "1", "1/", "/1", "1/123456789", "+1/1", "1/-1", "1/1/1", "g/1", "1/1 "] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
        assert_eq!(Lsn::new(10).bytes_since(Lsn::new(4)), 6);
        assert_eq!(Lsn::new(4).bytes_since(Lsn::new(10)), 0);
    }

    #[test]
    fn timelines_are_eight_digits() {
        assert_eq!("00000001".parse::<Timeline>().unwrap(), Timeline::FIRST);
        for text in ["", "1", "00000000", "000000001", "0000000g", "+0000001"] {
            assert!(text.parse::<Timeline>().is_err(), "{text}");
        }
    }
}
