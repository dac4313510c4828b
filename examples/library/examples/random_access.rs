//! A few bytes out of the middle of a stored file, without restoring it.
//!
//! ```text
//! cargo run -p library-examples --example random_access
//! ```
//!
//! A stored file is an `AsyncRead` and an `AsyncSeek`: what is read is fetched, opened and checked chunk by chunk, and
//! nothing else. So a service can answer range requests, or a database tool read the one page it wants.

use std::io::SeekFrom;
use std::sync::Arc;

use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::{
    EntryName, Error, ErrorKind, JobContext, RepositoryId, Result, Sink, SystemRandom, Unprotected,
};
use backup_sources::MemorySource;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Backs up `content` to `sink` and reads `len` bytes from each of `offsets`.
pub(crate) async fn run(
    sink: Arc<dyn Sink>,
    content: Bytes,
    offsets: &[SeekFrom],
    len: usize,
) -> Result<Vec<Vec<u8>>> {
    let job = JobContext::new();
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
    let source = MemorySource::new("disk").with_file("images/disk.raw", content)?;
    let report = repository.backup(&source, &BackupOptions::default(), &job).await?;

    let id = report.snapshot.ok_or_else(|| Error::internal("no snapshot was made"))?;
    let snapshot = repository.snapshot(id, &job).await?;
    let name = EntryName::new("images/disk.raw")?;
    let missing = || Error::new(ErrorKind::NotFound, "is not in the snapshot").with_entry(&name);
    let stored = snapshot.entry(&name, &job).await?.ok_or_else(missing)?;
    let mut file = snapshot.open(&stored, &job).await?;
    let mut parts = Vec::new();
    for offset in offsets {
        let mut part = vec![0; len];
        let read = async {
            file.seek(*offset).await?;
            file.read_exact(&mut part).await
        };
        read.await.map_err(|e| Error::io("the file could not be read", e))?;
        parts.push(part);
    }
    Ok(parts)
}

#[tokio::main]
async fn main() -> Result<()> {
    let content: Bytes = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let sink = Arc::new(backup_sinks::MemorySink::new());
    let offsets = [SeekFrom::Start(2_000_000), SeekFrom::End(-4), SeekFrom::Current(-8)];
    for (offset, part) in offsets.iter().zip(run(sink, content, &offsets, 4).await?) {
        println!("{offset:?}: {part:?}");
    }
    Ok(())
}
