//! Healing: what is damaged or gone in this place comes back from the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::super::index::{Bits, Index};
use super::super::others::Others;
use super::super::reader::Reader;
use super::super::replicate::{Chunks, Filled, Filling, Gaps, read_pack};
use super::super::session::{Decided, Session};
use super::super::store::PutCounters;
use super::super::views::WriterView;
use super::super::walk::walk;
use super::super::{Repository, guard, keys};
use crate::format::control::SweptName;
use crate::format::document::{self, SessionOutcome};
use crate::limits;
use crate::observer::Event;
use crate::report::{DamagedObject, HealReport};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectKey, Result, SnapshotId, SnapshotInfo};

/// Chunks of packs that are nowhere as they were; beyond that a place is better made anew.
const CHUNKS_MAX: usize = 1_000_000;

impl Repository {
    /// Brings back what a [verification](Self::verify) found damaged or gone here from the [other places](Self::with_others) that
    /// this handle knows.
    ///
    /// Packs, parameters, sets and snapshots come back byte for byte. Where no other place has a pack under the same name, its
    /// chunks are taken from wherever they stand, and packed anew. The index is rebuilt where it is damaged. What is found to be
    /// whole now was merely misread, and is left alone. What no place has is named as lost, and stays as it is.
    ///
    /// # Errors
    /// Those of the stores; [`ErrorKind::InvalidInput`] where the handle knows no other place. Cancellation: what was brought back stays;
    /// verify, and heal again.
    pub async fn heal(&self, damaged: &[DamagedObject], host: &str, job: &JobContext) -> Result<HealReport> {
        guard::run(job, async move {
            if self.others.is_empty() {
                return Err(Error::invalid_input(
                    "no other place is known that something could come back from",
                ));
            }
            let started = Instant::now();
            job.emit(&Event::Phase { name: "heal" });
            let (store, put) = (self.store(), Arc::new(PutCounters::default()));
            let mut report = HealReport::default();
            let session = Session::open(store, "heal", false, host, &put, job).await?;
            let work = Box::pin(async {
                let view = self.view_for_writing(session.id(), host, job).await?;
                let others = Others::new(None, self.others.clone());
                let mut healing = Healing {
                    place: self,
                    others,
                    view,
                    session: &session,
                    put: &put,
                    job,
                    report: &mut report,
                };
                healing.heal(damaged).await
            });
            let done = session.alive(store, &put, job, work).await;
            if put.objects() <= 1 {
                session.withdraw(store).await;
            }
            done?;
            report.bytes_copied = put.bytes();
            report.duration_seconds = started.elapsed().as_secs_f64();
            Ok(report)
        })
        .await
    }
}

struct Healing<'a> {
    place: &'a Repository,
    others: Others,
    view: WriterView,
    session: &'a Session,
    put: &'a Arc<PutCounters>,
    job: &'a JobContext,
    report: &'a mut HealReport,
}

impl Healing<'_> {
    async fn heal(&mut self, damaged: &[DamagedObject]) -> Result<()> {
        let objects: BTreeSet<&str> = damaged.iter().map(|damaged| damaged.object.as_str()).collect();
        let (mut snapshots, mut index, mut gone) = (Vec::new(), false, Vec::new());
        for object in objects {
            self.job.check()?;
            let key = ObjectKey::new(object)?;
            match object.split_once('/').map_or("", |(prefix, _)| prefix) {
                "data" => self.pack(&key, ObjectType::Data, &mut gone).await?,
                "meta" => self.pack(&key, ObjectType::Meta, &mut gone).await?,
                "snapshots" => snapshots.push(key),
                "index" => index = true,
                // It lacks packs.
                "" if object == "index" => index = true,
                "sets" => self.document(&key, |place, bytes| place.open_set(&key, bytes).map(drop)).await?,
                "" if object == keys::CONFIG => {
                    self.document(&key, |place, bytes| place.check_config(bytes)).await?;
                }
                _ => self.lost(&key, "each place has its own"),
            }
        }
        let bad = self.numbers(&gone)?;
        // Nothing is to rely upon them, nor to name them anew.
        let mut barred = (*self.view.barred).clone();
        bad.iter().for_each(|number| barred.insert(number));
        self.view.barred = Arc::new(barred);
        let rewritten = self.chunks_of(&gone, &bad).await?;
        let snapshots = self.snapshots(snapshots).await?;
        if index {
            self.unnamed(&snapshots).await?;
        }
        if self.put.objects() > 1
            && self.session.decide(self.place, self.put, self.job).await? == Decided::Fenced
        {
            let message = "the repair was shut out, as if it had stopped; run it again";
            return Err(Error::new(ErrorKind::Transient, message));
        }
        // What they need is committed.
        for (key, id, bytes) in snapshots {
            self.replace(&key, bytes).await?;
            self.place.forget_document(id);
        }
        if !rewritten.is_empty() {
            // First they go, then their names: what no index names any longer, and is still there, nobody could heal.
            for (key, _) in &rewritten {
                self.place.sink().delete(key).await.map_err(|e| e.with_object(key))?;
                self.report.rewritten.push(key.to_string());
            }
            let names = rewritten.iter().map(|(_, digest)| SweptName::of_pack(digest)).collect();
            self.place.compact_without(names, self.job).await?;
        }
        if index {
            let repaired = self.place.repair_index(false, self.job).await?;
            self.report.packs_indexed = repaired.rebuilt;
        }
        Ok(())
    }

    /// A pack comes back as it was, or goes to the list of those that no place has like that.
    async fn pack(
        &mut self,
        key: &ObjectKey,
        object_type: ObjectType,
        gone: &mut Vec<(ObjectKey, [u8; 32])>,
    ) -> Result<()> {
        let digest = keys::digest_of(key)?;
        if keys::pack(object_type, &digest)? != *key {
            self.lost(key, "is not named as packs are");
            return Ok(());
        }
        let (place, job) = (self.place, self.job);
        if read_pack(place.store(), key, digest, job).await?.is_some() {
            self.report.misread.push(key.to_string());
            return Ok(());
        }
        // What is condemned or was swept here does not come back under its name.
        if !self.view.bars.contains(SweptName::of_pack(&digest)) {
            for Reader { store, .. } in self.others.readers(job).await? {
                let Some(bytes) = read_pack(store, key, digest, job).await? else { continue };
                self.replace(key, bytes).await?;
                self.report.healed.push(key.to_string());
                return Ok(());
            }
        }
        gone.push((key.clone(), digest));
        Ok(())
    }

    fn numbers(&self, packs: &[(ObjectKey, [u8; 32])]) -> Result<Bits> {
        let mut numbers = Bits::default();
        for (_, digest) in packs {
            if let Some(number) = self.view.reader.index.number_of(digest)? {
                numbers.insert(number);
            }
        }
        Ok(numbers)
    }

    /// The chunks of these packs that stand nowhere else here are packed anew. Returns the packs of which everything is here
    /// now.
    async fn chunks_of(
        &mut self,
        packs: &[(ObjectKey, [u8; 32])],
        bad: &Bits,
    ) -> Result<Vec<(ObjectKey, [u8; 32])>> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        let index = self.view.reader.index.clone();
        let mut wanted = Chunks::new();
        each_row(&index, bad, self.job, |_, id, len| {
            if !stands_elsewhere(&index, &self.view.barred, bad, id, len)? {
                wanted.insert((id, len));
            }
            if wanted.len() > CHUNKS_MAX {
                let message = "so much is damaged that the place should be made anew from another one";
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
            Ok(())
        })
        .await?;
        let mut filled = Filled { lost: wanted, ..Filled::default() };
        self.filling().fill_lost(self.others.readers(self.job).await?, &mut filled).await?;
        // A pack is done with when nothing of it is lost.
        let mut incomplete = Bits::default();
        each_row(&index, bad, self.job, |pack, id, len| {
            if filled.lost.contains(&(id, len)) {
                incomplete.insert(pack);
            }
            Ok(())
        })
        .await?;
        let mut whole = Vec::new();
        for (key, digest) in packs {
            match index.number_of(digest)? {
                Some(number) if !incomplete.contains(number) => whole.push((key.clone(), *digest)),
                Some(_) => self.lost(key, "no place has all of its content"),
                None => self.lost(key, "no place has it, and no index says what it held"),
            }
        }
        Ok(whole)
    }

    /// What damaged snapshots need is brought here. Returns their objects, which can be put once that is committed.
    async fn snapshots(&mut self, damaged: Vec<ObjectKey>) -> Result<Vec<(ObjectKey, SnapshotId, Bytes)>> {
        let mut found = Vec::new();
        for key in damaged {
            let id = keys::id_of(&key)?;
            self.place.forget_document(id);
            if self.place.read_outcome(&key, id, self.job).await.is_ok() {
                self.report.misread.push(key.to_string());
                continue;
            }
            let bytes = match self.place.snapshot_bytes(id, self.job).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => {
                    self.lost(&key, &format!("no other place has it: {error}"));
                    continue;
                }
            };
            let SessionOutcome::Snapshot(document) = self.place.open_outcome(&key, id, &bytes)? else {
                continue;
            };
            let mut brought = false;
            for reader in self.others.readers(self.job).await? {
                let to = (&*self.view.reader.index, &*self.view.barred);
                let mut gaps = Gaps::new(&reader.index, to, Bits::default(), id);
                for tree in [document.tree, document.trailing].into_iter().flatten() {
                    walk(&tree, reader, &mut gaps, self.job).await?;
                }
                if gaps.lost.is_empty() {
                    let lease = self.job.resources().lease(self.job).await?;
                    let filled = self.filling().fill(reader, gaps, lease).await?;
                    brought = filled.lost.is_empty();
                }
                if brought {
                    break;
                }
            }
            if brought {
                self.report.healed.push(key.to_string());
                found.push((key, id, bytes));
            } else {
                self.lost(&key, "no other place has all of it");
            }
        }
        Ok(found)
    }

    /// A pack that is gone together with the part of the index that named it is missed only by those who need it: what the
    /// snapshots that are shown here lack is brought; that of those in `found` was.
    async fn unnamed(&mut self, found: &[(ObjectKey, SnapshotId, Bytes)]) -> Result<()> {
        let (place, job) = (self.place, self.job);
        let own = place.scanned_view(job).await?;
        let barred = self.view.bars.packs(&own.index)?;
        let to = (&*own.index, &barred);
        let mut lacking = Vec::new();
        let mut walked = Bits::default();
        for SnapshotInfo { id, .. } in &self.view.snapshots {
            if found.iter().any(|(_, found, _)| found == id) {
                continue;
            }
            let document = match place.snapshot_document(*id, job).await {
                Ok(document) => document,
                // It is among what is lost.
                Err(error) if error.is_corruption() => continue,
                Err(error) => return Err(error),
            };
            let mut gaps = Gaps::new(&own.index, to, walked, *id);
            for tree in [document.tree, document.trailing].into_iter().flatten() {
                walk(&tree, &own, &mut gaps, job).await?;
            }
            walked = std::mem::take(&mut gaps.walked);
            if !gaps.lost.is_empty() {
                lacking.push((*id, document));
            }
        }
        for reader in self.others.readers(job).await? {
            let Some((first, _)) = lacking.first() else { break };
            let mut all = Gaps::new(&reader.index, to, Bits::default(), *first);
            let mut left = Vec::new();
            for (id, document) in lacking {
                for tree in [document.tree, document.trailing].into_iter().flatten() {
                    walk(&tree, reader, &mut all, job).await?;
                }
                if !std::mem::take(&mut all.lost).is_empty() {
                    left.push((id, document));
                }
            }
            let lease = job.resources().lease(job).await?;
            let mut filled = self.filling().fill(reader, all, lease).await?;
            self.filling().fill_lost(self.others.readers(job).await?, &mut filled).await?;
            if !filled.lost.is_empty() {
                self.report.lost.extend(filled.damaged);
            }
            lacking = left;
        }
        for (id, _) in lacking {
            self.lost(&keys::snapshot(id)?, "no other place has what it needs and no pack here holds");
        }
        Ok(())
    }

    /// A document comes back as another place has it; `check` says whether bytes are what should stand there.
    async fn document(
        &mut self,
        key: &ObjectKey,
        check: impl Fn(&Repository, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for place in std::iter::once(self.place).chain(self.place.others.iter()) {
            let read = place.store().get_whole(key, limits::SNAPSHOT_BYTES_MAX, self.job).await;
            match read.and_then(|bytes| check(place, &bytes).map(|()| bytes)) {
                Ok(_) if Arc::ptr_eq(&place.inner, &self.place.inner) => {
                    self.report.misread.push(key.to_string());
                    return Ok(());
                }
                Ok(bytes) => {
                    self.replace(key, bytes).await?;
                    self.report.healed.push(key.to_string());
                    return Ok(());
                }
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => tracing::debug!(%error, %key, "cannot be read there, either"),
            }
        }
        self.lost(key, "no other place has it");
        Ok(())
    }

    /// Puts the right bytes in the place of wrong ones, which nothing can overwrite: they are deleted first. Whoever looks
    /// between the two finds nothing, as before.
    async fn replace(&self, key: &ObjectKey, bytes: Bytes) -> Result<()> {
        let sink = self.place.sink();
        sink.delete(key).await.map_err(|e| e.with_object(key))?;
        self.place.store().put(key, bytes, self.put, self.job).await
    }

    fn filling(&self) -> Filling<'_> {
        let Self { place, session, view, put, job, .. } = self;
        Filling { to: place, session, view, put, job }
    }

    fn lost(&mut self, key: &ObjectKey, reason: &str) {
        self.report.lost.push(DamagedObject { object: key.to_string(), reason: reason.to_owned() });
    }
}

impl Repository {
    pub(in crate::repository) fn check_config(&self, bytes: &[u8]) -> Result<()> {
        let parameters = document::open_config(&*self.store().protection, bytes)?;
        if parameters == *self.parameters() {
            Ok(())
        } else {
            Err(Error::corruption("is not what was opened"))
        }
    }
}

/// Whether a chunk has a place in a pack that is neither barred nor bad.
fn stands_elsewhere(index: &Index, barred: &Bits, bad: &Bits, id: crate::ShortId, len: u32) -> Result<bool> {
    let places = index.find(id, len)?;
    Ok(places.iter().any(|row| !barred.contains(row.pack) && !bad.contains(row.pack)))
}

/// Gives the rows of some packs: pack, chunk, length.
async fn each_row(
    index: &Arc<Index>,
    packs: &Bits,
    job: &JobContext,
    mut take: impl FnMut(u32, crate::ShortId, u32) -> Result<()>,
) -> Result<()> {
    let (held, wanted, resources) = (index.clone(), packs.clone(), job.resources().clone());
    let by_pack = move || held.rows_by_pack(|pack| wanted.contains(pack), &resources);
    let mut by_pack = guard::blocking(by_pack).await?;
    while let Some((number, rows)) = by_pack.next()? {
        rows.iter().try_for_each(|row| take(number, row.id, row.len))?;
    }
    Ok(())
}
