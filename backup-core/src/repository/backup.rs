//! Making a snapshot: walk entries, skip unchanged, open, cut, identify, skip known, frame, transform, pack, put, commit.
//!
//! The feeder and the uploader run on the caller's runtime; workers and the assembler are threads of the job. They are
//! joined by bounded channels, and whoever fails closes them all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::known::KnownChunks;
use super::store::PutCounters;
use super::{Repository, guard};
use crate::format::document::{SessionDocument, SnapshotDocument};
use crate::limits;
use crate::observer::Event;
use crate::report::{BackupReport, Outcome};
use crate::source::{Source, SourceInfo};
use crate::transform::{ObjectType, Transform, Zstd};
use crate::{Error, Finished, JobContext, Result, SnapshotId, SnapshotInfo, Timestamp};

mod assemble;
mod attributes;
mod feed;
mod links;
mod names;
mod packer;
mod shared;
mod sort;
mod stream;
mod threads;
mod upload;
mod worker;

use assemble::{Assembler, Trees, Window};
use feed::{Feeder, Parent};
use packer::{FrameTarget, Packer, SharedPages};
use shared::Shared;
use threads::Threads;
use worker::Worker;

/// Plaintext after which a frame of pages is closed: small, so that reading one page reads little else.
const PAGE_FRAME_BYTES: usize = 512 * 1024;

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
    /// The options under which a stored snapshot is copied into another repository, so that the copy says what the
    /// original says of its time, host, label, tenant, description and tags.
    pub fn copy_of(original: &SnapshotInfo) -> Self {
        Self {
            host: original.host.clone(),
            label: original.label.clone(),
            tenant: original.tenant.clone(),
            description: original.description.clone(),
            tags: original.tags.clone(),
            time: Some(original.time),
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
            self.backup_source(source, info, options, job).instrument(span).await
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
        let session = SnapshotId::random(&**job.random())?;
        let (put, committing) = (Arc::new(PutCounters::default()), AtomicBool::new(false));
        let done = self.backup_session(session, source, info, options, job, &put, &committing).await;
        // Of a session that stored nothing else there is nothing to reuse, and as it never tried to commit nobody need
        // wait for it. A run that fails each time, as on a full disk, must not take a little more room each time.
        if done.is_err() && !options.dry_run && put.objects() <= 1 && !committing.load(Ordering::Relaxed) {
            let key = super::keys::session(session)?;
            if let Err(error) = self.store().sink.delete(&key).await {
                tracing::debug!(%error, %key, "the session of a run that failed stays registered");
            }
        }
        done
    }

    #[expect(clippy::too_many_arguments, reason = "the run, and what is left to say of it if it fails")]
    async fn backup_session(
        &self,
        session: SnapshotId,
        source: &dyn Source,
        info: SourceInfo,
        options: &BackupOptions,
        job: &JobContext,
        put: &Arc<PutCounters>,
        committing: &AtomicBool,
    ) -> Result<BackupReport> {
        let started = Instant::now();
        // Before the session is registered: collectors need not wait for one that waits for memory.
        let lease = job.resources().lease(job).await?;
        let time = job.now();
        job.emit(&Event::Phase { name: "open" });
        let transforms = match &options.transforms {
            Some(chosen) => chosen.clone(),
            None => vec![Arc::new(Zstd::default()) as Arc<dyn Transform>],
        };
        for transform in &transforms {
            // What cannot be read back is not written.
            self.store().transforms.get(transform.name())?;
        }

        // The session must be registered before anything is listed: see the protocol for many writers.
        if !options.dry_run {
            let document = SessionDocument {
                session,
                opened: time,
                host: options.host.clone(),
                purpose: "backup".into(),
            };
            let key = super::keys::session(session)?;
            self.store().put_document(&key, ObjectType::Session, &document, put, job).await?;
        }
        let (view, snapshots) = self.view_for_writing(job).await?;
        let parent = self.choose_parent(snapshots, &info, options, job).await?;
        let parent_id = parent.as_ref().map(|parent| parent.info.id);
        let walked =
            parent.as_ref().and_then(|parent| Some(Parent { reader: view.clone(), root: parent.tree? }));

        let known = KnownChunks::new(view.index.clone(), job.resources());
        let chunker = self.chunker()?;
        let store = self.store().clone();
        let mut shared = Shared::new(store, known, chunker, transforms, job.clone(), lease, options);
        shared.put = put.clone();
        shared.xattrs_with_content = info.xattrs_with_content;
        let shared = Arc::new(shared);
        job.emit(&Event::Phase { name: "read" });
        let mut run = source.begin(job).await?;
        let (finished, trees, segment) = run_pipeline(&shared, session, &mut *run, &info, walked).await?;
        drop(run);

        job.emit(&Event::Phase { name: "commit" });
        let skipped = shared.take_skipped();
        let outcome = if skipped.is_empty() { Outcome::Complete } else { Outcome::Partial };
        let counters = &shared.counters;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        if !options.dry_run {
            upload::finish_index(&shared, session, segment, &view.index).await?;
            let named = skipped.named();
            let mut owners = finished.owners;
            if let Some(parent) = parent.filter(|_| info.xattrs_with_content && load(&counters.unchanged) > 0)
            {
                // Access lists that were not read again name whom the parent knows.
                owners.add_missing(&parent.owners);
            }
            let document = SnapshotDocument {
                info: SnapshotInfo {
                    id: session,
                    time: options.time.unwrap_or(time),
                    stored: None,
                    source: info.kind,
                    identity: info.identity,
                    host: options.host.clone(),
                    label: options.label.clone(),
                    tenant: options.tenant.clone(),
                    description: options.description.clone(),
                    tags: options.tags.clone(),
                    position: finished.position.into_iter().collect(),
                    parent: parent_id,
                    outcome,
                    entries: load(&counters.entries),
                    bytes_logical: load(&counters.bytes_logical),
                    bytes_added: load(&counters.bytes_added),
                    skipped: named.to_vec(),
                    skipped_count: skipped.count(),
                },
                tree: trees.tree,
                trailing: trees.trailing,
                owners: owners.within_limits(),
                repository: self.id(),
            };
            // The commit: until this create nothing of the run is visible.
            let key = super::keys::snapshot(session)?;
            committing.store(true, Ordering::Relaxed);
            self.store().put_document(&key, ObjectType::Snapshot, &document, &shared.put, job).await?;
        }
        shared.emit_progress();
        Ok(BackupReport {
            snapshot: (!options.dry_run).then_some(session),
            outcome,
            parent: parent_id,
            entries: load(&counters.entries),
            entries_unchanged: load(&counters.unchanged),
            bytes_logical: load(&counters.bytes_logical),
            bytes_read: load(&counters.bytes_read),
            bytes_added: load(&counters.bytes_added),
            bytes_stored: shared.put.bytes(),
            objects_stored: shared.put.objects(),
            duration_seconds: started.elapsed().as_secs_f64(),
            skipped,
        })
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
) -> Result<(Finished, Trees, super::segment::SegmentBuilder)> {
    let workers = shared.lease.workers();
    let (work_send, work) = async_channel::bounded(workers.saturating_mul(2));
    let (done_send, done) = async_channel::bounded(workers.saturating_mul(4));
    let (packs_send, packs) = async_channel::bounded(1);
    let window = Window::new();
    let pages = SharedPages::new(Packer::new(
        shared.clone(),
        ObjectType::Meta,
        FrameTarget::Bytes(PAGE_FRAME_BYTES),
        packs_send.clone(),
    ));

    let mut threads = Threads::new(shared.clone(), {
        let (work, done, packs, window) = (work.clone(), done.clone(), packs.clone(), window.clone());
        move || {
            work.close();
            done.close();
            packs.close();
            window.permits.close();
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
    let (finished, segment) = tokio::select! {
        both = both => both.map_err(|error| shared.cause_of(error))?,
        () = ticking => return Err(Error::internal("the ticker ended")),
    };
    let trees = trees.await.unwrap_or_else(|_| Err(Error::cancelled()));
    let trees = trees.map_err(|error| shared.cause_of(error))?;
    threads.finish().await.map_err(|error| shared.cause_of(error))?;
    Ok((finished, trees, segment))
}
