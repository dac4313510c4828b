//! What of a log is archived, by names.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, JobContext, ListedLog, Repository, Result, Timestamp};
use futures_util::future::try_join_all;

use super::{COMPLETE, WalArchive};
use crate::postgres::wal::{SegmentName, SegmentSize, TimelineHistory, WalFile};
use crate::postgres::{Lsn, Timeline};

/// Begins the name of what says that a part of the log was lost for ever.
pub(super) const GAP: &str = "gap-";

/// How far back a frontier looks for segments that another way into the archive has left out so far: more than any batch.
const LOOK_BACK: u64 = 64;

/// What one place has, or several together.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) timelines: BTreeMap<Timeline, There>,
}

/// What there is of a timeline.
#[derive(Debug, Clone, Default)]
pub(super) struct There {
    pub(super) segments: BTreeMap<SegmentName, Listed>,
    pub(super) has_history: bool,
    pub(super) others: u64,
    /// From where on something was lost.
    pub(super) gaps: BTreeSet<Lsn>,
}

/// What there is of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listed {
    pub(super) is_whole: bool,
    pub(super) bytes_stored: u64,
    pub(super) stored: Option<Timestamp>,
}

/// Up to where a log is archived, seen along a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frontier {
    /// All up to here is there.
    At(Timeline, Lsn),
    /// The last segment is there in pieces: how far, only reading it tells.
    In(SegmentName),
}

impl View {
    pub(super) async fn of(place: &Repository, lineage: u64, job: &JobContext) -> Result<Self> {
        let mut view = Self::default();
        for listed in place.list_log(&lineage.to_string(), job).await? {
            view.add(&listed);
        }
        Ok(view)
    }

    fn add(&mut self, listed: &ListedLog) {
        let Ok(timeline) = listed.name.timeline.parse::<Timeline>() else { return };
        let name = listed.name.segment.as_str();
        let there = self.timelines.entry(timeline).or_default();
        if let Some(lsn) = name.strip_prefix(GAP).and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
            there.gaps.insert(Lsn::new(lsn));
        } else if let Some(Ok(segment)) = name.strip_suffix(COMPLETE).map(str::parse) {
            there.segments.entry(segment).or_default().is_whole = true;
        } else {
            match name.parse() {
                Ok(WalFile::Segment(segment)) => {
                    let ListedLog { is_whole, bytes_stored, stored, .. } = *listed;
                    let there = there.segments.entry(segment).or_default();
                    there.is_whole |= is_whole;
                    there.bytes_stored = there.bytes_stored.max(bytes_stored);
                    there.stored = there.stored.max(stored);
                }
                Ok(WalFile::History(_)) => there.has_history = true,
                Ok(_) => there.others = there.others.saturating_add(1),
                Err(_) => tracing::debug!(name, "is no file of a write-ahead log"),
            }
        }
    }

    /// The same with what another place has.
    pub(super) fn merge(&mut self, other: Self) {
        for (timeline, theirs) in other.timelines {
            let there = self.timelines.entry(timeline).or_default();
            there.has_history |= theirs.has_history;
            there.others = there.others.max(theirs.others);
            there.gaps.extend(theirs.gaps);
            for (segment, theirs) in theirs.segments {
                let listed = there.segments.entry(segment).or_default();
                listed.is_whole |= theirs.is_whole;
                listed.bytes_stored = listed.bytes_stored.max(theirs.bytes_stored);
                listed.stored = listed.stored.max(theirs.stored);
            }
        }
    }

    pub(super) fn is_whole(&self, segment: SegmentName) -> bool {
        let there = self.timelines.get(&segment.timeline());
        there.and_then(|there| there.segments.get(&segment)).is_some_and(|listed| listed.is_whole)
    }

    /// The last segment of a timeline of which anything is there.
    pub(super) fn last(&self, timeline: Timeline) -> Option<SegmentName> {
        self.timelines.get(&timeline)?.segments.keys().next_back().copied()
    }

    /// The first one.
    pub(super) fn first(&self, timeline: Timeline) -> Option<SegmentName> {
        self.timelines.get(&timeline)?.segments.keys().next().copied()
    }

    /// From where on something was lost with which a timeline ends here: what was archived after it ends the log elsewhere.
    pub(super) fn lost_at_the_end(&self, timeline: Timeline, size: SegmentSize) -> Option<Lsn> {
        let there = self.timelines.get(&timeline)?;
        let last =
            there.segments.iter().next_back().map(|(name, listed)| (name.number(size), listed.is_whole));
        there.gaps.iter().copied().find(|gap| {
            let number = size.number_of(*gap);
            last.is_none_or(|(last, is_whole)| number > last || (number == last && !is_whole))
        })
    }

    /// The last segment of the youngest timeline of a history that has any.
    fn furthest(&self, history: &TimelineHistory) -> Option<SegmentName> {
        let ancestors = history.ancestors().iter().rev().map(|ancestor| ancestor.timeline);
        std::iter::once(history.timeline()).chain(ancestors).find_map(|timeline| self.last(timeline))
    }

    /// Up to where all is there along a history, and up to where it would be if what is missing before that were lost. None if
    /// nothing is there.
    pub(super) fn frontier(
        &self,
        history: &TimelineHistory,
        size: SegmentSize,
    ) -> Option<(Frontier, Frontier)> {
        let last = self.furthest(history)?;
        let furthest = match self.is_whole(last) {
            true => Frontier::At(last.timeline(), last.end(size)),
            false => Frontier::In(last),
        };
        // Only what follows something that is there can be missing.
        let oldest = last.number(size).saturating_sub(LOOK_BACK).max(self.after_loss(history, last, size));
        let path = |number| SegmentName::numbered(history.timeline_of_segment(number, size), number, size);
        let known = (oldest..last.number(size)).find(|number| self.is_whole(path(*number)));
        let missing = known
            .and_then(|known| (known..last.number(size)).map(path).find(|segment| !self.is_whole(*segment)));
        let frontier = missing.map_or(furthest, |segment| match self.has_pieces(segment) {
            true => Frontier::In(segment),
            false => Frontier::At(segment.timeline(), segment.start(size)),
        });
        Some((frontier, furthest))
    }

    /// The number of the segment after the last that is known to be lost, in front of others: nobody asks for it again.
    fn after_loss(&self, history: &TimelineHistory, last: SegmentName, size: SegmentSize) -> u64 {
        let ancestors = history.ancestors().iter().map(|ancestor| ancestor.timeline);
        let there =
            ancestors.chain([history.timeline()]).filter_map(|timeline| self.timelines.get(&timeline));
        let lost = there.flat_map(|there| &there.gaps).map(|gap| size.number_of(*gap));
        lost.filter(|lost| *lost < last.number(size)).max().map_or(0, |lost| lost.saturating_add(1))
    }

    fn has_pieces(&self, segment: SegmentName) -> bool {
        let there = self.timelines.get(&segment.timeline());
        there.and_then(|there| there.segments.get(&segment)).is_some_and(|listed| !listed.is_whole)
    }
}

impl WalArchive {
    /// What every place has, in their order.
    pub(super) async fn views(&self, lineage: u64, job: &JobContext) -> Result<Vec<View>> {
        try_join_all(self.places.iter().map(|place| View::of(place, lineage, job))).await
    }

    /// What is anywhere: all places have answered.
    pub(super) async fn view(&self, lineage: u64, job: &JobContext) -> Result<View> {
        let mut all = View::default();
        self.views(lineage, job).await?.into_iter().for_each(|view| all.merge(view));
        Ok(all)
    }

    /// The histories that are archived.
    pub(super) async fn histories(
        &self,
        lineage: u64,
        view: &View,
        job: &JobContext,
    ) -> Result<BTreeMap<Timeline, TimelineHistory>> {
        let mut histories = BTreeMap::new();
        for (timeline, _) in view.timelines.iter().filter(|(_, there)| there.has_history) {
            let name = super::log_name(lineage, WalFile::History(*timeline));
            let content = self.read(&name, job).await?.ok_or_else(|| {
                Error::corruption(format!(
                    "{timeline}.history is listed and not there: the archive is damaged"
                ))
            })?;
            histories.insert(*timeline, TimelineHistory::parse(*timeline, &content.content)?);
        }
        Ok(histories)
    }

    /// The size of the cluster's segments, as the first of them says that can be read.
    pub(super) async fn segment_size(
        &self,
        lineage: u64,
        view: &View,
        job: &JobContext,
    ) -> Result<Option<SegmentSize>> {
        if let Some(size) = self.size.get() {
            return Ok(Some(*size));
        }
        for segment in view.timelines.values().flat_map(|there| there.segments.keys().rev()) {
            let name = super::log_name(lineage, WalFile::Segment(*segment));
            let Some(content) = self.read(&name, job).await? else { continue };
            let header = crate::postgres::wal::check_partial(&content.content, *segment, None)?;
            return Ok(Some(*self.size.get_or_init(|| header.segment_size)));
        }
        Ok(None)
    }
}
