//! What the documents under `control/` say.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::Bars;
use super::listing::ControlListing;
use crate::format::control::{
    CondemnedDocument, CondemnedPart, DecisionDocument, DigestDocument, Fate, FateDocument, Names, Packed,
    Verdict,
};
use crate::format::document;
use crate::repository::Repository;
use crate::repository::index::LISTINGS_MAX;
use crate::repository::keys::{self, ControlKey};
use crate::repository::store::Store;
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectKey, ObjectMeta, Result, SinkExt, SnapshotId, limits};

/// What stands under `control/`. What a digest names is final and overrules every file.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) listing: ControlListing,
    /// Sessions that make no snapshot and are decided: whether they committed.
    pub(crate) decided: BTreeMap<SnapshotId, bool>,
    /// Collections that are not finished, as far as their files are there.
    pub(crate) collections: BTreeMap<u64, Collection>,
    /// Snapshots that have a tombstone.
    pub(crate) forgotten: BTreeMap<SnapshotId, Forgotten>,
    /// Decisions of sessions that cannot be read, and why. These sessions count as undecided, which costs time: what
    /// they stored is there, but nobody relies upon it without naming it again.
    pub(crate) unreadable: Vec<(ObjectKey, String)>,
    digests: Vec<Arc<Digested>>,
}

/// A collection that is not finished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collection {
    pub(crate) condemned: Option<CondemnedDocument>,
    pub(crate) decision: Option<DecisionDocument>,
}

impl Collection {
    /// The parts of what it condemns or sweeps, by the SHA-256 of the objects; none if it is abandoned.
    fn parts(&self) -> &[[u8; 32]] {
        match (&self.decision, &self.condemned) {
            (Some(decision), _) if decision.decision == Verdict::Sweep => &decision.parts.0,
            (None, Some(condemned)) => &condemned.parts.0,
            _ => &[],
        }
    }

    /// Whether it may be deleted what it condemned and did not rescue.
    pub(crate) fn sweeps(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.decision == Verdict::Sweep)
    }
}

/// What became of a snapshot that was to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// It can be undeleted: its tombstone of this number has no fate.
    Waiting(u32),
    /// Its last tombstone, of this number, has the fate `kept`.
    Kept(u32),
    /// It is gone.
    Expired,
}

/// A digest that was read, with its lists sorted.
#[derive(Debug, Default)]
struct Digested {
    finished: u64,
    expired: Packed<16>,
    swept: Arc<Packed<16>>,
}

/// What is done where a document cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Fails,
    PassedOver,
}

impl Damage {
    fn passed_over<T>(self, read: Result<Option<T>>) -> Result<Option<T>> {
        match read {
            Err(error) if self == Self::PassedOver && error.is_corruption() => {
                tracing::warn!(%error, "what is forgotten cannot be read in full");
                Ok(None)
            }
            other => other,
        }
    }
}

/// What came of reading a digest.
#[derive(Debug)]
enum DigestRead {
    Said(Arc<Digested>),
    /// It is not there any longer.
    Gone,
    /// It cannot be read, and is passed over.
    Damaged,
}

/// Digests that were read: they never change.
#[derive(Debug, Default)]
pub(crate) struct DigestCache(Mutex<HashMap<SnapshotId, Arc<Digested>>>);

/// Names in all digests that stay in memory, in 64 MiB; the others are read again.
const CACHED_NAMES_MAX: usize = 1 << 22;

impl Control {
    /// Collections with lower numbers are finished.
    pub(crate) fn finished(&self) -> u64 {
        finished_in(&self.digests)
    }

    /// Whether a snapshot has expired.
    pub(crate) fn has_expired(&self, id: SnapshotId) -> bool {
        self.forgotten.get(&id) == Some(&Forgotten::Expired) || self.is_digested(id)
    }

    /// Whether a digest says that a snapshot has expired.
    pub(crate) fn is_digested(&self, id: SnapshotId) -> bool {
        self.digests.iter().any(|digest| digest.expired.0.binary_search(id.as_bytes()).is_ok())
    }

    /// Snapshots that digests call expired.
    pub(crate) fn digested(&self) -> impl Iterator<Item = SnapshotId> {
        self.digests.iter().flat_map(|digest| digest.expired.0.iter().map(|id| SnapshotId::from_bytes(*id)))
    }

    /// Whether a snapshot is shown: it has no tombstone, or was undeleted.
    pub(crate) fn is_shown(&self, id: SnapshotId) -> bool {
        !self.is_digested(id) && matches!(self.forgotten.get(&id), None | Some(Forgotten::Kept(_)))
    }

    /// All that digests say, for one that replaces them.
    pub(crate) fn merged_digest(&self) -> DigestDocument {
        let mut expired: Vec<_> = self.digests.iter().flat_map(|d| d.expired.0.iter().copied()).collect();
        let mut swept: Vec<_> = self.digests.iter().flat_map(|d| d.swept.0.iter().copied()).collect();
        for list in [&mut expired, &mut swept] {
            list.sort_unstable();
            list.dedup();
        }
        DigestDocument { finished: self.finished(), expired: Packed(expired), swept: Packed(swept) }
    }

    /// The same, as far as it is about collections before this one.
    pub(crate) fn before(&self, number: u64) -> Self {
        let collections = self.collections.range(..number).map(|(n, c)| (*n, c.clone())).collect();
        Self { collections, digests: self.digests.clone(), ..Self::default() }
    }

    /// The same without what is only condemned: that may be rescued.
    pub(crate) fn sweeping(&self) -> Self {
        let sweeping = self.collections.iter().filter(|(_, collection)| collection.sweeps());
        let collections = sweeping.map(|(n, c)| (*n, c.clone())).collect();
        Self { collections, digests: self.digests.clone(), ..Self::default() }
    }

    /// What digests bar, and nothing else.
    pub(crate) fn swept_ever(&self) -> Bars {
        Bars::new(swept_in(&self.digests))
    }
}

impl Repository {
    /// Reads what everybody must know who resolves references: decisions and digests, as far as they can be read.
    pub(crate) async fn read_decisions(&self, listed: &[ObjectMeta], job: &JobContext) -> Result<Control> {
        self.read_decisions_and_digests(listed, Damage::PassedOver, job).await
    }

    async fn read_decisions_and_digests(
        &self,
        listed: &[ObjectMeta],
        damage: Damage,
        job: &JobContext,
    ) -> Result<Control> {
        let listing = ControlListing::of(listed);
        let decided = listing.sessions.iter().filter(|(_, session)| session.decision).map(|(id, _)| *id);
        let ((decided, unreadable), digests) = tokio::try_join!(
            self.read_decided(decided.collect(), job),
            self.read_digests(listing.digests.iter().copied().collect(), damage, job),
        )?;
        Ok(Control { listing, decided, unreadable, digests, ..Control::default() })
    }

    /// Reads which snapshots are forgotten, as far as it can be read: for listings.
    pub(crate) async fn read_forgotten(&self, listed: &[ObjectMeta], job: &JobContext) -> Result<Control> {
        let listing = ControlListing::of(listed);
        let (digests, forgotten) = tokio::try_join!(
            self.read_digests(listing.digests.iter().copied().collect(), Damage::PassedOver, job),
            self.read_fates(&listing, Damage::PassedOver, job),
        )?;
        Ok(Control { listing, digests, forgotten, ..Control::default() })
    }

    /// Reads everything but what collections condemn.
    pub(crate) async fn read_control(&self, listed: &[ObjectMeta], job: &JobContext) -> Result<Control> {
        let listing = ControlListing::of(listed);
        let (mut control, (collections, gone), forgotten) = tokio::try_join!(
            self.read_decisions_and_digests(listed, Damage::Fails, job),
            self.read_collections(&listing, job),
            self.read_fates(&listing, Damage::Fails, job),
        )?;
        // What was listed and is gone was deleted after a digest had said that its collection is finished, which may not have been listed.
        if let Some((number, key)) = gone {
            control.digests = self.digests_now(job).await?;
            if control.finished() <= number {
                let message = "is gone, and no digest says that its collection is finished";
                return Err(Error::corruption(message).with_object(&key.key()?));
            }
        }
        let finished = control.finished();
        control.collections = collections.into_iter().filter(|(number, _)| *number >= finished).collect();
        control.forgotten = forgotten;
        Ok(control)
    }

    /// What must not be relied upon, by what was read. Of collections that have finished since, digests say what they swept: those are
    /// read anew.
    pub(crate) async fn bars(&self, control: &Control, job: &JobContext) -> Result<Bars> {
        let mut bars = control.swept_ever();
        let mut is_finished_since = false;
        for (number, collection) in &control.collections {
            let mut part = 0_u32;
            for digest in collection.parts() {
                match self.read_part(*number, part, digest, job).await? {
                    Some(names) => bars.extend(names.swept()),
                    None => is_finished_since = true,
                }
                part = part.saturating_add(1);
            }
            if let Some(decision) = &collection.decision {
                bars.remove(decision.rescued.swept());
            }
        }
        if is_finished_since {
            bars.renew(swept_in(&self.digests_now(job).await?));
        }
        Ok(bars)
    }

    /// The names of a collection that stand in a part, or none if the part is deleted because the collection is finished by
    /// now: then a digest names what it swept. A part that is merely gone is damage, as nobody knows what to bar.
    pub(crate) async fn read_part(
        &self,
        collection: u64,
        part: u32,
        digest: &[u8; 32],
        job: &JobContext,
    ) -> Result<Option<Names>> {
        let key = ControlKey::CollectionPart(collection, part).key()?;
        let bytes = match self.store().get_whole(&key, limits::SNAPSHOT_BYTES_MAX, job).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if finished_in(&self.digests_now(job).await?) > collection {
                    return Ok(None);
                }
                return Err(error.with_kind(ErrorKind::Corruption));
            }
            Err(error) => return Err(error),
        };
        let wrong = || Error::corruption("is not what its collection condemned").with_object(&key);
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != *digest {
            return Err(wrong());
        }
        let read: CondemnedPart = document::open(&*self.store().protection, ObjectType::Collection, &bytes)
            .map_err(|e| e.with_object(&key))?;
        if (read.collection, read.part) != (collection, part) {
            return Err(wrong());
        }
        Ok(Some(read.names))
    }

    async fn read_decided(
        &self,
        sessions: Vec<SnapshotId>,
        job: &JobContext,
    ) -> Result<(BTreeMap<SnapshotId, bool>, Vec<(ObjectKey, String)>)> {
        let reads = sessions.into_iter().map(|id| async move {
            let key = ControlKey::SessionDecision(id).key()?;
            let bytes = self.store().get_whole(&key, limits::CONTROL_BYTES_MAX, job).await;
            let opened = bytes.and_then(|bytes| document::open_decision(&*self.store().protection, &bytes));
            let wrong = "holds another session's decision than its name says";
            match opened {
                Ok((session, committed)) if session == id => Ok(Some(Ok((id, committed)))),
                Ok(_) => Ok(Some(Err((key, wrong.to_owned())))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                // Also a header that was changed.
                Err(error)
                    if error.is_corruption()
                        || matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Denied) =>
                {
                    tracing::warn!(%key, %error, "a session's decision cannot be read");
                    Ok(Some(Err((key, error.message().to_owned()))))
                }
                Err(error) => Err(error),
            }
        });
        let mut reads = stream::iter(reads).buffer_unordered(job.resources().requests());
        let (mut decided, mut unreadable) = (BTreeMap::new(), Vec::new());
        while let Some(read) = reads.try_next().await? {
            match read {
                Some(Ok((id, committed))) => {
                    decided.insert(id, committed);
                }
                Some(Err(damage)) => unreadable.push(damage),
                None => {}
            }
        }
        Ok((decided, unreadable))
    }

    /// All digests that there are by now.
    async fn digests_now(&self, job: &JobContext) -> Result<Vec<Arc<Digested>>> {
        let listed = ControlListing::of(&self.store().sink.list_all(keys::DIGESTS).await?);
        self.read_digests(listed.digests.into_iter().collect(), Damage::Fails, job).await
    }

    /// Reads these digests. One that is gone by now was merged into others, which were put before it was deleted: then these are
    /// read, as nobody may do without what it said.
    async fn read_digests(
        &self,
        mut ids: Vec<SnapshotId>,
        damage: Damage,
        job: &JobContext,
    ) -> Result<Vec<Arc<Digested>>> {
        self.digest_cache().retain(&ids);
        let mut known: BTreeMap<SnapshotId, Arc<Digested>> = BTreeMap::new();
        for _ in 0..LISTINGS_MAX {
            let reads = std::mem::take(&mut ids).into_iter().map(|id| async move {
                if let Some(known) = self.digest_cache().get(id) {
                    return Ok((id, DigestRead::Said(known)));
                }
                let read = get(self.store(), ControlKey::Digest(id), job).await;
                let is_gone = matches!(read, Ok(None));
                let read: Option<DigestDocument> = damage.passed_over(read)?;
                let Some(DigestDocument { finished, mut expired, mut swept }) = read else {
                    return Ok((id, if is_gone { DigestRead::Gone } else { DigestRead::Damaged }));
                };
                expired.0.sort_unstable();
                swept.0.sort_unstable();
                let digest = Arc::new(Digested { finished, expired, swept: Arc::new(swept) });
                self.digest_cache().insert(id, digest.clone());
                Ok::<_, Error>((id, DigestRead::Said(digest)))
            });
            let reads = stream::iter(reads).buffer_unordered(job.resources().requests());
            let reads: Vec<(SnapshotId, DigestRead)> = reads.try_collect().await?;
            let mut gone = false;
            for (id, read) in reads {
                match read {
                    DigestRead::Said(digest) => {
                        known.insert(id, digest);
                    }
                    DigestRead::Gone => gone = true,
                    DigestRead::Damaged => {}
                }
            }
            if !gone {
                return Ok(known.into_values().collect());
            }
            let listed = ControlListing::of(&self.store().sink.list_all(keys::DIGESTS).await?).digests;
            ids = listed.into_iter().filter(|id| !known.contains_key(id)).collect();
        }
        let message = "what is final is merged again and again while it is read; try again later";
        Err(Error::new(ErrorKind::Transient, message))
    }

    /// Reads these collections, and says which is the last of which something is gone that was listed.
    async fn read_collections(
        &self,
        listing: &ControlListing,
        job: &JobContext,
    ) -> Result<(BTreeMap<u64, Collection>, Option<(u64, ControlKey)>)> {
        let reads = listing.collections.iter().map(|(number, listed)| {
            let (number, condemned, decision) = (*number, listed.condemned, listed.decision);
            async move {
                let (mut collection, mut gone) = (Collection::default(), None);
                if condemned {
                    let key = ControlKey::CollectionCondemned(number);
                    collection.condemned = get(self.store(), key, job).await?;
                    gone = collection.condemned.is_none().then_some((number, key));
                }
                if decision {
                    let key = ControlKey::CollectionDecision(number);
                    collection.decision = get(self.store(), key, job).await?;
                    gone = gone.or(collection.decision.is_none().then_some((number, key)));
                }
                let said = [
                    collection.condemned.as_ref().map(|document| document.collection),
                    collection.decision.as_ref().map(|document| document.collection),
                ];
                if said.into_iter().flatten().any(|said| said != number) {
                    let key = ControlKey::CollectionOpen(number).key()?;
                    let message = "there is another collection here than its name says";
                    return Err(Error::corruption(message).with_object(&key));
                }
                Ok((number, collection, gone))
            }
        });
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffer_unordered(job.resources().requests());
        let (mut collections, mut last) = (BTreeMap::new(), None);
        while let Some((number, collection, gone)) = reads.try_next().await? {
            collections.insert(number, collection);
            last = last.max(gone);
        }
        Ok((collections, last))
    }

    async fn read_fates(
        &self,
        listing: &ControlListing,
        damage: Damage,
        job: &JobContext,
    ) -> Result<BTreeMap<SnapshotId, Forgotten>> {
        let reads: Vec<_> = listing
            .tombstones
            .iter()
            .map(|(id, tombstones)| {
                let fates: Vec<u32> = tombstones.iter().filter(|(_, t)| t.fate).map(|(n, _)| *n).collect();
                let last = tombstones.iter().filter(|(_, t)| t.open).map(|(n, _)| *n).max();
                let id = *id;
                async move {
                    let mut kept = None;
                    for number in fates {
                        let key = ControlKey::Fate(id, number);
                        let fate = get::<FateDocument>(self.store(), key, job).await;
                        let Some(fate) = damage.passed_over(fate)? else { continue };
                        if (fate.snapshot, fate.number) != (id, number) {
                            let message = "holds another snapshot's fate than its name says";
                            return Err(Error::corruption(message).with_object(&key.key()?));
                        }
                        match fate.fate {
                            Fate::Expired => return Ok(Some((id, Forgotten::Expired))),
                            Fate::Kept => kept = kept.max(Some(number)),
                        }
                    }
                    Ok(match (last, kept) {
                        (Some(last), kept) if kept.is_none_or(|kept| kept < last) => {
                            Some((id, Forgotten::Waiting(last)))
                        }
                        (_, Some(kept)) => Some((id, Forgotten::Kept(kept))),
                        _ => None,
                    })
                }
            })
            .collect();
        let reads = stream::iter(reads).buffer_unordered(job.resources().requests());
        reads.try_filter_map(|read| async move { Ok(read) }).try_collect().await
    }
}

/// Collections with lower numbers are finished, as these digests say.
fn finished_in(digests: &[Arc<Digested>]) -> u64 {
    digests.iter().map(|digest| digest.finished).max().unwrap_or(0)
}

/// What these digests call swept.
fn swept_in(digests: &[Arc<Digested>]) -> Vec<Arc<Packed<16>>> {
    digests.iter().map(|digest| digest.swept.clone()).collect()
}

impl DigestCache {
    fn get(&self, id: SnapshotId) -> Option<Arc<Digested>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&id).cloned()
    }

    /// Lets go of those that are no longer listed.
    fn retain(&self, listed: &[SnapshotId]) {
        let mut held = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        held.retain(|id, _| listed.contains(id));
    }

    fn insert(&self, id: SnapshotId, digest: Arc<Digested>) {
        let mut held = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let names = |digest: &Digested| digest.expired.0.len().saturating_add(digest.swept.0.len());
        let all = held.values().map(|held| names(held)).fold(names(&digest), usize::saturating_add);
        if all <= CACHED_NAMES_MAX {
            held.insert(id, digest);
        }
    }
}

/// Reads a document under `control/`; none if it is not there any more.
pub(crate) async fn get<T: DeserializeOwned>(
    store: &Store,
    key: ControlKey,
    job: &JobContext,
) -> Result<Option<T>> {
    match store.get_document(&key.key()?, ObjectType::Collection, limits::SNAPSHOT_BYTES_MAX, job).await {
        Ok(document) => Ok(Some(document)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
