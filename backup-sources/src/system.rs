//! Small helpers over system calls that several modules share.

use std::io;

use backup_core::Timestamp;
use rustix::fs::{FileType, Stat};

/// What an error of the system means, in words, with its number.
pub(crate) fn describe(error: rustix::io::Errno) -> String {
    io::Error::from(error).to_string()
}

/// The kind of file that a stat describes.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// When the content changed last.
pub(crate) fn modified(stat: &Stat) -> Timestamp {
    Timestamp::new(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default())
}

/// When content or metadata changed last.
pub(crate) fn changed(stat: &Stat) -> Timestamp {
    Timestamp::new(stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or_default())
}

/// The size in bytes.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
