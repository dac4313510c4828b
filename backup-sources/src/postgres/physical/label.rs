//! `backup_label`: what the server says of a backup, in lines, to whoever starts from it.

use backup_core::{Error, Result};

use crate::postgres::wal::SegmentName;
use crate::postgres::{Lsn, Timeline};

/// What stands in a `backup_label`. The snapshot has the file byte for byte; this is for who wants to know before.
///
/// ```
/// use backup_sources::postgres::physical::BackupLabel;
///
/// let label = BackupLabel::parse(
///     "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
///      BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 10:00:00 UTC\nLABEL: nightly\n\
///      START TIMELINE: 1\n",
/// )?;
/// assert_eq!(label.start_segment.to_string(), "000000010000000000000002");
/// assert!(!label.from_standby);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupLabel {
    /// Where replay begins.
    pub start: Lsn,
    /// The segment of the log that this lies in.
    pub start_segment: SegmentName,
    /// The checkpoint from which replay begins.
    pub checkpoint: Lsn,
    /// The timeline on which the backup began.
    pub timeline: Timeline,
    /// Whether a standby was backed up.
    pub from_standby: bool,
    /// What whoever made the backup calls it.
    pub label: String,
}

impl BackupLabel {
    /// Reads the lines. Those that are not known are passed over, as the server does.
    ///
    /// # Errors
    ///
    /// A line without which nobody can start from the backup is missing or says something else.
    pub fn parse(text: &str) -> Result<Self> {
        let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let wrong = |what: &str| Error::corruption(format!("it has no {what}")).with_entry("backup_label");
        let start = line("START WAL LOCATION").ok_or_else(|| wrong("START WAL LOCATION"))?;
        let (start, segment) =
            start.split_once(" (file ").ok_or_else(|| wrong("segment in its START WAL LOCATION"))?;
        let start_segment: SegmentName = segment.trim_end_matches(')').parse()?;
        // Versions before 11 did not say; the name of the segment does.
        let timeline = match line("START TIMELINE") {
            Some(number) => {
                let number = number.trim().parse().ok().filter(|number| *number > 0);
                Timeline::new(number.ok_or_else(|| wrong("number in its START TIMELINE"))?)
            }
            None => start_segment.timeline(),
        };
        if timeline != start_segment.timeline() {
            return Err(wrong("segment of the timeline that it says it began on"));
        }
        let checkpoint = line("CHECKPOINT LOCATION").ok_or_else(|| wrong("CHECKPOINT LOCATION"))?;
        Ok(Self {
            start: start.parse()?,
            start_segment,
            checkpoint: checkpoint.trim().parse()?,
            timeline,
            from_standby: line("BACKUP FROM").is_some_and(|from| from.trim() == "standby"),
            label: line("LABEL").unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_nobody_could_start_from_is_refused() {
        let whole = "START WAL LOCATION: 1/FF000028 (file 0000000A00000001000000FF)\nCHECKPOINT LOCATION: 1/FF000060\n\
                     BACKUP FROM: standby\nLABEL: a: b\nSTART TIMELINE: 10\n";
        let label = BackupLabel::parse(whole).unwrap();
        assert!(label.from_standby);
        assert_eq!((label.label.as_str(), label.timeline.get()), ("a: b", 10));
        for line in ["START WAL", "CHECKPOINT"] {
            let without: String =
                whole.lines().filter(|l| !l.starts_with(line)).map(|l| format!("{l}\n")).collect();
            assert!(BackupLabel::parse(&without).is_err(), "{line}");
        }
        assert!(BackupLabel::parse(&whole.replace("TIMELINE: 10", "TIMELINE: 9")).is_err());
        assert!(BackupLabel::parse(&whole.replace("TIMELINE: 10", "TIMELINE: x")).is_err());
        assert!(BackupLabel::parse("").is_err());
    }
}
