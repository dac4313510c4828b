//! Views of the index, for readers and writers, as the store lists it now.

use std::sync::Arc;

use super::index::Index;
use super::reader::Reader;
use super::{Repository, keys};
use crate::{Error, ErrorKind, JobContext, ObjectMeta, Result, SinkExt, SnapshotId};

impl Repository {
    /// A view for reading: the index as it is listed now.
    pub(crate) async fn view(&self, job: &JobContext) -> Result<Reader> {
        let index = self.refresh_index(job).await?;
        Ok(self.reader(index))
    }

    /// A view that also knows the packs that no segment names: for when the index is incomplete.
    pub(crate) async fn full_view(&self, job: &JobContext) -> Result<Reader> {
        let index = self.refresh_index(job).await?;
        // Also after an earlier look: meanwhile another session may have been interrupted.
        *self.inner.index.lock().await = None;
        let (scanned, lost) = Index::scan(index, self.store(), job).await?;
        for (key, reason) in lost {
            tracing::warn!(%key, reason, "a pack cannot be read");
        }
        *self.inner.index.lock().await = Some(scanned.clone());
        Ok(self.reader(scanned))
    }

    /// The view of a writer: it also knows what interrupted sessions left behind.
    pub(crate) async fn view_for_writing(&self, job: &JobContext) -> Result<Reader> {
        let fenced = self.held_fences().len();
        // What a writer builds upon must be committed: it looks at every outcome, not only at their names.
        self.load_snapshots(job).await?;
        if self.held_fences().len() != fenced {
            *self.inner.index.lock().await = None;
        }
        let control = self.control_for_writing().await?;
        let outcomes = self.committed_sessions(job).await?;
        let unfinished = control.iter().filter_map(|meta| {
            let name = meta.key.as_str().strip_prefix(keys::SESSIONS)?.strip_suffix("/open")?;
            name.parse::<SnapshotId>().ok().filter(|id| !outcomes.contains(id))
        });
        // This writer's own session is always among them.
        if unfinished.count() > 1 { self.full_view(job).await } else { self.view(job).await }
    }

    /// What stands under `control/`, for a writer: it stops where a collection was begun, because it does not know what
    /// may have been condemned.
    pub(crate) async fn control_for_writing(&self) -> Result<Vec<ObjectMeta>> {
        let control = self.store().sink.list_all(keys::CONTROL).await?;
        match control.iter().find(|meta| meta.key.as_str().starts_with(keys::COLLECTIONS)) {
            None => Ok(control),
            Some(collection) => {
                let message = "a collection was begun in this repository, and this version cannot write beside collections; \
                               use the version that began it";
                Err(Error::new(ErrorKind::Unsupported, message).with_object(&collection.key))
            }
        }
    }

    pub(crate) fn reader(&self, index: Arc<Index>) -> Reader {
        Reader { store: self.store().clone(), index, cache: self.inner.cache.clone() }
    }

    /// Lets go of an index that is large, for who is about to load one of its own. It is loaded again when it is needed.
    pub(crate) async fn release_large_index(&self) {
        let mut held = self.inner.index.lock().await;
        if held.as_ref().is_some_and(|index| index.is_spilled()) {
            *held = None;
        }
    }

    async fn refresh_index(&self, job: &JobContext) -> Result<Arc<Index>> {
        let mut held = self.inner.index.lock().await;
        let listed: Vec<_> = self.store().sink.list_all(keys::INDEX).await?;
        if let Some(index) = &*held {
            let unreadable = index.unreadable.len();
            let same = index.segments.len().saturating_add(unreadable) == listed.len()
                && listed.iter().all(|meta| {
                    index.segments.contains(&meta.key)
                        || index.unreadable.iter().any(|(key, _)| *key == meta.key)
                });
            if same {
                return Ok(index.clone());
            }
        }
        let committed = self.committed_sessions(job).await?;
        // Two of them side by side would need twice the memory.
        *held = None;
        let index = Arc::new(Index::load(self.store(), &committed, job).await?);
        for (key, reason) in &index.unreadable {
            tracing::warn!(%key, reason, "an index segment cannot be read; packs say the same");
        }
        let index =
            if index.unreadable.is_empty() { index } else { Index::scan(index, self.store(), job).await?.0 };
        *held = Some(index.clone());
        Ok(index)
    }
}
