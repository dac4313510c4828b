//! Walking the entries of a stored snapshot, page by page.

use std::collections::VecDeque;

use super::guard;
use super::reader::Reader;
use crate::format::entries::StoredEntry;
use crate::format::page::{EntryBranchRow, PageRef, TreeRoot};
use crate::{EntryName, Error, JobContext, Result};

/// The entries of a snapshot in order: the sorted ones, then those known only at the end.
///
/// One page a level is held at a time. Cancellation: dropping a call's future loses no entry.
#[derive(Debug)]
pub struct EntryStream {
    reader: Reader,
    job: JobContext,
    roots: VecDeque<TreeRoot>,
    /// Pages to visit, the next one last, with the levels below each.
    stack: Vec<(PageRef, u8)>,
    entries: VecDeque<StoredEntry>,
    below: Option<EntryName>,
}

impl EntryStream {
    pub(crate) fn new(
        reader: Reader,
        roots: impl IntoIterator<Item = TreeRoot>,
        below: Option<EntryName>,
        job: JobContext,
    ) -> Self {
        Self {
            reader,
            job,
            roots: roots.into_iter().collect(),
            stack: Vec::new(),
            entries: VecDeque::new(),
            below,
        }
    }

    /// The next entry; none at the end. After an error, the next call goes on behind the page that could not be read.
    pub async fn next(&mut self) -> Result<Option<StoredEntry>> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Ok(Some(entry));
            }
            if !self.load().await? {
                return Ok(None);
            }
        }
    }

    /// The entries of the next page, or what is left of it; empty at the end.
    pub async fn next_page(&mut self) -> Result<Vec<StoredEntry>> {
        while self.entries.is_empty() {
            if !self.load().await? {
                break;
            }
        }
        Ok(self.entries.drain(..).collect())
    }

    // Reads one page; false if there is none left.
    async fn load(&mut self) -> Result<bool> {
        let Some((page, levels)) = self.stack.pop() else {
            let Some(root) = self.roots.pop_front() else { return Ok(false) };
            if root.levels > crate::limits::PAGE_LEVELS_MAX {
                return Err(Error::corruption("a tree of pages is deeper than the format allows"));
            }
            self.stack.push((root.page, root.levels));
            return Ok(true);
        };
        let bytes = match guard::run(&self.job, self.reader.page(&page, &self.job)).await {
            Ok(bytes) => bytes,
            Err(error) => {
                // What may pass is tried again by the next call; damage is left behind.
                if !error.is_corruption() {
                    self.stack.push((page, levels));
                }
                return Err(error);
            }
        };
        if levels == 0 {
            let entries = StoredEntry::decode_page(&bytes)?;
            match &self.below {
                None => self.entries.extend(entries),
                Some(below) => {
                    self.entries.extend(entries.into_iter().filter(|e| e.entry.name.is_within(below)))
                }
            }
            return Ok(true);
        }
        let mut rows = EntryBranchRow::decode_page(&bytes)?;
        if let Some(below) = &self.below {
            rows = within(rows, below);
        }
        self.stack.extend(rows.into_iter().rev().map(|row| (row.page, levels.saturating_sub(1))));
        Ok(true)
    }
}

/// The rows whose pages can hold entries within `below`.
fn within(rows: Vec<EntryBranchRow>, below: &EntryName) -> Vec<EntryBranchRow> {
    // The page before the first that starts beyond `below` may hold it, too.
    let start = rows.partition_point(|row| row.first <= *below).saturating_sub(1);
    let mut kept = Vec::new();
    for row in rows.into_iter().skip(start) {
        if !kept.is_empty() && row.first > *below && !row.first.is_within(below) {
            break;
        }
        kept.push(row);
    }
    kept
}

/// The entry called `name` in the tree below `root`.
pub(crate) async fn find_entry(
    reader: &Reader,
    root: &TreeRoot,
    name: &EntryName,
    job: &JobContext,
) -> Result<Option<StoredEntry>> {
    let mut page = root.page;
    for _ in 0..root.levels.min(crate::limits::PAGE_LEVELS_MAX) {
        let rows = EntryBranchRow::decode_page(&reader.page(&page, job).await?)?;
        let at = rows.partition_point(|row| row.first <= *name).checked_sub(1);
        match at.and_then(|at| rows.get(at)) {
            Some(row) => page = row.page,
            None => return Ok(None),
        }
    }
    let entries = StoredEntry::decode_page(&reader.page(&page, job).await?)?;
    Ok(entries.into_iter().find(|stored| stored.entry.name == *name))
}
