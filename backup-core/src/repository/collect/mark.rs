//! Marking: every page and chunk that a root needs.

use crate::format::chunks::ChunkRef;
use crate::format::page::{PageRef, TreeRoot};
use crate::report::DamagedObject;
use crate::repository::frames::chunk_not_found;
use crate::repository::index::{Bits, Index};
use crate::repository::reader::Reader;
use crate::repository::walk::{Needs, walk};
use crate::{ChunkId, Error, JobContext, Result, SnapshotId};

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
    let mut walked = Bits::default();
    let mut needed = Needed::default();
    for root in roots {
        let mut marking =
            Marking { index: &reader.index, root: root.id, walked: &mut walked, needed: &mut needed };
        for tree in &root.trees {
            walk(tree, reader, &mut marking, job).await?;
        }
        if needed.lost.len() >= LOST_MAX {
            break;
        }
    }
    Ok(needed)
}

struct Marking<'a> {
    index: &'a Index,
    root: SnapshotId,
    /// Pages that were read. Not those that are needed: a file may have the content of a page.
    walked: &'a mut Bits,
    needed: &'a mut Needed,
}

impl Needs for Marking<'_> {
    fn page(&mut self, page: &PageRef) -> Result<bool> {
        let Some(at) = self.mark(&page.id)? else { return Ok(false) };
        let is_new = !self.walked.contains(at);
        self.walked.insert(at);
        Ok(is_new)
    }

    fn chunk(&mut self, chunk: &ChunkRef) -> Result<()> {
        self.mark(&chunk.id).map(drop)
    }

    fn lost(&mut self, error: &Error) {
        if self.needed.lost.len() < LOST_MAX {
            let reason = format!("what it needs cannot be read: {error}");
            self.needed.lost.push(DamagedObject { object: format!("snapshots/{}", self.root), reason });
        }
    }
}

impl Marking<'_> {
    fn mark(&mut self, id: &ChunkId) -> Result<Option<u32>> {
        let at = self.index.bit(id.short())?;
        match at {
            Some(at) => self.needed.chunks.insert(at),
            None => self.lost(&chunk_not_found(id)),
        }
        Ok(at)
    }
}
