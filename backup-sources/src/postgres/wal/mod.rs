//! The write-ahead log: what its files are called and what stands in them.
//!
//! See the chapter "Write-Ahead Log" of the PostgreSQL manual; the bytes are those of the server's `access/xlog_internal.h`.

mod names;
mod size;

pub use names::{SegmentName, WalFile};
pub use size::SegmentSize;
