//! The contracts and the engine of an embeddable backup repository.
//!
//! This is a work in progress of the crate documentation.

pub mod chunker;
pub mod config;
pub mod entry;
pub mod error;
pub mod format;
pub mod job;
pub mod limits;
pub mod observer;
pub mod protection;
pub mod random;
pub mod report;
pub mod repository;
pub mod resources;
pub mod retention;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod target;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod transform;

pub use entry::{Attribute, Entry, EntryKind, EntryName, PosixMetadata, Skipped};
pub use error::{Error, ErrorKind, Result};
pub use job::{CancellationToken, JobContext};
pub use observer::{Event, Observer, Progress};
pub use protection::{ChunkId, Protection, RepositoryId, ShortId, Unprotected};
pub use random::{Random, SystemRandom};
pub use resources::Resources;
pub use retention::RetentionPolicy;
pub use sink::{Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Sink, SinkExt};
pub use snapshot::{SnapshotId, SnapshotInfo};
pub use source::{Chunking, Content, EntryOrder, Finished, Item, Source, SourceInfo, SourceRun};
pub use target::{BlockingWriter, Target, WriteOrder, Writer};
pub use time::{Clock, SystemClock, Timestamp};
pub use transform::{Encoded, FrameContext, ObjectType, Transform, TransformSet, Zstd};
