//! Where timelines began.

use std::fmt::Write;

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::SegmentSize;
use crate::postgres::{Lsn, Timeline};

/// Longest `.history` file.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most ancestors that a timeline may have: a promotion each.
const ANCESTORS_MAX: usize = 10_000;
/// What is kept of a reason.
const REASON_CHARS_MAX: usize = 1000;

/// A timeline that another came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it was left: its bytes before this position are part of the younger one's history.
    pub switched_at: Lsn,
    /// What the server says of why.
    pub reason: String,
}

/// The way from a cluster's beginning to a timeline, as a `.history` file tells it. The numbers ascend, but not always by one.
///
/// ```
/// use backup_sources::postgres::wal::TimelineHistory;
/// use backup_sources::postgres::Timeline;
///
/// let text = "1\t0/3000000\tno recovery target specified\n2\t0/5000100\tbefore 2026-11-20 10:00:00+00\n";
/// let history = TimelineHistory::parse(Timeline::new(5), text.as_bytes())?;
/// assert_eq!(history.timeline_at("0/4000000".parse()?), Timeline::new(2));
/// assert!(history.contains(Timeline::new(5), "0/5000100".parse()?));
/// assert!(!history.contains(Timeline::new(2), "0/5000100".parse()?));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory {
    timeline: Timeline,
    ancestors: Vec<Ancestor>,
}

impl TimelineHistory {
    /// That of a timeline that came from none, as the first does.
    pub fn root(timeline: Timeline) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the `.history` file of `timeline`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corruption`]: it is none, or not of this timeline; the message has the line.
    pub fn parse(timeline: Timeline, file: &[u8]) -> Result<Self> {
        let wrong = |line: usize, what: &str| {
            Error::corruption(format!("{timeline}.history is no timeline's history: line {line} {what}"))
        };
        if file.len() > FILE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Corruption,
                format!("{timeline}.history is too long to be one"),
            ));
        }
        // Reasons may hold names of restore points in any encoding.
        let text = String::from_utf8_lossy(file);
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index.saturating_add(1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(3, ['\t', ' ']);
            let parent =
                fields.next().and_then(|field| field.parse::<u32>().ok()).filter(|number| *number > 0);
            let parent = parent.ok_or_else(|| wrong(number, "does not begin with a timeline's number"))?;
            let switched_at: Lsn = match fields.next().map(str::parse) {
                Some(Ok(lsn)) => lsn,
                _ => return Err(wrong(number, "does not say where the timeline was left")),
            };
            let reason = fields.next().unwrap_or_default().trim().chars().take(REASON_CHARS_MAX).collect();
            if let Some(before) = ancestors.last() {
                if before.timeline.get() >= parent {
                    return Err(wrong(number, "has a timeline that is not younger than the one before"));
                }
                if before.switched_at > switched_at {
                    return Err(wrong(number, "leaves a timeline before it began"));
                }
            }
            if parent >= timeline.get() {
                return Err(wrong(number, "has an ancestor that is not older than the timeline itself"));
            }
            if ancestors.len() >= ANCESTORS_MAX {
                return Err(wrong(number, "has more ancestors than a timeline can have"));
            }
            ancestors.push(Ancestor { timeline: Timeline::new(parent), switched_at, reason });
        }
        if ancestors.is_empty() && timeline != Timeline::FIRST {
            return Err(wrong(1, "and all others name no ancestor"));
        }
        Ok(Self { timeline, ancestors })
    }

    /// As a `.history` file.
    pub fn format(&self) -> String {
        let mut text = String::new();
        for Ancestor { timeline, switched_at, reason } in &self.ancestors {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}\t{switched_at}\t{reason}", timeline.get());
        }
        text
    }

    /// The timeline that it leads to.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Those before it, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// The one that it came from.
    pub fn parent(&self) -> Option<&Ancestor> {
        self.ancestors.last()
    }

    /// Where a timeline of this history begins; none if it is not part of it.
    pub fn begin_of(&self, timeline: Timeline) -> Option<Lsn> {
        let mut all = self.ancestors.iter().map(|ancestor| ancestor.timeline).chain([self.timeline]);
        let index = all.position(|known| known == timeline)?;
        let before = index.checked_sub(1).and_then(|before| self.ancestors.get(before));
        Some(before.map_or(Lsn::INVALID, |before| before.switched_at))
    }

    /// Where a timeline of this history was left; none of the last, and of one that is not part of it.
    pub fn end_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.ancestors.iter().find(|known| known.timeline == timeline).map(|known| known.switched_at)
    }

    /// Whether the byte at `lsn`, as `timeline` has it, is part of this history.
    pub fn contains(&self, timeline: Timeline, lsn: Lsn) -> bool {
        self.begin_of(timeline).is_some() && self.timeline_at(lsn) == timeline
    }

    /// The timeline on which the byte at `lsn` was written.
    pub fn timeline_at(&self, lsn: Lsn) -> Timeline {
        let ancestor = self.ancestors.iter().find(|ancestor| lsn < ancestor.switched_at);
        ancestor.map_or(self.timeline, |ancestor| ancestor.timeline)
    }

    /// The timeline whose file of the segment with this number has all of this history that lies in it: the youngest that
    /// begins before the segment's end, as that file begins with a copy of what was before.
    pub fn timeline_of_segment(&self, number: u64, size: SegmentSize) -> Timeline {
        let last = Lsn::new(number.saturating_add(1).saturating_mul(size.bytes()).saturating_sub(1));
        self.timeline_at(last)
    }

    /// Whether `older` is this history up to one of its timelines.
    pub fn descends_from(&self, older: &Self) -> bool {
        let Some(at) = self.begin_of(older.timeline) else { return false };
        let before = self.ancestors.iter().take_while(|ancestor| ancestor.timeline < older.timeline);
        let same = |(one, other): (&Ancestor, &Ancestor)| {
            (one.timeline, one.switched_at) == (other.timeline, other.switched_at)
        };
        before.clone().count() == older.ancestors.len()
            && before.zip(&older.ancestors).all(same)
            && older.parent().is_none_or(|parent| parent.switched_at == at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: u32, text: &str) -> Result<TimelineHistory> {
        TimelineHistory::parse(Timeline::new(timeline), text.as_bytes())
    }

    #[test]
    fn a_history_is_read_and_written() {
        let text = "1\t0/3000000\tno recovery target specified\n4\t1/5000100\tat restore point \"a b\"\n";
        let read = history(9, text).unwrap();
        assert_eq!(read.format(), text);
        assert_eq!(history(9, &format!("# comment\n\n{text}")).unwrap(), read);
        assert_eq!(read.parent().unwrap().timeline, Timeline::new(4));
        assert_eq!(read.begin_of(Timeline::new(9)), Some(Lsn::new(0x1_0500_0100)));
        assert_eq!(read.begin_of(Timeline::new(1)), Some(Lsn::INVALID));
        assert_eq!(read.begin_of(Timeline::new(2)), None, "the numbers jump");
        assert_eq!(read.end_of(Timeline::new(1)), Some(Lsn::new(0x0300_0000)));
        assert_eq!(read.end_of(Timeline::new(9)), None);
    }

    #[test]
    fn each_byte_belongs_to_one_timeline() {
        let read = history(9, "1\t0/3000000\t\n4\t0/5000100\t\n").unwrap();
        for (lsn, timeline) in [(0, 1), (0x2FF_FFFF, 1), (0x300_0000, 4), (0x500_00FF, 4), (0x500_0100, 9)] {
            for candidate in [1, 4, 9, 5] {
                let contains = read.contains(Timeline::new(candidate), Lsn::new(lsn));
                assert_eq!(contains, candidate == timeline, "{lsn:x} {candidate}");
            }
        }
        let size = SegmentSize::default();
        let of = |number| read.timeline_of_segment(number, size).get();
        assert_eq!((of(2), of(3), of(4), of(5), of(6)), (1, 4, 4, 9, 9));
    }

    #[test]
    fn a_history_descends_from_what_it_went_through_only() {
        let read = history(9, "1\t0/3000000\t\n4\t0/5000100\t\n").unwrap();
        assert!(read.descends_from(&history(4, "1\t0/3000000\tother words\n").unwrap()));
        assert!(read.descends_from(&TimelineHistory::root(Timeline::FIRST)));
        assert!(!read.descends_from(&history(4, "1\t0/3000008\t\n").unwrap()), "left elsewhere");
        assert!(!read.descends_from(&history(5, "1\t0/3000000\t\n").unwrap()), "another branch");
    }

    #[test]
    fn what_is_no_history_is_refused() {
        let long = "#".repeat(FILE_BYTES_MAX + 1);
        for wrong in [
            "",
            "x\t0/1\t",
            "1\tnowhere\t",
            "1",
            "0\t0/1\t",
            "9\t0/1\t",
            "10\t0/1\t",
            "2\t0/2\t\n1\t0/3\t",
            "1\t0/3\t\n2\t0/2\t",
            "1\t0/3\t\n1\t0/4\t",
            &long,
        ] {
            let error = history(9, wrong).unwrap_err();
            assert!(error.is_corruption() && error.to_string().contains("00000009"), "{error}");
        }
    }
}
