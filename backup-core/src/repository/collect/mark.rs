//! Marking: every page and chunk that a root needs.

use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::page::{ChunkBranchRow, PageRef, TreeRoot};
use crate::report::DamagedObject;
use crate::repository::entries::{Expanded, Place};
use crate::repository::index::Bits;
use crate::repository::reader::Reader;
use crate::{Error, ErrorKind, JobContext, Result, ShortId, SnapshotId};

/// A snapshot that must be kept, and its trees.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) id: SnapshotId,
    pub(super) trees: Vec<TreeRoot>,
}

/// What the roots need, by where the rows of each chunk begin in the index.
#[derive(Debug, Default)]
pub(super) struct Needed {
    pub(super) chunks: Bits,
    /// What cannot be read, or has no place.
    pub(super) lost: Vec<DamagedObject>,
}

/// Lost things that are named; the first one is enough to delete nothing.
const LOST_MAX: usize = 100;

/// Walks all trees. What two snapshots share is walked once.
pub(super) async fn mark(roots: &[Root], reader: &Reader, job: &JobContext) -> Result<Needed> {
    let mut marking = Marking { reader, job, walked: Bits::default(), needed: Needed::default() };
    for root in roots {
        for tree in &root.trees {
            marking.tree(root.id, tree).await?;
            if marking.needed.lost.len() >= LOST_MAX {
                return Ok(marking.needed);
            }
        }
    }
    Ok(marking.needed)
}

struct Marking<'a> {
    reader: &'a Reader,
    job: &'a JobContext,
    /// Pages that were read. Not those that are needed: a file may have the content of a page.
    walked: Bits,
    needed: Needed,
}

impl Marking<'_> {
    async fn tree(&mut self, root: SnapshotId, tree: &TreeRoot) -> Result<()> {
        let mut stack = Vec::new();
        match Place::root(tree) {
            Ok(place) => stack.push(place),
            Err(error) => self.lost(root, &error),
        }
        while let Some(place) = stack.pop() {
            let Some(bytes) = self.page(root, &place.page).await? else { continue };
            match place.expand(&bytes) {
                Ok(Expanded::Pages(places)) => stack.extend(places.into_iter().rev()),
                Ok(Expanded::Entries(entries)) => {
                    for stored in entries {
                        self.content(root, &stored.content).await?;
                    }
                }
                Err(error) => self.lost(root, &error),
            }
        }
        Ok(())
    }

    async fn content(&mut self, root: SnapshotId, content: &StoredContent) -> Result<()> {
        match content {
            StoredContent::None | StoredContent::Inline(_) => Ok(()),
            StoredContent::Chunks(chunks) => self.chunks(root, chunks),
            StoredContent::Paged { root: list, .. } => {
                let mut stack = vec![(list.page, list.levels)];
                while let Some((page, levels)) = stack.pop() {
                    let Some(bytes) = self.page(root, &page).await? else { continue };
                    let read = match levels.checked_sub(1) {
                        None => match ChunkRef::decode_page(&bytes) {
                            Ok(chunks) => self.chunks(root, &chunks).map(Ok)?,
                            Err(error) => Err(error),
                        },
                        Some(below) => ChunkBranchRow::decode_page(&bytes)
                            .map(|rows| stack.extend(rows.into_iter().rev().map(|row| (row.page, below)))),
                    };
                    if let Err(error) = read {
                        self.lost(root, &error);
                    }
                }
                Ok(())
            }
        }
    }

    fn chunks(&mut self, root: SnapshotId, chunks: &[ChunkRef]) -> Result<()> {
        for chunk in chunks {
            match self.position(chunk.id.short())? {
                Some(at) => self.needed.chunks.insert(at),
                None => self.lost(root, &super::super::frames::chunk_not_found(&chunk.id)),
            }
        }
        Ok(())
    }

    /// A page that was not walked yet.
    async fn page(&mut self, root: SnapshotId, page: &PageRef) -> Result<Option<Vec<u8>>> {
        self.job.check()?;
        let Some(at) = self.position(page.id.short())? else {
            self.lost(root, &super::super::frames::chunk_not_found(&page.id));
            return Ok(None);
        };
        self.needed.chunks.insert(at);
        if self.walked.contains(at) {
            return Ok(None);
        }
        self.walked.insert(at);
        match self.reader.page(page, self.job).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_corruption() => {
                self.lost(root, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn position(&self, id: ShortId) -> Result<Option<u32>> {
        let at = self.reader.index.position(id)?;
        at.map(|at| {
            u32::try_from(at).map_err(|_| {
                Error::new(ErrorKind::LimitExceeded, "an index of more than 2^32 rows cannot be collected")
            })
        })
        .transpose()
    }

    fn lost(&mut self, root: SnapshotId, error: &Error) {
        if self.needed.lost.len() < LOST_MAX {
            let reason = format!("what it needs cannot be read: {error}");
            self.needed.lost.push(DamagedObject { object: format!("snapshots/{root}"), reason });
        }
    }
}
