//! The outcomes of sessions: snapshots and fences, and which sessions have committed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;

use super::control::Control;
use super::{Repository, SNAPSHOTS_CACHED_MAX, Snapshot, guard, keys};
use crate::format::document::{self, SessionOutcome, SnapshotDocument};
use crate::limits;
use crate::{Error, ErrorKind, JobContext, ObjectKey, ObjectMeta, Result, SinkExt, SnapshotId, SnapshotInfo};

impl Repository {
    /// All snapshots but those that are forgotten, the oldest first. One that cannot be read is an error that names its object.
    pub async fn snapshots(&self, job: &JobContext) -> Result<Vec<SnapshotInfo>> {
        guard::run(job, async move {
            let (snapshots, failures) = self.load_snapshots(job).await?;
            match failures.into_iter().next() {
                None => Ok(snapshots),
                Some((_, error)) => Err(error),
            }
        })
        .await
    }

    /// The snapshots that can be read and are not forgotten, the oldest first, and the objects that cannot be read, with
    /// the reason.
    pub async fn snapshots_and_damage(
        &self,
        job: &JobContext,
    ) -> Result<(Vec<SnapshotInfo>, Vec<(ObjectKey, Error)>)> {
        guard::run(job, async move { self.load_snapshots(job).await }).await
    }

    /// Opens a snapshot for reading; also one that is forgotten, as long as it has not expired.
    pub async fn snapshot(&self, id: SnapshotId, job: &JobContext) -> Result<Snapshot> {
        guard::run(job, async move {
            let document = self.snapshot_document(id, job).await;
            // What was shut out here has another name.
            let is_fence = self.held_fences().contains(&id);
            let document = match document {
                Err(error) if !is_fence => self.document_from_others(id, error, job).await?,
                document => document?,
            };
            Ok(Snapshot::new(self.clone(), document))
        })
        .await
    }

    /// The sessions that have committed, as far as is known: by a snapshot, be it one that has expired, or by a decision
    /// where they make none. Those known to be fenced are not among them.
    pub(crate) async fn committed_sessions(&self, job: &JobContext) -> Result<HashSet<SnapshotId>> {
        job.check()?;
        let sink = &self.store().sink;
        let (snapshots, control) =
            tokio::try_join!(sink.list_all(keys::SNAPSHOTS), sink.list_all(keys::CONTROL))?;
        let control = self.read_decisions(&control, job).await?;
        Ok(self.committed_among(&snapshots, &control))
    }

    /// The same of what was listed under `snapshots/`, and read of what stands under `control/`.
    pub(super) fn committed_among(&self, snapshots: &[ObjectMeta], control: &Control) -> HashSet<SnapshotId> {
        let fenced = self.held_fences();
        let by_snapshot = snapshots.iter().filter_map(|meta| keys::id_of(&meta.key).ok());
        let by_snapshot = by_snapshot.filter(|id| !fenced.contains(id));
        let by_decision = control.decided.iter().filter(|(_, committed)| **committed).map(|(id, _)| *id);
        by_snapshot.chain(by_decision).chain(control.digested()).collect()
    }

    pub(crate) async fn list_snapshot_ids(
        &self,
        job: &JobContext,
    ) -> Result<BTreeMap<SnapshotId, ObjectMeta>> {
        job.check()?;
        let listed = self.store().sink.list_all(keys::SNAPSHOTS).await?;
        Ok(listed.into_iter().filter_map(|meta| Some((keys::id_of(&meta.key).ok()?, meta))).collect())
    }

    pub(crate) async fn readable_snapshots(&self, job: &JobContext) -> Result<Vec<SnapshotInfo>> {
        let (snapshots, failures) = self.load_snapshots(job).await?;
        for (key, error) in failures {
            tracing::warn!(%key, %error, "a snapshot cannot be read");
        }
        Ok(snapshots)
    }

    /// The snapshots that can be read and are not forgotten, and the objects that cannot.
    pub(super) async fn load_snapshots(
        &self,
        job: &JobContext,
    ) -> Result<(Vec<SnapshotInfo>, Vec<(ObjectKey, Error)>)> {
        let sink = &self.store().sink;
        let (listed, control) =
            tokio::try_join!(sink.list_all(keys::SNAPSHOTS), sink.list_all(keys::CONTROL))?;
        let ((mut snapshots, failures), control) =
            tokio::try_join!(self.load_listed(listed, job), self.read_forgotten(&control, job))?;
        snapshots.retain(|info| control.is_shown(info.id));
        Ok((snapshots, failures))
    }

    /// Those of them that can be read, and the objects that cannot.
    pub(super) async fn load_listed(
        &self,
        listed: Vec<ObjectMeta>,
        job: &JobContext,
    ) -> Result<(Vec<SnapshotInfo>, Vec<(ObjectKey, Error)>)> {
        let requests = job.resources().requests();
        let mut reads = stream::iter(listed.into_iter().map(|meta| async move {
            let document = match keys::id_of(&meta.key) {
                Ok(id) => match self.snapshot_document(id, job).await {
                    Err(error) if error.is_corruption() => self.document_from_others(id, error, job).await,
                    document => document,
                },
                Err(error) => Err(error),
            };
            (meta, document)
        }))
        .buffer_unordered(requests);
        let mut snapshots = Vec::new();
        let mut failures = Vec::new();
        while let Some((meta, document)) = reads.next().await {
            match document {
                Ok(document) => {
                    let mut info = document.info.clone();
                    info.stored = meta.created;
                    snapshots.push(info);
                }
                Err(error)
                    if error.is_corruption()
                        || matches!(
                            error.kind(),
                            // The last two also come of a damaged header, or of bytes that were added.
                            ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::LimitExceeded
                        ) =>
                {
                    failures.push((meta.key, error))
                }
                // Fenced, or deleted since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by_key(|info| (info.time, info.id));
        failures.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok((snapshots, failures))
    }

    pub(crate) async fn snapshot_document(
        &self,
        id: SnapshotId,
        job: &JobContext,
    ) -> Result<Arc<SnapshotDocument>> {
        let cached =
            self.inner.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&id).cloned();
        if let Some(document) = cached {
            return Ok(document);
        }
        let key = keys::snapshot(id)?;
        if self.held_fences().contains(&id) {
            return Err(fenced(&key));
        }
        let document = match self.read_outcome(&key, id, job).await? {
            SessionOutcome::Snapshot(document) => Arc::new(*document),
            SessionOutcome::Fence(_) => {
                self.held_fences().insert(id);
                return Err(fenced(&key));
            }
        };
        let mut held = self.inner.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if held.len() < SNAPSHOTS_CACHED_MAX {
            held.insert(id, document.clone());
        }
        Ok(document)
    }

    /// The object of a snapshot as it is stored, of this place or of another one that is known; it was found to be whole.
    pub(crate) async fn snapshot_bytes(&self, id: SnapshotId, job: &JobContext) -> Result<Bytes> {
        let mut failure = None;
        for place in std::iter::once(self).chain(self.others.iter()) {
            let key = keys::snapshot(id)?;
            let read = place.store().get_whole(&key, limits::SNAPSHOT_BYTES_MAX, job).await;
            let opened = read.and_then(|bytes| Ok((place.open_outcome(&key, id, &bytes)?, bytes)));
            match opened {
                Ok((SessionOutcome::Snapshot(_), bytes)) => return Ok(bytes),
                Ok((SessionOutcome::Fence(_), _)) => {
                    failure.get_or_insert_with(|| fenced(&key));
                }
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal("no place was asked")))
    }

    /// Lets go of the document of a snapshot that is gone.
    pub(crate) fn forget_document(&self, id: SnapshotId) {
        self.inner.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&id);
    }

    /// The outcome of a session, from the store and not from memory.
    pub(crate) async fn read_outcome(
        &self,
        key: &ObjectKey,
        id: SnapshotId,
        job: &JobContext,
    ) -> Result<SessionOutcome> {
        let bytes = self.store().get_whole(key, limits::SNAPSHOT_BYTES_MAX, job).await?;
        self.open_outcome(key, id, &bytes)
    }

    pub(super) fn open_outcome(
        &self,
        key: &ObjectKey,
        id: SnapshotId,
        bytes: &[u8],
    ) -> Result<SessionOutcome> {
        let protection = &*self.store().protection;
        let outcome = document::open_outcome(protection, bytes).map_err(|e| e.with_object(key))?;
        let (said, repository) = match &outcome {
            SessionOutcome::Snapshot(document) => (document.info.id, document.repository),
            SessionOutcome::Fence(fence) => (fence.session, fence.repository),
        };
        if said != id || repository != self.id() {
            return Err(
                Error::corruption("holds another session's outcome than its name says").with_object(key)
            );
        }
        Ok(outcome)
    }

    pub(super) fn held_fences(&self) -> MutexGuard<'_, HashSet<SnapshotId>> {
        self.inner.fenced.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn fenced(key: &ObjectKey) -> Error {
    let message = "is no snapshot: its session stopped, was shut out, and began anew under another name";
    Error::new(ErrorKind::NotFound, message).with_object(key)
}
