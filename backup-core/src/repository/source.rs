//! A stored snapshot as a source: what was backed up can be backed up again, into another repository.

use async_trait::async_trait;

use super::entries::EntryStream;
use super::file::StoredFile;
use super::reader::Reader;
use super::snapshot::Snapshot;
use crate::format::entries::StoredEntry;
use crate::source::{Content, Finished, Item, Source, SourceInfo, SourceRun};
use crate::{Entry, Error, JobContext, Result};

/// Entries given out and not opened yet that the run remembers; the engine asks for content in batches of this order.
const REMEMBERED_MAX: usize = 4096;

/// Yields the entries of a snapshot, with their content.
#[derive(Debug, Clone)]
pub struct SnapshotSource {
    snapshot: Snapshot,
}

impl SnapshotSource {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }
}

#[async_trait]
impl Source for SnapshotSource {
    fn info(&self) -> SourceInfo {
        let info = self.snapshot.info();
        SourceInfo::new(info.source.clone(), info.identity.clone())
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        let reader = self.snapshot.reader(job).await?;
        let entries = EntryStream::new(reader.clone(), self.snapshot.sorted_root(), None, job.clone());
        let run = SnapshotRun {
            snapshot: self.snapshot.clone(),
            reader,
            job: job.clone(),
            entries,
            given: Vec::new(),
        };
        Ok(Box::new(run))
    }
}

#[derive(Debug)]
struct SnapshotRun {
    snapshot: Snapshot,
    reader: Reader,
    job: JobContext,
    entries: EntryStream,
    given: Vec<StoredEntry>,
}

#[async_trait]
impl SourceRun for SnapshotRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        self.given.clear();
        while self.given.len() < max.min(REMEMBERED_MAX) {
            match self.entries.next().await? {
                Some(stored) => self.given.push(stored),
                None => break,
            }
        }
        Ok(self.given.iter().map(|stored| Item::Entry(stored.entry.clone())).collect())
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let at = self.given.binary_search_by(|stored| stored.entry.name.cmp(&entry.name));
        let stored = at.ok().and_then(|at| self.given.get(at));
        let stored = stored.ok_or_else(|| {
            Error::internal("content was asked of an entry not given out").with_entry(&entry.name)
        })?;
        Ok(Content::from_async(StoredFile::new(
            self.reader.clone(),
            stored.content.clone(),
            self.job.clone(),
        )))
    }

    async fn finish(&mut self) -> Result<Finished> {
        let mut trailing = Vec::new();
        let mut entries =
            EntryStream::new(self.reader.clone(), self.snapshot.trailing_root(), None, self.job.clone());
        while let Some(stored) = entries.next().await? {
            let file = StoredFile::new(self.reader.clone(), stored.content, self.job.clone());
            trailing.push((stored.entry, Content::from_async(file)));
        }
        let position = self.snapshot.info().position.clone().into_iter().collect();
        Ok(Finished { trailing, position, skipped: self.snapshot.info().skipped.clone() })
    }
}
