//! Where receiving begins.

use backup_core::{Error, Result};

use super::Position;
use crate::postgres::Lsn;
use crate::postgres::wal::{SegmentName, SegmentSize, TimelineHistory};

/// The start of the segment in which what comes next lies, on the timeline of the server's history that has it.
///
/// `stored` is up to where all is stored already.
pub(super) fn after(history: &TimelineHistory, stored: Position, size: SegmentSize) -> Result<SegmentName> {
    if history.begin_of(stored.timeline).is_none() {
        let (timeline, own) = (stored.timeline, history.timeline());
        let message = format!(
            "timeline {timeline} is archived, and the server's timeline {own} did not come from it: the server is another branch of the \
             cluster and needs an archive of its own"
        );
        return Err(Error::invalid_input(message));
    }
    let mut at = stored;
    // What is stored beyond the point at which a timeline was left is not of this history.
    while let Some(left) = history.end_of(at.timeline).filter(|left| at.lsn >= *left) {
        at = Position { timeline: child_of(history, at), lsn: left };
    }
    Ok(SegmentName::of(at.timeline, at.lsn, size))
}

/// Where receiving goes on after what is stored: up to there the segment in which it lies is stored, on its own timeline. What an older
/// one has of the same place is another object, and may hold what was never part of this history.
pub(super) fn resumed(history: &TimelineHistory, stored: Position, size: SegmentSize) -> Result<Position> {
    let at = after(history, stored, size)?;
    let (timeline, start) = (at.timeline(), at.start(size));
    let lsn = if stored.timeline == timeline { stored.lsn.max(start) } else { start };
    Ok(Position { timeline, lsn })
}

/// The timeline of the history after this one.
fn child_of(history: &TimelineHistory, at: Position) -> crate::postgres::Timeline {
    let mut younger = history.ancestors().iter().map(|ancestor| ancestor.timeline);
    younger.find(|timeline| *timeline > at.timeline).unwrap_or(history.timeline())
}

/// The same where nothing is stored yet: the segment of a position that the server has.
pub(super) fn anew(history: &TimelineHistory, lsn: Lsn, size: SegmentSize) -> SegmentName {
    let number = size.number_of(lsn);
    SegmentName::numbered(history.timeline_of_segment(number, size), number, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Timeline;

    #[test]
    fn trap_27_receiving_goes_on_along_the_servers_history() {
        let text = "1\t0/3000100\t\n4\t0/5000100\t\n";
        let history = TimelineHistory::parse(Timeline::new(9), text.as_bytes()).unwrap();
        let size = SegmentSize::default();
        let next = |timeline, lsn| {
            let stored = Position { timeline: Timeline::new(timeline), lsn: Lsn::new(lsn) };
            after(&history, stored, size).map(|segment| (segment.timeline().get(), segment.number(size)))
        };
        assert_eq!(next(1, 0x200_0010).unwrap(), (1, 2), "from the segment's start");
        assert_eq!(next(1, 0x300_0000).unwrap(), (1, 3), "the old timeline first, to its end");
        assert_eq!(next(1, 0x300_0100).unwrap(), (4, 3), "the next timeline, from the start of the segment");
        assert_eq!(next(1, 0x900_0000).unwrap(), (4, 3), "beyond where it was left");
        assert_eq!(next(4, 0x500_0100).unwrap(), (9, 5));
        assert_eq!(next(9, 0x700_0000).unwrap(), (9, 7));
        assert!(next(2, 0x300_0000).unwrap_err().to_string().contains("another branch"));
        assert_eq!(
            anew(&history, Lsn::new(0x500_0000), size).timeline().get(),
            9,
            "a copy begins the segment"
        );
        assert_eq!(anew(&history, Lsn::new(0x400_0000), size).timeline().get(), 4);
    }

    #[test]
    fn trap_27_of_the_next_timeline_nothing_is_stored_with_the_older_one() {
        let history = TimelineHistory::parse(Timeline::new(2), b"1\t0/5000100\t\n").unwrap();
        let size = SegmentSize::default();
        let known = |timeline, lsn| {
            let stored = Position { timeline: Timeline::new(timeline), lsn: Lsn::new(lsn) };
            let resumed = resumed(&history, stored, size).unwrap();
            (resumed.timeline.get(), resumed.lsn.get())
        };
        assert_eq!(known(1, 0x500_0080), (1, 0x500_0080));
        assert_eq!(known(1, 0x500_0100), (2, 0x500_0000), "exactly to where it was left");
        assert_eq!(known(1, 0x980_0000), (2, 0x500_0000), "what was written beyond that is no part of it");
        assert_eq!(known(2, 0x580_0000), (2, 0x580_0000));
    }
}
