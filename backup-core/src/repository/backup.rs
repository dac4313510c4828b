//! Making a snapshot: walk entries, skip unchanged, open, cut, identify, skip known, frame, transform, pack, put, commit.
//!
//! The feeder and the uploader run on the caller's runtime; workers and the assembler are threads of the job. They are
//! joined by bounded channels, and whoever fails closes them all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::store::PutCounters;
use super::{Repository, guard};
use crate::format::document::SnapshotDocument;
use crate::limits;
use crate::observer::Event;
use crate::report::BackupReport;
use crate::source::{Source, SourceInfo};
use crate::transform::{ObjectType, Transform};
use crate::{
    Error, Finished, JobContext, Origin, Progress, RepositoryId, Result, SnapshotId, SnapshotInfo, Timestamp,
};

mod assemble;
mod attributes;
mod churn;
mod feed;
mod kept;
mod links;
mod names;
pub(super) mod packer;
mod run;
pub(super) mod shared;
mod sort;
mod stream;
pub(super) mod threads;
pub(super) mod upload;
mod worker;

use assemble::{Assembler, Trees, Window};
use churn::Churn;
use feed::{Feeder, Parent};
use packer::{FrameTarget, Packer, SharedPages};
use run::{Made, Run};
use shared::Shared;
use threads::Threads;
use upload::Uploaded;
use worker::Worker;

/// Which snapshot unchanged entries are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// The newest snapshot of the same source, host and label.
    #[default]
    Auto,
    /// None: everything is read.
    None,
    /// This one.
    Snapshot(SnapshotId),
}

/// What a backup is called and how it is made.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// The host it is taken on.
    pub host: String,
    /// The series it belongs to.
    pub label: Option<String>,
    /// The tenant whose data it holds.
    pub tenant: Option<String>,
    /// Free words about it.
    pub description: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When the data was as it is stored, if that is not the moment at which the run begins: of a copy, the original's time.
    pub time: Option<Timestamp>,
    /// Of a copy, where it comes from.
    pub origin: Option<Origin>,
    /// Which snapshot unchanged entries are taken from.
    pub parent: ParentChoice,
    /// The transforms of new packs, in order of encoding, before the seal; none: Zstandard, by content.
    pub transforms: Option<Vec<Arc<dyn Transform>>>,
    /// Whether to find out what would be stored without storing it.
    pub dry_run: bool,
    /// Whether every frame of a pack is decoded again and compared before the pack is put, so that a fault in compression
    /// or encryption is found while the source still has the data. Costs what a restore's decoding costs. Builds with
    /// debug assertions do so always.
    pub verify_encoding: bool,
}

impl BackupOptions {
    /// The options under which a snapshot that stands in `repository` is copied into another one, so that the copy says what
    /// the original says of its time, host, label, tenant, description and tags, and where it comes from. Take `original` from a
    /// [listing](Repository::snapshots): it says when the store had it.
    pub fn copy_of(repository: RepositoryId, original: &SnapshotInfo) -> Self {
        Self {
            host: original.host.clone(),
            label: original.label.clone(),
            tenant: original.tenant.clone(),
            description: original.description.clone(),
            tags: original.tags.clone(),
            time: Some(original.time),
            origin: Some(original.origin_of_copy(repository)),
            ..Self::default()
        }
    }
}

impl Repository {
    /// Backs up `source` as one snapshot.
    ///
    /// What merely cannot be read is skipped, named in the report, and makes the snapshot partial; a failure of the
    /// source as a whole or of the store fails the job. When this returns, the snapshot is durable.
    ///
    /// Cancellation: dropping the future or cancelling the job stops everything; until the last put nothing is
    /// visible, and what was stored by then serves the next run.
    pub async fn backup(
        &self,
        source: &dyn Source,
        options: &BackupOptions,
        job: &JobContext,
    ) -> Result<BackupReport> {
        let backup = async {
            let info = source.info();
            if info.identity.len() > limits::IDENTITY_PARTS_MAX {
                let message = format!(
                    "a source has at most {} parts of an identity, such as paths; back up a directory above them",
                    limits::IDENTITY_PARTS_MAX
                );
                return Err(Error::invalid_input(message));
            }
            let span = tracing::info_span!("backup", repository = %self.id(), source = %info.kind);
            self.alone().backup_source(source, info, options, job).instrument(span).await
        };
        guard::run(job, backup).await
    }

    async fn backup_source(
        &self,
        source: &dyn Source,
        info: SourceInfo,
        options: &BackupOptions,
        job: &JobContext,
    ) -> Result<BackupReport> {
        let started = Instant::now();
        job.emit(&Event::Phase { name: "open" });
        for transform in options.transforms.iter().flatten() {
            // What cannot be read back is not written.
            self.store().transforms.get(transform.name())?;
        }
        let put = Arc::new(PutCounters::default());
        let run = Run { repository: self, source, info, options, job, put: put.clone(), started };
        let made = if options.dry_run { run.make_dry().await? } else { run.make_and_commit().await? };
        let Made { document, mut report, .. } = made;
        job.emit(&Event::Progress(Progress {
            entries_done: report.entries,
            entries_total: None,
            bytes_done: report.bytes_logical,
            bytes_total: None,
            bytes_stored: put.bytes(),
            current: None,
        }));
        report.snapshot = (!options.dry_run).then_some(document.info.id);
        report.bytes_stored = put.bytes();
        report.objects_stored = put.objects();
        report.duration_seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    async fn choose_parent(
        &self,
        snapshots: Vec<SnapshotInfo>,
        info: &SourceInfo,
        options: &BackupOptions,
        job: &JobContext,
    ) -> Result<Option<Arc<SnapshotDocument>>> {
        let id = match options.parent {
            ParentChoice::None => return Ok(None),
            ParentChoice::Snapshot(id) => id,
            ParentChoice::Auto => {
                let newest = snapshots
                    .into_iter()
                    .filter(|s| s.source == info.kind && s.identity == info.identity)
                    .filter(|s| {
                        s.host == options.host && s.label == options.label && s.tenant == options.tenant
                    })
                    .max_by_key(|s| (s.time, s.id));
                match newest {
                    Some(newest) => newest.id,
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(self.snapshot_document(id, job).await?))
    }
}

async fn run_pipeline(
    shared: &Arc<Shared>,
    session: SnapshotId,
    run: &mut dyn crate::SourceRun,
    info: &SourceInfo,
    parent: Option<Parent>,
) -> Result<(Finished, Churn, Trees, Uploaded)> {
    let workers = shared.lease.workers();
    let (work_send, work) = async_channel::bounded(workers.saturating_mul(2));
    let (done_send, done) = async_channel::bounded(workers.saturating_mul(4));
    let (packs_send, packs) = async_channel::bounded(1);
    let window = Window::new();
    let pages = SharedPages::new(shared.clone(), packs_send.clone());

    let mut threads = Threads::new(shared.clone(), {
        let (work, done, packs, window) = (work.clone(), done.clone(), packs.clone(), window.clone());
        move || {
            work.close();
            done.close();
            packs.close();
            window.permits.close();
            window.room.close();
        }
    });
    for number in 0..workers {
        let content = Packer::new(shared.clone(), ObjectType::Data, FrameTarget::Content, packs_send.clone());
        let worker = Worker::new(shared.clone(), content, pages.clone(), work.clone(), done_send.clone());
        threads.spawn(&format!("backup-work-{number}"), move || worker.run())?;
    }
    drop(packs_send);
    let assembler =
        Assembler { shared: shared.clone(), pages, window: window.clone(), done, order: info.order };
    let trees = threads.spawn_with_result("backup-pages", move || assembler.run())?;

    let feeder = Feeder::new(shared.clone(), window, workers, work_send, done_send, info.order, parent);
    // Whichever fails first ends the other, too: it may be waiting for a source or a store that never answers.
    let both = async { tokio::try_join!(feeder.run(run), upload::upload(shared, session, packs)) };
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            shared.emit_progress();
        }
    };
    let ((finished, churn), uploaded) = tokio::select! {
        both = both => both.map_err(|error| shared.cause_of(error))?,
        () = ticking => return Err(Error::internal("the ticker ended")),
    };
    let trees = trees.await.unwrap_or_else(|_| Err(Error::cancelled()));
    let trees = trees.map_err(|error| shared.cause_of(error))?;
    threads.finish().await.map_err(|error| shared.cause_of(error))?;
    Ok((finished, churn, trees, uploaded))
}
