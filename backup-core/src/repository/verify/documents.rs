//! Config, key slots, sets: each is opened, and each says where it belongs.

use std::collections::HashSet;

use super::Verification;
use crate::format::document::SnapshotSet;
use crate::limits;
use crate::repository::keys;
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, Result, SinkExt, SnapshotId};

impl Verification<'_> {
    /// Opens them all.
    pub(super) async fn check_documents(&mut self) -> Result<()> {
        let store = self.repository.store().clone();
        let job = self.job;
        let key = keys::config()?;
        // Read again: the one in memory was read when the repository was opened.
        let config = store
            .get_document::<crate::format::document::RepositoryParameters>(
                &key,
                ObjectType::Config,
                limits::CONTROL_BYTES_MAX,
                job,
            )
            .await;
        let config = config.and_then(|parameters| {
            if parameters == *self.repository.parameters() {
                Ok(())
            } else {
                Err(Error::corruption("is not what was opened"))
            }
        });
        self.count(&key, config)?;
        for meta in store.sink.list_all(keys::KEYS).await? {
            let slot = store.get_whole(&meta.key, limits::CONTROL_BYTES_MAX, job).await;
            let checked = slot.and_then(|bytes| store.protection.check_slot(&meta.key, &bytes));
            match checked {
                // Another epoch's slot cannot be judged with the keys at hand.
                Err(error) if error.kind() == ErrorKind::Denied => {}
                checked => self.count(&meta.key, checked)?,
            }
        }
        self.check_control().await?;
        // The sets first: what they name was there before them.
        let sets = store.sink.list_all(keys::SETS).await?;
        let snapshots: HashSet<SnapshotId> =
            self.repository.list_snapshot_ids(job).await?.into_keys().collect();
        // A set outlives its snapshots: what was forgotten is not lost.
        let control = self.repository.read_forgotten(&store.sink.list_all(keys::CONTROL).await?, job).await?;
        for meta in sets {
            let read = store
                .get_document::<SnapshotSet>(&meta.key, ObjectType::Set, limits::SNAPSHOT_BYTES_MAX, job)
                .await;
            let checked = read.and_then(|set| {
                if keys::id_of(&meta.key)? != set.id {
                    return Err(Error::corruption("holds another set than its name says"));
                }
                let missing = set
                    .components
                    .iter()
                    .filter_map(|c| c.snapshot)
                    .find(|id| !snapshots.contains(id) && !control.has_expired(*id));
                missing.map_or(Ok(()), |id| {
                    Err(Error::corruption(format!("names the snapshot {id}, which is gone")))
                })
            });
            self.count(&meta.key, checked)?;
        }
        Ok(())
    }
}
