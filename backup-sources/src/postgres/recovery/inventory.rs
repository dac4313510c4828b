//! What is archived of logs, as plain data: whoever has an archive fills it, and plans are made from it.

use std::collections::BTreeMap;

use backup_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::postgres::wal::{
    MadeTablespace, NamedPoint, SegmentName, SegmentSize, Summary, TimelineHistory, XidRanges,
};
use crate::postgres::{Lsn, Timeline};

/// What an archive has, by lineage: by the system identifier of the cluster that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogInventory {
    /// The lineages.
    pub lineages: BTreeMap<u64, LogLineage>,
}

/// The log of one cluster and all its copies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogLineage {
    /// How long its segments are.
    pub segment_size: SegmentSize,
    /// Its branches.
    pub timelines: BTreeMap<Timeline, LogTimeline>,
    /// What is known to be lost for good, beside what is merely not there.
    pub gaps: Vec<LogGap>,
}

/// One branch of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogTimeline {
    /// From where it branched off. The first timeline has none.
    pub history: LogHistory,
    /// Its segments, by their numbers from the log's beginning.
    pub segments: BTreeMap<u64, LogSegment>,
}

/// What there is of a timeline's history file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogHistory {
    /// Nothing.
    #[default]
    Missing,
    /// It cannot be read, and why.
    Damaged(String),
    /// It is there.
    Present(TimelineHistory),
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSegment {
    /// What there is of it.
    pub state: SegmentState,
    /// What happens in it, where somebody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<SegmentFacts>,
}

/// What there is of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentState {
    /// All.
    Whole,
    /// So many bytes from its beginning on: the server has not filled it, or ended in it.
    Beginning(u64),
    /// It cannot be used, and why: its bytes are not what was archived, or they are of another lineage, timeline or place.
    Damaged(String),
}

/// What happens in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentFacts {
    /// Up to where it has whole records.
    pub valid_to: Option<Lsn>,
    /// The latest time of a transaction's end in it: the only times at which replay can stop.
    pub last_time: Option<Timestamp>,
    /// The earliest one.
    pub first_time: Option<Timestamp>,
    /// The transactions that end in it: committed or aborted.
    pub ended: XidRanges,
    /// The restore points in it.
    pub restore_points: Vec<RestorePoint>,
    /// Tablespaces that are made in it. Whoever replays it writes into their directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<MadeTablespace>,
    /// Where the records begin that end transactions, where somebody has looked so closely. It tells what ends before a base backup does
    /// from what ends after it, in its last segment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ended_at: BTreeMap<u32, Lsn>,
}

/// A name that somebody gave to a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// The name. Nothing keeps several points from having the same.
    pub name: String,
    /// Where its record begins.
    pub lsn: Lsn,
    /// When it was made.
    pub time: Option<Timestamp>,
}

/// Log that is lost: a replication slot that the server gave up, a segment that was removed before it was archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    /// The branch.
    pub timeline: Timeline,
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends, as far as known.
    pub to: Option<Lsn>,
    /// How it came about.
    pub reason: String,
}

impl LogInventory {
    /// Adds a segment.
    pub fn add_segment(&mut self, lineage: u64, size: SegmentSize, name: SegmentName, segment: LogSegment) {
        let log = self.lineage(lineage, size);
        log.timelines.entry(name.timeline()).or_default().segments.insert(name.number(size), segment);
    }

    /// Adds a history file; one that cannot be read is there as damaged.
    pub fn add_history(&mut self, lineage: u64, size: SegmentSize, timeline: Timeline, text: &str) {
        let history = match TimelineHistory::parse(timeline, text.as_bytes()) {
            Ok(history) => LogHistory::Present(history),
            Err(error) => LogHistory::Damaged(error.to_string()),
        };
        self.lineage(lineage, size).timelines.entry(timeline).or_default().history = history;
    }

    /// Adds a history file that cannot be read.
    pub fn add_damaged_history(&mut self, lineage: u64, size: SegmentSize, timeline: Timeline, why: String) {
        self.lineage(lineage, size).timelines.entry(timeline).or_default().history = LogHistory::Damaged(why);
    }

    /// The lineage, made if it is not there.
    pub fn lineage(&mut self, lineage: u64, size: SegmentSize) -> &mut LogLineage {
        let new = || LogLineage { segment_size: size, ..LogLineage::default() };
        self.lineages.entry(lineage).or_insert_with(new)
    }
}

impl From<&Summary> for SegmentFacts {
    fn from(summary: &Summary) -> Self {
        let point = |point: &NamedPoint| RestorePoint {
            name: point.name.clone(),
            lsn: point.lsn,
            time: Some(point.time),
        };
        Self {
            valid_to: summary.valid_to.is_valid().then_some(summary.valid_to),
            last_time: summary.last_time,
            first_time: summary.first_time,
            ended: summary.ended.clone(),
            restore_points: summary.points.iter().map(point).collect(),
            tablespaces: summary.tablespaces.clone(),
            ended_at: BTreeMap::new(),
        }
    }
}

impl LogSegment {
    /// A segment that is there as a whole.
    pub fn whole() -> Self {
        Self { state: SegmentState::Whole, facts: None }
    }

    /// A segment that cannot be used.
    pub fn damaged(reason: impl Into<String>) -> Self {
        Self { state: SegmentState::Damaged(reason.into()), facts: None }
    }

    /// The beginning of a segment.
    pub fn beginning(bytes: u64) -> Self {
        Self { state: SegmentState::Beginning(bytes), facts: None }
    }

    /// The same with what happens in it.
    #[must_use]
    pub fn with_facts(mut self, facts: SegmentFacts) -> Self {
        self.facts = Some(facts);
        self
    }
}
