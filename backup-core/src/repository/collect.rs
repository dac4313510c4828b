//! Collection: what no snapshot needs is deleted, while others write, without a lock and whatever clocks say.
//!
//! In the order of a collection: [`number`] takes a number and settles earlier collections, [`roots`] lists what must be kept,
//! [`mark`] and [`choose`] find which packs that needs, [`condemn`] writes down the others, [`decide`] waits for those who
//! do not know of it and rescues what they use, [`sweep`] deletes and [`retire`] forgets. The rules, and what they are for,
//! stand in `docs/decisions/0022-the-protocol-as-modelled.md`.

mod choose;
mod condemn;
mod decide;
mod mark;
mod number;
mod retire;
mod roots;
mod sweep;

use std::time::{Duration, Instant};

use super::store::PutCounters;
use super::{Repository, guard};
use crate::observer::Event;
use crate::report::{CollectReport, CollectionOutcome};
use crate::{JobContext, Result};

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
    /// The host it runs on, for those who look at the repository.
    pub host: String,
}

impl Repository {
    /// Frees what no snapshot needs: lets forgotten snapshots expire whose time to be undeleted is over, condemns the packs
    /// that are needed no more, waits for those who may not know of it, deletes.
    ///
    /// Any number of these may run at once, beside any number of writers and readers. A call that was interrupted, or that
    /// did not wait long enough, is continued by the next one, wherever that runs. While anything that a snapshot needs
    /// cannot be read, nothing is deleted; the report names it.
    ///
    /// # Errors
    /// Those of the store, and of documents that cannot be read. Cancellation: what was decided stays decided; the next
    /// call goes on.
    pub async fn collect(&self, options: &CollectOptions, job: &JobContext) -> Result<CollectReport> {
        guard::run(job, async move {
            let started = Instant::now();
            let mut report = CollectReport::default();
            let put = PutCounters::default();
            // The index of a collection is one of its own: of committed sessions only.
            self.release_large_index().await;
            if options.dry_run {
                self.plan_collection(&mut report, job).await?;
            } else {
                let names_swept = Box::pin(self.collect_once(options, &mut report, &put, job)).await?;
                // Many small segments are an affair of their own.
                if names_swept || report.objects_deleted > 0 {
                    Box::pin(self.compact_index(job)).await?;
                }
            }
            report.duration_seconds = started.elapsed().as_secs_f64();
            Ok(report)
        })
        .await
    }

    async fn plan_collection(&self, report: &mut CollectReport, job: &JobContext) -> Result<()> {
        job.emit(&Event::Phase { name: "mark" });
        let now = Some(job.now());
        let due = self.due(&self.listed_control(job).await?, now, job).await?;
        report.expired = due.iter().map(|(id, _)| *id).collect();
        let gone = report.expired.clone();
        if let Some(found) = self.find_unneeded(now, &gone, report, job).await? {
            found.unneeded.iter().for_each(|pack| report.note_unneeded(pack.len));
        }
        Ok(())
    }

    /// Returns whether the index names packs that were swept before.
    async fn collect_once(
        &self,
        options: &CollectOptions,
        report: &mut CollectReport,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<bool> {
        let begun = self.begin_collection(options, put, job).await?;
        report.collection = Some(begun.number);
        report.expired = self.expire_due(begun.now, job).await?;
        let found = match begun.condemned.is_some() {
            // Another call marked and condemned; all roots are looked at again.
            true => Some(Found::default()),
            false => {
                job.emit(&Event::Phase { name: "mark" });
                self.find_unneeded(begun.now, &[], report, job).await?
            }
        };
        let names_swept = found.as_ref().is_some_and(|found| found.names_swept);
        let condemned = match found {
            Some(found) if begun.condemned.is_some() => Some(found.marked),
            Some(found) if !found.unneeded.is_empty() => {
                found.unneeded.iter().for_each(|pack| report.note_unneeded(pack.len));
                self.condemn(begun.number, found.unneeded, put, job).await?;
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
                return Ok(names_swept);
            }
            job.emit(&Event::Phase { name: "delete" });
        }
        self.retire(&begun, options, report, put, job).await?;
        Ok(names_swept)
    }
}
