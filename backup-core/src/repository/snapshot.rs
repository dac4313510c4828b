//! A stored snapshot, open for reading.

use std::sync::Arc;

use super::entries::{EntryStream, find_entry};
use super::file::StoredFile;
use super::reader::Reader;
use super::source::SnapshotSource;
use super::tree_view::SnapshotTree;
use super::{Repository, guard};
use crate::format::document::SnapshotDocument;
use crate::format::entries::StoredEntry;
use crate::format::page::TreeRoot;
use crate::{EntryName, JobContext, OwnerNames, Result, SnapshotInfo};

/// A stored snapshot. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    repository: Repository,
    document: Arc<SnapshotDocument>,
    /// Through which it is read; none: through the repository as it is listed each time.
    view: Option<Reader>,
}

impl Snapshot {
    pub(crate) fn new(repository: Repository, document: Arc<SnapshotDocument>) -> Self {
        Self { repository, document, view: None }
    }

    /// What it says of itself.
    pub fn info(&self) -> &SnapshotInfo {
        &self.document.info
    }

    /// The names that numeric owners of its entries had where it was taken.
    pub fn owner_names(&self) -> &OwnerNames {
        &self.document.owners
    }

    /// The repository it is in.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The entries at and below a name, or all of them, in order.
    pub async fn entries(&self, below: Option<&EntryName>, job: &JobContext) -> Result<EntryStream> {
        guard::run(job, async move {
            let reader = self.reader(job).await?;
            Ok(EntryStream::new(reader, self.roots(), below.cloned(), job.clone()))
        })
        .await
    }

    /// The entry of a name.
    pub async fn entry(&self, name: &EntryName, job: &JobContext) -> Result<Option<StoredEntry>> {
        guard::run(job, async move {
            let reader = self.reader(job).await?;
            for root in self.roots() {
                if let Some(found) = find_entry(&reader, &root, name, job).await? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Opens the content of an entry of this snapshot.
    pub async fn open(&self, stored: &StoredEntry, job: &JobContext) -> Result<StoredFile> {
        guard::run(job, async move {
            Ok(StoredFile::new(self.reader(job).await?, stored.content.clone(), job.clone()))
        })
        .await
    }

    /// This snapshot as a tree of directories, to look around in: what one directory holds, what stands under a name.
    pub async fn tree(&self, job: &JobContext) -> Result<SnapshotTree> {
        guard::run(job, async move { Ok(SnapshotTree::new(self.reader(job).await?, self)) }).await
    }

    /// This snapshot as a source, to back it up into another repository.
    pub fn source(&self) -> SnapshotSource {
        SnapshotSource::new(self.clone())
    }

    pub(crate) fn document(&self) -> &Arc<SnapshotDocument> {
        &self.document
    }

    pub(crate) fn sorted_root(&self) -> Option<TreeRoot> {
        self.document.tree
    }

    pub(crate) fn trailing_root(&self) -> Option<TreeRoot> {
        self.document.trailing
    }

    pub(crate) fn roots(&self) -> impl Iterator<Item = TreeRoot> + use<> {
        [self.document.tree, self.document.trailing].into_iter().flatten()
    }

    /// The same snapshot, which is read through one view of the repository: for one job.
    pub(crate) async fn through_one_view(&self, job: &JobContext) -> Result<Self> {
        let view = Some(self.reader(job).await?);
        Ok(Self { view, ..self.clone() })
    }

    /// What it is read with.
    pub(crate) async fn reader(&self, job: &JobContext) -> Result<Reader> {
        match &self.view {
            Some(view) => Ok(view.clone()),
            None => self.repository.view(job).await,
        }
    }
}
