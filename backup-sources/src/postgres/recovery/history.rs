//! The way over timelines that lead to one.

use serde::{Deserialize, Serialize};

use crate::postgres::wal::TimelineHistory;
use crate::postgres::{Lsn, Timeline};

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

/// The way over the timelines of a history, oldest first and ending with its own.
pub(super) fn legs(history: &TimelineHistory) -> Vec<Leg> {
    let mut begin = Lsn::INVALID;
    let mut legs = Vec::new();
    for ancestor in history.ancestors() {
        legs.push(Leg { timeline: ancestor.timeline, begin, end: Some(ancestor.switched_at) });
        begin = ancestor.switched_at;
    }
    legs.push(Leg { timeline: history.timeline(), begin, end: None });
    legs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leg_begins_where_the_one_before_was_left() {
        let text =
            "1\t0/3000060\tno recovery target specified\n4\t0/5000000\tbefore 2026-11-20 08:00:00+00\n";
        let history = TimelineHistory::parse(Timeline::new(9), text.as_bytes()).unwrap();
        let legs = legs(&history);
        let found: Vec<_> = legs.iter().map(|leg| (leg.timeline.get(), leg.begin.get())).collect();
        assert_eq!(found, [(1, 0), (4, 0x300_0060), (9, 0x500_0000)]);
        assert_eq!((legs[2].end, legs[0].end), (None, Some(legs[1].begin)));
    }
}
