//! Views of the index, for readers and writers, as the store lists it now.

use std::sync::Arc;

use super::index::Index;
use super::reader::Reader;
use super::{Repository, keys};
use crate::{Error, ErrorKind, JobContext, ObjectMeta, Result, SinkExt, SnapshotInfo};

impl Repository {
    /// A view for reading: the index as it is listed now.
    pub(crate) async fn view(&self, job: &JobContext) -> Result<Reader> {
        let index = self.refresh_index(job).await?;
        Ok(self.reader(index))
    }

    /// A view that also knows the packs that no segment names: for when the index is incomplete.
    pub(crate) async fn full_view(&self, job: &JobContext) -> Result<Reader> {
        let index = self.refresh_index(job).await?;
        Ok(self.reader(self.scanned(index, job).await?))
    }

    /// The view of a writer: it also knows what interrupted sessions left behind. With it come the snapshots that it can
    /// build upon, the oldest first.
    pub(crate) async fn view_for_writing(&self, job: &JobContext) -> Result<(Reader, Vec<SnapshotInfo>)> {
        job.check()?;
        let listed = self.list_outcomes().await?;
        // No state of a store that has the one and lacks the other misleads: who looks committed a moment ago looks
        // unfinished at worst, and what interrupted sessions left is read, not trusted.
        check_collections(&listed.control)?;
        let fenced = self.held_fences().len();
        // What a writer builds upon must be committed: it looks at every outcome, not only at their names.
        let (snapshots, failures) = self.load_listed(listed.snapshots.clone(), job).await?;
        for (key, error) in failures {
            tracing::warn!(%key, %error, "a snapshot cannot be read");
        }
        if self.held_fences().len() != fenced {
            *self.inner.index.lock().await = None;
        }
        let outcomes = self.committed_among(&listed.snapshots, &listed.control);
        let unfinished = listed
            .control
            .iter()
            .filter_map(|meta| keys::session_of(&meta.key, "/open").filter(|id| !outcomes.contains(id)));
        // This writer's own session is always among them.
        let unfinished = unfinished.count() > 1;
        let index = self.index_of(listed, job).await?;
        let index = if unfinished { self.scanned(index, job).await? } else { index };
        Ok((self.reader(index), snapshots))
    }

    /// A writer that stores nothing but a document stops here where a collection was begun.
    pub(crate) async fn check_no_collection(&self) -> Result<()> {
        check_collections(&self.store().sink.list_all(keys::CONTROL).await?)
    }

    async fn list_outcomes(&self) -> Result<Listed> {
        let sink = &self.store().sink;
        // One after the other they would take three times the time to a store that is far away.
        let (snapshots, control, index) = tokio::try_join!(
            sink.list_all(keys::SNAPSHOTS),
            sink.list_all(keys::CONTROL),
            sink.list_all(keys::INDEX)
        )?;
        Ok(Listed { snapshots, control, index })
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
        // Most often nothing has changed since the last look.
        if self.inner.index.lock().await.is_some() {
            let index = self.store().sink.list_all(keys::INDEX).await?;
            if let Some(same) = self.held_index(&index).await {
                return Ok(same);
            }
        }
        self.index_of(self.list_outcomes().await?, job).await
    }

    /// The index in memory, if it is that of these segments.
    async fn held_index(&self, listed: &[ObjectMeta]) -> Option<Arc<Index>> {
        self.inner.index.lock().await.as_ref().filter(|index| index.is_of(listed)).cloned()
    }

    async fn index_of(&self, listed: Listed, job: &JobContext) -> Result<Arc<Index>> {
        let mut held = self.inner.index.lock().await;
        if let Some(index) = held.as_ref().filter(|index| index.is_of(&listed.index)) {
            return Ok(index.clone());
        }
        let committed = self.committed_among(&listed.snapshots, &listed.control);
        // Two of them side by side would need twice the memory.
        *held = None;
        let index = Arc::new(Index::load_listed(self.store(), listed.index, &committed, job).await?);
        for (key, reason) in &index.unreadable {
            tracing::warn!(%key, reason, "an index segment cannot be read; packs say the same");
        }
        let index =
            if index.unreadable.is_empty() { index } else { Index::scan(index, self.store(), job).await?.0 };
        *held = Some(index.clone());
        Ok(index)
    }

    /// The index with the packs that no segment names; it is then the one in memory.
    async fn scanned(&self, index: Arc<Index>, job: &JobContext) -> Result<Arc<Index>> {
        // Also after an earlier look: meanwhile another session may have been interrupted.
        *self.inner.index.lock().await = None;
        let (scanned, lost) = Index::scan(index, self.store(), job).await?;
        for (key, reason) in lost {
            tracing::warn!(%key, reason, "a pack cannot be read");
        }
        *self.inner.index.lock().await = Some(scanned.clone());
        Ok(scanned)
    }
}

/// What is listed at one time.
struct Listed {
    snapshots: Vec<ObjectMeta>,
    control: Vec<ObjectMeta>,
    index: Vec<ObjectMeta>,
}

/// A writer stops where a collection was begun, because it does not know what may have been condemned.
fn check_collections(control: &[ObjectMeta]) -> Result<()> {
    match control.iter().find(|meta| meta.key.as_str().starts_with(keys::COLLECTIONS)) {
        None => Ok(()),
        Some(collection) => {
            let message = "a collection was begun in this repository, and this version cannot write beside collections; \
                           use the version that began it";
            Err(Error::new(ErrorKind::Unsupported, message).with_object(&collection.key))
        }
    }
}
