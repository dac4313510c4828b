//! PostgreSQL 13 to 18: its write-ahead log, backups of its files, recovery and its rehearsal.
//!
//! | Module | has |
//! |---|---|
//! | [`archive`] | the log in a repository: in, out, and what is missing |
//! | [`connect`] | where a server is and how one logs in there, as `libpq` says it |
//! | [`drill`] | recoveries that are rehearsed |
//! | [`health`] | how well its log is archived, and whether recoveries are rehearsed |
//! | [`logical`] | dumps of databases as a source, and their restore |
//! | [`physical`] | the files of a cluster as a source: base backups |
//! | [`receive`] | the log as the server writes it |
//! | [`recovery`] | recovery of a cluster to any moment, planned first |
//! | [`replication`] | a client of the server's WAL sender |
//! | [`wal`] | the names and the formats of the write-ahead log |

pub mod archive;
mod configured;
pub mod connect;
pub mod drill;
mod guarded;
pub mod health;
pub mod logical;
mod lsn;
pub mod physical;
mod ready;
pub mod receive;
pub mod recovery;
pub mod replication;
pub mod wal;

pub use archive::WalArchive;
pub use configured::PostgresSettings;
pub(crate) use configured::postgres;
pub use connect::Connect;
pub use logical::{LogicalSource, LogicalSourceBuilder};
pub use lsn::{Lsn, Timeline};
pub use physical::{PostgresSource, PostgresSourceBuilder};
pub use ready::{Readiness, readiness};
pub use receive::Receiver;
