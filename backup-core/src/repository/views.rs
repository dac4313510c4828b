//! Views of the index, for readers and writers, as the store lists it now.

use std::collections::HashSet;
use std::sync::Arc;

use super::control::{Bars, Control};
use super::index::{Bits, Index, LISTINGS_MAX, Which};
use super::keys::ControlKey;
use super::others::Others;
use super::reader::Reader;
use super::{Repository, keys};
use crate::format::document::SessionDocument;
use crate::transform::ObjectType;
use crate::{Error, JobContext, ObjectMeta, Result, SinkExt, SnapshotId, SnapshotInfo, limits};

/// What a writer builds upon.
#[derive(Debug)]
pub(super) struct WriterView {
    pub(super) reader: Reader,
    /// The snapshots that are not forgotten, the oldest first.
    pub(super) snapshots: Vec<SnapshotInfo>,
    /// Packs of the reader's index that count as absent.
    pub(super) barred: Arc<Bits>,
    /// Names that nothing may be put under.
    pub(super) bars: Bars,
    pub(super) control: Control,
    /// Registered sessions that are decided.
    pub(super) decided: Vec<SnapshotId>,
}

impl Repository {
    /// A view for reading: the index as it is listed now, and the other places. While the index cannot be read and there are
    /// others, it is they that are asked for everything.
    pub(crate) async fn view(&self, job: &JobContext) -> Result<Reader> {
        let index = match self.refresh_index(job).await {
            Err(error) if !self.others.is_empty() && !error.is_cancelled() => {
                tracing::warn!(%error, "the index cannot be read; other places are asked");
                Arc::new(Index::empty()?)
            }
            index => index?,
        };
        let others = Arc::new(Others::new(Some(self.clone()), self.others.clone()));
        Ok(Reader { others, ..self.reader(index) })
    }

    /// The same of this place alone.
    pub(crate) async fn own_view(&self, job: &JobContext) -> Result<Reader> {
        Ok(self.reader(self.refresh_index(job).await?))
    }

    /// A view that also knows the packs that no segment names: for when the index is incomplete.
    pub(crate) async fn full_view(&self, job: &JobContext) -> Result<Reader> {
        let others = Arc::new(Others::new(None, self.others.clone()));
        Ok(Reader { others, ..self.scanned_view(job).await? })
    }

    /// The same of this place alone.
    pub(crate) async fn scanned_view(&self, job: &JobContext) -> Result<Reader> {
        let index = self.refresh_index(job).await?;
        Ok(self.reader(self.scanned(index, job).await?))
    }

    /// The view of a writer on this host, whose session is registered: it also knows what interrupted sessions of the host
    /// left behind, and what must not be relied upon.
    ///
    /// The lists are made at once: in whatever order they are answered, what a collection swept that the writer's session
    /// does not hold up is barred by the collection's own files or by a digest, or by both.
    pub(super) async fn view_for_writing(
        &self,
        own: SnapshotId,
        host: &str,
        job: &JobContext,
    ) -> Result<WriterView> {
        for _ in 1..LISTINGS_MAX {
            if let Some(view) = self.listed_for_writing(own, host, Settle::Again, job).await? {
                return Ok(view);
            }
        }
        let view = self.listed_for_writing(own, host, Settle::Anyhow, job).await?;
        view.ok_or_else(|| Error::internal("no view of the repository"))
    }

    async fn listed_for_writing(
        &self,
        own: SnapshotId,
        host: &str,
        settle: Settle,
        job: &JobContext,
    ) -> Result<Option<WriterView>> {
        job.check()?;
        let listed = self.list_outcomes().await?;
        let fenced = self.held_fences().len();
        // What a writer builds upon must be committed: it looks at every outcome, not only at their names.
        let ((mut snapshots, failures), control) = tokio::try_join!(
            self.load_listed(listed.snapshots.clone(), job),
            self.read_control(&listed.control, job),
        )?;
        for (key, error) in failures {
            tracing::warn!(%key, %error, "a snapshot cannot be read");
        }
        snapshots.retain(|info| control.is_shown(info.id));
        if self.held_fences().len() != fenced {
            *self.inner.index.lock().await = None;
        }
        let outcomes: HashSet<SnapshotId> =
            listed.snapshots.iter().filter_map(|meta| keys::id_of(&meta.key).ok()).collect();
        let (decided, undecided): (Vec<_>, Vec<_>) = control
            .listing
            .sessions
            .iter()
            .filter(|(id, _)| **id != own)
            .map(|(id, session)| (*id, session.decision || outcomes.contains(id) || control.is_digested(*id)))
            .partition(|(_, decided)| *decided);
        // A decision of a session that makes no snapshot stays as long as its segments do.
        let decided = decided.into_iter().map(|(id, _)| id).collect();
        let bars = self.bars(&control, job).await?;
        let index = self.index_of(listed.snapshots, listed.index, &control, settle, job).await?;
        let Some(index) = index else { return Ok(None) };
        let index = match self.any_of_host(undecided.into_iter().map(|(id, _)| id), host, job).await? {
            true => self.scanned(index, job).await?,
            false => index,
        };
        let barred = Arc::new(bars.packs(&index)?);
        Ok(Some(WriterView { reader: self.reader(index), snapshots, barred, bars, control, decided }))
    }

    /// Whether any of these sessions is of this host, or cannot be read: it may have left packs that nobody has named yet.
    async fn any_of_host(
        &self,
        sessions: impl Iterator<Item = SnapshotId>,
        host: &str,
        job: &JobContext,
    ) -> Result<bool> {
        for id in sessions {
            let key = ControlKey::SessionOpen(id).key()?;
            let read: Result<SessionDocument> =
                self.store().get_document(&key, ObjectType::Session, limits::CONTROL_BYTES_MAX, job).await;
            match read {
                Ok(document) if document.host != host => {}
                Ok(_) => return Ok(true),
                Err(error) if error.is_corruption() || error.kind() == crate::ErrorKind::NotFound => {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    pub(super) async fn list_outcomes(&self) -> Result<Listed> {
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
        let (store, cache) = (self.store().clone(), self.inner.cache.clone());
        Reader { store, index, cache, others: Arc::default() }
    }

    /// Lets go of an index that is large, for who is about to load one of its own. It is loaded again when it is needed.
    pub(crate) async fn release_large_index(&self) {
        let mut held = self.inner.index.lock().await;
        if held.as_ref().is_some_and(|index| index.is_spilled()) {
            *held = None;
        }
    }

    pub(super) async fn refresh_index(&self, job: &JobContext) -> Result<Arc<Index>> {
        // Most often nothing has changed since the last look.
        if self.inner.index.lock().await.is_some() {
            let index = self.store().sink.list_all(keys::INDEX).await?;
            if let Some(same) = self.held_index(&index).await {
                return Ok(same);
            }
        }
        for listings in 1..=LISTINGS_MAX {
            let settle = if listings == LISTINGS_MAX { Settle::Anyhow } else { Settle::Again };
            let listed = self.list_outcomes().await?;
            let control = self.read_decisions(&listed.control, job).await?;
            if let Some(index) = self.index_of(listed.snapshots, listed.index, &control, settle, job).await? {
                return Ok(index);
            }
        }
        Err(Error::internal("no view of the repository"))
    }

    /// The index in memory, if it is that of these segments.
    async fn held_index(&self, listed: &[ObjectMeta]) -> Option<Arc<Index>> {
        self.inner.index.lock().await.as_ref().filter(|index| index.is_of(listed)).cloned()
    }

    /// The index of these segments; none if some of them are there no longer, and everything is to be listed again.
    async fn index_of(
        &self,
        snapshots: Vec<ObjectMeta>,
        segments: Vec<ObjectMeta>,
        control: &Control,
        settle: Settle,
        job: &JobContext,
    ) -> Result<Option<Arc<Index>>> {
        let mut held = self.inner.index.lock().await;
        if let Some(index) = held.as_ref().filter(|index| index.is_of(&segments)) {
            return Ok(Some(index.clone()));
        }
        let committed = self.committed_among(&snapshots, control);
        // Two of them side by side would need twice the memory.
        *held = None;
        let index = Index::load_listed(self.store(), segments, &committed, Which::All, job).await?;
        if settle == Settle::Again && index.was_merged(self.store()).await? {
            return Ok(None);
        }
        let index = Arc::new(index);
        for (key, reason) in &index.unreadable {
            tracing::warn!(%key, reason, "an index segment cannot be read; packs say the same");
        }
        let index =
            if index.unreadable.is_empty() { index } else { Index::scan(index, self.store(), job).await?.0 };
        *held = Some(index.clone());
        Ok(Some(index))
    }

    /// The index with the packs that no segment names; it is then the one in memory.
    pub(super) async fn scanned(&self, index: Arc<Index>, job: &JobContext) -> Result<Arc<Index>> {
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

/// What to do about segments that are gone when they are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settle {
    /// List again.
    Again,
    /// Do without: what they said the packs say, too.
    Anyhow,
}

/// What is listed at one time.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) snapshots: Vec<ObjectMeta>,
    pub(super) control: Vec<ObjectMeta>,
    pub(super) index: Vec<ObjectMeta>,
}
