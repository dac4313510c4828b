//! Places: the same repository in several stores, each with a life of its own.
//!
//! A place has the keys, parameters and snapshots of the others, and sessions, collections and an index of its own. What is
//! brought to it goes through a session there, like a backup's, and ends with the snapshot's own object, byte for byte. What
//! a place lacks is the difference of two listings, so nothing has to be remembered, and nothing can be forgotten.
//! The reasons are in `docs/decisions/0025-places.md`.

mod fill;
mod found;
mod gaps;
mod sets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::control::Control;
use super::index::Bits;
use super::reader::Reader;
use super::session::{Decided, Session};
use super::store::PutCounters;
use super::views::WriterView;
use super::walk::walk;
use super::{Repository, guard, keys};
use crate::format::document::SnapshotDocument;
use crate::observer::Event;
use crate::report::{DamagedObject, ReplicateReport, ReplicatedSnapshot};
use crate::resources::Lease;
use crate::{Error, ErrorKind, JobContext, Result, SinkExt, SnapshotId, SnapshotInfo, limits};

pub(super) use fill::{Chunks, Filled, Filling, read_pack};
pub(super) use found::Holdings;
pub(super) use gaps::Gaps;
use gaps::seed;

/// How snapshots are brought to another place.
#[derive(Debug, Clone, Default)]
pub struct ReplicateOptions {
    /// The host that does it.
    pub host: String,
}

/// What came of one session.
enum Came {
    Committed,
    /// Shut out, as if it had stopped.
    Fenced,
    /// Forgotten there meanwhile.
    Unwanted,
}

/// How one snapshot ended.
enum Ended {
    Stored(SnapshotId),
    /// Somebody else is at it.
    Busy,
    Unwanted,
}

impl Repository {
    /// The snapshots of this place that another place of the repository has not and never had, the oldest first. What is
    /// forgotten there does not count as missing.
    ///
    /// # Errors
    /// Those of both stores.
    pub async fn missing_in(&self, place: &Repository, job: &JobContext) -> Result<Vec<SnapshotInfo>> {
        guard::run(job, async move {
            self.check_place(place)?;
            let (own, there) = tokio::try_join!(self.readable_snapshots(job), place.holdings(job))?;
            Ok(own.into_iter().filter(|info| !there.has(info)).collect())
        })
        .await
    }

    /// Brings snapshots of this place to another place of the same repository, in the order given, which best is that of
    /// their age. Take them from [`missing_in`](Self::missing_in).
    ///
    /// A snapshot is there under its own identity, unless a session that was bringing it there was shut out; then it has another,
    /// and names the first as its [origin](SnapshotInfo::origin). What cannot be read here comes from the
    /// [other places](Self::with_others) that this handle knows; a snapshot of which something is nowhere is named, and not brought.
    /// When this returns, the others are durable there, with the times at which a store first had them.
    ///
    /// # Errors
    /// Those of both stores. Cancellation: snapshots that were brought stay, and what was stored of others serves the next call.
    ///
    /// ```no_run
    /// # use backup_core::{JobContext, Repository, Result};
    /// # async fn example(here: Repository, elsewhere: Repository) -> Result<()> {
    /// let job = JobContext::new();
    /// let missing = here.missing_in(&elsewhere, &job).await?;
    /// let report = here.replicate_to(&elsewhere, &missing, &Default::default(), &job).await?;
    /// println!("{} of {} were brought", report.snapshots.len(), missing.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn replicate_to(
        &self,
        place: &Repository,
        snapshots: &[SnapshotInfo],
        options: &ReplicateOptions,
        job: &JobContext,
    ) -> Result<ReplicateReport> {
        guard::run(job, async move {
            self.check_place(place)?;
            let started = Instant::now();
            job.emit(&Event::Phase { name: "replicate" });
            let there = place.holdings(job).await?;
            let mut replication = Replication {
                from: self,
                to: place,
                reader: self.view(job).await?,
                options,
                job,
                walked: Bits::default(),
                walked_under: (0, Vec::new()),
                report: ReplicateReport::default(),
            };
            for info in snapshots {
                if there.has(info) {
                    replication.report.already_there = replication.report.already_there.saturating_add(1);
                    continue;
                }
                match replication.snapshot(info, there.is_fence(info.id)).await {
                    Ok(Ended::Stored(replica)) => {
                        let stored = ReplicatedSnapshot { snapshot: info.id, replica };
                        replication.report.snapshots.push(stored);
                    }
                    Ok(Ended::Busy) => replication.report.busy.push(info.id),
                    Ok(Ended::Unwanted) => {}
                    Err(error) if error.is_corruption() => {
                        let object = format!("snapshots/{}", info.id);
                        let damaged = DamagedObject { object, reason: error.to_string() };
                        replication.report.damaged_objects.push(damaged);
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut report = replication.report;
            place.take_sets(std::slice::from_ref(self), job).await?;
            self.carry_times(place, job).await?;
            report.duration_seconds = started.elapsed().as_secs_f64();
            Ok(report)
        })
        .await
    }

    /// Makes an empty place of this repository in a sink: its keys and parameters stand there then, and nothing else.
    /// Where it stands already it is opened. [`Places::catch_up`](super::Places::catch_up) brings what it lacks.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where another repository stands; [`ErrorKind::Unsupported`] where the store overwrites what is
    /// to be created once. Cancellation: what was put stays, and the next call goes on.
    pub async fn create_place(&self, sink: Arc<dyn crate::Sink>, job: &JobContext) -> Result<Repository> {
        guard::run(job, async move {
            let (from, key) = (self.store(), keys::config()?);
            let config = from.get_whole(&key, limits::CONTROL_BYTES_MAX, job).await?;
            self.check_config(&config).map_err(|e| e.with_object(&key))?;
            let to = super::Store { sink, ..from.clone() };
            let put = PutCounters::default();
            match to.get_whole(&key, limits::CONTROL_BYTES_MAX, job).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(there) if there == config => {}
                Ok(_) => {
                    let message = "there is another repository already; choose another place";
                    return Err(Error::new(ErrorKind::AlreadyExists, message).with_object(&key));
                }
            }
            // The parameters last: without them it is no repository.
            for meta in from.sink.list_all(keys::KEYS).await? {
                let slot = from.get_whole(&meta.key, limits::CONTROL_BYTES_MAX, job).await?;
                to.put(&meta.key, slot, &put, job).await?;
            }
            to.put(&key, config.clone(), &put, job).await?;
            to.check_creates_once(&key, config).await?;
            let place = Repository::with(to, self.parameters().clone());
            place.keep_reserve(job).await?;
            Ok(place)
        })
        .await
    }

    /// This repository as it stands in another sink, under the same keys. Nothing is looked at: for
    /// [`with_others`](Self::with_others), which asks only when it has to. To write there, [open](Self::open_place) it.
    #[must_use]
    pub fn at(&self, sink: Arc<dyn crate::Sink>) -> Self {
        Self::with(super::Store { sink, ..self.store().clone() }, self.parameters().clone())
    }

    /// Opens this repository in another sink, under the same keys.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none; corruption where another stands there.
    pub async fn open_place(&self, sink: Arc<dyn crate::Sink>, job: &JobContext) -> Result<Repository> {
        let (protection, transforms) = (self.protection().clone(), self.store().transforms.clone());
        Self::open(sink, protection, transforms, job).await
    }
}

struct Replication<'a> {
    from: &'a Repository,
    to: &'a Repository,
    reader: Reader,
    options: &'a ReplicateOptions,
    job: &'a JobContext,
    /// Pages of which everything below is there: those of snapshots that were brought.
    walked: Bits,
    /// The collections that were known when that was found.
    walked_under: (u64, Vec<u64>),
    report: ReplicateReport,
}

impl Replication<'_> {
    async fn snapshot(&mut self, info: &SnapshotInfo, mut fenced: bool) -> Result<Ended> {
        let (store, job) = (self.to.store(), self.job);
        for _ in 0..limits::BACKUP_SESSIONS_MAX {
            let put = Arc::new(PutCounters::default());
            // Before the session is registered: collectors need not wait for one that waits for memory.
            let lease = job.resources().lease(job).await?;
            let Some(session) = self.session(info.id, fenced, &put).await? else { return Ok(Ended::Busy) };
            let committing = AtomicBool::new(false);
            let work = Box::pin(self.bring(info, &session, lease, &put, &committing));
            let came = session.alive(store, &put, job, work).await;
            self.report.bytes_copied = self.report.bytes_copied.saturating_add(put.bytes());
            let nothing =
                (put.objects() <= 1 || session.is_taken_over()) && !committing.load(Ordering::Relaxed);
            if nothing && !matches!(came, Ok(Came::Committed)) {
                session.withdraw(store).await;
            }
            match came? {
                Came::Committed => return Ok(Ended::Stored(session.id())),
                Came::Unwanted => return Ok(Ended::Unwanted),
                Came::Fenced => fenced = true,
            }
        }
        let message = "the sessions that bring a snapshot to another place are shut out one after the other there, as if they \
                       had stopped: look for a suspended machine";
        Err(Error::new(ErrorKind::Transient, message))
    }

    /// The session that a snapshot is brought in; none while somebody else is at it.
    async fn session(&self, id: SnapshotId, fenced: bool, put: &PutCounters) -> Result<Option<Session>> {
        let (store, host, job) = (self.to.store(), self.options.host.as_str(), self.job);
        if fenced {
            return Session::open(store, "replicate", true, host, put, job).await.map(Some);
        }
        match Session::register(store, id, ("replicate", true, host), put, job).await {
            Ok(session) => return Ok(Some(session)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match Session::take_over(store, id, put, job).await {
            Ok(Some(session)) => return Ok(Some(session)),
            Ok(None) => {}
            // It was given up, or decided and tidied away, a moment ago.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // Whose it is nobody can tell: it is given time to show that it lives.
            Err(error) if error.is_corruption() => {}
            Err(error) => return Err(error),
        }
        let undecided = self.to.undecided_sessions(job).await?;
        let last_sign = undecided.into_iter().find(|(other, _)| *other == id).and_then(|(_, sign)| sign);
        let now = self.to.now_of_store(put, job).await?;
        if !Repository::has_stopped(last_sign, now) {
            return Ok(None);
        }
        self.to.fence(id, put, job).await?;
        Session::open(store, "replicate", true, host, put, job).await.map(Some)
    }

    /// Brings a snapshot in a session.
    async fn bring(
        &mut self,
        info: &SnapshotInfo,
        session: &Session,
        lease: Lease,
        put: &Arc<PutCounters>,
        committing: &AtomicBool,
    ) -> Result<Came> {
        let (from, to, job) = (self.from, self.to, self.job);
        let view = to.view_for_writing(session.id(), &self.options.host, job).await?;
        if view.control.has_expired(info.id) || !view.control.is_shown(info.id) {
            return Ok(Came::Unwanted);
        }
        let document = from.snapshot(info.id, job).await?.document().clone();
        let walked = self.walked_before(info, &view).await?;
        let mut gaps = Gaps::new(&self.reader.index, (&view.reader.index, &view.barred), walked, info.id);
        for tree in [document.tree, document.trailing].into_iter().flatten() {
            walk(&tree, &self.reader, &mut gaps, job).await?;
        }
        if let Some(lost) = gaps.lost.first() {
            return Err(Error::corruption(lost.reason.clone()));
        }
        let walked = std::mem::take(&mut gaps.walked);
        let filling = Filling { to, session, view: &view, put, job };
        let reader = self.reader.clone();
        let filled = filling.fill(&reader, gaps, lease).await?;
        self.report.packs_copied = self.report.packs_copied.saturating_add(filled.packs);
        self.report.packs_copied_in_part =
            self.report.packs_copied_in_part.saturating_add(filled.packs_in_part);
        if !filled.lost.is_empty() {
            let named: Vec<String> = filled.damaged.iter().map(|damaged| damaged.object.clone()).collect();
            let message = format!(
                "{} chunks that it needs cannot be read in any place; see {}",
                filled.lost.len(),
                named.join(", ")
            );
            return Err(Error::corruption(message));
        }
        self.report.read_elsewhere.extend(filled.damaged);
        committing.store(true, Ordering::Relaxed);
        let came = self.commit(info, &document, session, put).await?;
        if matches!(came, Came::Committed) {
            self.walked = walked;
            to.tidy_sessions(&view.decided, &view.control.listing).await;
        }
        Ok(came)
    }

    /// The pages of which everything below is there: those found before, while nothing was collected there since, and those
    /// of the snapshot's own parent.
    async fn walked_before(&mut self, info: &SnapshotInfo, view: &WriterView) -> Result<Bits> {
        let under = collections(&view.control);
        // What a snapshot that fails would need is not there.
        let mut walked = std::mem::take(&mut self.walked);
        if self.walked_under != under {
            walked = Bits::default();
            self.walked_under = under;
        }
        // While anything is condemned there, whatever is used is looked up.
        let parent = info.parent.filter(|_| view.barred.is_empty());
        let Some(parent) = parent.filter(|parent| view.snapshots.iter().any(|there| there.id == *parent))
        else {
            return Ok(walked);
        };
        let document = self.to.snapshot_document(parent, self.job).await?;
        for root in [document.tree, document.trailing].into_iter().flatten() {
            if let Err(error) = seed(&root, &self.reader, &mut walked, self.job).await {
                if !error.is_corruption() {
                    return Err(error);
                }
                tracing::debug!(%error, %parent, "a parent's pages cannot be read; everything is walked");
            }
        }
        Ok(walked)
    }

    /// The snapshot's own object, byte for byte; under another identity where its own is shut out.
    async fn commit(
        &self,
        info: &SnapshotInfo,
        document: &SnapshotDocument,
        session: &Session,
        put: &PutCounters,
    ) -> Result<Came> {
        let (from, to, job) = (self.from, self.to, self.job);
        let decided = if session.id() == info.id {
            let object = from.snapshot_bytes(info.id, job).await?;
            session.commit_object(to, object, put, job).await?
        } else {
            let mut document = document.clone();
            document.info.origin = Some(info.origin_of_copy(from.id()));
            document.info.id = session.id();
            session.commit(to, &document, put, job).await?
        };
        Ok(match decided {
            Decided::Committed => Came::Committed,
            Decided::Fenced => Came::Fenced,
        })
    }
}

fn collections(control: &Control) -> (u64, Vec<u64>) {
    (control.finished(), control.listing.collections.keys().copied().collect())
}
