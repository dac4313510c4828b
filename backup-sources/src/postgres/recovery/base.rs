//! What a snapshot says of the base backup that it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backup_core::{Error, Result, SnapshotInfo, Timestamp};
use serde::{Deserialize, Serialize};

use crate::postgres::logical::LogicalBackup;
use crate::postgres::wal::{SegmentName, SegmentSize};
use crate::postgres::{Lsn, Timeline};

/// A base backup: where in its cluster's log it lies, and what of the cluster matters to whoever restores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseBackup {
    /// What the backup is called: the snapshot's identity.
    pub id: String,
    /// The cluster and all its copies.
    pub system_identifier: u64,
    /// The timeline on which it was made.
    pub timeline: Timeline,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// From where on the files are consistent.
    pub stop_lsn: Lsn,
    /// When it was begun, by the server's clock.
    pub start_time: Timestamp,
    /// When it was ended, by the server's clock: no earlier moment can be recovered from it.
    pub stop_time: Timestamp,
    /// The server's version as a number: 150018 for 15.18.
    pub server_version: u32,
    /// Bytes of a page.
    pub block_bytes: u32,
    /// How long segments of its log are.
    pub segment_size: SegmentSize,
    /// Whether pages have checksums.
    pub data_checksums: bool,
    /// Whether it was made from a standby.
    pub from_standby: bool,
    /// Its tablespaces, by object identifier: where each was.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Pages that were damaged already when they were backed up.
    pub damaged_pages: u64,
    /// Bytes of its files, where known.
    pub bytes: u64,
}

impl BaseBackup {
    /// What `snapshot` says.
    ///
    /// # Errors
    ///
    /// It is no base backup of PostgreSQL, or lacks files. One that is partial for damaged pages alone is good for a recovery.
    pub fn of(snapshot: &SnapshotInfo) -> Result<Self> {
        if LogicalBackup::is(snapshot) {
            let message = format!(
                "the snapshot {} has dumps of databases, from which no server recovers: restore them over a connection \
                 to a running one",
                snapshot.id
            );
            return Err(Error::invalid_input(message));
        }
        let whole = snapshot.outcome == backup_core::Outcome::Complete
            || snapshot.position.get("missing_files").is_some_and(|number| number == "0");
        if !whole {
            let message =
                format!("the snapshot {} lacks files, and no server can start from it", snapshot.id);
            return Err(Error::invalid_input(message));
        }
        let base = Self::from_positions(&snapshot.id.to_string(), &snapshot.position)?;
        Ok(Self { bytes: snapshot.bytes_logical, ..base })
    }

    /// What the named positions of a snapshot say.
    ///
    /// # Errors
    ///
    /// One is missing that no recovery can do without, or says what it cannot; or they contradict each other.
    pub fn from_positions(id: &str, positions: &BTreeMap<String, String>) -> Result<Self> {
        let read = Positions { id, positions };
        let segment_size = SegmentSize::new(read.parsed("wal_segment_bytes")?)?;
        let base = Self {
            id: id.to_owned(),
            system_identifier: read.parsed("system_identifier")?,
            timeline: read.timeline("timeline")?,
            start_lsn: read.parsed("start_lsn")?,
            stop_lsn: read.parsed("stop_lsn")?,
            start_time: read.parsed("start_time")?,
            stop_time: read.parsed("stop_time")?,
            server_version: read.version("server_version")?,
            block_bytes: read.parsed("block_bytes")?,
            segment_size,
            data_checksums: matches!(read.text("data_checksums")?, "on" | "true" | "1" | "yes"),
            from_standby: read.text("from")? == "standby",
            tablespaces: read.tablespaces("tablespaces")?,
            damaged_pages: read.number_or_none("damaged_pages")?,
            bytes: 0,
        };
        // What is there twice must say the same: it was written by the same hand at the same time.
        let first: SegmentName = read.parsed("start_segment")?;
        let last: SegmentName = read.parsed("stop_segment")?;
        if base.start_lsn >= base.stop_lsn || first != base.first_segment() || last != base.last_segment() {
            return Err(read.wrong("start_lsn", "does not fit the snapshot's other positions"));
        }
        if let Some(lineage) = positions.get(backup_core::log::position::LINEAGE)
            && *lineage != base.system_identifier.to_string()
        {
            return Err(read.wrong(backup_core::log::position::LINEAGE, "is not the system identifier"));
        }
        Ok(base)
    }

    /// The segment in which replay begins.
    pub fn first_segment(&self) -> SegmentName {
        SegmentName::of(self.timeline, self.start_lsn, self.segment_size)
    }

    /// The last segment without which the files are not consistent.
    pub fn last_segment(&self) -> SegmentName {
        SegmentName::before(self.timeline, self.stop_lsn, self.segment_size)
    }

    /// The major version of the server.
    pub fn major_version(&self) -> u32 {
        self.server_version / 10_000
    }
}

struct Positions<'a> {
    id: &'a str,
    positions: &'a BTreeMap<String, String>,
}

impl Positions<'_> {
    fn wrong(&self, name: &str, what: &str) -> Error {
        Error::invalid_input(format!(
            "the snapshot {} is no base backup to recover from: its `{name}` {what}",
            self.id
        ))
    }

    fn text(&self, name: &str) -> Result<&str> {
        self.positions.get(name).map(String::as_str).ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| self.wrong(name, &format!("is `{}`", text.escape_debug())))
    }

    /// A number; 0 where nothing is said.
    fn number_or_none(&self, name: &str) -> Result<u64> {
        if self.positions.contains_key(name) { self.parsed(name) } else { Ok(0) }
    }

    /// A number, in decimal or as in the names of files.
    fn timeline(&self, name: &str) -> Result<Timeline> {
        let text = self.text(name)?;
        let number = match text.len() {
            8 => u32::from_str_radix(text, 16).ok(),
            _ => text.parse().ok(),
        };
        let number = number.filter(|number| *number > 0);
        number.map(Timeline::new).ok_or_else(|| self.wrong(name, &format!("is `{}`", text.escape_debug())))
    }

    /// A number, or as people write it: 15.18.
    fn version(&self, name: &str) -> Result<u32> {
        let text = self.text(name)?;
        let wrong = || self.wrong(name, &format!("is `{}`", text.escape_debug()));
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        let major: u32 = parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong)?;
        if major >= 10_000 {
            return Ok(major);
        }
        let minor = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        major.checked_mul(10_000).and_then(|major| major.checked_add(minor)).ok_or_else(wrong)
    }

    /// A JSON object, from object identifiers to places; nothing where there are none.
    fn tablespaces(&self, name: &str) -> Result<BTreeMap<u32, PathBuf>> {
        let text = self.positions.get(name).map_or("", |text| text.trim());
        if text.is_empty() {
            return Ok(BTreeMap::new());
        }
        let parsed: serde_json::Result<BTreeMap<u32, PathBuf>> = serde_json::from_str(text);
        parsed.map_err(|_| self.wrong(name, "is no list of tablespaces"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions() -> BTreeMap<String, String> {
        let pairs = [
            ("system_identifier", "7412"),
            ("timeline", "1"),
            ("start_lsn", "0/2000028"),
            ("stop_lsn", "0/4000000"),
            ("start_segment", "000000010000000000000002"),
            ("stop_segment", "000000010000000000000003"),
            ("start_time", "2026-11-20T08:00:00Z"),
            ("stop_time", "2026-11-20T08:01:00Z"),
            ("server_version", "150018"),
            ("block_bytes", "8192"),
            ("wal_segment_bytes", "16777216"),
            ("data_checksums", "on"),
            ("from", "primary"),
            ("tablespaces", r#"{"16384":"/srv/fast"}"#),
            ("log_lineage", "7412"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn what_positions_say_is_read_and_contradictions_are_refused() {
        let base = BaseBackup::from_positions("b", &positions()).unwrap();
        assert_eq!((base.major_version(), base.tablespaces.len(), base.from_standby), (15, 1, false));
        let with = |name: &str, value: &str| {
            let mut positions = positions();
            positions.insert(name.to_owned(), value.to_owned());
            BaseBackup::from_positions("b", &positions)
        };
        assert_eq!(with("server_version", "18.4 (Debian 18.4-1)").unwrap().server_version, 180_004);
        assert_eq!(with("timeline", "00000001").unwrap().timeline, Timeline::FIRST);
        let wrong = [
            ("timeline", "2"),
            ("timeline", "0"),
            ("start_lsn", "0/5000028"),
            ("stop_segment", "000000010000000000000004"),
            ("wal_segment_bytes", "5"),
            ("log_lineage", "7413"),
            ("stop_time", "yesterday"),
            ("tablespaces", "/srv/fast"),
        ];
        for (name, value) in wrong {
            assert!(with(name, value).is_err(), "{name} = {value}");
        }
        for name in positions().keys().filter(|name| !matches!(name.as_str(), "log_lineage" | "tablespaces"))
        {
            let mut positions = positions();
            positions.remove(name);
            let error = BaseBackup::from_positions("b", &positions).unwrap_err();
            assert!(error.to_string().contains(name.as_str()), "{error}");
        }
    }
}
