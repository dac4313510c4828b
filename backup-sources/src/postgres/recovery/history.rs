//! Histories of timelines: from where each branched off.

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::postgres::{Lsn, Timeline};

/// Ancestors that a history may have. A cluster gets one with each promotion.
const ANCESTORS_MAX: usize = 10_000;

/// What a `.history` file says: the timelines before one, oldest first, and where each was left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimelineHistory {
    /// The ancestors, oldest first. Numbers grow, and need not follow each other.
    pub ancestors: Vec<Ancestor>,
}

/// A timeline that was left for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it was left: what it has from here on is no part of its descendants.
    pub end: Lsn,
}

impl TimelineHistory {
    /// Reads a history file, as the server writes it: a line for each ancestor with its number, the position and a reason.
    ///
    /// # Errors
    ///
    /// A line is none, or the numbers or positions do not grow: the file is damaged.
    pub fn parse(text: &str) -> Result<Self> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || {
                let shown: String = line.chars().take(80).collect();
                Error::corruption(format!("`{}` is no line of a timeline's history", shown.escape_debug()))
            };
            let mut words = line.split_ascii_whitespace();
            let timeline =
                words.next().and_then(|word| word.parse::<u32>().ok()).filter(|number| *number > 0);
            let timeline = Timeline::new(timeline.ok_or_else(wrong)?);
            let end: Lsn = words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
            if ancestors.last().is_some_and(|last| last.timeline >= timeline || last.end > end) {
                return Err(wrong());
            }
            if ancestors.len() >= ANCESTORS_MAX {
                return Err(Error::corruption(format!(
                    "a timeline's history has more than {ANCESTORS_MAX} lines"
                )));
            }
            ancestors.push(Ancestor { timeline, end });
        }
        Ok(Self { ancestors })
    }
}

/// One part of the way from a base backup to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it begins; `0/0` for one that has no ancestor.
    pub begin: Lsn,
    /// Where it is left for the next; none for the last.
    pub end: Option<Lsn>,
}

/// The way over the timelines that lead to one, oldest first and ending with itself.
pub(super) fn legs(timeline: Timeline, history: &TimelineHistory) -> Vec<Leg> {
    let mut begin = Lsn::INVALID;
    let mut legs = Vec::new();
    for ancestor in &history.ancestors {
        legs.push(Leg { timeline: ancestor.timeline, begin, end: Some(ancestor.end) });
        begin = ancestor.end;
    }
    legs.push(Leg { timeline, begin, end: None });
    legs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_read_and_damaged_ones_refused() {
        let text =
            "1\t0/3000060\tno recovery target specified\n\n4\t0/5000000\tbefore 2026-11-20 08:00:00+00\n";
        let history = TimelineHistory::parse(text).unwrap();
        let found: Vec<_> = history.ancestors.iter().map(|a| (a.timeline.get(), a.end.get())).collect();
        assert_eq!(found, [(1, 0x300_0060), (4, 0x500_0000)]);
        let legs = legs(Timeline::new(9), &history);
        let found: Vec<_> = legs.iter().map(|leg| (leg.timeline.get(), leg.begin.get())).collect();
        assert_eq!(found, [(1, 0), (4, 0x300_0060), (9, 0x500_0000)]);
        assert_eq!((legs[2].end, legs[0].end), (None, Some(legs[1].begin)));
        for wrong in ["x 0/1", "1", "1 3", "0 0/1", "2 0/2\n1 0/3", "1 0/2\n1 0/3", "1 0/3\n2 0/2"] {
            assert!(TimelineHistory::parse(wrong).is_err(), "{wrong}");
        }
    }
}
