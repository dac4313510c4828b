//! PostgreSQL 13 to 18: its write-ahead log, backups of its files, recovery and its rehearsal.
//!
//! | Module | has |
//! |---|---|
//! | [`connect`] | where a server is and how one logs in there, as `libpq` says it |
//! | [`physical`] | the files of a cluster as a source: base backups |
//! | [`wal`] | the names and the formats of the write-ahead log |

pub mod connect;
mod lsn;
pub mod physical;
pub mod wal;

pub use connect::Connect;
pub use lsn::{Lsn, Timeline};
pub use physical::{PostgresSource, PostgresSourceBuilder};
