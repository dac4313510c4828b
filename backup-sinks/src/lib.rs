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
//!
//! A sink of one's own implements the four calls of [`Sink`](backup_core::Sink); the suite in
//! `backup_core::testing::sink`, which the sinks here pass, says whether it keeps the contract.

mod local;
mod memory;
mod register;

pub use local::LocalSink;
#[cfg(any(test, feature = "testing"))]
pub use local::disk;
pub use memory::MemorySink;
pub use register::register;
