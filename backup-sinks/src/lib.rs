//! Stores for the backup engine: a [`Sink`](backup_core::Sink) keeps immutable objects, each written once.
//!
//! ```
//! use backup_core::{GetRange, ObjectKey, PutOutcome, Sink};
//! use backup_sinks::MemorySink;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> backup_core::Result<()> {
//! let sink = MemorySink::new();
//! let key = ObjectKey::new("snapshots/1")?;
//! assert_eq!(sink.put(&key, "bytes".into()).await?, PutOutcome::Created);
//! assert_eq!(sink.put(&key, "other".into()).await?, PutOutcome::AlreadyExists);
//! assert_eq!(sink.get(&key, GetRange::Suffix(2)).await?.bytes, "es");
//! # Ok(())
//! # }
//! ```
//!
//! | sink | keeps objects | safe for |
//! |---|---|---|
//! | [`MemorySink`] | in this process | tests, and repositories that live as long as a process |
//! | [`LocalSink`] | as files below a directory, durable when a put returns | several processes, power loss |
//! | `ObjectStoreSink` | in S3, Google Cloud Storage, Azure, or any store of the crate `object_store` | several machines |
//!
//! | sink around a sink | does |
//! |---|---|
//! | [`Retry`] | tries again what may succeed later, with jitter and a deadline |
//! | [`RateLimited`] | transfers no faster than allowed |
//! | [`ReadOnly`] | refuses to change anything |
//! | [`Prefixed`] | shows the objects below a prefix |
//! | [`Cached`] | keeps local copies of what is read often |
//! | [`Opening`] | asks at once for what opening a repository needs |
//!
//! [`probe()`] tells whether a store creates objects once, without which it cannot hold a repository. What was asked of a sink is
//! recorded by `backup_core::testing::RecordingSink`.
//!
//! A sink of one's own implements the four calls of [`Sink`](backup_core::Sink); the suite in
//! `backup_core::testing::sink`, which the sinks here pass, says whether it keeps the contract.
//!
//! # Features
//! - `s3`, `gcs`, `azure`: the kinds of these names for configurations and URLs, and in `clouds` what makes clients of
//!   buckets from settings. Each brings HTTP and TLS.
//! - `object-store`: `ObjectStoreSink` alone, for a store of one's own.
//!
//! None is on by default.

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub mod clouds;
mod jitter;
mod local;
mod memory;
#[cfg(feature = "object-store")]
mod objects;
mod probe;
mod register;
mod wrappers;

pub use local::LocalSink;
#[cfg(any(test, feature = "testing"))]
pub use local::disk;
pub use memory::MemorySink;
#[cfg(feature = "object-store")]
pub use objects::{ObjectStoreSink, class::StorageClasses};
pub use probe::probe;
pub use register::register;
pub use wrappers::{Cached, Opening, Prefixed, RateLimited, ReadOnly, Retry, RetryPolicy};
