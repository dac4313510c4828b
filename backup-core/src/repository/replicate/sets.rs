//! Sets of snapshots, in a place that has what they name.

use std::collections::{BTreeMap, HashSet};

use crate::format::document::{self, SnapshotSet};
use crate::repository::control::Control;
use crate::repository::store::PutCounters;
use crate::repository::{Repository, keys};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectKey, Result, SinkExt, SnapshotId, limits};

/// What a place has, and had, of what sets name.
struct Known {
    ids: HashSet<SnapshotId>,
    control: Control,
}

impl Repository {
    /// Brings to this place the sets that others have, of which it has all snapshots or had them: elsewhere a set would name what never
    /// comes. One that cannot be read in one of the others, or is damaged there, may come from the next.
    ///
    /// # Errors
    /// Those of this place, and those of the others only if for that something was not brought.
    pub(in crate::repository) async fn take_sets(
        &self,
        others: &[Repository],
        job: &JobContext,
    ) -> Result<()> {
        let mut there: HashSet<ObjectKey> = self.set_keys().await?.into_iter().collect();
        let mut failed: BTreeMap<ObjectKey, Error> = BTreeMap::new();
        let (mut known, mut unlisted, mut answered) = (None, None, false);
        for other in others {
            let listed = match other.set_keys().await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::warn!(%error, "the sets of another place cannot be listed");
                    unlisted = Some(error);
                    continue;
                }
            };
            answered = true;
            for key in listed {
                job.check()?;
                if there.contains(&key) {
                    continue;
                }
                let known = match &mut known {
                    Some(known) => known,
                    known => known.insert(self.known_of_sets(job).await?),
                };
                match self.take_set(other, &key, known, job).await {
                    Ok(is_there) => {
                        failed.remove(&key);
                        if is_there {
                            there.insert(key);
                        }
                    }
                    Err(error) => {
                        failed.insert(key, error);
                    }
                }
            }
        }
        match failed.into_values().next().or(unlisted.filter(|_| !answered)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn set_keys(&self) -> Result<Vec<ObjectKey>> {
        Ok(self.sink().list_all(keys::SETS).await?.into_iter().map(|meta| meta.key).collect())
    }

    async fn known_of_sets(&self, job: &JobContext) -> Result<Known> {
        let ids = self.list_snapshot_ids(job).await?.into_keys().collect();
        let control = self.read_forgotten(&self.sink().list_all(keys::CONTROL).await?, job).await?;
        Ok(Known { ids, control })
    }

    /// Brings one set, if its snapshots are or were here. Returns whether it is here now.
    async fn take_set(
        &self,
        from: &Repository,
        key: &ObjectKey,
        known: &Known,
        job: &JobContext,
    ) -> Result<bool> {
        let bytes = match from.store().get_whole(key, limits::SNAPSHOT_BYTES_MAX, job).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            read => read,
        };
        let read = bytes.and_then(|bytes| Ok((from.open_set(key, &bytes)?, bytes)));
        let (set, bytes) = match read {
            Err(error) if error.is_unreadable() => {
                tracing::warn!(%key, %error, "a set cannot be read, and is not brought to another place");
                return Ok(false);
            }
            read => read?,
        };
        let is_or_was = |id: &SnapshotId| known.ids.contains(id) || known.control.has_expired(*id);
        if !set.components.iter().filter_map(|component| component.snapshot.as_ref()).all(is_or_was) {
            return Ok(false);
        }
        self.store().put(key, bytes, &PutCounters::default(), job).await?;
        Ok(true)
    }

    /// Opens a set, which must be what its name says.
    pub(in crate::repository) fn open_set(&self, key: &ObjectKey, bytes: &[u8]) -> Result<SnapshotSet> {
        let set: SnapshotSet = document::open(&*self.store().protection, ObjectType::Set, bytes)?;
        if keys::id_of(key)? == set.id { Ok(set) } else { Err(Error::corruption("holds another set")) }
    }
}
