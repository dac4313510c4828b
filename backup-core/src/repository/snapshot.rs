//! A stored snapshot, open for reading.

use std::sync::Arc;

use super::entries::{EntryStream, find_entry};
use super::file::StoredFile;
use super::frames::missing;
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
}

impl Snapshot {
    pub(crate) fn new(repository: Repository, document: Arc<SnapshotDocument>) -> Self {
        Self { repository, document }
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

    // Where the index lacks the snapshot's own root, it lacks more: then the packs are asked.
    pub(crate) async fn reader(&self, job: &JobContext) -> Result<Reader> {
        let reader = self.repository.view(job).await?;
        for root in self.roots() {
            if reader.index.find(root.page.id.short(), root.page.len)?.is_empty() {
                // Other places can tell, and need not read all packs for it.
                if !reader.others.is_empty() && reader.page(&root.page, job).await.is_ok() {
                    break;
                }
                return self.repository.full_view(job).await.map_err(missing);
            }
        }
        Ok(reader)
    }
}
