//! Logs: append-only sequences of segments, as write-ahead logs, oplogs and binlogs are.
//!
//! A log has a lineage (for PostgreSQL the system identifier), which has timelines, which have segments. Each segment is
//! archived once, whole or, as long as it grows, in pieces; [`Repository::archive`](crate::Repository::archive) does it. What
//! a segment's name means only its source knows: names of a timeline sort as the log goes on, and that is all that is
//! asked of them here.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Named positions of a snapshot that say which part of a log it needs to be of use.
pub mod position {
    /// The lineage.
    pub const LINEAGE: &str = "log_lineage";
    /// The timeline.
    pub const TIMELINE: &str = "log_timeline";
    /// The first segment that is needed.
    pub const FIRST: &str = "log_first";
    /// The last segment that is needed.
    pub const LAST: &str = "log_last";
    /// How many files a partial snapshot lacks. One that says `0` is partial for something else, and whoever restores it can go on from
    /// it by the log as from a complete one.
    pub const MISSING_FILES: &str = "missing_files";
}

/// What a segment is called. Each part is one component of an object's key: `[A-Za-z0-9._-]`, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogName {
    /// What tells this log from every other: for PostgreSQL the system identifier.
    pub lineage: String,
    /// The branch of the lineage: for PostgreSQL the timeline, as in the names of its files.
    pub timeline: String,
    /// The segment.
    pub segment: String,
}

impl LogName {
    /// The name of a segment.
    pub fn new(lineage: impl Into<String>, timeline: impl Into<String>, segment: impl Into<String>) -> Self {
        Self { lineage: lineage.into(), timeline: timeline.into(), segment: segment.into() }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of timeline {} of lineage {}", self.segment, self.timeline, self.lineage)
    }
}

/// Bytes of a log to be archived: a whole segment, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// The kind of source: `postgres`, `mongodb` ...
    pub source: String,
    /// The segment.
    pub name: LogName,
    /// Where in the segment the bytes start.
    pub offset: u64,
    /// Bytes of the whole segment; none while it is still growing and nobody knows.
    pub segment_bytes: Option<u64>,
    /// Named positions and times in the bytes, as far as they are known.
    pub position: BTreeMap<String, String>,
    /// The bytes, at most [`LOG_PIECE_BYTES_MAX`](crate::limits::LOG_PIECE_BYTES_MAX) of them.
    pub content: Bytes,
}

impl LogPiece {
    /// A whole segment.
    pub fn whole(source: impl Into<String>, name: LogName, content: Bytes) -> Self {
        let segment_bytes = Some(content.len() as u64);
        let position = BTreeMap::new();
        Self { source: source.into(), name, offset: 0, segment_bytes, position, content }
    }

    /// A piece of a segment that is to have `segment_bytes` bytes.
    pub fn part(
        source: impl Into<String>,
        name: LogName,
        offset: u64,
        segment_bytes: Option<u64>,
        content: Bytes,
    ) -> Self {
        Self { source: source.into(), name, offset, segment_bytes, position: BTreeMap::new(), content }
    }

    /// The same with a named position.
    #[must_use]
    pub fn with_position(mut self, name: impl Into<String>, position: impl Into<String>) -> Self {
        self.position.insert(name.into(), position.into());
        self
    }

    /// The piece without so many bytes at its start.
    pub(crate) fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.content.len());
        self.offset = self.offset.saturating_add(bytes as u64);
        self.content = self.content.slice(bytes..);
    }

    /// Whether these are all bytes of the segment.
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && self.segment_bytes == Some(self.content.len() as u64)
    }
}

/// What came of archiving a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Archived {
    /// It was stored.
    Stored,
    /// The same bytes were there.
    AlreadyThere,
}

/// What is archived of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogContent {
    /// The bytes from the segment's first on, without a gap.
    pub content: Bytes,
    /// Bytes of the whole segment, where that is known.
    pub segment_bytes: Option<u64>,
    /// Named positions and times, of all pieces together.
    pub position: BTreeMap<String, String>,
}

impl LogContent {
    /// Whether the segment is there to its end.
    pub fn is_whole(&self) -> bool {
        self.segment_bytes == Some(self.content.len() as u64)
    }
}

/// What the objects of a segment say of it, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOutline {
    /// Bytes that are archived, from the segment's first on, without a gap.
    pub bytes: u64,
    /// Bytes of the whole segment, where that is known.
    pub segment_bytes: Option<u64>,
    /// Named positions and times, of all pieces together.
    pub position: BTreeMap<String, String>,
}

impl LogOutline {
    /// Whether the segment is there to its end.
    pub fn is_whole(&self) -> bool {
        self.segment_bytes == Some(self.bytes)
    }
}

/// A segment, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedLog {
    /// The segment.
    pub name: LogName,
    /// Whether it is there as a whole; else in pieces.
    pub is_whole: bool,
    /// Where its pieces start. Also a whole segment has some until a collection deletes them.
    pub pieces: Vec<u64>,
    /// Bytes in the store.
    pub bytes_stored: u64,
    /// When the store first had the whole segment, or else its latest piece, by the store's clock, where it says so.
    pub stored: Option<Timestamp>,
}

/// How long logs are kept that no snapshot needs by itself.
///
/// What a kept snapshot says that it needs always stays. So does what leads from the newest of them that is older than `within`
/// up to now: without it nobody gets to the moments of that time. A partial snapshot leads nowhere, unless it says that it
/// [lacks no files](position::MISSING_FILES). Where no snapshot of a lineage is that old, nothing of the lineage goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// Every moment of so long ago can be recovered, by the store's clock.
    pub within: std::time::Duration,
}
