//! What must be kept, and what of the store that does not need.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::Round;
use super::choose::{self, Kept};
use super::logs::{LogNeed, UnneededLog};
use super::mark::{Needed, Root, mark};
use super::repack::Wasted;
use crate::format::control::{HoldDocument, SweptName};
use crate::format::document::SnapshotDocument;
use crate::report::{CollectReport, DamagedObject};
use crate::repository::control::{Bars, Control};
use crate::repository::index::{Bits, Index, LISTINGS_MAX, Which};
use crate::repository::keys::ControlKey;
use crate::repository::listing::Listing;
use crate::repository::reader::Reader;
use crate::repository::{Repository, guard, keys};
use crate::transform::ObjectType;
use crate::{
    Error, ErrorKind, JobContext, LogRetention, ObjectKey, Result, SinkExt, SnapshotId, Timestamp, limits,
};

/// A pack that the store lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListedPack {
    pub(super) object_type: ObjectType,
    pub(super) digest: [u8; 32],
    pub(super) len: u64,
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Packs that no root needs.
    pub(super) unneeded: Vec<ListedPack>,
    /// Objects of logs that nothing needs.
    pub(super) logs: Vec<UnneededLog>,
    pub(super) marked: BTreeSet<SnapshotId>,
    /// The index names packs that were swept.
    pub(super) names_swept: bool,
    /// Packs that are worth writing anew, by name.
    pub(super) repack: Vec<[u8; 32]>,
}

impl Found {
    /// Counts what nothing needs.
    pub(super) fn note(&self, report: &mut CollectReport) {
        self.unneeded.iter().for_each(|pack| report.note_unneeded(pack.len));
        self.logs.iter().for_each(|log| report.note_unneeded_log(log.len));
    }
}

/// What the store holds, and what of it is needed.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) listed: Vec<ListedPack>,
    pub(super) index: Arc<Index>,
    pub(super) bars: Bars,
    /// The index names packs that were swept.
    pub(super) names_swept: bool,
    pub(super) needed: Needed,
    pub(super) kept: Kept,
    pub(super) marked: BTreeSet<SnapshotId>,
    /// What the snapshots need of logs.
    pub(super) logs: Vec<LogNeed>,
}

/// What must be kept, and where it is.
#[derive(Debug)]
pub(super) struct Rooted {
    pub(super) index: Index,
    pub(super) roots: Vec<Root>,
    /// What they need of logs.
    pub(super) logs: Vec<LogNeed>,
    /// Listed last.
    pub(super) control: Control,
}

/// Snapshots that must be kept, and what was listed beside them.
#[derive(Debug)]
pub(super) struct RootIds {
    pub(super) ids: Vec<SnapshotId>,
    /// What they need of logs.
    logs: Vec<LogNeed>,
    /// Sessions that have committed.
    committed: HashSet<SnapshotId>,
    /// Listed last.
    control: Control,
}

/// The packs of the index that are listed, and not barred.
fn usable(listed: &[ListedPack], index: &Index, barred: &Bits) -> Result<Bits> {
    let mut usable = Bits::default();
    for pack in listed {
        if let Some(number) = index.number_of(&pack.digest)?.filter(|number| !barred.contains(*number)) {
            usable.insert(number);
        }
    }
    Ok(usable)
}

async fn choose(index: &Arc<Index>, needed: Needed, usable: Bits) -> Result<(Needed, Kept)> {
    let index = index.clone();
    guard::blocking(move || choose::choose(&index, &needed, &usable).map(|kept| (needed, kept))).await
}

impl Repository {
    /// The packs that the store lists. One takes 48 bytes here.
    pub(super) async fn list_packs(&self, job: &JobContext) -> Result<Vec<ListedPack>> {
        let mut packs = Vec::new();
        for (prefix, object_type) in [(keys::DATA, ObjectType::Data), (keys::META, ObjectType::Meta)] {
            let mut listing = Listing::new(&*self.store().sink, prefix);
            while let Some(page) = listing.next().await? {
                job.check()?;
                for meta in page {
                    // What is not named like a pack is nobody's, and stays.
                    let Ok(digest) = keys::digest_of(&meta.key) else { continue };
                    if keys::pack(object_type, &digest)? == meta.key {
                        packs.push(ListedPack { object_type, digest, len: meta.len });
                    }
                }
            }
        }
        Ok(packs)
    }

    /// Looks at all roots, and chooses where what they need stands; nothing if something of it cannot be read, which the
    /// report then names. `gone` are snapshots that count as expired although they are not.
    pub(super) async fn survey(
        &self,
        now: Option<Timestamp>,
        gone: &[SnapshotId],
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<Option<Survey>> {
        let mut looks = 1;
        loop {
            let before = self.listed_names().await?;
            let damaged = match self.survey_once(now, gone, report, job).await? {
                Ok(survey) => return Ok(Some(survey)),
                Err(damaged) => damaged,
            };
            // Another collector may have written packs anew and deleted them, or what only a snapshot needed that has expired, beside
            // this look; that is no damage.
            if looks >= LISTINGS_MAX || self.listed_names().await? == before {
                report.damaged_objects.extend(damaged);
                return Ok(None);
            }
            tracing::debug!(?damaged, "looked at once more");
            looks = looks.saturating_add(1);
        }
    }

    /// What says which packs are needed, and where: names only.
    async fn listed_names(&self) -> Result<Vec<ObjectKey>> {
        let sink = &self.store().sink;
        let lists =
            (sink.list_all(keys::INDEX), sink.list_all(keys::SNAPSHOTS), sink.list_all(keys::CONTROL));
        let (index, snapshots, control) = tokio::try_join!(lists.0, lists.1, lists.2)?;
        Ok([index, snapshots, control].into_iter().flatten().map(|meta| meta.key).collect())
    }

    /// One look; what is damaged if there is anything.
    async fn survey_once(
        &self,
        now: Option<Timestamp>,
        gone: &[SnapshotId],
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<std::result::Result<Survey, Vec<DamagedObject>>> {
        let listed = self.list_packs(job).await?;
        let Rooted { index, roots, logs, control } = self.list_roots(now, gone, job).await?;
        report.snapshots = roots.len() as u64;
        let mut damaged: Vec<DamagedObject> = Vec::new();
        for (key, reason) in index.unreadable.iter().chain(&control.unreadable) {
            damaged.push(DamagedObject { object: key.to_string(), reason: reason.clone() });
        }
        // What was swept does not exist. What a later collection condemns beside this one, which it has abandoned, does.
        let bars = self.bars(&control.sweeping(), job).await?;
        let barred = bars.packs(&index)?;
        let index = Arc::new(index);
        let reader = Reader { cache: Default::default(), ..self.reader(index.clone()) };
        let mut needed = mark(&roots, &reader, job).await?;
        damaged.append(&mut needed.lost);
        if !damaged.is_empty() {
            return Ok(Err(damaged));
        }
        let usable = usable(&listed, &index, &barred)?;
        let (needed, kept) = choose(&index, needed, usable).await?;
        let (needed, kept) = if kept.lost.is_empty() {
            (needed, kept)
        } else {
            // What was committed since stands in packs that were put after the others were listed.
            let usable = self::usable(&self.list_packs(job).await?, &index, &barred)?;
            choose(&index, needed, usable).await?
        };
        if !kept.lost.is_empty() {
            return Ok(Err(kept.lost));
        }
        let marked = roots.into_iter().map(|root| root.id).collect();
        let names_swept = !barred.is_empty();
        Ok(Ok(Survey { listed, index, bars, names_swept, needed, kept, marked, logs }))
    }

    /// Finds what no root needs, and what of the rest is worth writing anew; nothing if something that a root needs cannot
    /// be read.
    pub(super) async fn find_unneeded(
        &self,
        now: Option<Timestamp>,
        gone: &[SnapshotId],
        (round, retention): (Round, Option<LogRetention>),
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<Option<Found>> {
        let Some(survey) = self.survey(now, gone, report, job).await? else { return Ok(None) };
        let Survey { listed, index, bars, names_swept, kept, marked, logs, .. } = survey;
        let mut found = Found { marked, names_swept, ..Found::default() };
        let mut wasted = Wasted::default();
        for pack in listed {
            let number = index.number_of(&pack.digest)?;
            match number.filter(|number| kept.packs.contains(*number)) {
                Some(number) => {
                    let (live, all) = kept.bytes_of(number);
                    report.note_kept(pack.len, live, all);
                    wasted.note(&pack, live, all);
                }
                None if bars.contains(SweptName::of_pack(&pack.digest)) => {}
                None => found.unneeded.push(pack),
            }
        }
        found.logs = self.unneeded_logs(&logs, retention, now, job).await?;
        found.logs.retain(|log| !bars.contains(SweptName::of_log(&log.key)));
        let most = round.names_max();
        if found.logs.len() > most {
            // The oldest first, of each lineage.
            found.logs.truncate(most);
            report.more_unneeded = true;
        }
        let most = most.saturating_sub(found.logs.len());
        if found.unneeded.len() > most {
            // With the largest most is gained.
            found.unneeded.sort_unstable_by_key(|pack| std::cmp::Reverse(pack.len));
            found.unneeded.truncate(most);
            report.more_unneeded = true;
        }
        if let Round::Whole { repack: Some(options) } = round {
            found.repack = wasted.choose(&options, report);
        }
        Ok(Some(found))
    }

    /// The index of committed sessions, and the snapshots that must be kept: those that have not expired, or are held.
    pub(super) async fn list_roots(
        &self,
        now: Option<Timestamp>,
        gone: &[SnapshotId],
        job: &JobContext,
    ) -> Result<Rooted> {
        let mut listings = 1;
        loop {
            let rooted = self.list_roots_once(now, gone, job).await?;
            // Another collector may merge segments beside this look; that is no damage.
            if listings >= LISTINGS_MAX || !rooted.index.was_merged(self.store()).await? {
                return Ok(rooted);
            }
            listings = listings.saturating_add(1);
        }
    }

    async fn list_roots_once(
        &self,
        now: Option<Timestamp>,
        gone: &[SnapshotId],
        job: &JobContext,
    ) -> Result<Rooted> {
        let segments = self.store().sink.list_all(keys::INDEX).await?;
        let RootIds { ids, logs, committed, control } = self.root_ids(now, gone, job).await?;
        let index = Index::load_listed(self.store(), segments, &committed, Which::Committed, job).await?;
        let mut roots = Vec::new();
        for id in ids {
            let document: Arc<SnapshotDocument> = match self.snapshot_document(id, job).await {
                Ok(document) => document,
                // It has expired, and somebody has deleted it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let trees = [document.tree, document.trailing].into_iter().flatten().collect();
            roots.push(Root { id, trees });
        }
        Ok(Rooted { index, roots, logs, control })
    }

    /// The snapshots that must be kept, by name only.
    pub(super) async fn root_ids(
        &self,
        now: Option<Timestamp>,
        gone: &[SnapshotId],
        job: &JobContext,
    ) -> Result<RootIds> {
        let outcomes = self.store().sink.list_all(keys::SNAPSHOTS).await?;
        // Which of them are fences is known once all are read.
        let (read, failures) = self.load_listed(outcomes.clone(), job).await?;
        if let Some((_, error)) = failures.into_iter().next() {
            return Err(error);
        }
        let fates = self.listed_control(job).await?;
        let held = self.held(&fates, now, job).await?;
        // Digests last: what a fate's absence means, they say.
        let control = self.listed_control(job).await?;
        let committed = self.committed_among(&outcomes, &control);
        let is_kept = |id: &SnapshotId| {
            let expired = fates.has_expired(*id) || control.has_expired(*id);
            !(expired || gone.contains(id)) || held.contains(id)
        };
        let kept = || read.iter().filter(|info| is_kept(&info.id));
        let (ids, logs) = (kept().map(|info| info.id).collect(), kept().filter_map(LogNeed::of).collect());
        Ok(RootIds { ids, logs, committed, control })
    }

    /// Snapshots that somebody holds.
    pub(in crate::repository) async fn held(
        &self,
        control: &Control,
        now: Option<Timestamp>,
        job: &JobContext,
    ) -> Result<BTreeSet<SnapshotId>> {
        let mut held = BTreeSet::new();
        for (id, holds) in &control.listing.holds {
            for hold in holds {
                let key = ControlKey::Hold(*id, *hold).key()?;
                let read: Result<HoldDocument> = self
                    .store()
                    .get_document(&key, ObjectType::Collection, limits::CONTROL_BYTES_MAX, job)
                    .await;
                let until = match read {
                    Ok(document) if document.snapshot == *id && document.hold == *hold => document.until,
                    Ok(_) => {
                        let message = "holds another hold than its name says";
                        return Err(Error::corruption(message).with_object(&key));
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                // Without a time of the store nothing ends.
                if until.zip(now).is_none_or(|(until, now)| now < until) {
                    held.insert(*id);
                }
            }
        }
        Ok(held)
    }
}
