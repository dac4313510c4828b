//! Waiting for those who may not know what is condemned, rescuing what they use, and the decision.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::CollectOptions;
use super::logs::LogNeed;
use super::mark::{Root, mark};
use super::number::Begun;
use super::roots::{RootIds, Rooted};
use crate::format::control::{CondemnedDocument, DecisionDocument, Names, Verdict};
use crate::limits;
use crate::report::{CollectReport, CollectionOutcome, DamagedObject};
use crate::repository::index::{Bits, Index};
use crate::repository::keys::ControlKey;
use crate::repository::reader::Reader;
use crate::repository::store::PutCounters;
use crate::repository::{Repository, guard};
use crate::transform::ObjectType;
use crate::{ErrorKind, JobContext, Result, SnapshotId};

/// How long to wait before looking for outcomes again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often roots are listed again where one needs what the index of that moment does not name.
const RELISTED_MAX: usize = 3;

impl Repository {
    /// Waits, rescues, decides. `marked` are roots that kept what they need when the collection condemned.
    pub(super) async fn decide_collection(
        &self,
        begun: &Begun,
        marked: &BTreeSet<SnapshotId>,
        options: &CollectOptions,
        report: &mut CollectReport,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<CollectionOutcome> {
        let number = begun.number;
        let condemned: CondemnedDocument = match &begun.condemned {
            Some(condemned) => condemned.clone(),
            None => {
                let key = ControlKey::CollectionCondemned(number).key()?;
                let max = limits::CONTROL_BYTES_MAX;
                self.store().get_document(&key, ObjectType::Collection, max, job).await?
            }
        };
        report.sessions_waiting = self.wait_for_sessions(begun, options.wait, put, job).await?;
        if !report.sessions_waiting.is_empty() {
            return Ok(CollectionOutcome::Waiting);
        }
        let rescued = self.rescue(begun, &condemned, marked, report, job).await?;
        let Some(rescued) = rescued else {
            self.abandon(number, put, job).await?;
            return self.decision_there(number, job).await;
        };
        report.packs_rescued = report.packs_rescued.saturating_add(rescued.len() as u64);
        if rescued.len() as u64 >= condemned.names {
            self.abandon(number, put, job).await?;
            return self.decision_there(number, job).await;
        }
        let decision = DecisionDocument {
            collection: number,
            decision: Verdict::Sweep,
            parts: condemned.parts,
            rescued,
            time: job.now(),
        };
        let key = ControlKey::CollectionDecision(number).key()?;
        match self.store().put_document(&key, ObjectType::Collection, &decision, put, job).await {
            Ok(()) => {}
            // Somebody else decided.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        self.decision_there(number, job).await
    }

    /// The decision that stands in the store. One that a digest overrules is none.
    async fn decision_there(&self, number: u64, job: &JobContext) -> Result<CollectionOutcome> {
        let control = self.listed_control(job).await?;
        let swept = control.collections.get(&number).is_some_and(|collection| collection.sweeps());
        Ok(if swept { CollectionOutcome::Swept } else { CollectionOutcome::Abandoned })
    }

    /// Waits for sessions that are registered now, and shuts out those that have stopped. Returns those that have not ended.
    pub(super) async fn wait_for_sessions(
        &self,
        begun: &Begun,
        wait: Duration,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Vec<SnapshotId>> {
        let started = Instant::now();
        let mut waiting: Option<BTreeSet<SnapshotId>> = None;
        loop {
            let undecided = self.undecided_sessions(job).await?;
            let waited = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
            let now = begun.now.map(|now| now.saturating_add_seconds(waited));
            let mut left = BTreeSet::new();
            for (id, last_sign) in undecided {
                // Those that came later know what is condemned.
                if waiting.as_ref().is_some_and(|waiting| !waiting.contains(&id)) {
                    continue;
                }
                if Self::has_stopped(last_sign, now) || self.is_abandoned(id, job).await? {
                    self.fence(id, put, job).await?;
                } else {
                    left.insert(id);
                }
            }
            if left.is_empty() || started.elapsed() >= wait {
                return Ok(left.into_iter().collect());
            }
            waiting = Some(left);
            tokio::time::sleep(LOOK_EVERY.min(wait)).await;
        }
    }

    /// What was condemned and is needed all the same; nothing if nothing may be swept.
    async fn rescue(
        &self,
        begun: &Begun,
        condemned: &CondemnedDocument,
        marked: &BTreeSet<SnapshotId>,
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<Option<Names>> {
        // Mostly nobody committed meanwhile; then no index is loaded to find that out.
        let RootIds { ids, .. } = self.root_ids(begun.now, &[], job).await?;
        if ids.iter().all(|id| marked.contains(id)) {
            return Ok(Some(Names::default()));
        }
        let mut lost = Vec::new();
        for _ in 0..RELISTED_MAX {
            let Rooted { index, roots, logs, control } = self.list_roots(begun.now, &[], job).await?;
            let logs: Vec<LogNeed> = logs.into_iter().filter(|need| !marked.contains(&need.id)).collect();
            let roots: Vec<Root> = roots.into_iter().filter(|root| !marked.contains(&root.id)).collect();
            if roots.is_empty() {
                return Ok(Some(Names::default()));
            }
            let index = Arc::new(index);
            let reader = Reader { cache: Default::default(), ..self.reader(index.clone()) };
            let needed = mark(&roots, &reader, job).await?;
            if let Some(first) = needed.lost.first() {
                // A merge may have replaced what was listed a moment before.
                tracing::debug!(object = first.object, reason = first.reason, "listed once more");
                lost = needed.lost;
                continue;
            }
            // What earlier collections swept, and what ever was swept, is no place.
            let bars = self.bars(&control.before(begun.number), job).await?;
            let barred = bars.packs(&index)?;
            let mut usable = Bits::default();
            for pack in self.list_packs(job).await? {
                if let Some(number) =
                    index.number_of(&pack.digest)?.filter(|number| !barred.contains(*number))
                {
                    usable.insert(number);
                }
            }
            let mut condemned_packs: HashMap<u32, ([u8; 32], ObjectType)> = HashMap::new();
            let mut bits = Bits::default();
            for (part, digest) in (0_u32..).zip(&condemned.parts.0) {
                let Some(names) = self.read_part(begun.number, part, digest, job).await? else {
                    return Ok(None);
                };
                // Mostly only logs are condemned that are older than what anybody begins with.
                if names.logs.iter().any(|key| logs.iter().any(|need| need.reaches(key))) {
                    return Ok(None);
                }
                for (object_type, digest) in names.packs() {
                    if let Some(number) = index.number_of(digest)? {
                        condemned_packs.insert(number, (*digest, object_type));
                        bits.insert(number);
                    }
                }
            }
            let looking = index.clone();
            let rescued =
                guard::blocking(move || rescued_of(&looking, &needed.chunks, &bits, &usable)).await?;
            let Some(rescued) = rescued else {
                report.damaged_objects.push(DamagedObject {
                    object: "index".into(),
                    reason:
                        "something that a snapshot needs stands only in packs that are missing or were swept"
                            .into(),
                });
                return Ok(None);
            };
            let mut names = Names::default();
            for (number, (digest, object_type)) in condemned_packs {
                if rescued.contains(number) {
                    match object_type {
                        ObjectType::Data => names.data.0.push(digest),
                        _ => names.meta.0.push(digest),
                    }
                }
            }
            if names.len() > limits::RESCUED_NAMES_MAX {
                return Ok(None);
            }
            names.data.0.sort_unstable();
            names.meta.0.sort_unstable();
            return Ok(Some(names));
        }
        report.damaged_objects.append(&mut lost);
        Ok(None)
    }
}

/// Condemned packs that hold something needed which has no other place; nothing if something has no place at all.
fn rescued_of(index: &Index, needed: &Bits, condemned: &Bits, usable: &Bits) -> Result<Option<Bits>> {
    let mut rescued = Bits::default();
    let mut lost = false;
    super::choose::each_place(index, needed, |needed, places| {
        let usable = || places.iter().map(|row| row.pack).filter(|pack| usable.contains(*pack));
        if needed && !usable().any(|pack| !condemned.contains(pack)) {
            lost |= usable().next().is_none();
            usable().for_each(|pack| rescued.insert(pack));
        }
        Ok(())
    })?;
    Ok((!lost).then_some(rescued))
}
