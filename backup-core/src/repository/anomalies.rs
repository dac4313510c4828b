//! Snapshots that are not how things change, and that somebody has looked at them.

use super::keys::ControlKey;
use super::store::PutCounters;
use super::{Repository, guard, keys};
use crate::format::control::ConfirmedDocument;
use crate::transform::ObjectType;
use crate::{ErrorKind, JobContext, Result, SinkExt, SnapshotId, SnapshotInfo};

impl Repository {
    /// The snapshots, of those that are not forgotten, whose [anomaly](crate::Anomaly) is so large that collections wait, and that nobody
    /// has confirmed; the oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn anomalies(&self, job: &JobContext) -> Result<Vec<SnapshotInfo>> {
        guard::run(job, self.pending_anomalies(job)).await
    }

    pub(super) async fn pending_anomalies(&self, job: &JobContext) -> Result<Vec<SnapshotInfo>> {
        let shown = self.readable_snapshots(job).await?;
        let is_anomalous =
            |info: &SnapshotInfo| info.anomaly.as_ref().is_some_and(|anomaly| anomaly.pauses());
        let mut pending: Vec<SnapshotInfo> = shown.into_iter().filter(is_anomalous).collect();
        if !pending.is_empty() {
            let listed = self.store().sink.list_all(keys::CONFIRMED).await?;
            let confirmed: Vec<SnapshotId> =
                listed.iter().filter_map(|meta| keys::id_of(&meta.key).ok()).collect();
            pending.retain(|info| !confirmed.contains(&info.id));
        }
        Ok(pending)
    }

    /// Says that somebody has looked at a snapshot that is anomalous, and that it is as it should be: collections need not wait
    /// for it any longer. Saying so again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such snapshot; those of the store.
    pub async fn confirm_anomaly(&self, id: SnapshotId, reason: &str, job: &JobContext) -> Result<()> {
        guard::run(job, async move {
            self.snapshot_document(id, job).await?;
            let key = ControlKey::Confirmed(id).key()?;
            let document = ConfirmedDocument { snapshot: id, time: job.now(), reason: reason.to_owned() };
            let put = PutCounters::default();
            match self.store().put_document(&key, ObjectType::Collection, &document, &put, job).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                done => done,
            }
        })
        .await
    }
}
