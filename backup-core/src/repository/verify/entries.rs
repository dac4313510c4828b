//! Walking every snapshot: which entries are harmed by what is damaged?

use std::collections::HashSet;

use super::{Bad, Verification};
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::document::SessionOutcome;
use crate::format::entries::StoredEntry;
use crate::format::page::TreeRoot;
use crate::report::{DamagedEntry, DamagedObject};
use crate::repository::content::ChunkStream;
use crate::repository::entries::{Expanded, Place};
use crate::repository::keys;
use crate::repository::reader::Reader;
use crate::{ChunkId, JobContext, Result, ShortId, SnapshotId};

/// Pages that are remembered as whole, in about 40 MiB; others are read again for each snapshot that shares them.
const WHOLE_PAGES_MAX: usize = 1 << 20;

/// A snapshot, and the roots of its trees.
pub(super) type Trees = (SnapshotId, Vec<TreeRoot>);

impl Verification<'_> {
    /// Reads the documents of all snapshots. Returns what is to be walked.
    pub(super) async fn check_snapshots(&mut self, ids: Vec<SnapshotId>) -> Result<Vec<Trees>> {
        for meta in crate::SinkExt::list_all(&*self.store().sink, keys::SNAPSHOTS).await? {
            if let Err(error) = keys::id_of(&meta.key) {
                self.count(&meta.key, Err(error))?;
            }
        }
        let mut trees = Vec::new();
        for id in ids {
            self.job.check()?;
            let key = keys::snapshot(id)?;
            // Not from memory: it is the stored object that is looked at.
            let document = match self.repository.read_outcome(&key, id, self.job).await {
                Ok(SessionOutcome::Snapshot(document)) => document,
                // Nothing was committed, so nothing is to be looked at.
                Ok(SessionOutcome::Fence(_)) => {
                    self.count(&key, Ok(()))?;
                    continue;
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.count(&key, Err(error))?;
                    let entry = DamagedEntry { snapshot: id, name: String::new(), reason };
                    self.report.damaged_entries.push(entry);
                    continue;
                }
            };
            self.count(&key, Ok(()))?;
            self.report.checked.snapshots = self.report.checked.snapshots.saturating_add(1);
            trees.push((id, [document.tree, document.trailing].into_iter().flatten().collect()));
        }
        Ok(trees)
    }

    /// Adds to the report what a walk found.
    pub(super) fn add_walked(&mut self, walked: Walked) {
        let entries = &mut self.report.checked.entries;
        *entries = entries.saturating_add(walked.entries);
        self.report.damaged_entries.extend(walked.damaged);
        if walked.unindexed {
            let reason = "lacks packs that snapshots need; they restore, slowly; run `repair index`";
            self.report.damaged_objects.push(DamagedObject { object: "index".into(), reason: reason.into() });
        }
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    entries: u64,
    damaged: Vec<DamagedEntry>,
    /// Only packs that no index segment names hold some page or chunk.
    unindexed: bool,
}

/// Walks all trees. Pages found whole once are not read again for the next snapshot that shares them.
pub(super) async fn walk(trees: &[Trees], reader: &Reader, bad: &Bad, job: &JobContext) -> Result<Walked> {
    let mut walk = Walk { reader, bad, job, whole: HashSet::new(), walked: Walked::default() };
    for (id, roots) in trees {
        for root in roots {
            walk.tree(*id, root).await?;
        }
    }
    Ok(walk.walked)
}

struct Walk<'a> {
    reader: &'a Reader,
    bad: &'a Bad,
    job: &'a JobContext,
    whole: HashSet<ShortId>,
    walked: Walked,
}

impl Walk<'_> {
    async fn tree(&mut self, id: SnapshotId, root: &TreeRoot) -> Result<()> {
        let mut stack = Vec::new();
        match Place::root(root) {
            Ok(place) => stack.push(place),
            Err(error) => self.damaged(id, String::new(), error.to_string()),
        }
        while let Some(place) = stack.pop() {
            self.job.check()?;
            let page = place.page;
            self.note_orphans(&page.id, page.len)?;
            if self.whole.contains(&page.id.short()) {
                continue;
            }
            let bytes = match self.reader.page(&page, self.job).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_corruption() => {
                    let reason = format!("a page of its entries cannot be read: {error}");
                    self.damaged(id, String::new(), reason);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match place.expand(&bytes) {
                Ok(Expanded::Pages(places)) => stack.extend(places.into_iter().rev()),
                Ok(Expanded::Entries(entries)) => {
                    let before = self.walked.damaged.len();
                    for stored in entries {
                        self.entry(id, &stored).await?;
                    }
                    if self.walked.damaged.len() == before && self.whole.len() < WHOLE_PAGES_MAX {
                        self.whole.insert(page.id.short());
                    }
                    // Those who read packs beside this have their turn.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    // It was written like this: such a tree is not walked any further.
                    self.damaged(id, String::new(), error.to_string());
                    stack.clear();
                }
            }
        }
        Ok(())
    }

    async fn entry(&mut self, snapshot: SnapshotId, stored: &StoredEntry) -> Result<()> {
        self.walked.entries = self.walked.entries.saturating_add(1);
        let mut reason = None;
        if let StoredContent::Chunks(_) | StoredContent::Paged { .. } = &stored.content {
            let mut chunks = ChunkStream::new(self.reader.clone(), &stored.content)?;
            let mut bytes = 0_u64;
            loop {
                match chunks.next(self.job).await {
                    Ok(None) => break,
                    Ok(Some(chunk)) => {
                        bytes = bytes.saturating_add(u64::from(chunk.len));
                        if reason.is_none() {
                            reason = self.chunk_problem(&chunk)?;
                        }
                        self.note_orphans(&chunk.id, chunk.len)?;
                    }
                    Err(error) if error.is_corruption() => {
                        reason = Some(format!("its list of chunks: {error}"));
                        bytes = stored.content.len();
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if bytes != stored.content.len() {
                reason = Some("its chunks do not add up to its length".into());
            }
        }
        if let Some(reason) = reason {
            self.damaged(snapshot, stored.entry.name.to_string(), reason);
        }
        Ok(())
    }

    fn chunk_problem(&self, chunk: &ChunkRef) -> Result<Option<String>> {
        let index = &self.reader.index;
        let mut problem = format!("its chunk {} is in no pack", chunk.id);
        for row in index.find(chunk.id.short(), chunk.len)?.iter() {
            if let Some(reason) = self.bad.packs.get(&row.pack) {
                problem = format!("needs {}, which {reason}", index.pack(row.pack)?.key);
            } else if self.bad.frames.contains(&(row.pack, row.frame)) {
                problem = format!("needs {}, which is damaged", index.pack(row.pack)?.key);
            } else {
                return Ok(None);
            }
        }
        Ok(Some(problem))
    }

    fn note_orphans(&mut self, id: &ChunkId, len: u32) -> Result<()> {
        let index = &self.reader.index;
        if index.has_orphans() && !self.walked.unindexed {
            let rows = index.find(id.short(), len)?;
            self.walked.unindexed = !rows.is_empty() && rows.iter().all(|row| index.is_orphan(row.pack));
        }
        Ok(())
    }

    fn damaged(&mut self, snapshot: SnapshotId, name: String, reason: String) {
        self.walked.damaged.push(DamagedEntry { snapshot, name, reason });
    }
}
