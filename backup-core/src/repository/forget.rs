//! Forgetting snapshots, and taking that back: tombstones, fates, holds.

use std::collections::BTreeSet;

use super::control::{Control, Forgotten, get};
use super::keys::ControlKey;
use super::store::PutCounters;
use super::{Repository, guard, keys};
use crate::format::control::{Fate, FateDocument, HoldDocument, TombstoneDocument};
use crate::report::{ForgottenSnapshot, HeldSnapshot};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, Result, SnapshotId, Timestamp, limits};

/// How snapshots are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForgetOptions {
    /// For so many seconds after the store has the tombstone, by its clock, the snapshot can be undeleted for certain. Later it
    /// can be until a collection lets it expire.
    pub undelete_seconds: u64,
    /// Why, for those who wonder.
    pub reason: String,
}

impl Repository {
    /// Forgets snapshots: they are listed no more, and what only they need is freed by a later
    /// [`collect`](Self::collect). Until then [`undelete`](Self::undelete) takes it back.
    ///
    /// Returns those that were not forgotten before. Fails with [`ErrorKind::NotFound`] for one that is not there, and with
    /// [`ErrorKind::Denied`] for one that is held, before anything is forgotten. Where the store is full, a few are forgotten in
    /// the room of the reserve, and then it fails with [`ErrorKind::NoSpace`].
    pub async fn forget(
        &self,
        snapshots: &[SnapshotId],
        options: &ForgetOptions,
        job: &JobContext,
    ) -> Result<Vec<SnapshotId>> {
        guard::run(job, async move {
            let control = self.listed_control(job).await?;
            let there = self.list_snapshot_ids(job).await?;
            let held = self.held(&control, Some(self.now(job).await?), job).await?;
            for id in snapshots {
                let key = keys::snapshot(*id)?;
                if !there.contains_key(id) || control.has_expired(*id) {
                    let message = "there is no such snapshot";
                    return Err(Error::new(ErrorKind::NotFound, message).with_object(&key));
                }
                if held.contains(id) {
                    let message = "is held, and cannot be forgotten; its holds say why and until when";
                    return Err(Error::new(ErrorKind::Denied, message).with_object(&key));
                }
            }
            let mut forgotten = Vec::new();
            // How many more there is room for, where there is none but the reserve's.
            let mut room: Option<usize> = None;
            for id in snapshots {
                let number = match control.forgotten.get(id) {
                    None => 0,
                    Some(Forgotten::Kept(last)) => last.saturating_add(1),
                    Some(Forgotten::Waiting(_) | Forgotten::Expired) => continue,
                };
                let document = TombstoneDocument {
                    snapshot: *id,
                    number,
                    time: job.now(),
                    undelete_seconds: options.undelete_seconds,
                    reason: options.reason.clone(),
                };
                let key = ControlKey::Tombstone(*id, number).key()?;
                let put = PutCounters::default();
                let tombstone =
                    || self.store().put_document(&key, ObjectType::Collection, &document, &put, job);
                let mut done = match room {
                    Some(0) => Err(full(forgotten.len())),
                    _ => tombstone().await,
                };
                let is_full = |error: &Error| error.kind() == ErrorKind::NoSpace;
                if room.is_none() && done.as_ref().is_err_and(is_full) && self.give_up_reserve().await? {
                    room = Some(limits::EXPIRED_IN_RESERVE);
                    done = tombstone().await;
                }
                match done {
                    Ok(()) => {
                        room = room.map(|room| room.saturating_sub(1));
                        forgotten.push(*id);
                    }
                    // Somebody else forgot it.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(forgotten)
        })
        .await
    }

    /// The snapshots that are forgotten and can be undeleted.
    pub async fn forgotten(&self, job: &JobContext) -> Result<Vec<ForgottenSnapshot>> {
        guard::run(job, async move {
            let control = self.listed_control(job).await?;
            let mut forgotten = Vec::new();
            for (id, number, stored) in waiting(&control) {
                if let Some(tombstone) = self.tombstone(id, number, job).await? {
                    forgotten.push(ForgottenSnapshot {
                        snapshot: id,
                        forgotten: tombstone.time,
                        stored,
                        undelete_seconds: tombstone.undelete_seconds,
                        reason: tombstone.reason,
                    });
                }
            }
            Ok(forgotten)
        })
        .await
    }

    /// Takes back that a snapshot was forgotten. When this returns it is kept until somebody forgets it again.
    ///
    /// Fails with [`ErrorKind::NotFound`] if it was not forgotten, or if it is too late.
    pub async fn undelete(&self, id: SnapshotId, job: &JobContext) -> Result<()> {
        guard::run(job, async move {
            let snapshot = keys::snapshot(id)?;
            let gone = |message| Err(Error::new(ErrorKind::NotFound, message).with_object(&snapshot));
            let number = match self.listed_control(job).await? {
                control if control.has_expired(id) => return gone("has expired: it is too late"),
                control => match control.forgotten.get(&id) {
                    Some(Forgotten::Waiting(number)) => *number,
                    _ => return gone("was not forgotten"),
                },
            };
            if self.put_fate(id, number, Fate::Kept, job).await? == Fate::Expired {
                return gone("has expired in this moment: it is too late");
            }
            // A digest may say that another fate was there before, and was folded.
            if self.listed_control(job).await?.is_digested(id) {
                return gone("has expired: it is too late");
            }
            Ok(())
        })
        .await
    }

    /// Holds a snapshot: until `until`, by the store's clock, or until the hold is [released](Self::release), it can neither be
    /// forgotten nor lose anything.
    ///
    /// Fails with [`ErrorKind::NotFound`] if it is not there, or has expired.
    pub async fn hold(
        &self,
        id: SnapshotId,
        until: Option<Timestamp>,
        reason: &str,
        job: &JobContext,
    ) -> Result<HeldSnapshot> {
        guard::run(job, async move {
            let snapshot = keys::snapshot(id)?;
            self.snapshot_document(id, job).await?;
            let hold = SnapshotId::random(&**job.random())?;
            let document =
                HoldDocument { snapshot: id, hold, until, reason: reason.to_owned(), time: job.now() };
            let key = ControlKey::Hold(id, hold).key()?;
            let put = PutCounters::default();
            self.store().put_document(&key, ObjectType::Collection, &document, &put, job).await?;
            // Fates are final: had it expired before, the hold came too late.
            if self.listed_control(job).await?.has_expired(id)
                || self.listed_control(job).await?.is_digested(id)
            {
                self.store().sink.delete(&key).await.map_err(|e| e.with_object(&key))?;
                let message = "has expired: it is too late to hold it";
                return Err(Error::new(ErrorKind::NotFound, message).with_object(&snapshot));
            }
            Ok(HeldSnapshot { snapshot: id, hold, until, reason: document.reason })
        })
        .await
    }

    /// Ends a hold before its time.
    pub async fn release(&self, id: SnapshotId, hold: SnapshotId, job: &JobContext) -> Result<()> {
        guard::run(job, async move {
            let key = ControlKey::Hold(id, hold).key()?;
            self.store().sink.delete(&key).await.map_err(|e| e.with_object(&key))
        })
        .await
    }

    /// All holds, also those whose time is over.
    pub async fn holds(&self, job: &JobContext) -> Result<Vec<HeldSnapshot>> {
        guard::run(job, async move {
            let control = self.listed_control(job).await?;
            let mut found = Vec::new();
            for (id, holds) in &control.listing.holds {
                for hold in holds {
                    let key = ControlKey::Hold(*id, *hold);
                    if let Some(document) = get::<HoldDocument>(self.store(), key, job).await? {
                        let HoldDocument { snapshot, hold, until, reason, .. } = document;
                        found.push(HeldSnapshot { snapshot, hold, until, reason });
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    /// Snapshots that are held [now](Self::now): rules leave them alone, as whoever forgets one of them forgets nothing.
    ///
    /// # Errors
    /// Those of the store, and a hold that cannot be read.
    pub async fn held_now(&self, job: &JobContext) -> Result<BTreeSet<SnapshotId>> {
        guard::run(job, async move {
            let control = self.listed_control(job).await?;
            Ok(self.held(&control, Some(self.now(job).await?), job).await?.into_iter().collect())
        })
        .await
    }

    /// Forgotten snapshots that may expire by now, with the numbers of their tombstones.
    pub(crate) async fn due(
        &self,
        control: &Control,
        now: Option<Timestamp>,
        job: &JobContext,
    ) -> Result<Vec<(SnapshotId, u32)>> {
        let held = self.held(control, now, job).await?;
        let mut due = Vec::new();
        for (id, number, stored) in waiting(control) {
            if held.contains(&id) {
                continue;
            }
            let Some(tombstone) = self.tombstone(id, number, job).await? else { continue };
            let seconds = i64::try_from(tombstone.undelete_seconds).unwrap_or(i64::MAX);
            let over = match stored.map(|stored| stored.saturating_add_seconds(seconds)).zip(now) {
                Some((until, now)) => until <= now,
                // Without the store's time nobody can tell.
                None => seconds == 0,
            };
            if over {
                due.push((id, number));
            }
        }
        Ok(due)
    }

    /// Lets those expire that are due, and so many at most.
    pub(crate) async fn expire_due(
        &self,
        now: Option<Timestamp>,
        most: usize,
        job: &JobContext,
    ) -> Result<Vec<SnapshotId>> {
        let control = self.listed_control(job).await?;
        let mut expired = Vec::new();
        for (id, number) in self.due(&control, now, job).await?.into_iter().take(most) {
            if self.put_fate(id, number, Fate::Expired, job).await? == Fate::Expired {
                expired.push(id);
            }
        }
        Ok(expired)
    }

    /// Creates a fate, and returns the one that stands there.
    async fn put_fate(
        &self,
        snapshot: SnapshotId,
        number: u32,
        fate: Fate,
        job: &JobContext,
    ) -> Result<Fate> {
        let name = ControlKey::Fate(snapshot, number);
        let document = FateDocument { snapshot, number, fate, time: job.now() };
        let put = PutCounters::default();
        let key = name.key()?;
        match self.store().put_document(&key, ObjectType::Collection, &document, &put, job).await {
            Ok(()) => Ok(fate),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there: Option<FateDocument> = get(self.store(), name, job).await?;
                // It was there and is gone: only what has expired is folded into digests, and deleted.
                Ok(there.map_or(Fate::Expired, |there| there.fate))
            }
            Err(error) => Err(error),
        }
    }

    async fn tombstone(
        &self,
        id: SnapshotId,
        number: u32,
        job: &JobContext,
    ) -> Result<Option<TombstoneDocument>> {
        get(self.store(), ControlKey::Tombstone(id, number), job).await
    }
}

/// The error where there must stay room for a collection.
fn full(forgotten: usize) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        format!(
            "the store is full: {forgotten} of these snapshots are forgotten now; prune, then forget the others"
        ),
    )
}

/// Forgotten snapshots without a fate: the last tombstone of each, and when the store had it.
fn waiting(control: &Control) -> impl Iterator<Item = (SnapshotId, u32, Option<Timestamp>)> {
    control.forgotten.iter().filter_map(|(id, forgotten)| {
        let Forgotten::Waiting(number) = *forgotten else { return None };
        let listed = control.listing.tombstones.get(id)?.get(&number)?;
        Some((*id, number, listed.created))
    })
}
