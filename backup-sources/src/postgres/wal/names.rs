//! What the files of the log are called.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SegmentSize;
use crate::postgres::lsn::hex_u32;
use crate::postgres::{Lsn, Timeline};

/// A segment's name: 24 hexadecimal digits, of which eight are the timeline. Names of one timeline sort as their segments do.
///
/// ```
/// use backup_sources::postgres::wal::{SegmentName, SegmentSize};
/// use backup_sources::postgres::{Lsn, Timeline};
///
/// let (size, lsn) = (SegmentSize::default(), "1/FF000028".parse()?);
/// let name = SegmentName::of(Timeline::FIRST, lsn, size);
/// assert_eq!(name.to_string(), "0000000100000001000000FF");
/// assert_eq!(name.next(size).map(|name| name.to_string()).as_deref(), Some("000000010000000200000000"));
/// assert_eq!(name.start(size), Lsn::new(0x1_FF00_0000));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: Timeline,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// Digits of a name.
    pub const LEN: usize = 24;

    /// The segment of `timeline` that the byte at `lsn` lies in.
    pub fn of(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        Self::numbered(timeline, size.number_of(lsn), size)
    }

    /// The segment of `timeline` that the byte before `lsn` lies in: the last one that is needed to have all up to there.
    pub fn before(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        Self::of(timeline, Lsn::new(lsn.get().saturating_sub(1)), size)
    }

    /// The segment of this number, counted from the log's beginning. Numbers beyond the end of the log give its last segment.
    pub fn numbered(timeline: Timeline, number: u64, size: SegmentSize) -> Self {
        let number = number.min(size.number_of(Lsn::new(u64::MAX)));
        let low = number & size.per_log().saturating_sub(1);
        let high = number >> size.per_log().trailing_zeros();
        // Neither exceeds 32 bits, as `number` does not exceed the number of the last segment.
        Self { timeline, log: high as u32, segment: low as u32 }
    }

    /// The branch of the log.
    pub const fn timeline(self) -> Timeline {
        self.timeline
    }

    /// The segment of another timeline at the same place.
    #[must_use]
    pub const fn on(self, timeline: Timeline) -> Self {
        Self { timeline, ..self }
    }

    /// Whether segments of this size have such a name: the last eight digits count no further than 4 GiB.
    pub fn fits(self, size: SegmentSize) -> bool {
        u64::from(self.segment) < size.per_log()
    }

    /// The segment's number, counted from the log's beginning.
    pub fn number(self, size: SegmentSize) -> u64 {
        u64::from(self.log).saturating_mul(size.per_log()).saturating_add(u64::from(self.segment))
    }

    /// Where the segment begins.
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn::new(self.number(size).saturating_mul(size.bytes()))
    }

    /// Where the next one begins.
    pub fn end(self, size: SegmentSize) -> Lsn {
        self.start(size).saturating_add(size.bytes())
    }

    /// The one after it on the same timeline; none after the last that can be.
    #[must_use]
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        let next = self.number(size).checked_add(1)?;
        (next <= size.number_of(Lsn::new(u64::MAX))).then(|| Self::numbered(self.timeline, next, size))
    }

    /// The one before it on the same timeline; none before the first.
    #[must_use]
    pub fn previous(self, size: SegmentSize) -> Option<Self> {
        Some(Self::numbered(self.timeline, self.number(size).checked_sub(1)?, size))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:08X}{:08X}", self.timeline, self.log, self.segment)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SegmentName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part = |range: std::ops::Range<usize>| text.get(range).and_then(upper_hex);
        let parsed = match (part(0..8), part(8..16), part(16..24)) {
            (Some(timeline), Some(log), Some(segment)) if text.len() == Self::LEN && timeline > 0 => {
                Some(Self { timeline: Timeline::new(timeline), log, segment })
            }
            _ => None,
        };
        parsed.ok_or_else(|| no_name(text, "a segment, like 00000001000000020000003A"))
    }
}

impl Serialize for SegmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A file that `archive_command` can be given, and `restore_command` asked for, by its name.
///
/// ```
/// use backup_sources::postgres::wal::WalFile;
///
/// let file: WalFile = "0000000A.history".parse()?;
/// assert_eq!(file.timeline().get(), 10);
/// assert!("RECOVERYXLOG".parse::<WalFile>().is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFile {
    /// A segment that is full.
    Segment(SegmentName),
    /// `.partial`: the segment in which a timeline ended, as the server that was promoted had it, at its full length.
    Partial(SegmentName),
    /// `.backup`: what a backup's label was, named after the segment and the place in it where the backup began.
    BackupLabel(SegmentName, u32),
    /// `.history`: where a timeline and those before it began.
    History(Timeline),
}

impl WalFile {
    /// The branch of the log that it belongs to: the first eight digits of the name.
    pub fn timeline(&self) -> Timeline {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::BackupLabel(segment, _) => {
                segment.timeline()
            }
            Self::History(timeline) => *timeline,
        }
    }

    /// The segment that it is, or is named after.
    pub fn segment(&self) -> Option<SegmentName> {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::BackupLabel(segment, _) => Some(*segment),
            Self::History(_) => None,
        }
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => write!(f, "{segment}"),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::BackupLabel(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{timeline}.history"),
        }
    }
}

impl FromStr for WalFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || no_name(text, "a file of the write-ahead log");
        if let Some(timeline) = text.strip_suffix(".history") {
            let number = (timeline.len() == 8).then(|| upper_hex(timeline)).flatten();
            return number.filter(|n| *n > 0).map(|n| Self::History(Timeline::new(n))).ok_or_else(wrong);
        }
        if let Some(segment) = text.strip_suffix(".partial") {
            return segment.parse().map(Self::Partial).map_err(|_| wrong());
        }
        if let Some((segment, offset)) = text.strip_suffix(".backup").and_then(|rest| rest.split_once('.')) {
            let offset = (offset.len() == 8).then(|| upper_hex(offset)).flatten();
            return match (segment.parse(), offset) {
                (Ok(segment), Some(offset)) => Ok(Self::BackupLabel(segment, offset)),
                _ => Err(wrong()),
            };
        }
        text.parse().map(Self::Segment).map_err(|_| wrong())
    }
}

impl Serialize for WalFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WalFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The server writes upper-case digits only; a name of other digits would be another file of the same meaning.
fn upper_hex(text: &str) -> Option<u32> {
    (!text.bytes().any(|b| b.is_ascii_lowercase())).then(|| hex_u32(text)).flatten()
}

fn no_name(text: &str, what: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::invalid_input(format!("`{}` does not name {what}", shown.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_each_other_at_every_size() {
        for exponent in 20..=30 {
            let size = SegmentSize::new(1 << exponent).unwrap();
            let mut name = SegmentName::of(Timeline::new(3), Lsn::new(0xFFFF_FFFF), size);
            assert!(name.fits(size) && name.to_string().starts_with("0000000300000000"));
            for _ in 0..3 {
                let next = name.next(size).unwrap();
                assert_eq!(next.previous(size), Some(name));
                assert_eq!(next.start(size), name.end(size));
                assert_eq!(next.to_string().parse::<SegmentName>().unwrap(), next);
                assert!(next > name && next.to_string() > name.to_string());
                name = next;
            }
        }
        let size = SegmentSize::default();
        let last = SegmentName::numbered(Timeline::FIRST, u64::MAX, size);
        assert_eq!((last.to_string().as_str(), last.next(size)), ("00000001FFFFFFFF000000FF", None));
        assert_eq!(SegmentName::of(Timeline::FIRST, Lsn::new(0), size).previous(size), None);
        assert!(!"000000010000000000000100".parse::<SegmentName>().unwrap().fits(size));
    }

    #[test]
    fn the_last_segment_needed_is_that_of_the_byte_before() {
        let size = SegmentSize::default();
        let of = |lsn| SegmentName::before(Timeline::FIRST, Lsn::new(lsn), size).number(size);
        assert_eq!((of(0x0200_0000), of(0x0200_0001), of(0)), (1, 2, 0));
    }

    #[test]
    fn names_of_files_are_read_and_written() {
        let names = [
            "000000010000000200000003",
            "00000001FFFFFFFF000000FF",
            "000000010000000200000003.partial",
            "000000010000000200000003.00000028.backup",
            "0000000A.history",
        ];
        for name in names {
            assert_eq!(name.parse::<WalFile>().unwrap().to_string(), name);
        }
        let wrong = [
            "",
            "000000000000000200000003",
            "00000001000000020000000a",
            "00000001000000020000000",
            "0000000100000002000000033",
            "000000010000000200000003.part",
            "000000010000000200000003.28.backup",
            "000000010000000200000003.backup",
            "0000000a.history",
            "00000000.history",
            "A.history",
            "../000000010000000200000",
            "00000001000000020000000\u{e9}",
            "RECOVERYXLOG",
        ];
        for name in wrong {
            assert!(name.parse::<WalFile>().is_err(), "{name}");
        }
    }
}
