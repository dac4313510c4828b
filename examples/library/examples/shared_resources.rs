//! Two jobs at once under one limit: whatever a process backs up, its uplink stays usable.
//!
//! ```text
//! cargo run -p library-examples --example shared_resources
//! ```
//!
//! `Resources` are shared by as many jobs as hold a clone. Rates can be changed while jobs run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::report::BackupReport;
use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::{JobContext, Random, RepositoryId, Resources, Result, SystemRandom, Unprotected};
use backup_sinks::MemorySink;
use backup_sources::MemorySource;

/// Backs up `bytes_each` incompressible bytes to each of two repositories at the same time, with `bytes_per_second` for
/// both together. Returns the reports and how long both took.
pub(crate) async fn run(bytes_each: usize, bytes_per_second: u64) -> Result<([BackupReport; 2], Duration)> {
    // One for the whole process: a static, or a field of your service.
    let resources = Resources::new().with_workers(1).with_memory_bytes(64 * 1024 * 1024);
    let started = Instant::now();
    let jobs = async { tokio::try_join!(one(&resources, bytes_each), one(&resources, bytes_each)) };
    resources.upload().set_bytes_per_second(Some(bytes_per_second));
    let (a, b) = jobs.await?;
    Ok(([a, b], started.elapsed()))
}

async fn one(resources: &Resources, bytes: usize) -> Result<BackupReport> {
    // Each job has a cancellation and an observer of its own; the resources are the same.
    let job = JobContext::new().with_resources(resources.clone());
    let mut content = vec![0; bytes];
    SystemRandom.fill(&mut content)?;
    let source = MemorySource::new("noise").with_file("noise", content)?;
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let sink = Arc::new(MemorySink::new());
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
    repository.backup(&source, &BackupOptions::default(), &job).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let (reports, took) = run(2 << 20, 4 << 20).await?;
    let stored: u64 = reports.iter().map(|report| report.bytes_stored).sum();
    println!("{stored} bytes in {took:.1?}: {:.0} bytes a second", stored as f64 / took.as_secs_f64());
    Ok(())
}
