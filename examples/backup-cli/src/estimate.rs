//! How much a source holds, without opening any content.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::source::Item;
use backup_core::{JobContext, Result, Source};
use serde::Serialize;

use crate::progress::Meter;

/// Entries asked for at once.
const BATCH: usize = 1024;

/// What a walk of a source found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Entries.
    pub entries: u64,
    /// Bytes of content, as far as known before reading it.
    pub bytes: u64,
    /// Entries that cannot be read.
    pub skipped: u64,
    /// Whether the walk reached the end in the time it had.
    pub whole: bool,
}

/// Walks a source for at most `time`.
pub async fn estimate(source: &dyn Source, time: Duration, job: &JobContext) -> Result<Estimate> {
    let started = Instant::now();
    let mut found = Estimate::default();
    let mut run = source.begin(job).await?;
    while started.elapsed() < time {
        job.check()?;
        let items = run.next(BATCH).await?;
        if items.is_empty() {
            found.whole = true;
            break;
        }
        for item in items {
            match item {
                Item::Entry(entry) => {
                    found.entries = found.entries.saturating_add(1);
                    found.bytes = found.bytes.saturating_add(entry.size.unwrap_or(0));
                }
                Item::Skipped(_) => found.skipped = found.skipped.saturating_add(1),
            }
        }
    }
    Ok(found)
}

/// Tells `meter` the totals of `source` when they are known. The task ends with the walk, or when it is aborted.
pub fn in_background(source: Arc<dyn Source>, meter: Arc<Meter>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        // Without an estimate there is no percentage, and that is all.
        if let Ok(found) = estimate(&*source, Duration::from_secs(3600), &JobContext::new()).await
            && found.whole
        {
            meter.estimate(found.entries, found.bytes);
        }
    })
}
