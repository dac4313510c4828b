//! A restore that writes no files: a list of checksums as `sha256sum` prints it, straight from the repository.
//!
//! ```text
//! cargo run -p library-examples --example custom_target [DIRECTORY]
//! ```
//!
//! A target is told of every entry in the order of the snapshot and says how its content is to be written. One that
//! takes entries one after the other gives an `AsyncWrite` for each; one that takes them in any order gives blocking
//! writers, which the engine fills from several threads.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use backup_core::repository::{BackupOptions, CreateOptions, Repository, RestoreOptions};
use backup_core::{
    Entry, Error, JobContext, RepositoryId, Result, Skipped, SystemRandom, Target, Unprotected, WriteOrder,
    Writer,
};
use backup_sinks::MemorySink;
use backup_sources::FilesSource;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWrite;

/// Collects one line a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checksums(Arc<Mutex<Vec<String>>>);

impl Checksums {
    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

#[async_trait]
impl Target for Checksums {
    fn order(&self) -> WriteOrder {
        WriteOrder::Sequential
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        Ok(())
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        if !entry.kind.has_content() {
            return Ok(Writer::Skip);
        }
        let hash = Sha256::new();
        Ok(Writer::Async(Box::pin(Hashing { hash, name: entry.name.to_string(), lines: self.clone() })))
    }

    async fn complete(&self, _: Vec<Entry>) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }
}

/// One file's content on its way.
struct Hashing {
    hash: Sha256,
    name: String,
    lines: Checksums,
}

impl AsyncWrite for Hashing {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.hash.update(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    // The content was whole: only now is there anything to say about it.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let digest: String = self.hash.finalize_reset().iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{digest}  {}", self.name);
        self.lines.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line);
        Poll::Ready(Ok(()))
    }
}

/// Backs up `source` and returns the checksums of what a restore would write.
pub(crate) async fn run(source: &Path) -> Result<Vec<String>> {
    let job = JobContext::new();
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let sink = Arc::new(MemorySink::new());
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
    let report = repository.backup(&FilesSource::new(source)?, &BackupOptions::default(), &job).await?;

    let id = report.snapshot.ok_or_else(|| Error::internal("no snapshot was made"))?;
    let snapshot = repository.snapshot(id, &job).await?;
    let target = Checksums::default();
    repository.restore(&snapshot, &target, &RestoreOptions::default(), &job).await?;
    Ok(target.lines())
}

#[tokio::main]
async fn main() -> Result<()> {
    let source = std::env::args_os().nth(1).map(PathBuf::from);
    let source = source.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/examples").into());
    for line in run(&source).await? {
        println!("{line}");
    }
    Ok(())
}
