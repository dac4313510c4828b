//! When the store first had each snapshot: written down, as what is copied object by object has the times of the copy.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::index::LISTINGS_MAX;
use super::keys::ControlKey;
use super::store::PutCounters;
use super::{Repository, guard, keys};
use crate::format::control::{ObservedDocument, Packed};
use crate::report::Outcome;
use crate::retention::{SnapshotFacts, deviates};
use crate::transform::ObjectType;
use crate::{
    Error, ErrorKind, JobContext, ObjectKey, Result, SinkExt, SnapshotId, SnapshotInfo, Timestamp, limits,
};

type Times = BTreeMap<SnapshotId, i64>;

impl Repository {
    /// What retention goes by, for each of these snapshots in their order.
    ///
    /// Times are those at which a store first had them: the earliest that was ever written down
    /// ([`record_times`](Self::record_times)), and of a copy that of its original. What a repaired snapshot says of its original is
    /// believed only if that was known here; one that is complete, and whose original was not shut out here, is quarantined.
    ///
    /// # Errors
    /// Those of the store. What was written down and cannot be read is one: with times of a copy retention would forget
    /// what it must keep.
    pub async fn facts(&self, snapshots: &[SnapshotInfo], job: &JobContext) -> Result<Vec<SnapshotFacts>> {
        guard::run(job, async move {
            let mut times = Times::new();
            for (_, read) in self.all_observed(job).await? {
                merge(&mut times, read);
            }
            merge(&mut times, stored_times(snapshots));
            let outcomes: BTreeMap<SnapshotId, Outcome> =
                snapshots.iter().map(|info| (info.id, info.outcome)).collect();
            let fences = self.held_fences().clone();
            let first = |id: SnapshotId| times.get(&id).map(|seconds| Timestamp::new(*seconds, 0));
            let facts = snapshots.iter().map(|info| {
                let mut facts = match first(info.id) {
                    // The second is the store's, too, where nothing earlier is known.
                    Some(first) if info.stored.is_none_or(|stored| first.seconds() < stored.seconds()) => {
                        SnapshotFacts::from(&SnapshotInfo { stored: Some(first), ..info.clone() })
                    }
                    _ => SnapshotFacts::from(info),
                };
                if let Some(origin) = info.origin.filter(|origin| origin.repository == self.id()) {
                    facts.origin = None;
                    match first(origin.snapshot) {
                        Some(known) => {
                            facts.time = known;
                            facts.quarantined = deviates(info.time, known);
                        }
                        None => facts.quarantined = true,
                    }
                    // Whose word it is that it stands for that nobody can tell, and a writer could have any number of snapshots of
                    // moments that others are of. What is complete stands for another one only where that was shut out. What is
                    // stored again without what is lost is partial, and displaces nothing complete; it does not count beside an
                    // original that is partial, too.
                    let original = outcomes.get(&origin.snapshot);
                    let is_shut_out = fences.contains(&origin.snapshot);
                    facts.quarantined |=
                        (facts.complete && !is_shut_out) || original == Some(&Outcome::Partial);
                }
                facts
            });
            Ok(facts.collect())
        })
        .await
    }

    /// The time that retention counts back from: this machine's, or when the store had its newest snapshot if that is earlier. With a
    /// clock that is ahead everything would be old; counting from too early merely keeps more. Nothing is put for it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn now(&self, job: &JobContext) -> Result<Timestamp> {
        guard::run(job, async move {
            let listed = self.list_snapshot_ids(job).await?;
            let newest = listed.into_values().filter_map(|meta| meta.created).max();
            let here = job.now();
            Ok(newest.map_or(here, |newest| newest.min(here)))
        })
        .await
    }

    /// Writes down when the store first had each snapshot, as far as that is not done. A [collection](Self::collect) does
    /// so, too. After this the objects can be copied to another place without their times.
    pub async fn record_times(&self, job: &JobContext) -> Result<()> {
        guard::run(job, async move {
            let read = self.all_observed(job).await?;
            // Listed later: what was written down of a snapshot that came meanwhile is not left out of what is merged.
            let ids = self.list_snapshot_ids(job).await?;
            let created =
                |(id, meta): (&SnapshotId, &crate::ObjectMeta)| Some((*id, meta.created?.seconds()));
            let mut new: Times = ids.iter().filter_map(created).collect();
            if read.len() > limits::OBSERVED_OBJECTS_MAX {
                // One in place of all, without what is gone. What another one merges meanwhile says the same.
                let mut merged = new;
                for (_, times) in &read {
                    merge(&mut merged, times.iter().map(|(id, seconds)| (*id, *seconds)));
                }
                merged.retain(|id, _| ids.contains_key(id));
                self.put_observed(merged, job).await?;
                for (key, _) in read {
                    self.store().sink.delete(&key).await.map_err(|e| e.with_object(&key))?;
                }
                return Ok(());
            }
            // Its own time is no news unless it is an earlier one.
            let fences = self.held_fences().clone();
            new.retain(|id, seconds| {
                let known = read.iter().filter_map(|(_, times)| times.get(id)).min();
                !fences.contains(id) && known.is_none_or(|known| *seconds < *known)
            });
            self.put_observed(new, job).await
        })
        .await
    }

    /// Tells another place of this repository when a store first had the snapshots that both have, where it does not know.
    pub(super) async fn carry_times(&self, place: &Repository, job: &JobContext) -> Result<()> {
        let (own, there) = tokio::try_join!(self.first_times(job), place.first_times(job))?;
        let earlier =
            own.into_iter().filter(|(id, seconds)| there.get(id).is_some_and(|there| seconds < there));
        place.put_observed(earlier.collect(), job).await
    }

    /// When a store first had each snapshot that stands here, as far as is known.
    async fn first_times(&self, job: &JobContext) -> Result<Times> {
        let ids = self.list_snapshot_ids(job).await?;
        let created = |(id, meta): (&SnapshotId, &crate::ObjectMeta)| Some((*id, meta.created?.seconds()));
        let mut times: Times = ids.iter().filter_map(created).collect();
        for (_, read) in self.all_observed(job).await? {
            merge(&mut times, read.into_iter().filter(|(id, _)| ids.contains_key(id)));
        }
        Ok(times)
    }

    async fn put_observed(&self, times: Times, job: &JobContext) -> Result<()> {
        let all: Vec<[u8; 24]> = times.into_iter().map(|(id, seconds)| packed(id, seconds)).collect();
        for times in all.chunks(limits::OBSERVED_SNAPSHOTS) {
            let key = ControlKey::Observed(SnapshotId::random(&**job.random())?).key()?;
            let document = ObservedDocument { times: Packed(times.to_vec()) };
            let put = PutCounters::default();
            self.store().put_document(&key, ObjectType::Collection, &document, &put, job).await?;
        }
        Ok(())
    }

    /// All that was written down, by object. One that is gone by now was merged into others, which were put before it was
    /// deleted: then these are read.
    async fn all_observed(&self, job: &JobContext) -> Result<Vec<(ObjectKey, Times)>> {
        let mut known: BTreeMap<ObjectKey, Times> = BTreeMap::new();
        for _ in 0..LISTINGS_MAX {
            let listed = self.store().sink.list_all(keys::OBSERVED).await?;
            let objects: Vec<ObjectKey> =
                listed.into_iter().map(|meta| meta.key).filter(|key| is_wanted(key, &known)).collect();
            let count = objects.len();
            let read = self.read_observed(objects, job).await?;
            let all_there = read.len() == count;
            known.extend(read);
            if all_there {
                return Ok(known.into_iter().collect());
            }
        }
        let message =
            "the times of snapshots are merged again and again while they are read; try again later";
        Err(Error::new(ErrorKind::Transient, message))
    }

    /// What these objects say, but for those that are gone.
    async fn read_observed(
        &self,
        objects: Vec<ObjectKey>,
        job: &JobContext,
    ) -> Result<Vec<(ObjectKey, Times)>> {
        let reads = objects.into_iter().map(|key| async move {
            let max = limits::SNAPSHOT_BYTES_MAX;
            let read = self.store().get_document(&key, ObjectType::Collection, max, job).await;
            match read {
                Ok(ObservedDocument { times }) => Ok(Some((key, times.0.iter().map(unpacked).collect()))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        let read = stream::iter(reads).buffer_unordered(job.resources().requests());
        read.try_filter_map(|read| async move { Ok(read) }).try_collect().await
    }
}

/// Whether an object is still to be read; what is not named by an identity does not belong there.
fn is_wanted(key: &ObjectKey, known: &BTreeMap<ObjectKey, Times>) -> bool {
    keys::id_of(key).is_ok() && !known.contains_key(key)
}

/// Adds times; of two the earlier one stays.
fn merge(times: &mut Times, more: impl IntoIterator<Item = (SnapshotId, i64)>) {
    for (id, seconds) in more {
        let known = times.entry(id).or_insert(seconds);
        *known = seconds.min(*known);
    }
}

fn stored_times(snapshots: &[SnapshotInfo]) -> impl Iterator<Item = (SnapshotId, i64)> {
    snapshots.iter().filter_map(|info| Some((info.id, info.stored?.seconds())))
}

fn packed(id: SnapshotId, seconds: i64) -> [u8; 24] {
    let mut bytes = [0; 24];
    let both = id.as_bytes().iter().copied().chain(seconds.to_be_bytes());
    bytes.iter_mut().zip(both).for_each(|(to, from)| *to = from);
    bytes
}

fn unpacked(bytes: &[u8; 24]) -> (SnapshotId, i64) {
    let (mut id, mut seconds) = ([0; 16], [0; 8]);
    id.iter_mut().chain(&mut seconds).zip(bytes).for_each(|(to, from)| *to = *from);
    (SnapshotId::from_bytes(id), i64::from_be_bytes(seconds))
}
