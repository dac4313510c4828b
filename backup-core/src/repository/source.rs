//! A stored snapshot as a source: what was backed up can be backed up again, into another repository.

use async_trait::async_trait;

use super::entries::EntryStream;
use super::file::StoredFile;
use super::reader::Reader;
use super::restore::unreadable_page;
use super::snapshot::Snapshot;
use crate::format::entries::StoredEntry;
use crate::source::{Content, Finished, Item, Source, SourceInfo, SourceRun};
use crate::{Entry, Error, JobContext, Result, Skipped};

/// Entries given out and not opened yet that the run remembers; the engine asks for content in batches of this order.
const REMEMBERED_MAX: usize = 4096;
/// Pages passed over that a run names; a tree that has lost more of them is given up.
const PASSED_OVER_MAX: usize = 100_000;

/// Yields the entries of a snapshot, with their content.
#[derive(Debug, Clone)]
pub struct SnapshotSource {
    snapshot: Snapshot,
    passes_over_pages: bool,
}

impl SnapshotSource {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, passes_over_pages: false }
    }

    /// Passes over pages of entries that cannot be read, and names them as skipped, where otherwise the run fails.
    pub(super) fn passing_over_pages(mut self) -> Self {
        self.passes_over_pages = true;
        self
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
            passes_over_pages: self.passes_over_pages,
            passed_over: Vec::new(),
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
    passes_over_pages: bool,
    /// At most [`PASSED_OVER_MAX`].
    passed_over: Vec<Skipped>,
}

impl SnapshotRun {
    /// The next entry behind pages that may be passed over.
    async fn next_of(&mut self, entries: Option<&mut EntryStream>) -> Result<Option<StoredEntry>> {
        let entries = entries.unwrap_or(&mut self.entries);
        loop {
            match entries.next().await {
                Err(error) if self.passes_over_pages && error.is_corruption() => {
                    if self.passed_over.len() >= PASSED_OVER_MAX {
                        return Err(error);
                    }
                    self.passed_over.push(unreadable_page(&error));
                }
                other => return other,
            }
        }
    }
}

#[async_trait]
impl SourceRun for SnapshotRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        self.given.clear();
        while self.given.len() < max.min(REMEMBERED_MAX) {
            match self.next_of(None).await? {
                Some(stored) => self.given.push(stored),
                None => break,
            }
        }
        Ok(self.given.iter().map(|stored| Item::Entry(stored.entry.clone())).collect())
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let at = self.given.binary_search_by(|stored| stored.entry.name.cmp(&entry.name));
        let stored = at.ok().and_then(|at| self.given.get(at));
        // A hard link is asked for content, at the end, where that of its file could not be read.
        let stored = stored.filter(|stored| stored.entry.kind.has_content()).ok_or_else(|| {
            Error::corruption("its content is that of another entry, which cannot be read")
                .with_entry(&entry.name)
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
        while let Some(stored) = self.next_of(Some(&mut entries)).await? {
            let file = StoredFile::new(self.reader.clone(), stored.content, self.job.clone());
            trailing.push((stored.entry, Content::from_async(file)));
        }
        let position = self.snapshot.info().position.clone().into_iter().collect();
        let mut skipped = self.snapshot.info().skipped.clone();
        skipped.append(&mut self.passed_over);
        let owners = self.snapshot.owner_names().clone();
        Ok(Finished { trailing, position, owners, skipped })
    }
}
