//! Sets: snapshots of several components taken as one.

use super::store::PutCounters;
use super::{Repository, guard, keys};
use crate::format::document::SnapshotSet;
use crate::limits;
use crate::transform::ObjectType;
use crate::{Error, JobContext, Result, SinkExt};

impl Repository {
    /// Stores a set. Its snapshots must be stored already.
    pub async fn create_set(&self, set: &SnapshotSet, job: &JobContext) -> Result<()> {
        guard::run(job, async move {
            for component in &set.components {
                if let Some(id) = component.snapshot {
                    self.snapshot_document(id, job).await?;
                }
            }
            self.store()
                .put_document(&keys::set(set.id)?, ObjectType::Set, set, &PutCounters::default(), job)
                .await
        })
        .await
    }

    /// All sets, the oldest first.
    pub async fn sets(&self, job: &JobContext) -> Result<Vec<SnapshotSet>> {
        guard::run(job, async move {
            let mut sets = Vec::new();
            for meta in self.store().sink.list_all(keys::SETS).await? {
                let set: SnapshotSet = self
                    .store()
                    .get_document(&meta.key, ObjectType::Set, limits::SNAPSHOT_BYTES_MAX, job)
                    .await?;
                if keys::id_of(&meta.key)? != set.id {
                    return Err(
                        Error::corruption("holds another set than its name says").with_object(&meta.key)
                    );
                }
                sets.push(set);
            }
            sets.sort_by_key(|set| (set.time, set.id));
            Ok(sets)
        })
        .await
    }
}
