//! Collection: what no snapshot needs is deleted, while others write, without a lock and whatever clocks say.
//!
//! In the order of a collection: [`number`] takes a number and settles earlier collections, [`roots`] lists what must be kept,
//! [`mark`] and [`choose`] find which packs that needs, [`condemn`] writes down the others, [`decide`] waits for those who
//! do not know of it and rescues what they use, [`sweep`] deletes and [`retire`] forgets. The rules, and what they are for,
//! stand in `docs/decisions/0022-the-protocol-as-modelled.md`.

mod choose;
mod condemn;
mod decide;
mod logs;
mod mark;
mod number;
mod repack;
mod reserve;
mod retire;
mod roots;
mod sweep;

use std::time::{Duration, Instant};

use super::store::PutCounters;
use super::{Repository, guard};
use crate::observer::Event;
use crate::report::{CollectReport, CollectionOutcome};
use crate::{ErrorKind, JobContext, LogRetention, Result, Timestamp, limits};

pub use repack::RepackOptions;
use roots::Found;

/// How a collection goes about it.
#[derive(Debug, Clone, Default)]
pub struct CollectOptions {
    /// Whether to find out what could be freed without freeing it.
    pub dry_run: bool,
    /// How long to wait for sessions that were open before; a collection that has to wait longer goes on with the next
    /// call.
    pub wait: Duration,
    /// How long what may be deleted stays for those who are reading it, by the store's clock: restores of snapshots that
    /// are forgotten meanwhile. No other reader needs it.
    pub grace: Duration,
    /// Which packs of which little is needed, or which are small, are written anew.
    pub repack: RepackOptions,
    /// What of logs may go. Without this only what is there twice does: pieces of segments that are there as a whole.
    pub logs: Option<LogRetention>,
    /// Whether to go on although a snapshot is anomalous, and nobody has [confirmed](Repository::confirm_anomaly) it.
    pub ignore_anomalies: bool,
    /// For how long evidence is kept, by the store's clock: for ever if this is none, and the newest
    /// [`EVIDENCE_READ_MAX`](limits::EVIDENCE_READ_MAX) objects and verifications in any case.
    pub keep_evidence: Option<Duration>,
    /// The host it runs on, for those who look at the repository.
    pub host: String,
}

/// One collection of a call.
#[derive(Debug, Clone, Copy)]
enum Round {
    /// All that there is, and what is worth writing anew afterwards.
    Whole { repack: Option<RepackOptions> },
    /// As much as there is room for where there is none but the reserve's.
    InReserve,
}

impl Round {
    /// Names that it condemns at most.
    fn names_max(self) -> usize {
        match self {
            Self::Whole { .. } => limits::CONDEMNED_NAMES_MAX,
            Self::InReserve => limits::CONDEMNED_NAMES_IN_RESERVE,
        }
    }

    /// Forgotten snapshots that it lets expire at most.
    fn expired_max(self) -> usize {
        match self {
            Self::Whole { .. } => usize::MAX,
            Self::InReserve => limits::EXPIRED_IN_RESERVE,
        }
    }
}

/// What a collection leaves for after it.
#[derive(Debug, Default)]
struct After {
    names_swept: bool,
    repack: Vec<[u8; 32]>,
    /// When the store had something that was put when it began.
    now: Option<Timestamp>,
}

impl Repository {
    /// Frees what no snapshot needs: lets forgotten snapshots expire whose time to be undeleted is over, condemns the packs
    /// that are needed no more, waits for those who may not know of it, deletes. What then is left of packs of which only a
    /// part is needed is written anew, and they are collected, too.
    ///
    /// Nothing is done while a snapshot that is shown is [anomalous](crate::Anomaly) and nobody has confirmed it: what went before it
    /// may be all that is left of something.
    ///
    /// Any number of these may run at once, beside any number of writers and readers. A call that was interrupted, or that
    /// did not wait long enough, is continued by the next one, wherever that runs. While anything that a snapshot needs
    /// cannot be read, nothing is deleted; the report names it. Where the store is full, a reserve is given up for a small
    /// collection, in whose room the rest is done, and kept again at the end.
    ///
    /// # Errors
    /// Those of the store, and of documents that cannot be read. Cancellation: what was decided stays decided; the next
    /// call goes on.
    pub async fn collect(&self, options: &CollectOptions, job: &JobContext) -> Result<CollectReport> {
        let alone = &self.alone();
        guard::run(job, async move {
            let started = Instant::now();
            let mut report = CollectReport::default();
            // The index of a collection is one of its own: of committed sessions only.
            alone.release_large_index().await;
            if !options.ignore_anomalies {
                let pending = alone.pending_anomalies(job).await?;
                report.anomalies = pending.into_iter().map(|info| info.id).collect();
            }
            if !report.anomalies.is_empty() {
                report.outcome = CollectionOutcome::Paused;
            } else if options.dry_run {
                alone.plan_collection(options, &mut report, job).await?;
            } else {
                alone.collect_all(options, &mut report, job).await?;
            }
            report.duration_seconds = started.elapsed().as_secs_f64();
            Ok(report)
        })
        .await
    }

    async fn plan_collection(
        &self,
        options: &CollectOptions,
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<()> {
        job.emit(&Event::Phase { name: "mark" });
        let now = Some(job.now());
        let due = self.due(&self.listed_control(job).await?, now, job).await?;
        report.expired = due.iter().map(|(id, _)| *id).collect();
        let gone = report.expired.clone();
        let round = Round::Whole { repack: Some(options.repack) };
        match self.find_unneeded(now, &gone, (round, options.logs), report, job).await? {
            None => report.outcome = CollectionOutcome::Abandoned,
            Some(found) => {
                found.note(report);
                report.packs_repacked = found.repack.len() as u64;
            }
        }
        Ok(())
    }

    /// Collects, in the reserve first where there is no other room, writes anew what is worth it, collects that.
    async fn collect_all(
        &self,
        options: &CollectOptions,
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<()> {
        let put = PutCounters::default();
        let whole = Round::Whole { repack: Some(options.repack) };
        let mut done = Box::pin(self.collect_once(options, whole, report, &put, job)).await;
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSpace) {
            // Somebody else may have given it up: what it takes is little.
            self.give_up_reserve().await?;
            done = Box::pin(self.collect_once(options, Round::InReserve, report, &put, job)).await;
            if done.is_ok() && report.outcome != CollectionOutcome::Waiting {
                done = Box::pin(self.collect_once(options, whole, report, &put, job)).await;
            }
        }
        let After { mut names_swept, repack, now } = done?;
        if report.outcome != CollectionOutcome::Waiting && !repack.is_empty() {
            let stored = match Box::pin(self.repack(&repack, now, options, report, job)).await {
                // What is needed is where it was. It is tried again when there is room.
                Err(error) if error.kind() == ErrorKind::NoSpace => {
                    tracing::warn!(%error, "there is no room to write packs anew");
                    report.more_to_repack = true;
                    false
                }
                done => done?,
            };
            if stored {
                let again = Round::Whole { repack: None };
                names_swept |=
                    Box::pin(self.collect_once(options, again, report, &put, job)).await?.names_swept;
            }
        }
        // Many small segments are an affair of their own.
        if names_swept || report.objects_deleted > 0 {
            match Box::pin(self.compact_index(job)).await {
                Err(error) if error.kind() == ErrorKind::NoSpace => {
                    tracing::warn!(%error, "there is no room to merge index segments");
                }
                done => {
                    done?;
                }
            }
        }
        match self.record_times(job).await {
            Err(error) if !error.is_cancelled() => {
                tracing::warn!(%error, "the times of snapshots are not written down");
            }
            done => done?,
        }
        self.keep_reserve(job).await?;
        if let Some(keep) = options.keep_evidence {
            report.evidence_deleted = self.delete_old_evidence(now, keep, job).await?;
        }
        Ok(())
    }

    /// One collection. The report says what all of a call freed, and what the last one found.
    async fn collect_once(
        &self,
        options: &CollectOptions,
        round: Round,
        report: &mut CollectReport,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<After> {
        report.begin_collection();
        let begun = self.begin_collection(options, put, job).await?;
        report.collection = Some(begun.number);
        report.expired.extend(self.expire_due(begun.now, round.expired_max(), job).await?);
        let mut found = match begun.condemned.is_some() {
            // Another call marked and condemned; all roots are looked at again.
            true => Some(Found::default()),
            false => {
                job.emit(&Event::Phase { name: "mark" });
                self.find_unneeded(begun.now, &[], (round, options.logs), report, job).await?
            }
        };
        let after = found.as_mut().map(|found| After {
            names_swept: found.names_swept,
            repack: std::mem::take(&mut found.repack),
            now: begun.now,
        });
        let after = after.unwrap_or_default();
        let condemned = match found {
            Some(found) if begun.condemned.is_some() => Some(found.marked),
            Some(found) if !found.unneeded.is_empty() || !found.logs.is_empty() => {
                found.note(report);
                self.condemn(begun.number, found.unneeded, found.logs, put, job).await?;
                Some(found.marked)
            }
            found => {
                if found.is_none() {
                    report.outcome = CollectionOutcome::Abandoned;
                }
                self.abandon(begun.number, put, job).await?;
                None
            }
        };
        if let Some(marked) = condemned {
            job.emit(&Event::Phase { name: "wait" });
            report.outcome = self.decide_collection(&begun, &marked, options, report, put, job).await?;
            if report.outcome == CollectionOutcome::Waiting {
                return Ok(after);
            }
            job.emit(&Event::Phase { name: "delete" });
        }
        self.retire(&begun, options, report, put, job).await?;
        Ok(after)
    }
}
