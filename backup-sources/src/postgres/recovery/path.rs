//! The way through an archived log: which timeline's segment stands for which stretch.

use super::history::{Leg, legs};
use super::inventory::{LogHistory, LogLineage, LogSegment, SegmentState};
use super::{BaseBackup, Refusal, TargetTimeline};
use crate::postgres::wal::{SegmentName, SegmentSize, TimelineHistory};
use crate::postgres::{Lsn, Timeline};

/// From a base backup to the end of a timeline, through what is archived.
#[derive(Debug)]
pub(super) struct LogPath<'a> {
    lineage: &'a LogLineage,
    size: SegmentSize,
    /// Oldest first, from the base backup's timeline on.
    pub(super) legs: Vec<Leg>,
    pub(super) timeline: Timeline,
    pub(super) first: u64,
}

impl<'a> LogPath<'a> {
    /// The way from `base` to the wanted timeline.
    pub(super) fn find(
        lineage: &'a LogLineage,
        base: &BaseBackup,
        wanted: TargetTimeline,
    ) -> Result<Self, Refusal> {
        let found = match wanted {
            TargetTimeline::Current => (base.timeline, legs_to(lineage, base.timeline)?),
            TargetTimeline::Number(timeline) => (timeline, legs_to(lineage, timeline)?),
            TargetTimeline::Latest => newest(lineage, base)?,
        };
        let (timeline, mut legs) = found;
        let Some(at) = legs.iter().position(|leg| leg.timeline == base.timeline) else {
            return Err(Refusal::NotAnAncestor {
                timeline,
                base: base.timeline,
                left: None,
                stop: base.stop_lsn,
            });
        };
        legs.drain(..at);
        if let Some(left) = legs.first().and_then(|leg| leg.end).filter(|left| *left < base.stop_lsn) {
            return Err(Refusal::NotAnAncestor {
                timeline,
                base: base.timeline,
                left: Some(left),
                stop: base.stop_lsn,
            });
        }
        let size = base.segment_size;
        Ok(Self { lineage, size, legs, timeline, first: size.number_of(base.start_lsn) })
    }

    /// The timeline whose segment replay takes at a number: the newest that has begun there. A segment in which a timeline begins has
    /// also what stands before in it.
    fn leg(&self, number: u64) -> Option<&Leg> {
        let newest = self.legs.iter().rev().find(|leg| self.size.number_of(leg.begin) <= number);
        newest.or(self.legs.first())
    }

    /// What a segment of the way is called.
    pub(super) fn name(&self, number: u64) -> SegmentName {
        let timeline = self.leg(number).map_or(self.timeline, |leg| leg.timeline);
        SegmentName::numbered(timeline, number, self.size)
    }

    /// A segment of the way, if it is archived.
    pub(super) fn segment(&self, number: u64) -> Option<&'a LogSegment> {
        let leg = self.leg(number)?;
        self.lineage.timelines.get(&leg.timeline)?.segments.get(&number)
    }

    /// The first segment of the way that is archived, at this number or later.
    pub(super) fn next_present(&self, from: u64) -> Option<u64> {
        let on_leg = |leg: &Leg| {
            let log = self.lineage.timelines.get(&leg.timeline)?;
            let begin = self.size.number_of(leg.begin).max(from);
            let on_way = |number: &u64| self.leg(*number).is_some_and(|own| own.timeline == leg.timeline);
            // Where the next leg begins this one ends.
            log.segments.range(begin..).map(|(number, _)| *number).take_while(on_way).next()
        };
        self.legs.iter().filter_map(on_leg).min()
    }

    /// The last of the segments that follow each other from `from` on, all of them archived; none if that one is not.
    pub(super) fn contiguous_end(&self, from: u64) -> Option<u64> {
        let mut last = None;
        let mut number = from;
        while self.segment(number).is_some() {
            last = Some(number);
            number = number.checked_add(1)?;
        }
        last
    }

    /// Why the segments `self.first..=last` cannot be replayed, if they cannot. Of the last one, what lies before `needed` is enough.
    pub(super) fn obstacles(&self, last: u64, needed: Lsn) -> Vec<Refusal> {
        let mut found = Vec::new();
        let mut number = self.first;
        while number <= last {
            let name = self.name(number);
            match self.segment(number).map(|segment| &segment.state) {
                Some(SegmentState::Whole) => {}
                Some(SegmentState::Beginning(bytes)) => {
                    let there = name.start(self.size).saturating_add(*bytes);
                    if number != last || there < needed {
                        found.push(Refusal::IncompleteSegment { segment: name, bytes: *bytes });
                    }
                }
                Some(SegmentState::Damaged(why)) => {
                    found.push(Refusal::DamagedSegment { segment: name, why: why.clone() });
                }
                None => {
                    let next =
                        self.next_present(number).map_or(last, |next| next.saturating_sub(1)).min(last);
                    found.push(self.missing(number, next));
                    number = next;
                }
            }
            number = number.saturating_add(1);
        }
        found
    }

    /// That segments are missing, and why, where it is recorded.
    pub(super) fn missing(&self, first: u64, last: u64) -> Refusal {
        let (first, last) = (self.name(first), self.name(last));
        let crosses = |gap: &&super::LogGap| {
            gap.timeline == first.timeline()
                && gap.from < last.end(self.size)
                && gap.to.is_none_or(|to| to > first.start(self.size))
        };
        let why = self.lineage.gaps.iter().find(crosses).map(|gap| gap.reason.clone());
        Refusal::MissingSegments { first, last, why }
    }

    /// The numbers that a standby would count through to get to the timeline, if one of them is none.
    pub(super) fn jump(&self) -> Option<Refusal> {
        let base = self.legs.first()?.timeline.get();
        let known = |number: u32| {
            let log = self.lineage.timelines.get(&Timeline::new(number));
            log.is_some_and(|log| matches!(log.history, LogHistory::Present(_)))
        };
        let stop = (base.saturating_add(1)..=self.timeline.get()).find(|number| !known(*number))?;
        Some(Refusal::TimelineJump { after: Timeline::new(stop.saturating_sub(1)), wanted: self.timeline })
    }
}

fn newest(lineage: &LogLineage, base: &BaseBackup) -> Result<(Timeline, Vec<Leg>), Refusal> {
    // A timeline of which nobody knows where it began might be the newest of this way, so it is not passed over.
    for (timeline, _) in lineage.timelines.range(base.timeline..).rev() {
        let legs = legs_to(lineage, *timeline)?;
        let leads =
            |leg: &Leg| leg.timeline == base.timeline && leg.end.is_none_or(|end| end >= base.stop_lsn);
        if legs.iter().any(leads) {
            return Ok((*timeline, legs));
        }
    }
    Ok((base.timeline, legs_to(lineage, base.timeline)?))
}

fn legs_to(lineage: &LogLineage, timeline: Timeline) -> Result<Vec<Leg>, Refusal> {
    let log = lineage.timelines.get(&timeline).ok_or(Refusal::UnknownTimeline { timeline })?;
    match &log.history {
        LogHistory::Present(history) => Ok(legs(history)),
        LogHistory::Damaged(why) => Err(Refusal::DamagedHistory { timeline, why: why.clone() }),
        LogHistory::Missing if timeline == Timeline::FIRST => Ok(legs(&TimelineHistory::root(timeline))),
        LogHistory::Missing => Err(Refusal::MissingHistory { timeline }),
    }
}
