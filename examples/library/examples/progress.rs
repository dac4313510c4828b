//! A progress bar that observes a job.
//!
//! ```text
//! cargo run -p library-examples --example progress [DIRECTORY]
//! ```
//!
//! An observer is told of phases, progress (at most about ten times a second) and everything skipped, on whichever
//! thread it happens. It should return at once; the report at the end says the same and more, so nothing need be kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::report::{BackupReport, VerifyReport};
use backup_core::repository::{BackupOptions, CreateOptions, Repository, VerifyOptions};
use backup_core::{Event, JobContext, Observer, RepositoryId, Result, SystemRandom, Unprotected};
use backup_sinks::MemorySink;
use backup_sources::FilesSource;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget};

/// Draws what a job tells.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar on standard error, if that is a terminal.
    pub(crate) fn new(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::no_length();
        bar.set_draw_target(target);
        Self(bar)
    }
}

impl Observer for Bar {
    fn on_event(&self, event: &Event) {
        match event {
            Event::Phase { name } => self.0.set_message(*name),
            Event::Progress(progress) => {
                // A backup does not know how much there is before it has seen it; a restore does.
                match progress.bytes_total {
                    Some(total) => self.0.set_length(total),
                    None => self.0.unset_length(),
                }
                self.0.set_position(progress.bytes_done);
                if let Some(current) = &progress.current {
                    self.0.set_message(format!("{} entries, {current}", progress.entries_done));
                }
            }
            Event::Skipped(skipped) => {
                self.0.println(format!("skipped {}: {}", skipped.name, skipped.reason))
            }
            Event::ObjectDamaged { key, reason } => self.0.println(format!("damaged {key}: {reason}")),
            // New kinds of events may come; a bar need not know all.
            _ => {}
        }
    }
}

/// Backs up and verifies `source` while `observer` looks on.
pub(crate) async fn run(source: &Path, observer: Arc<dyn Observer>) -> Result<(BackupReport, VerifyReport)> {
    let job = JobContext::new().with_observer(observer);
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let sink = Arc::new(MemorySink::new());
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
    let backup = repository.backup(&FilesSource::new(source)?, &BackupOptions::default(), &job).await?;
    let verify = repository.verify(&VerifyOptions::default(), &job).await?;
    Ok((backup, verify))
}

#[tokio::main]
async fn main() -> Result<()> {
    let source = std::env::args_os().nth(1).map(PathBuf::from);
    let source = source.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../backup-core").into());
    let bar = Arc::new(Bar::new(ProgressDrawTarget::stderr()));
    let (backup, verify) = run(&source, bar.clone()).await?;
    bar.0.finish_and_clear();
    let read = HumanBytes(backup.bytes_read);
    println!("{} entries, {read} read, {} stored", backup.entries, HumanBytes(backup.bytes_stored));
    println!("{} chunks verified, clean: {}", verify.checked.chunks, verify.is_clean());
    Ok(())
}
