//! The write-ahead log: what its files are called and what stands in them.
//!
//! See the chapter "Write-Ahead Log" of the PostgreSQL manual; the bytes are those of the server's `access/xlog_internal.h`,
//! `xlogrecord.h` and `xact.h`, of little-endian servers. Nothing here reads files: bytes come in, and what they mean goes out.

mod header;
mod history;
#[cfg(test)]
pub(in crate::postgres) mod made;
mod names;
mod reader;
mod records;
mod size;
mod summary;
mod xids;

pub use header::{LongHeader, Version, check_partial, check_segment};
pub use history::{Ancestor, TimelineHistory};
pub use names::{SegmentName, WalFile};
pub use reader::{WalEnd, WalReader};
pub use records::{WalEvent, WalRecord};
pub use size::SegmentSize;
pub use summary::{MadeTablespace, NamedPoint, Summary, position};
pub use xids::XidRanges;

/// The number at `at`, little-endian, if the bytes reach so far.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The same with four bytes.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The same with eight bytes.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
