//! A snapshot into another repository, under other keys: for a second place, or to leave a compromised one.
//!
//! ```text
//! cargo run -p library-examples --example copy_snapshot
//! ```
//!
//! A stored snapshot is itself a source, so copying is backing it up. The copy gets an id of its own and what the second
//! repository has already is not stored again.

use std::path::Path;
use std::sync::Arc;

use backup_core::report::BackupReport;
use backup_core::repository::{BackupOptions, CreateOptions, Repository, Snapshot};
use backup_core::{Error, JobContext, Result, Sink};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::LocalSink;
use backup_sources::FilesSource;

/// Backs up `source` to `work/first` and copies the snapshot to `work/second`, twice. Returns the original, the copy and
/// what the second time cost.
pub(crate) async fn run(source: &Path, work: &Path) -> Result<(Snapshot, Snapshot, BackupReport)> {
    let job = JobContext::new();
    let first = create(&work.join("first"), "the first passphrase", &job).await?;
    let second = create(&work.join("second"), "the second passphrase", &job).await?;

    let mut options =
        BackupOptions { host: "web".into(), label: Some("site".into()), ..BackupOptions::default() };
    options.tags.insert("release".into(), "1.0".into());
    let made = first.backup(&FilesSource::new(source)?, &options, &job).await?;
    let original = open(&first, &made, &job).await?;

    let copied =
        second.backup(&original.source(), &BackupOptions::copy_of(first.id(), original.info()), &job).await?;
    let copy = open(&second, &copied, &job).await?;
    let again =
        second.backup(&original.source(), &BackupOptions::copy_of(first.id(), original.info()), &job).await?;
    Ok((original, copy, again))
}

async fn create(place: &Path, passphrase: &str, job: &JobContext) -> Result<Repository> {
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::create(place)?);
    let keys = Keyring::create(&sink, &[Recipient::passphrase(passphrase.to_owned())?], job).await?;
    Repository::create(sink, keys, CreateOptions::default(), job).await
}

async fn open(repository: &Repository, report: &BackupReport, job: &JobContext) -> Result<Snapshot> {
    let id = report.snapshot.ok_or_else(|| Error::internal("no snapshot was made"))?;
    repository.snapshot(id, job).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let scratch = tempfile::tempdir().map_err(|e| Error::io("no temporary directory", e))?;
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"));
    let (original, copy, again) = run(source, scratch.path()).await?;
    for info in [original.info(), copy.info()] {
        println!(
            "{} {:?} {:?}: {} entries, {} bytes",
            info.id, info.label, info.tags, info.entries, info.bytes_logical
        );
    }
    println!("the second time added {} bytes of content", again.bytes_added);
    Ok(())
}
