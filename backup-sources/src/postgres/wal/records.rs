//! What a record of the log says, as far as recovery cares.

use backup_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Version, u32_at, u64_at};
use crate::postgres::{Lsn, Timeline};

/// Bytes of a record's header.
pub(super) const HEADER_BYTES: usize = 24;

const XLOG: u8 = 0;
const XACT: u8 = 1;
const TABLESPACE: u8 = 5;

/// A record of the log, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalEvent {
    /// Where the record begins: what `recovery_target_lsn` is compared with.
    pub lsn: Lsn,
    /// Where it ends, rounded up to eight as the next begins there: what a server reports once it is flushed.
    pub end: Lsn,
    /// What it says.
    pub record: WalRecord,
}

/// What records say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "record")]
#[non_exhaustive]
pub enum WalRecord {
    /// A transaction was committed: what `recovery_target_time` and `recovery_target_xid` are compared with.
    Commit {
        /// The transaction; none if that of a prepared one stands too far back in an enormous record.
        xid: Option<u32>,
        /// When, by the server's clock.
        time: Timestamp,
    },
    /// A transaction was rolled back.
    Abort {
        /// The transaction.
        xid: Option<u32>,
        /// When, by the server's clock.
        time: Timestamp,
    },
    /// `pg_create_restore_point`: what `recovery_target_name` is compared with.
    RestorePoint {
        /// Its name.
        name: String,
        /// When, by the server's clock.
        time: Timestamp,
    },
    /// A checkpoint.
    Checkpoint {
        /// Where recovery from it begins.
        redo: Lsn,
        /// Whether the server went down.
        shutdown: bool,
        /// The timeline.
        timeline: Timeline,
        /// The timeline before it: another one if this is the first record of a timeline.
        previous: Timeline,
    },
    /// A recovery ended and a timeline began.
    EndOfRecovery {
        /// When, by the server's clock.
        time: Timestamp,
        /// The timeline.
        timeline: Timeline,
        /// The timeline before it.
        previous: Timeline,
    },
    /// A backup ended that began at this position.
    BackupEnd {
        /// Where it began.
        start: Lsn,
    },
    /// A tablespace was made in a directory. Whoever replays this has it there, too, wherever the cluster is replayed to. One that is made in
    /// the data directory itself is no such record.
    TablespaceMade {
        /// Its object identifier.
        oid: u32,
        /// The directory, on the server's machine.
        directory: String,
    },
    /// `pg_switch_wal`: what follows of the segment is empty.
    Switch,
    /// Anything else.
    Other,
}

/// What the bytes of a record say, from its header on; its end may be missing if it is long.
pub(super) fn of_bytes(bytes: &[u8], version: Version) -> WalRecord {
    parse(bytes, version).unwrap_or(WalRecord::Other)
}

/// Whether what follows the header of such a record is needed to see what it says.
pub(super) fn says_more(header: &[u8]) -> bool {
    header.get(17).is_none_or(|manager| matches!(*manager, XLOG | XACT | TABLESPACE))
}

/// Whether a record ends its segment.
pub(super) fn is_switch(bytes: &[u8]) -> bool {
    matches!((bytes.get(16), bytes.get(17)), (Some(info), Some(&XLOG)) if info & 0xF0 == 0x40)
}

fn parse(bytes: &[u8], version: Version) -> Option<WalRecord> {
    let xid = u32_at(bytes, 4)?;
    let (info, manager) = (*bytes.get(16)?, *bytes.get(17)?);
    if !matches!(manager, XLOG | XACT | TABLESPACE) {
        return None;
    }
    if is_switch(bytes) {
        return Some(WalRecord::Switch);
    }
    let data = main_data(bytes.get(HEADER_BYTES..)?)?;
    match manager {
        XACT => return transaction(info, xid, data, version),
        // The other kind says that one was dropped.
        TABLESPACE if info & 0xF0 == 0x00 => return tablespace(data),
        TABLESPACE => return None,
        _ => {}
    }
    Some(match info & 0xF0 {
        kind @ (0x00 | 0x10) => WalRecord::Checkpoint {
            redo: Lsn::new(u64_at(data, 0)?),
            shutdown: kind == 0x00,
            timeline: Timeline::new(u32_at(data, 8)?),
            previous: Timeline::new(u32_at(data, 12)?),
        },
        0x50 => WalRecord::BackupEnd { start: Lsn::new(u64_at(data, 0)?) },
        0x70 => {
            let name = data.get(8..)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name.get(..name.len().min(64))?).into_owned();
            WalRecord::RestorePoint { name, time: time(data)? }
        }
        0x90 => WalRecord::EndOfRecovery {
            time: time(data)?,
            timeline: Timeline::new(u32_at(data, 8)?),
            previous: Timeline::new(u32_at(data, 12)?),
        },
        _ => WalRecord::Other,
    })
}

fn tablespace(data: &[u8]) -> Option<WalRecord> {
    let directory = data.get(4..)?.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())?;
    let directory = String::from_utf8_lossy(directory).into_owned();
    Some(WalRecord::TablespaceMade { oid: u32_at(data, 0)?, directory })
}

fn transaction(info: u8, xid: u32, data: &[u8], version: Version) -> Option<WalRecord> {
    let has_info = info & 0x80 != 0;
    let own = (xid != 0).then_some(xid);
    Some(match info & 0x70 {
        0x00 => WalRecord::Commit { xid: own, time: time(data)? },
        0x20 => WalRecord::Abort { xid: own, time: time(data)? },
        // These stand in the name of a session of their own; the transaction's number is further back.
        0x30 => WalRecord::Commit { xid: prepared(data, has_info, version), time: time(data)? },
        0x40 => WalRecord::Abort { xid: prepared(data, has_info, version), time: time(data)? },
        _ => WalRecord::Other,
    })
}

/// The number of the prepared transaction that the record is about.
fn prepared(data: &[u8], has_info: bool, version: Version) -> Option<u32> {
    if !has_info {
        return None;
    }
    let flags = u32_at(data, 8)?;
    let mut at = 12_usize;
    if flags & 0x01 != 0 {
        at = at.checked_add(8)?;
    }
    let stats_bytes = if version.major() >= 18 { 16 } else { 12 };
    // Subtransactions, files, statistics and invalidations: a count and so many of a length each.
    for (flag, bytes) in [(0x02, 4), (0x04, 12), (0x100, stats_bytes), (0x08, 16)] {
        if flags & flag != 0 {
            let count = usize::try_from(u32_at(data, at)?).ok()?;
            at = at.checked_add(4)?.checked_add(count.checked_mul(bytes)?)?;
        }
    }
    (flags & 0x10 != 0).then(|| u32_at(data, at)).flatten()
}

/// The data of a record that is about no page; none of one that is.
fn main_data(mut headers: &[u8]) -> Option<&[u8]> {
    loop {
        let (id, rest) = headers.split_first()?;
        match id {
            255 => {
                let (len, data) = rest.split_first()?;
                return data.get(..usize::from(*len).min(data.len()));
            }
            254 => {
                let len = usize::try_from(u32_at(rest, 0)?).ok()?;
                let data = rest.get(4..)?;
                return data.get(..len.min(data.len()));
            }
            // Where it comes from (two bytes), and the transaction above it (four).
            253 => headers = rest.get(2..)?,
            252 => headers = rest.get(4..)?,
            _ => return None,
        }
    }
}

/// Microseconds since the year 2000, as records begin with them.
fn time(data: &[u8]) -> Option<Timestamp> {
    const YEAR_2000: i64 = 946_684_800;
    let micros = u64_at(data, 0)?.cast_signed();
    let nanoseconds = u32::try_from(micros.rem_euclid(1_000_000)).ok()?.saturating_mul(1000);
    Some(Timestamp::new(micros.div_euclid(1_000_000).saturating_add(YEAR_2000), nanoseconds))
}
