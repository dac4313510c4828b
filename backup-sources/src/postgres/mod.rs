//! PostgreSQL 13 to 18: its write-ahead log, backups of its files, recovery and its rehearsal.
//!
//! | Module | has |
//! |---|---|
//! | [`connect`] | where a server is and how one logs in there, as `libpq` says it |
//! | [`drill`] | recoveries that are rehearsed |
//! | [`physical`] | the files of a cluster as a source: base backups |
//! | [`recovery`] | recovery of a cluster to any moment, planned first |
//! | [`wal`] | the names and the formats of the write-ahead log |

pub mod connect;
pub mod drill;
mod lsn;
pub mod physical;
pub mod recovery;
pub mod wal;

pub use connect::Connect;
pub use lsn::{Lsn, Timeline};
pub use physical::{PostgresSource, PostgresSourceBuilder};
