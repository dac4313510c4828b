//! Walking every snapshot: which entries are harmed by what is damaged?

use std::collections::HashSet;

use super::Verification;
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::document::SessionOutcome;
use crate::format::entries::StoredEntry;
use crate::format::page::TreeRoot;
use crate::report::{DamagedEntry, DamagedObject};
use crate::repository::content::ChunkStream;
use crate::repository::entries::{Expanded, Place};
use crate::repository::keys;
use crate::repository::reader::Reader;
use crate::{ChunkId, Result, ShortId, SnapshotId};

/// Pages that are remembered as whole, in about 40 MiB; others are read again for each snapshot that shares them.
const WHOLE_PAGES_MAX: usize = 1 << 20;

impl Verification<'_> {
    /// Walks all snapshots. Pages found whole once are not read again for the next snapshot that shares them.
    pub(super) async fn check_snapshots(&mut self, ids: Vec<SnapshotId>, reader: &Reader) -> Result<()> {
        let mut whole: HashSet<ShortId> = HashSet::new();
        let mut unindexed = false;
        for meta in crate::SinkExt::list_all(&*self.store().sink, keys::SNAPSHOTS).await? {
            if let Err(error) = keys::id_of(&meta.key) {
                self.count(&meta.key, Err(error))?;
            }
        }
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
                    self.damaged(id, String::new(), reason);
                    continue;
                }
            };
            self.count(&key, Ok(()))?;
            self.report.checked.snapshots = self.report.checked.snapshots.saturating_add(1);
            for root in [document.tree, document.trailing].into_iter().flatten() {
                unindexed |= self.check_tree(reader, id, &root, &mut whole).await?;
            }
        }
        if unindexed {
            let reason = "lacks packs that snapshots need; they restore, slowly; run `repair index`";
            self.report.damaged_objects.push(DamagedObject { object: "index".into(), reason: reason.into() });
        }
        Ok(())
    }

    // Returns whether only packs that no index segment names hold some page or chunk.
    async fn check_tree(
        &mut self,
        reader: &Reader,
        id: SnapshotId,
        root: &TreeRoot,
        whole: &mut HashSet<ShortId>,
    ) -> Result<bool> {
        let mut unindexed = false;
        let mut stack = Vec::new();
        match Place::root(root) {
            Ok(place) => stack.push(place),
            Err(error) => self.damaged(id, String::new(), error.to_string()),
        }
        while let Some(place) = stack.pop() {
            let page = place.page;
            unindexed |= only_in_orphans(reader, &page.id, page.len)?;
            if whole.contains(&page.id.short()) {
                continue;
            }
            let bytes = match reader.page(&page, self.job).await {
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
                    let before = self.report.damaged_entries.len();
                    for stored in entries {
                        unindexed |= self.check_entry(reader, id, &stored).await?;
                    }
                    if self.report.damaged_entries.len() == before && whole.len() < WHOLE_PAGES_MAX {
                        whole.insert(page.id.short());
                    }
                }
                Err(error) => {
                    // It was written like this: such a tree is not walked any further.
                    self.damaged(id, String::new(), error.to_string());
                    stack.clear();
                }
            }
        }
        Ok(unindexed)
    }

    // Returns whether only packs that no index segment names hold some chunk.
    async fn check_entry(
        &mut self,
        reader: &Reader,
        snapshot: SnapshotId,
        stored: &StoredEntry,
    ) -> Result<bool> {
        self.report.checked.entries = self.report.checked.entries.saturating_add(1);
        let mut unindexed = false;
        let mut reason = None;
        if let StoredContent::Chunks(_) | StoredContent::Paged { .. } = &stored.content {
            let mut chunks = ChunkStream::new(reader.clone(), &stored.content)?;
            let mut bytes = 0_u64;
            loop {
                match chunks.next(self.job).await {
                    Ok(None) => break,
                    Ok(Some(chunk)) => {
                        bytes = bytes.saturating_add(u64::from(chunk.len));
                        if reason.is_none() {
                            reason = self.chunk_problem(reader, &chunk)?;
                        }
                        unindexed |= only_in_orphans(reader, &chunk.id, chunk.len)?;
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
        Ok(unindexed)
    }

    fn chunk_problem(&self, reader: &Reader, chunk: &ChunkRef) -> Result<Option<String>> {
        let mut problem = format!("its chunk {} is in no pack", chunk.id);
        for row in reader.index.find(chunk.id.short(), chunk.len)?.iter() {
            if let Some(reason) = self.bad_packs.get(&row.pack) {
                problem = format!("needs {}, which {reason}", reader.index.pack(row.pack)?.key);
            } else if self.bad_frames.contains(&(row.pack, row.frame)) {
                problem = format!("needs {}, which is damaged", reader.index.pack(row.pack)?.key);
            } else {
                return Ok(None);
            }
        }
        Ok(Some(problem))
    }

    fn damaged(&mut self, snapshot: SnapshotId, name: String, reason: String) {
        self.report.damaged_entries.push(DamagedEntry { snapshot, name, reason });
    }
}

fn only_in_orphans(reader: &Reader, id: &ChunkId, len: u32) -> Result<bool> {
    if !reader.index.has_orphans() {
        return Ok(false);
    }
    let rows = reader.index.find(id.short(), len)?;
    Ok(!rows.is_empty() && rows.iter().all(|row| reader.index.is_orphan(row.pack)))
}
