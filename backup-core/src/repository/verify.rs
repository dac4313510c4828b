//! Verification: is everything that the snapshots need there, and is it what was stored?

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::control::Control;
use super::store::Store;
use super::{Repository, guard, keys};
use crate::observer::Event;
use crate::report::{DamagedObject, VerifyReport};
use crate::{Error, ErrorKind, JobContext, ObjectKey, Result, SinkExt};

mod control;
mod documents;
mod entries;
mod keyless;
mod logs;
mod packs;
mod sample;
mod slices;

pub use crate::report::VerifyLevel;
pub use keyless::verify_keyless;
pub use slices::Slices;

/// What to verify.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct VerifyOptions {
    /// How thoroughly.
    pub level: VerifyLevel,
    /// Look at about this share of the packs only, in percent, chosen anew each time.
    pub sample_percent: Option<f64>,
    /// Look at these slices of the packs only; see [`Ledger::due`](super::Ledger::due).
    pub slices: Option<Slices>,
}

impl VerifyOptions {
    fn check(&self) -> Result<()> {
        match self.sample_percent {
            Some(percent) if !(percent > 0.0 && percent <= 100.0) => Err(Error::invalid_input(format!(
                "a sample of {percent}% makes no sense; choose more than 0 and at most 100"
            ))),
            _ => Ok(()),
        }
    }
}

/// Whole objects held at once.
const READS_MAX: usize = 2;
/// How often everything is looked at again because a collection swept beside the look.
const LOOKS_MAX: u32 = 4;

impl Repository {
    /// Verifies the repository. Damage is what the report is for: only what keeps from looking is an error.
    pub async fn verify(&self, options: &VerifyOptions, job: &JobContext) -> Result<VerifyReport> {
        let alone = &self.alone();
        guard::run(job, async move {
            options.check()?;
            let started = Instant::now();
            let lease = job.resources().lease(job).await?;
            job.emit(&Event::Phase { name: "verify" });
            let mut looks = 1;
            loop {
                let mut verification = Verification {
                    repository: alone,
                    options: *options,
                    job,
                    workers: lease.workers(),
                    report: VerifyReport::default(),
                };
                let before = verification.collected().await?;
                verification.look().await?;
                let after = verification.collected().await?;
                let moved = before.finished() != after.finished()
                    || before.collections.keys().ne(after.collections.keys())
                    || after.collections.iter().any(|(number, collection)| {
                        before.collections.get(number).is_none_or(|b| b.sweeps() != collection.sweeps())
                    });
                // What is missing was perhaps swept beside this look: then it is looked at again.
                if !verification.report.is_clean() && moved && looks < LOOKS_MAX {
                    looks += 1;
                    continue;
                }
                let mut report = verification.report;
                report.damaged_objects.sort_by(|a, b| a.object.cmp(&b.object));
                report.damaged_objects.dedup();
                report.duration_seconds = started.elapsed().as_secs_f64();
                return Ok(report);
            }
        })
        .await
    }
}

struct Verification<'a> {
    repository: &'a Repository,
    options: VerifyOptions,
    job: &'a JobContext,
    workers: usize,
    report: VerifyReport,
}

/// What no entry can be restored from.
#[derive(Debug, Default)]
struct Bad {
    /// Frames that do not open or hold wrong chunks: pack and ordinal.
    frames: HashSet<(u32, u32)>,
    /// Packs of which nothing can be read, and why.
    packs: HashMap<u32, String>,
}

impl Bad {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.packs.is_empty()
    }

    fn add(&mut self, more: Bad) {
        self.frames.extend(more.frames);
        self.packs.extend(more.packs);
    }
}

impl Verification<'_> {
    async fn look(&mut self) -> Result<()> {
        let job = self.job;
        self.check_documents().await?;
        self.check_logs().await?;
        // Listed before the index: what is committed later may need packs that were not there yet.
        let listed = self.repository.list_snapshot_ids(job).await?.into_keys();
        // What has expired may have lost what only it needed, unless somebody holds it.
        let control = self.collected().await?;
        let is_gone = |id| control.has_expired(id) && !control.listing.holds.contains_key(&id);
        let snapshots = listed.filter(|id| !is_gone(*id)).collect();
        let reader = self.check_index().await?;
        let trees = self.check_snapshots(snapshots).await?;
        let (chosen, mut bad) = self.choose_packs(&reader.index).await?;
        // Beside each other: a healthy repository, the common case, needs one walk.
        let (found, mut walked) = futures_util::future::try_join(
            self.read_packs(&reader, chosen),
            entries::walk(&trees, &reader, &bad, job),
        )
        .await?;
        if !found.is_empty() {
            bad.add(found);
            walked = entries::walk(&trees, &reader, &bad, job).await?;
        }
        self.add_walked(walked);
        Ok(())
    }

    /// Which collections there are.
    async fn collected(&self) -> Result<Control> {
        let listed = self.store().sink.list_all(keys::CONTROL).await?;
        match self.repository.read_control(&listed, self.job).await {
            // That is found and named by the look itself. What has expired is known as far as it can be read.
            Err(error) if error.is_corruption() => self.repository.read_forgotten(&listed, self.job).await,
            other => other,
        }
    }

    fn store(&self) -> &Store {
        self.repository.store()
    }

    fn count(&mut self, key: &ObjectKey, result: Result<()>) -> Result<()> {
        self.report.checked.objects = self.report.checked.objects.saturating_add(1);
        note(&mut self.report, key, result, self.job)
    }
}

// Damage goes to the report, everything else up.
fn note(report: &mut VerifyReport, key: &ObjectKey, result: Result<()>, job: &JobContext) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error)
            if error.is_corruption()
                || matches!(
                    error.kind(),
                    ErrorKind::NotFound
                        // A changed epoch in a header looks like a key that is not at hand.
                        | ErrorKind::Denied
                        | ErrorKind::Unsupported
                        | ErrorKind::LimitExceeded
                        | ErrorKind::InvalidInput
                ) =>
        {
            let mut reason = error.message().to_owned();
            if let Some(source) = std::error::Error::source(&error) {
                reason = format!("{reason}: {source}");
            }
            job.emit(&Event::ObjectDamaged { key: key.to_string(), reason: reason.clone() });
            report.damaged_objects.push(DamagedObject { object: key.to_string(), reason });
            Ok(())
        }
        Err(error) => Err(error),
    }
}
