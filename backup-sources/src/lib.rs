//! Sources and targets: where backups read from and restores write to.
//!
//! ```
//! use backup_core::{JobContext, Source};
//! use backup_sources::FilesSource;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> backup_core::Result<()> {
//! let source = FilesSource::builder().path("/etc/hosts").build()?;
//! let mut run = source.begin(&JobContext::new()).await?;
//! let entries = run.next(10).await?;
//! assert!(!entries.is_empty());
//! run.finish().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | Source | yields |
//! |---|---|
//! | [`FilesSource`] | files, directories and everything else that a file system holds |
//! | [`CommandSource`] | what a process writes to its standard output |
//! | [`ReaderSource`] | whatever an asynchronous reader yields |
//! | [`MemorySource`] | entries in memory |
//! | `postgres::PostgresSource` | the files of a PostgreSQL cluster; with the feature `postgres` |
//! | `postgres::LogicalSource` | dumps of the databases of a PostgreSQL server; with the feature `postgres` |
//! | `BucketSource` | the objects below a prefix of a bucket, in any store of the crate `object_store`; with the feature `object-store` |
//!
//! Files can be read from a consistent [view] of them: a snapshot of btrfs, LVM or ZFS.
//!
//! | Target | gets |
//! |---|---|
//! | [`DirectoryTarget`] | the files as they were, below a directory and nowhere else |
//! | [`TarTarget`] | a tar archive |
//! | [`WriterTarget`] | the content of one or all files |
//!
//! With the feature `fuse`, `mount` shows all snapshots of a repository as a file system, on Linux.
//!
//! With the feature `postgres`, `postgres` has what a PostgreSQL server needs: its log, backups of its files, recovery, dumps of its databases.
//!
//! A target leaves alone what a snapshot does not have; [`DeletePlanner`] finds that, and its plan deletes it. A snapshot
//! of a [`ReplacedSource`], made before, has what a restore replaces or deletes.

mod acl;
#[cfg(feature = "object-store")]
pub mod bucket;
pub mod command;
pub mod files;
mod flags;
pub mod memory;
#[cfg(all(feature = "fuse", target_os = "linux"))]
pub mod mount;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod reader;
mod register;
mod system;
pub mod target;
pub mod view;

#[cfg(feature = "object-store")]
pub use bucket::BucketSource;
pub use command::CommandSource;
pub use files::{FilesSource, FilesSourceBuilder};
pub use memory::MemorySource;
pub use reader::ReaderSource;
pub use register::register;
pub use target::{
    DeletePlan, DeletePlanner, DirectoryTarget, DirectoryTargetBuilder, Overwrite, Owner, PARTIAL,
    ReplacedSource, SAFETY, TarTarget, WriterTarget,
};
