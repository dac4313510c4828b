//! The contracts and the engine of an embeddable backup repository: deduplicating, compressing, encrypting, verifiable.
//!
//! ```
//! use std::sync::Arc;
//!
//! use backup_core::{CreateOptions, JobContext, Pipeline, Repository, RepositoryId, RestoreOptions, SystemRandom, Unprotected};
//! use backup_sinks::MemorySink;
//! use backup_sources::{DirectoryTarget, FilesSource};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # std::fs::write(from.path().join("orders.csv"), "1,tea\n")?;
//! # let (from, to) = (from.path(), to.path());
//! let job = JobContext::new();
//! // `backup_crypto::Keyring` in place of `Unprotected` encrypts.
//! let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
//! let sink = Arc::new(MemorySink::new());
//! let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
//!
//! let source = FilesSource::builder().path(from).build()?;
//! let report = Pipeline::new(source).label("orders").run(&repository, &job).await?;
//!
//! let snapshot = repository.snapshot(report.backup.snapshot.ok_or("a dry run")?, &job).await?;
//! repository.restore(&snapshot, &DirectoryTarget::new(to), &RestoreOptions::default(), &job).await?;
//! let restored = to.join(from.strip_prefix("/")?).join("orders.csv");
//! assert_eq!(std::fs::read_to_string(restored)?, "1,tea\n");
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//! A [`Source`] yields **entries**: a name, a kind, metadata, maybe content. The engine skips what has not changed since the
//! parent snapshot, cuts the rest into **chunks**, names each by a keyed hash, and stores those that the [`Repository`] lacks:
//! many to a **frame**, each frame through the chain of [`Transform`]s (Zstandard, then the seal), frames in **packs**. Packs
//! are objects of a [`Sink`], which creates each object once and never overwrites one. The last put creates the
//! **snapshot**; before it nothing of the run is visible. A restore is the same sentence backwards, into a [`Target`].
//!
//! Keys are the affair of a [`Protection`]: the engine asks it for seals and chunk ids and never sees a key. What to keep is
//! that of a [`RetentionPolicy`], a pure function from snapshots to decisions.
//!
//! Every job takes a [`JobContext`] (cancellation, resources, observer, clock) and returns a report of what was done and what
//! was skipped, by name. Dropping a job's future stops it. Nothing here blocks the caller's runtime or starts one.
//! Errors have a [kind](ErrorKind) to decide by, and name what they concern.
//!
//! # Map
//! In the order in which they explain each other:
//!
//! | Module | Has |
//! |---|---|
//! | [`pipeline`] | the front door: source, transforms, repository, policy in one sentence |
//! | [`entry`], [`source`], [`target`] | what is backed up, where it comes from, where it goes |
//! | [`transform`], [`protection`] | what happens to frames; how the engine asks for what depends on keys |
//! | [`sink`], [`thaw`] | where objects are kept; asking for those that cannot be read at once |
//! | [`snapshot`], [`change`], [`workload`], [`retention`] | what a run leaves behind and says of itself; which of them to keep, and why |
//! | [`repository`] | the engine: backup, restore, verify, diff, repair, stored files |
//! | [`job`], [`resources`], [`observer`], [`report`] | what a job is given and what it tells |
//! | [`error`], [`limits`], [`time`], [`random`] | failures, bounds, clocks, randomness |
//! | [`config`] | one model for configured sources, sinks, policies and jobs, with a registry for kinds of one's own |
//! | [`chunker`], [`format`](mod@format) | the bytes: where content is cut, how everything is stored |
//! | `testing` | conformance suites for everyone who implements a contract, and sinks that record or fail |
//!
//! `docs/FORMAT.md` in this crate's sources specifies every stored byte, `docs/ARCHITECTURE.md` says what holds the code together,
//! `docs/THREAT_MODEL.md` what it protects against, `docs/decisions/` why it is as it is.
//!
//! # Features
//! - `testing`: the module `testing`.
//! - `schema`: a JSON Schema of the configuration.
//!
//! Neither is on by default. This crate has no network, no TLS and no cipher in any of them.

pub mod pipeline;

pub mod entry;
pub mod owners;
pub mod source;
pub mod target;
pub mod transform;

pub mod protection;
pub mod sink;
pub mod thaw;

pub mod change;
pub mod data_kind;
pub mod log;
pub mod retention;
pub mod snapshot;
pub mod workload;

pub mod repository;

pub mod job;
pub mod observer;
pub mod report;
pub mod resources;

pub mod error;
pub mod limits;
pub mod random;
pub mod time;

pub mod config;

pub mod chunker;
pub mod format;

#[cfg(feature = "testing")]
pub mod testing;

pub use change::{Anomaly, Change};
pub use data_kind::DataKind;
pub use entry::{Attribute, Entry, EntryKind, EntryName, PosixMetadata, Skipped};
pub use error::{Error, ErrorKind, Result};
pub use job::{CancellationToken, JobContext};
pub use log::{Archived, ListedLog, LogContent, LogName, LogOutline, LogPiece, LogRetention};
pub use observer::{Event, Observer, Progress};
pub use owners::OwnerNames;
pub use pipeline::{Pipeline, PipelineReport};
pub use protection::{ChunkId, Protection, RepositoryId, ShortId, Unprotected};
pub use random::{Random, SystemRandom};
pub use report::{BackupReport, Outcome, RestoreReport, VerifyReport};
pub use repository::{
    BackupOptions, CreateOptions, ParentChoice, Repository, RestoreOptions, Selection, Snapshot, StoredEntry,
    StoredFile, VerifyLevel, VerifyOptions,
};
pub use resources::Resources;
pub use retention::{Decision, RetentionPolicy, SnapshotFacts};
pub use sink::{Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Sink, SinkExt};
pub use snapshot::{Origin, SnapshotId, SnapshotInfo};
pub use source::{Chunking, Content, EntryOrder, Finished, Item, Source, SourceInfo, SourceRun};
pub use target::{BlockingWriter, Target, WriteOrder, Writer};
pub use thaw::{Readiness, Thaw, ThawSpeed};
pub use time::{Clock, SystemClock, Timestamp};
pub use transform::{Encoded, FrameContext, ObjectType, Transform, TransformSet, Zstd};
pub use workload::{KindLoad, Workload};

// The example of the front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
