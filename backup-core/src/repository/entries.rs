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
    /// Pages to visit, the next one last.
    stack: Vec<Place>,
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
        let Some(place) = self.stack.pop() else {
            let Some(root) = self.roots.pop_front() else { return Ok(false) };
            self.stack.push(Place::root(&root)?);
            return Ok(true);
        };
        let bytes = match guard::run(&self.job, self.reader.page(&place.page, &self.job)).await {
            Ok(bytes) => bytes,
            Err(error) => {
                // What may pass is tried again by the next call; damage is left behind.
                if !error.is_corruption() {
                    self.stack.push(place);
                }
                return Err(error);
            }
        };
        let below = self.below.as_ref();
        match place.expand(&bytes) {
            Ok(Expanded::Entries(entries)) => {
                let wanted = |e: &StoredEntry| below.is_none_or(|below| e.entry.name.is_within(below));
                self.entries.extend(entries.into_iter().filter(wanted));
            }
            Ok(Expanded::Pages(places)) => {
                let wanted = |place: &Place| below.is_none_or(|below| place.may_hold(below));
                self.stack.extend(places.into_iter().rev().filter(wanted));
            }
            Err(error) => {
                // Its identity is right, so it was written like this: such a tree is not walked any further.
                self.stack.clear();
                return Err(error);
            }
        }
        Ok(true)
    }
}

/// A page of a tree and where it stands: which names it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) page: PageRef,
    /// Branches below it.
    pub(crate) levels: u8,
    /// Its first name; not known of a root.
    first: Option<EntryName>,
    /// The name that all of its names stand before; none at the end of the tree.
    pub(crate) until: Option<EntryName>,
}

/// What a page refers to.
#[derive(Debug)]
pub(crate) enum Expanded {
    /// A leaf's entries.
    Entries(Vec<StoredEntry>),
    /// A branch's pages, in order.
    Pages(Vec<Place>),
}

impl Place {
    pub(crate) fn root(root: &TreeRoot) -> Result<Self> {
        if root.levels > crate::limits::PAGE_LEVELS_MAX {
            return Err(Error::corruption("a tree of pages is deeper than the format allows"));
        }
        Ok(Self { page: root.page, levels: root.levels, first: None, until: None })
    }

    /// Decodes the page. Its names must lie where its place says: so no page can stand in a tree twice, and walking a
    /// forged tree ends.
    pub(crate) fn expand(self, bytes: &[u8]) -> Result<Expanded> {
        if self.levels == 0 {
            let entries = StoredEntry::decode_page(bytes)?;
            let ends = entries.first().zip(entries.last());
            self.check(ends.map(|(first, last)| (&first.entry.name, &last.entry.name)))?;
            return Ok(Expanded::Entries(entries));
        }
        let rows = EntryBranchRow::decode_page(bytes)?;
        self.check(rows.first().zip(rows.last()).map(|(first, last)| (&first.first, &last.first)))?;
        let next: Vec<_> =
            rows.iter().skip(1).map(|row| Some(row.first.clone())).chain([self.until]).collect();
        let levels = self.levels.saturating_sub(1);
        let places = rows.into_iter().zip(next).map(|(row, until)| Self {
            page: row.page,
            levels,
            first: Some(row.first),
            until,
        });
        Ok(Expanded::Pages(places.collect()))
    }

    fn check(&self, ends: Option<(&EntryName, &EntryName)>) -> Result<()> {
        let Some((first, last)) = ends else { return Err(Error::corruption("a page is empty")) };
        let fits = self.first.as_ref().is_none_or(|own| own == first)
            && self.until.as_ref().is_none_or(|until| last < until);
        if fits { Ok(()) } else { Err(Error::corruption("the names of a page are out of place")) }
    }

    fn may_hold(&self, below: &EntryName) -> bool {
        self.first.as_ref().is_none_or(|first| first <= below || first.is_within(below))
            && self.until.as_ref().is_none_or(|until| until > below)
    }
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
