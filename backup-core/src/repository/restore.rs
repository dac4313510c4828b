//! Restoring a snapshot: walk its entries, find their chunks, fetch frames in the order of packs, open, check, write.
//!
//! Content is restored in windows of a few MiB. For each window the places of its chunks are looked up and sorted by
//! pack, neighbouring frames are fetched in one request, and a worker thread opens and checks them and writes their
//! chunks where they belong. So memory is bounded by the windows under way, whatever is restored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::snapshot::Snapshot;
use super::{Repository, guard};
use crate::entry::Skipped;
use crate::observer::Event;
use crate::report::RestoreReport;
use crate::target::{Target, WriteOrder};
use crate::{Entry, EntryKind, EntryName, Error, JobContext, Result};

mod fetch;
mod files;
mod popular;
mod retry;
mod selected;
mod sequential;
mod survey;
mod totals;
mod window;
mod worker;

pub(super) use selected::{Chosen, Selected};
use totals::Totals;

/// Which entries to restore.
#[derive(Clone, Default)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// These and everything below them.
    Names(Vec<EntryName>),
    /// Those for which the function says so. Called once or twice an entry, in the order of the snapshot, and again for a
    /// file to which a selected entry is a hard link.
    Filter(Arc<dyn Fn(&Entry) -> bool + Send + Sync>),
}

impl Selection {
    /// Whether an entry is selected.
    pub fn selects(&self, entry: &Entry) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.iter().any(|name| entry.name.is_within(name)),
            Self::Filter(filter) => filter(entry),
        }
    }

    /// The same from the name alone, where that is enough.
    fn selects_name(&self, name: &EntryName) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Names(names) => Some(names.iter().any(|selected| name.is_within(selected))),
            Self::Filter(_) => None,
        }
    }
}

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Names(names) => f.debug_tuple("Names").field(names).finish(),
            Self::Filter(_) => f.write_str("Filter"),
        }
    }
}

/// What to restore and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Which entries.
    pub select: Selection,
}

impl Repository {
    /// Restores a snapshot into `target`.
    ///
    /// Every chunk is checked against its identity before it is written. An entry whose chunks are damaged or missing
    /// is named in the report and not left as if it were whole; all others are restored. A failure of the store as a
    /// whole fails the job. Where the target holds content already (an earlier state, or a restore that was stopped), it is
    /// compared with the identities of chunks, and only what differs is fetched. Of hard links to a file that is not selected, the first selected one becomes the file.
    ///
    /// Cancellation: dropping the future or cancelling the job stops everything; entries under way are removed, or kept by
    /// the target where the next restore finds them; finished ones stay.
    pub async fn restore(
        &self,
        snapshot: &Snapshot,
        target: &dyn Target,
        options: &RestoreOptions,
        job: &JobContext,
    ) -> Result<RestoreReport> {
        guard::run(job, async move {
            self.check_own(snapshot)?;
            let span =
                tracing::info_span!("restore", repository = %self.id(), snapshot = %snapshot.info().id);
            restore(snapshot, target, options, job).instrument(span).await
        })
        .await
    }
}

async fn restore(
    snapshot: &Snapshot,
    target: &dyn Target,
    options: &RestoreOptions,
    job: &JobContext,
) -> Result<RestoreReport> {
    let started = Instant::now();
    let lease = Arc::new(job.resources().lease(job).await?);
    job.emit(&Event::Phase { name: "open" });
    let info = snapshot.info();
    let totals = Arc::new(Totals::default());
    if matches!(options.select, Selection::All) {
        totals.expect(info.entries, info.bytes_logical);
    }
    let snapshot = &snapshot.through_one_view(job).await?;
    target.owner_names(snapshot.owner_names());
    target.begin(job).await?;
    job.emit(&Event::Phase { name: "write" });
    let work = async {
        let mut selected = Selected::new(snapshot, &options.select, job).await?;
        match target.order() {
            WriteOrder::Any => {
                fetch::restore_parallel(snapshot, target, &mut selected, &totals, &lease, job).await?;
                job.emit(&Event::Phase { name: "finish" });
                complete(snapshot, target, &selected, options, &totals, job).await?;
            }
            WriteOrder::Sequential => {
                sequential::restore(snapshot, target, &mut selected, &totals, job).await?;
                job.emit(&Event::Phase { name: "finish" });
            }
        }
        for skipped in target.finish().await? {
            totals.fail(skipped, job);
        }
        Ok::<(), Error>(())
    };
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            totals.emit(job);
        }
    };
    tokio::select! {
        done = work => done?,
        () = ticking => {}
        () = job.cancellation().cancelled() => return Err(Error::cancelled()),
    }
    totals.emit(job);
    Ok(totals.report(target.notes(), started.elapsed()))
}

/// Directories whose completion waits for what is below them; deeper nesting is completed early, which at worst leaves
/// a time of modification to the system.
const OPEN_DIRECTORIES_MAX: usize = 16 * 1024;
/// Entries that a target completes at once.
const COMPLETE_BATCH: usize = 512;

// A second walk for what must come last: hard links in order, then directories, deepest first.
async fn complete(
    snapshot: &Snapshot,
    target: &dyn Target,
    selected: &Selected<'_>,
    options: &RestoreOptions,
    totals: &Totals,
    job: &JobContext,
) -> Result<()> {
    if totals.hard_links() > 0 {
        let mut batch = Batch::new(target, totals, job);
        let mut entries = snapshot.entries(None, job).await?;
        while let Some(stored) = next_readable(&mut entries).await? {
            if matches!(stored.entry.kind, EntryKind::HardLink { .. })
                && options.select.selects(&stored.entry)
                && let Some(link) = selected.link(stored.entry).await?
            {
                batch.push(link).await?;
            }
        }
        batch.flush().await?;
    }
    let mut batch = Batch::new(target, totals, job);
    let mut open: Vec<Entry> = Vec::new();
    let mut entries = snapshot.entries(None, job).await?;
    while let Some(stored) = next_readable(&mut entries).await? {
        if stored.entry.kind != EntryKind::Directory || !options.select.selects(&stored.entry) {
            continue;
        }
        // A directory is left when a name outside it comes.
        while let Some(left) = open.pop_if(|last| !stored.entry.name.is_within(&last.name)) {
            batch.push(left).await?;
        }
        open.push(stored.entry);
        if open.len() > OPEN_DIRECTORIES_MAX {
            let early = open.remove(0);
            batch.push(early).await?;
        }
    }
    while let Some(left) = open.pop() {
        batch.push(left).await?;
    }
    batch.flush().await
}

// Pages that cannot be read were named by the first walk.
async fn next_readable(
    entries: &mut super::EntryStream,
) -> Result<Option<crate::format::entries::StoredEntry>> {
    loop {
        match entries.next().await {
            Err(error) if error.is_corruption() => {}
            other => return other,
        }
    }
}

struct Batch<'a> {
    target: &'a dyn Target,
    totals: &'a Totals,
    job: &'a JobContext,
    entries: Vec<Entry>,
}

impl<'a> Batch<'a> {
    fn new(target: &'a dyn Target, totals: &'a Totals, job: &'a JobContext) -> Self {
        Self { target, totals, job, entries: Vec::new() }
    }

    async fn push(&mut self, entry: Entry) -> Result<()> {
        self.entries.push(entry);
        if self.entries.len() >= COMPLETE_BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        self.job.check()?;
        if self.entries.is_empty() {
            return Ok(());
        }
        for skipped in self.target.complete(std::mem::take(&mut self.entries)).await? {
            self.totals.fail(skipped, self.job);
        }
        Ok(())
    }
}

/// Pages of the snapshot that cannot be read hide entries whose names nobody knows.
pub(super) fn unreadable_page(error: &Error) -> Skipped {
    Skipped::new(
        "",
        format!("a page of the snapshot's entries cannot be read, and what it lists is lost: {error}"),
    )
}
