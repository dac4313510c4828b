//! One run of a backup: from its session to its commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::churn::percent;
use super::feed::Parent;
use super::shared::Shared;
use super::upload::{self, Uploaded};
use super::{BackupOptions, run_pipeline};
use crate::format::document::SnapshotDocument;
use crate::limits;
use crate::observer::Event;
use crate::report::{BackupReport, Outcome};
use crate::repository::Repository;
use crate::repository::known::KnownChunks;
use crate::repository::session::{Decided, Session};
use crate::repository::store::PutCounters;
use crate::repository::views::WriterView;
use crate::resources::Lease;
use crate::source::{Source, SourceInfo};
use crate::transform::{Transform, Zstd};
use crate::{
    Change, EntryOrder, Error, ErrorKind, GetRange, JobContext, Result, SnapshotId, SnapshotInfo, Workload,
};

/// One backup, in as many sessions as it takes.
pub(super) struct Run<'a> {
    pub(super) repository: &'a Repository,
    pub(super) source: &'a dyn Source,
    pub(super) info: SourceInfo,
    pub(super) options: &'a BackupOptions,
    pub(super) job: &'a JobContext,
    pub(super) put: Arc<PutCounters>,
    pub(super) started: Instant,
}

/// What a run made, up to its commit.
pub(super) struct Made {
    pub(super) document: SnapshotDocument,
    pub(super) report: BackupReport,
    /// The packs that the snapshot needs: those that were there, and those of its own.
    used: Vec<[u8; 32]>,
    own: Vec<[u8; 32]>,
}

impl Run<'_> {
    /// Finds out what would be stored.
    pub(super) async fn make_dry(&self) -> Result<Made> {
        let job = self.job;
        let nobody = SnapshotId::random(&**job.random())?;
        let lease = job.resources().lease(job).await?;
        let view = self.repository.view_for_writing(nobody, &self.options.host, job).await?;
        self.make(nobody, view, lease).await
    }

    /// Makes the snapshot and commits it. A session that was shut out meanwhile is followed by another one, which reads the
    /// source again only if something that the snapshot needs is gone.
    pub(super) async fn make_and_commit(&self) -> Result<Made> {
        let (store, job, put) = (self.repository.store(), self.job, &*self.put);
        let mut made = None;
        for _ in 0..limits::BACKUP_SESSIONS_MAX {
            // Before the session is registered: collectors need not wait for one that waits for memory.
            let lease = job.resources().lease(job).await?;
            let host = &self.options.host;
            // It must be registered before anything is listed: see the protocol for many writers.
            let session = Session::open(store, "backup", true, host, put, job).await?;
            let committing = AtomicBool::new(false);
            let attempt = Box::pin(self.attempt(&session, &mut made, lease, &committing));
            let done = session.alive(store, put, job, attempt).await;
            // Of a session that stored nothing else there is nothing to reuse, and as it never tried to commit nobody need
            // wait for it. A run that fails each time, as on a full disk, must not take a little more room each time.
            if done.is_err() && put.objects() <= 1 && !committing.load(Ordering::Relaxed) {
                session.withdraw(store).await;
            }
            match (done?, made.take()) {
                (Decided::Committed, Some(made)) => return Ok(made),
                (_, kept) => made = kept,
            }
            tracing::warn!(session = %session.id(), "the session was shut out, as if it had stopped; it begins anew");
        }
        let message = format!(
            "{} sessions of this backup were shut out one after the other, as if they had stopped: look for a suspended \
             machine, or for a collection that takes others for stopped too soon",
            limits::BACKUP_SESSIONS_MAX
        );
        Err(Error::new(ErrorKind::Transient, message))
    }

    async fn attempt(
        &self,
        session: &Session,
        made: &mut Option<Made>,
        lease: Lease,
        committing: &AtomicBool,
    ) -> Result<Decided> {
        let (repository, job) = (self.repository, self.job);
        let view = repository.view_for_writing(session.id(), &self.options.host, job).await?;
        let (decided, listing) = (view.decided.clone(), view.control.listing.clone());
        let ready = match made {
            Some(made) => self.adopt(session, made, &view).await?,
            None => false,
        };
        if !ready {
            *made = Some(self.make(session.id(), view, lease).await?);
        }
        let Some(made) = made else { return Err(Error::internal("nothing was made")) };
        made.document.info.id = session.id();
        job.emit(&Event::Phase { name: "commit" });
        committing.store(true, Ordering::Relaxed);
        // The commit: until this create nothing of the run is visible. Beside it goes what others left behind.
        let commit = session.commit(repository, &made.document, &self.put, job);
        let (committed, ()) = tokio::join!(commit, repository.tidy_sessions(&decided, &listing));
        committed
    }

    /// Names in this session what an earlier one stored, if everything that the snapshot needs is still there.
    async fn adopt(&self, session: &Session, made: &Made, view: &WriterView) -> Result<bool> {
        let (store, job) = (self.repository.store(), self.job);
        let index = &view.reader.index;
        for digest in made.used.iter().chain(&made.own) {
            let Some(number) = index.number_of(digest)? else { return Ok(false) };
            if view.barred.contains(number) {
                return Ok(false);
            }
            // What no committed session has named may have been deleted with its session.
            if !index.is_committed(number) {
                let there = store.get(&index.pack(number)?.key, GetRange::Suffix(1), job).await;
                match there {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            index.set_used(number);
        }
        let nothing = &mut Uploaded::default();
        upload::finish_index(store, session.id(), nothing, (index, &view.barred), &self.put, job).await?;
        Ok(true)
    }

    /// Everything but the commit.
    async fn make(&self, session: SnapshotId, view: WriterView, lease: Lease) -> Result<Made> {
        let Self { repository, options, job, .. } = *self;
        let time = job.now();
        let WriterView { reader, snapshots, barred, .. } = view;
        let parent = repository.choose_parent(snapshots, &self.info, options, job).await?;
        let parent_id = parent.as_ref().map(|parent| parent.info.id);
        // Only who yields in order is walked beside the parent, and knows what is gone.
        let is_sorted = self.info.order == EntryOrder::Sorted;
        let parent_info = parent.as_ref().filter(|_| is_sorted && options.origin.is_none());
        let parent_info = parent_info.map(|parent| (parent.info.entries, parent.info.bytes_logical));
        let walked =
            parent.as_ref().and_then(|parent| Some(Parent { reader: reader.clone(), root: parent.tree? }));

        let known = KnownChunks::new(reader.index.clone(), barred.clone(), job.resources());
        let transforms = match &options.transforms {
            Some(chosen) => chosen.clone(),
            None => vec![Arc::new(Zstd::default()) as Arc<dyn Transform>],
        };
        let store = repository.store().clone();
        let chunker = repository.chunker()?;
        let mut shared = Shared::new(store, known, chunker, transforms, job.clone(), lease, options);
        shared.put = self.put.clone();
        shared.xattrs_with_content = self.info.xattrs_with_content;
        let shared = Arc::new(shared);
        job.emit(&Event::Phase { name: "read" });
        let mut run = self.source.begin(job).await?;
        if let Some(parent) = parent.as_ref().filter(|_| walked.is_some()) {
            run.since(&parent.info).await?;
        }
        let (finished, churn, trees, mut uploaded) =
            run_pipeline(&shared, session, &mut *run, &self.info, walked).await?;
        drop(run);

        let skipped = shared.take_skipped();
        let outcome = if skipped.is_empty() { Outcome::Complete } else { Outcome::Partial };
        let counters = &shared.counters;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        if !options.dry_run {
            let index = (&reader.index, &*barred);
            upload::finish_index(&shared.store, session, &mut uploaded, index, &self.put, job).await?;
        }
        let mut owners = finished.owners;
        if let Some(parent) =
            parent.filter(|_| self.info.xattrs_with_content && load(&counters.unchanged) > 0)
        {
            // Access lists that were not read again name whom the parent knows.
            owners.add_missing(&parent.owners);
        }
        let change = parent_info.map(|(entries_before, bytes_before)| Change {
            entries_new: churn.entries_new,
            entries_changed: churn.entries_changed,
            entries_deleted: churn.entries_deleted,
            entries_moved: load(&counters.entries_known).min(churn.entries_new),
            entries_before,
            bytes_before,
            bytes_replaced: churn.bytes_replaced,
            bytes_new: load(&counters.bytes_added),
            stored_percent_before: churn.stored_percent(),
            stored_percent_now: percent(load(&counters.frames_stored), load(&counters.frames_plain)),
        });
        let anomaly = change.map(|change| change.judge()).filter(|anomaly| anomaly.score > 0);
        if let Some(anomaly) = anomaly.as_ref().filter(|anomaly| anomaly.pauses()) {
            job.emit(&Event::Anomaly(anomaly.clone()));
        }
        let document = SnapshotDocument {
            info: SnapshotInfo {
                id: session,
                time: options.time.unwrap_or(time),
                stored: None,
                source: self.info.kind.clone(),
                identity: self.info.identity.clone(),
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
                skipped: skipped.named().to_vec(),
                skipped_count: skipped.count(),
                origin: options.origin,
                change,
                anomaly: anomaly.clone(),
                workload: Some(Workload {
                    seconds: self.started.elapsed().as_secs_f64(),
                    bytes_read: load(&counters.bytes_read),
                    bytes_stored: self.put.bytes(),
                    objects_stored: self.put.objects(),
                    kinds: counters.kind_loads(),
                }),
            },
            tree: trees.tree,
            trailing: trees.trailing,
            owners: owners.within_limits(),
            repository: repository.id(),
        };
        let report = BackupReport {
            snapshot: None,
            outcome,
            parent: parent_id,
            entries: load(&counters.entries),
            entries_unchanged: load(&counters.unchanged),
            bytes_logical: load(&counters.bytes_logical),
            bytes_read: load(&counters.bytes_read),
            bytes_added: load(&counters.bytes_added),
            bytes_stored: 0,
            objects_stored: 0,
            duration_seconds: 0.0,
            skipped,
            change,
            anomaly,
        };
        Ok(Made { document, report, used: reader.index.used()?, own: uploaded.packs })
    }
}
