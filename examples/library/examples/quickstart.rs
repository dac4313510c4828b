//! Files into an encrypted repository on local disk, and back: create, back up, list, restore, verify.
//!
//! ```text
//! cargo run -p library-examples --example quickstart [DIRECTORY [EMPTY_DIRECTORY]]
//! ```
//!
//! Without arguments it backs up its own source code and works in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::report::{BackupReport, RestoreReport, VerifyReport};
use backup_core::repository::{BackupOptions, CreateOptions, Repository, RestoreOptions, VerifyOptions};
use backup_core::{Error, JobContext, Result, Sink, SnapshotInfo};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::LocalSink;
use backup_sources::{DirectoryTarget, FilesSource};

/// What was done, step by step.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) backup: BackupReport,
    pub(crate) snapshots: Vec<SnapshotInfo>,
    pub(crate) restore: RestoreReport,
    pub(crate) verify: VerifyReport,
}

/// Backs up `source` to `work/repository` and restores it to `work/restored`.
pub(crate) async fn run(source: &Path, work: &Path) -> Result<Done> {
    let job = JobContext::new();

    // Where the objects are, and who can open them: here whoever knows a passphrase.
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::create(work.join("repository"))?);
    let passphrase = Recipient::passphrase("correct horse battery staple".to_owned())?;
    let keys = Keyring::create(&sink, &[passphrase], &job).await?;
    let repository = Repository::create(sink, keys, CreateOptions::default(), &job).await?;

    // Names in the snapshot are the paths without their leading `/`; a restore puts them below its target.
    let files = FilesSource::new(source)?;
    let options = BackupOptions { host: "example-host".into(), ..BackupOptions::default() };
    let backup = repository.backup(&files, &options, &job).await?;

    let snapshots = repository.snapshots(&job).await?;
    let newest = snapshots.last().ok_or_else(|| Error::internal("the snapshot is not listed"))?;

    let snapshot = repository.snapshot(newest.id, &job).await?;
    let target = DirectoryTarget::new(work.join("restored"));
    let restore = repository.restore(&snapshot, &target, &RestoreOptions::default(), &job).await?;

    // Reads everything, opens every frame, compares every chunk with its identity.
    let verify = repository.verify(&VerifyOptions::default(), &job).await?;
    Ok(Done { backup, snapshots, restore, verify })
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let source = arguments.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/examples").into());
    let scratch = tempfile::tempdir().map_err(|e| Error::io("no temporary directory", e))?;
    let work = arguments.next().unwrap_or_else(|| scratch.path().to_owned());

    let done = run(&source, &work).await?;
    let backup = &done.backup;
    println!(
        "backed up {} entries, {} bytes as {}",
        backup.entries, backup.bytes_logical, backup.bytes_stored
    );
    for info in &done.snapshots {
        println!("  {} {} {:?} {:?}", info.id, info.time, info.identity, info.outcome);
    }
    println!("restored {} entries to {}", done.restore.entries_written, work.join("restored").display());
    println!("verified {} chunks, clean: {}", done.verify.checked.chunks, done.verify.is_clean());
    Ok(())
}
