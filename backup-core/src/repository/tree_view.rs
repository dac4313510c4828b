//! A stored snapshot as a tree of directories: one directory's children, or one name, without reading the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::entries::{Expanded, Place};
use super::guard;
use super::pieces::PieceReader;
use super::reader::Reader;
use super::snapshot::Snapshot;
use crate::format::entries::StoredEntry;
use crate::format::page::TreeRoot;
use crate::{EntryName, JobContext, Result};

/// Decoded pages that a tree holds, at most [`PAGE_BYTES_MAX`](crate::limits::PAGE_BYTES_MAX) each as stored, and a few
/// times that in memory: a directory listed with what its entries say, and its neighbour.
const PAGES_HELD_MAX: usize = 4;

/// A snapshot to look around in. Cheap to clone; clones share the pages read last.
///
/// It keeps the view of the index with which it was made: many questions cost the store no listing.
///
/// ```
/// # async fn example(snapshot: backup_core::repository::Snapshot) -> backup_core::Result<()> {
/// use backup_core::{EntryName, JobContext};
///
/// let job = JobContext::new();
/// let tree = snapshot.tree(&job).await?;
/// let mut children = tree.children(Some(&EntryName::new("etc")?), &job);
/// while let Some(child) = children.next().await? {
///     println!("{}", child.name);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SnapshotTree {
    reader: Reader,
    /// Of the sorted entries, then of those known only at the end.
    roots: [Option<TreeRoot>; 2],
    pages: Arc<Mutex<VecDeque<HeldPage>>>,
}

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeEntry {
    /// The name.
    pub name: EntryName,
    /// The entry; none for a directory that only names below it tell of.
    pub stored: Option<StoredEntry>,
}

#[derive(Debug)]
struct HeldPage {
    place: Place,
    expanded: Arc<Expanded>,
}

impl SnapshotTree {
    pub(crate) fn new(reader: Reader, snapshot: &Snapshot) -> Self {
        let roots = [snapshot.sorted_root(), snapshot.trailing_root()];
        Self { reader, roots, pages: Arc::default() }
    }

    /// What stands under `name`; none if nothing does.
    pub async fn entry(&self, name: &EntryName, job: &JobContext) -> Result<Option<TreeEntry>> {
        guard::run(job, async move {
            let mut implied = false;
            for root in &self.roots {
                let mut walk = Walk::new(*root, Position::AtLeast(name.clone()));
                match walk.next(self, job).await? {
                    Some(stored) if stored.entry.name == *name => {
                        return Ok(Some(TreeEntry { name: name.clone(), stored: Some(stored) }));
                    }
                    Some(stored) => implied |= stored.entry.name.is_within(name),
                    None => {}
                }
            }
            Ok(implied.then(|| TreeEntry { name: name.clone(), stored: None }))
        })
        .await
    }

    /// What stands directly below a name, or at the top.
    pub fn children(&self, of: Option<&EntryName>, job: &JobContext) -> Children {
        let start = of.map_or(Position::First, |of| Position::AtLeast(of.clone()));
        Children {
            tree: self.clone(),
            job: job.clone(),
            of: of.cloned(),
            walks: self.roots.map(|root| Walk::new(root, start.clone())),
            heads: [None, None],
        }
    }

    /// The content of an entry of this snapshot, to read any range of it.
    pub fn open(&self, stored: &StoredEntry, job: &JobContext) -> PieceReader {
        PieceReader::new(self.reader.clone(), stored.content.clone(), job.clone())
    }

    async fn expand(&self, place: &Place, job: &JobContext) -> Result<Arc<Expanded>> {
        if let Some(held) = self.held(place) {
            return Ok(held);
        }
        let bytes = self.reader.page(&place.page, job).await?;
        let expanded = Arc::new(place.clone().expand(&bytes)?);
        let mut pages = self.pages.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        pages.push_front(HeldPage { place: place.clone(), expanded: expanded.clone() });
        pages.truncate(PAGES_HELD_MAX);
        Ok(expanded)
    }

    // Only what was found right at this very place is believed to be.
    fn held(&self, place: &Place) -> Option<Arc<Expanded>> {
        let mut pages = self.pages.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = pages.iter().position(|held| held.place == *place)?;
        let held = pages.remove(at)?;
        let expanded = held.expanded.clone();
        pages.push_front(held);
        Some(expanded)
    }
}

/// The children of a directory of a snapshot, by name.
///
/// What stands below a child is passed over without being read. Cancellation: dropping a call's future loses no child.
#[derive(Debug)]
pub struct Children {
    tree: SnapshotTree,
    job: JobContext,
    of: Option<EntryName>,
    walks: [Walk; 2],
    /// The next child of each walk.
    heads: [Option<TreeEntry>; 2],
}

impl Children {
    /// The next child; none at the end. After an error that is damage, the next call goes on behind the page that cannot
    /// be read; after another, it tries again.
    pub async fn next(&mut self) -> Result<Option<TreeEntry>> {
        let job = self.job.clone();
        guard::run(&job, async move {
            let Self { tree, job, of, walks, heads } = self;
            for (walk, head) in walks.iter_mut().zip(heads.iter_mut()) {
                if head.is_none() {
                    *head = next_child(walk, tree, of.as_ref(), job).await?;
                }
            }
            let [sorted, trailing] = heads;
            Ok(match (sorted.take(), trailing.take()) {
                (Some(a), Some(b)) if a.name == b.name => Some(if a.stored.is_some() { a } else { b }),
                (Some(a), Some(b)) if a.name < b.name => {
                    *trailing = Some(b);
                    Some(a)
                }
                (a, Some(b)) => {
                    *sorted = a;
                    Some(b)
                }
                (a, None) => a,
            })
        })
        .await
    }
}

async fn next_child(
    walk: &mut Walk,
    tree: &SnapshotTree,
    of: Option<&EntryName>,
    job: &JobContext,
) -> Result<Option<TreeEntry>> {
    loop {
        let Some(stored) = walk.next(tree, job).await? else { return Ok(None) };
        let name = &stored.entry.name;
        if of == Some(name) {
            continue;
        }
        if of.is_some_and(|of| !name.is_within(of)) {
            walk.end();
            return Ok(None);
        }
        // Up to the end of the component that follows the directory's name.
        let start = of.map_or(0, |of| of.as_bytes().len().saturating_add(1));
        let rest = name.as_bytes().get(start..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let child = EntryName::new(name.as_bytes().get(..start.saturating_add(end)).unwrap_or_default())?;
        walk.position = Position::Behind(child.clone());
        let stored = (child == stored.entry.name).then_some(stored);
        return Ok(Some(TreeEntry { name: child, stored }));
    }
}

/// Where a walk goes on.
#[derive(Debug, Clone)]
enum Position {
    First,
    /// At this name or the first after it.
    AtLeast(EntryName),
    /// Behind this name and everything below it.
    Behind(EntryName),
}

impl Position {
    /// Whether `name` lies before. Where it holds for one name, it holds for those before that one.
    fn has_passed(&self, name: &EntryName) -> bool {
        match self {
            Self::First => false,
            Self::AtLeast(first) => name < first,
            Self::Behind(last) => name <= last || name.is_within(last),
        }
    }

    /// Whether all names before `until` lie before.
    fn has_passed_all(&self, until: Option<&EntryName>) -> bool {
        match (self, until) {
            (Self::AtLeast(first), Some(until)) => until <= first,
            (_, until) => until.is_some_and(|until| self.has_passed(until)),
        }
    }
}

/// A walk over the entries of one tree that passes over what it need not read.
#[derive(Debug)]
struct Walk {
    root: Option<TreeRoot>,
    /// The pages from the root down, and how many of what each holds were visited.
    path: Vec<(Arc<Expanded>, usize)>,
    position: Position,
}

impl Walk {
    fn new(root: Option<TreeRoot>, position: Position) -> Self {
        Self { root, path: Vec::new(), position }
    }

    fn end(&mut self) {
        self.root = None;
        self.path.clear();
    }

    /// The next entry from the position on. After damage the next call goes on behind it.
    async fn next(&mut self, tree: &SnapshotTree, job: &JobContext) -> Result<Option<StoredEntry>> {
        if let Some(root) = self.root {
            let expanded = tree.expand(&Place::root(&root)?, job).await;
            if !matches!(&expanded, Err(error) if !error.is_corruption()) {
                self.root = None;
            }
            self.path.push((expanded?, 0));
        }
        loop {
            let Some((page, visited)) = self.path.last_mut() else { return Ok(None) };
            let page = page.clone();
            match &*page {
                Expanded::Entries(entries) => {
                    let left = entries.get(*visited..).unwrap_or_default();
                    let passed = left.partition_point(|stored| self.position.has_passed(&stored.entry.name));
                    if let Some(stored) = left.get(passed) {
                        *visited = visited.saturating_add(passed).saturating_add(1);
                        return Ok(Some(stored.clone()));
                    }
                }
                Expanded::Pages(places) => {
                    let left = places.get(*visited..).unwrap_or_default();
                    let passed =
                        left.partition_point(|place| self.position.has_passed_all(place.until.as_ref()));
                    if let Some(place) = left.get(passed) {
                        *visited = visited.saturating_add(passed);
                        let expanded = tree.expand(place, job).await;
                        if !matches!(&expanded, Err(error) if !error.is_corruption()) {
                            *visited = visited.saturating_add(1);
                        }
                        self.path.push((expanded?, 0));
                        continue;
                    }
                }
            }
            self.path.pop();
        }
    }
}
