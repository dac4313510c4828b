//! What a snapshot needs and another place lacks.

use std::collections::BTreeMap;

use crate::format::chunks::ChunkRef;
use crate::format::page::{PageRef, TreeRoot};
use crate::report::DamagedObject;
use crate::repository::entries::{Expanded, Place};
use crate::repository::frames::chunk_not_found;
use crate::repository::index::{Bits, Index};
use crate::repository::reader::Reader;
use crate::repository::walk::Needs;
use crate::{ChunkId, Error, JobContext, Result, SnapshotId};

/// Lost things that are named; with the first one the snapshot is not copied.
const LOST_MAX: usize = 100;

/// Found by walking a snapshot in the place that has it.
#[derive(Debug)]
pub(in crate::repository) struct Gaps<'a> {
    from: &'a Index,
    to: &'a Index,
    barred: &'a Bits,
    /// Pages of which everything below is there, or among what is missing.
    pub(in crate::repository) walked: Bits,
    /// Chunks that are missing there, as bits of this place's index.
    pub(in crate::repository) missing: Bits,
    /// The packs here that they are copied from, and how many bytes of each.
    pub(in crate::repository) packs: BTreeMap<u32, u64>,
    /// What cannot be read here.
    pub(in crate::repository) lost: Vec<DamagedObject>,
    snapshot: SnapshotId,
}

impl<'a> Gaps<'a> {
    /// Nothing in the packs of `to` that are `barred` may be relied upon.
    pub(in crate::repository) fn new(
        from: &'a Index,
        (to, barred): (&'a Index, &'a Bits),
        walked: Bits,
        snapshot: SnapshotId,
    ) -> Self {
        let (missing, packs, lost) = Default::default();
        Self { from, to, barred, walked, missing, packs, lost, snapshot }
    }

    fn need(&mut self, id: &ChunkId, len: u32) -> Result<Option<u32>> {
        let Some(at) = self.from.bit(id.short())? else {
            self.lost(&chunk_not_found(id));
            return Ok(None);
        };
        if self.missing.contains(at) || self.to.contains(id.short(), len, self.barred)? {
            return Ok(Some(at));
        }
        let Some(row) = self.from.find(id.short(), len)?.first().copied() else {
            self.lost(&chunk_not_found(id));
            return Ok(None);
        };
        self.missing.insert(at);
        let bytes = self.packs.entry(row.pack).or_default();
        *bytes = bytes.saturating_add(u64::from(len));
        Ok(Some(at))
    }
}

impl Needs for Gaps<'_> {
    fn page(&mut self, page: &PageRef) -> Result<bool> {
        if self.from.bit(page.id.short())?.is_some_and(|at| self.walked.contains(at)) {
            return Ok(false);
        }
        let Some(at) = self.need(&page.id, page.len)? else { return Ok(false) };
        self.walked.insert(at);
        Ok(true)
    }

    fn chunk(&mut self, chunk: &ChunkRef) -> Result<()> {
        self.need(&chunk.id, chunk.len).map(drop)
    }

    fn lost(&mut self, error: &Error) {
        if self.lost.len() < LOST_MAX {
            let reason = format!("what it needs cannot be read: {error}");
            self.lost.push(DamagedObject { object: format!("snapshots/{}", self.snapshot), reason });
        }
    }
}

/// Marks the pages of a tree that stands whole in the other place. Only branches are read for it, not their leaves.
pub(super) async fn seed(
    root: &TreeRoot,
    reader: &Reader,
    walked: &mut Bits,
    job: &JobContext,
) -> Result<()> {
    let mut stack = vec![Place::root(root)?];
    while let Some(place) = stack.pop() {
        job.check()?;
        let Some(at) = reader.index.bit(place.page.id.short())? else { continue };
        walked.insert(at);
        if place.levels > 0 {
            let bytes = reader.page(&place.page, job).await?;
            if let Expanded::Pages(places) = place.expand(&bytes)? {
                stack.extend(places);
            }
        }
    }
    Ok(())
}
