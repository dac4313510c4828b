//! What moments lie in a segment, so that a recovery knows where its target is before it begins.

use std::collections::BTreeMap;

use backup_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::{SegmentName, SegmentSize, WalEvent, WalReader, WalRecord, XidRanges};
use crate::postgres::Lsn;

/// Named positions that an archived segment has; see [`Summary`].
pub mod position {
    /// When the first transaction in it was committed or rolled back.
    pub const FIRST_TIME: &str = "wal_first_time";
    /// When the last was.
    pub const LAST_TIME: &str = "wal_last_time";
    /// The numbers of the transactions that end in it, as [`XidRanges`](super::XidRanges) are written: `730-744,746`.
    pub const XIDS: &str = "wal_xids";
    /// Restore points, as a JSON array of [`NamedPoint`](super::NamedPoint).
    pub const POINTS: &str = "wal_points";
    /// Tablespaces that were made, as a JSON array of [`MadeTablespace`](super::MadeTablespace).
    pub const TABLESPACES: &str = "wal_tablespaces";
    /// Where the last whole record ends.
    pub const VALID_TO: &str = "wal_valid_to";
    /// Bytes of a segment of the cluster.
    pub const SEGMENT_SIZE: &str = "wal_segment_size";
}

/// Most restore points of one segment that are remembered.
const POINTS_MAX: usize = 200;

/// Most tablespaces of one segment that are remembered: one is enough to be warned of.
const TABLESPACES_MAX: usize = 8;

/// A tablespace that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeTablespace {
    /// Its object identifier.
    pub oid: u32,
    /// The directory, on the server's machine.
    pub directory: String,
    /// Where the record begins that says so.
    pub lsn: Lsn,
}

/// A restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPoint {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub lsn: Lsn,
    /// When it was made.
    pub time: Timestamp,
}

/// What of a segment is remembered beside it. A record that begins in one segment and ends in the next is in neither's: times can be
/// a record more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// The earliest moment at which a transaction ended.
    pub first_time: Option<Timestamp>,
    /// The latest.
    pub last_time: Option<Timestamp>,
    /// The transactions that ended.
    pub ended: XidRanges,
    /// Restore points in their order, at most 200.
    pub points: Vec<NamedPoint>,
    /// Tablespaces that were made, in their order, at most 8.
    #[serde(default)]
    pub tablespaces: Vec<MadeTablespace>,
    /// Where the last whole record ends.
    pub valid_to: Lsn,
}

impl Summary {
    /// Reads a segment from its start on. What is not a log at all has an empty summary.
    pub fn of_segment(bytes: &[u8], name: SegmentName, size: SegmentSize) -> Self {
        let mut reader = WalReader::new(name.start(size), size);
        let mut summary = Self::default();
        let mut events = Vec::new();
        // In parts, so that the events of a gigabyte need not all be there at once.
        for part in bytes.chunks(1 << 20) {
            reader.feed(part, &mut events);
            events.drain(..).for_each(|event| summary.add(&event));
        }
        summary.valid_to = reader.valid_to();
        summary
    }

    /// Where the transactions end that end in a segment: where the records begin that say so.
    pub fn ends_in(bytes: &[u8], name: SegmentName, size: SegmentSize) -> BTreeMap<u32, Lsn> {
        let mut reader = WalReader::new(name.start(size), size);
        let (mut events, mut ends) = (Vec::new(), BTreeMap::new());
        for part in bytes.chunks(1 << 20) {
            reader.feed(part, &mut events);
            for event in events.drain(..) {
                if let WalRecord::Commit { xid: Some(xid), .. } | WalRecord::Abort { xid: Some(xid), .. } =
                    event.record
                {
                    ends.insert(xid, event.lsn);
                }
            }
        }
        ends
    }

    /// Adds a record.
    pub fn add(&mut self, event: &WalEvent) {
        self.valid_to = self.valid_to.max(event.end);
        match &event.record {
            WalRecord::Commit { xid, time } | WalRecord::Abort { xid, time } => {
                self.first_time = Some(self.first_time.map_or(*time, |first| first.min(*time)));
                self.last_time = Some(self.last_time.map_or(*time, |last| last.max(*time)));
                if let Some(xid) = xid {
                    self.ended.insert(*xid);
                }
            }
            WalRecord::RestorePoint { name, time } if self.points.len() < POINTS_MAX => {
                self.points.push(NamedPoint { name: name.clone(), lsn: event.lsn, time: *time });
            }
            WalRecord::TablespaceMade { oid, directory } if self.tablespaces.len() < TABLESPACES_MAX => {
                let (oid, directory) = (*oid, directory.clone());
                self.tablespaces.push(MadeTablespace { oid, directory, lsn: event.lsn });
            }
            _ => {}
        }
    }

    /// As named positions of an archived segment.
    pub fn to_positions(&self) -> BTreeMap<String, String> {
        let mut positions = BTreeMap::new();
        let mut put = |name: &str, value: Option<String>| {
            positions.extend(value.map(|value| (name.to_owned(), value)));
        };
        put(position::FIRST_TIME, self.first_time.map(|time| time.to_string()));
        put(position::LAST_TIME, self.last_time.map(|time| time.to_string()));
        put(position::XIDS, Some(self.ended.to_string()).filter(|text| !text.is_empty()));
        put(position::VALID_TO, self.valid_to.is_valid().then(|| self.valid_to.to_string()));
        if !self.points.is_empty() {
            put(position::POINTS, serde_json::to_string(&self.points).ok());
        }
        if !self.tablespaces.is_empty() {
            put(position::TABLESPACES, serde_json::to_string(&self.tablespaces).ok());
        }
        positions
    }

    /// From the named positions of an archived segment. What cannot be read counts as not said.
    pub fn of_positions(positions: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| positions.get(name).map(String::as_str);
        Self {
            first_time: text(position::FIRST_TIME).and_then(|text| text.parse().ok()),
            last_time: text(position::LAST_TIME).and_then(|text| text.parse().ok()),
            ended: text(position::XIDS).and_then(|text| text.parse().ok()).unwrap_or_default(),
            points: text(position::POINTS)
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            tablespaces: text(position::TABLESPACES)
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            valid_to: text(position::VALID_TO).and_then(|text| text.parse().ok()).unwrap_or_default(),
        }
    }
}
