//! What is archived of a log, and what is missing.

use backup_core::{Error, JobContext, Result, Timestamp};
use serde::Serialize;

use super::view::{There, View};
use super::{WalArchive, log_name};
use crate::postgres::connect::explain;
use crate::postgres::wal::{SegmentName, SegmentSize, TimelineHistory, WalFile};
use crate::postgres::{Connect, Lsn, Timeline};

/// Most gaps of one timeline that are named.
const GAPS_MAX: usize = 1000;

/// What is archived of a cluster's log; see [`WalArchive::audit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WalAudit {
    /// The cluster.
    pub system_identifier: u64,
    /// Other clusters whose logs are in the same places.
    pub other_systems: Vec<u64>,
    /// Bytes of a segment, once any is archived.
    pub segment_size: Option<SegmentSize>,
    /// What there is of each timeline, oldest first.
    pub timelines: Vec<TimelineAudit>,
    /// Up to where the youngest timeline is archived.
    pub frontier: Option<Lsn>,
    /// When a part of the log last came in, by the store's clock, where it says so.
    pub newest: Option<Timestamp>,
    /// Bytes from the frontier to where the server is, if that was given.
    pub lag_bytes: Option<u64>,
    /// Files that a place lacks and another has, by the places' order.
    pub behind: Vec<u64>,
    /// When the first of the segments that some place lacks came into another, by that store's clock, where it says so.
    pub behind_since: Option<Timestamp>,
}

/// What is archived of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TimelineAudit {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it began, by its history.
    pub begin: Option<Lsn>,
    /// The timeline it came from.
    pub parent: Option<Timeline>,
    /// Where a younger one left it, the last of them.
    pub left_at: Option<Lsn>,
    /// Whether its history is missing, without which nobody gets to it.
    pub lacks_history: bool,
    /// The first segment of which anything is there.
    pub first: Option<SegmentName>,
    /// The last.
    pub last: Option<SegmentName>,
    /// Segments that are there as a whole.
    pub segments: u64,
    /// Bytes in a store, in one place.
    pub bytes_stored: u64,
    /// Segments that are missing, or there in part though the log goes on.
    pub gaps: Vec<Gap>,
    /// From where on something was lost, as a receiver recorded it. What another way into the archive has brought since is not lost.
    pub lost: Vec<Lsn>,
}

/// Segments in a row that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// How many.
    pub segments: u64,
}

/// Up to where a server's log goes, for [`WalArchive::audit`]: of a standby, up to where it has received it.
///
/// # Errors
///
/// The server cannot be reached, or does not say.
pub async fn server_end(connect: &Connect) -> Result<Lsn> {
    let client = connect.connect_to_ask().await?;
    let question = "select (case when pg_catalog.pg_is_in_recovery() \
                    then coalesce(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) \
                    else pg_catalog.pg_current_wal_flush_lsn() end)::text";
    let row = client.query_one(question, &[]).await.map_err(|e| explain(&e))?;
    let text: Option<String> = row.try_get(0).map_err(|e| explain(&e))?;
    let text = text.ok_or_else(|| Error::invalid_input("the server has no log yet"))?;
    text.parse()
}

impl WalAudit {
    /// Whether nothing is missing between the first and the last segment of any timeline, nor a history, nor a file in any place.
    pub fn is_sound(&self) -> bool {
        self.behind.iter().all(|files| *files == 0)
            && self.timelines.iter().all(|t| t.gaps.is_empty() && t.lost.is_empty() && !t.lacks_history)
    }
}

impl WalArchive {
    /// Looks at what is archived, by the listings of all places, the histories and the last segment.
    ///
    /// `server` is up to where the server's log goes, for the lag: `pg_current_wal_flush_lsn()`.
    ///
    /// # Errors
    ///
    /// [`NotFound`](backup_core::ErrorKind::NotFound): no log is archived. Those of the places; a history that cannot be read.
    pub async fn audit(&self, server: Option<Lsn>, job: &JobContext) -> Result<WalAudit> {
        let lineage = self.system_identifier(job).await?.ok_or_else(|| {
            Error::new(backup_core::ErrorKind::NotFound, "no log of PostgreSQL is archived here")
        })?;
        let views = self.views(lineage, job).await?;
        let mut all = View::default();
        views.iter().cloned().for_each(|view| all.merge(view));
        let files = |view: &View| -> u64 { view.timelines.values().map(There::files).sum() };
        let behind = views.iter().map(|view| files(&all).saturating_sub(files(view))).collect();
        let behind_since = views.iter().filter_map(|view| first_lacking(view, &all)).min();
        let size = self.segment_size(lineage, &all, job).await?;
        let histories = self.histories(lineage, &all, job).await?;
        let mut timelines = Vec::with_capacity(all.timelines.len());
        for (timeline, there) in &all.timelines {
            let history = histories.get(timeline);
            let left_at = histories.values().filter_map(|history| history.end_of(*timeline)).max();
            let mut audit = of_timeline(*timeline, there, left_at, size);
            audit.begin = history.and_then(|history| history.begin_of(*timeline));
            audit.parent = history.and_then(TimelineHistory::parent).map(|parent| parent.timeline);
            timelines.push(audit);
        }
        let youngest = all.timelines.iter().rev().find_map(|(_, there)| there.segments.keys().next_back());
        let frontier = match (youngest, size) {
            (Some(segment), Some(_)) => {
                Some(self.end_of(lineage, *segment, all.is_whole(*segment), job).await?)
            }
            _ => None,
        };
        let stored = |there: &There| there.segments.values().filter_map(|listed| listed.stored).max();
        let mut other_systems = self.systems(job).await?;
        other_systems.retain(|system| *system != lineage);
        Ok(WalAudit {
            system_identifier: lineage,
            other_systems,
            segment_size: size,
            frontier,
            newest: all.timelines.values().filter_map(stored).max(),
            lag_bytes: server.zip(frontier).map(|(server, frontier)| server.bytes_since(frontier)),
            behind,
            behind_since,
            timelines,
        })
    }

    /// Up to where a segment is archived.
    pub(super) async fn end_of(
        &self,
        lineage: u64,
        segment: SegmentName,
        is_whole: bool,
        job: &JobContext,
    ) -> Result<Lsn> {
        let size = self.size.get().copied().unwrap_or_default();
        if is_whole {
            return Ok(segment.end(size));
        }
        let content = self.read(&log_name(lineage, WalFile::Segment(segment)), job).await?;
        let bytes = content.map_or(0, |content| content.content.len() as u64);
        Ok(segment.start(size).saturating_add(bytes.min(size.bytes())))
    }
}

impl There {
    fn files(&self) -> u64 {
        let whole = self.segments.values().filter(|listed| listed.is_whole).count() as u64;
        whole.saturating_add(self.others).saturating_add(u64::from(self.has_history))
    }
}

/// When the first whole segment that `view` lacks came into another place.
fn first_lacking(view: &View, all: &View) -> Option<Timestamp> {
    let lacking = all.timelines.iter().flat_map(|(timeline, there)| {
        let here = view.timelines.get(timeline);
        let has =
            move |name| here.and_then(|here| here.segments.get(name)).is_some_and(|listed| listed.is_whole);
        there.segments.iter().filter(move |(name, listed)| listed.is_whole && !has(*name))
    });
    lacking.filter_map(|(_, listed)| listed.stored).min()
}

fn of_timeline(
    timeline: Timeline,
    there: &There,
    left_at: Option<Lsn>,
    size: Option<SegmentSize>,
) -> TimelineAudit {
    let first = there.segments.keys().next().copied();
    let last = there.segments.keys().next_back().copied();
    let mut gaps = Vec::new();
    if let (Some(first), Some(last), Some(size)) = (first, last, size) {
        // The segment in which a timeline was left is a file of the younger one, too.
        let end = left_at.map_or(0, |left| size.number_of(left)).max(last.number(size));
        let mut expected = first.number(size);
        let whole =
            there.segments.iter().filter(|(_, listed)| listed.is_whole).map(|(name, _)| name.number(size));
        let mut gap = |from: u64, to: u64| {
            if from < to && gaps.len() < GAPS_MAX {
                let at = |number| SegmentName::numbered(timeline, number, size);
                let (first, last) = (at(from), at(to.saturating_sub(1)));
                gaps.push(Gap { first, last, segments: to.saturating_sub(from) });
            }
        };
        for number in whole {
            gap(expected, number);
            expected = number.saturating_add(1);
        }
        gap(expected, end);
    }
    let is_lost = |lsn: &Lsn| {
        let Some(size) = size else { return true };
        let number = size.number_of(*lsn);
        let is_whole = there.segments.get(&SegmentName::numbered(timeline, number, size));
        !is_whole.is_some_and(|listed| listed.is_whole)
            || gaps.iter().any(|gap| gap.last.number(size) >= number)
    };
    TimelineAudit {
        timeline,
        begin: None,
        parent: None,
        left_at,
        lacks_history: timeline != Timeline::FIRST && !there.has_history,
        first,
        last,
        segments: there.segments.values().filter(|listed| listed.is_whole).count() as u64,
        bytes_stored: there.segments.values().map(|listed| listed.bytes_stored).sum(),
        lost: there.gaps.iter().copied().filter(is_lost).collect(),
        gaps,
    }
}
