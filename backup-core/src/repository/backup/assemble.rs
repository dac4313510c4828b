//! Puts finished batches back into order and builds the snapshot's trees from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::packer::SharedPages;
use super::shared::Shared;
use super::sort::EntrySorter;
use super::worker::Done;
use crate::format::entries::StoredEntry;
use crate::format::page::TreeRoot;
use crate::repository::tree::EntryTreeBuilder;
use crate::{EntryOrder, Result};

/// Batches that may be under way at once; what bounds the memory of entries out of order.
pub(crate) const WINDOW_BATCHES: usize = 32;

/// What feeder and assembler agree on.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) permits: Semaphore,
    /// The number of the first batch of entries that were known only at the end.
    pub(crate) trailing_from: AtomicU64,
}

impl Window {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { permits: Semaphore::new(WINDOW_BATCHES), trailing_from: AtomicU64::new(u64::MAX) })
    }
}

/// The assembler's result.
#[derive(Debug)]
pub(crate) struct Trees {
    pub(crate) tree: Option<TreeRoot>,
    pub(crate) trailing: Option<TreeRoot>,
}

/// The assembler thread's state.
#[derive(Debug)]
pub(crate) struct Assembler {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pages: SharedPages,
    pub(crate) window: Arc<Window>,
    pub(crate) done: async_channel::Receiver<Done>,
    pub(crate) order: EntryOrder,
}

impl Assembler {
    /// Works until every sender of batches is gone.
    pub(crate) fn run(self) -> Result<Trees> {
        let mut pages = self.pages.clone();
        let mut waiting: BTreeMap<u64, Vec<StoredEntry>> = BTreeMap::new();
        let mut next = 0_u64;
        let mut tree = EntryTreeBuilder::default();
        let mut trailing = EntryTreeBuilder::default();
        let mut sorter = EntrySorter::default();
        while let Ok(done) = self.done.recv_blocking() {
            self.shared.check()?;
            waiting.insert(done.sequence, done.entries);
            while let Some(entries) = waiting.remove(&next) {
                let is_trailing = next >= self.window.trailing_from.load(Ordering::Acquire);
                self.note(&entries);
                for entry in entries {
                    match (is_trailing, self.order) {
                        (true, _) => trailing.push(&entry, &mut pages)?,
                        (false, EntryOrder::Sorted) => tree.push(&entry, &mut pages)?,
                        (false, EntryOrder::Unsorted) => sorter.push(entry)?,
                    }
                }
                next = next.saturating_add(1);
                self.window.permits.add_permits(1);
            }
        }
        self.shared.check()?;
        sorter.finish(|entry| tree.push(&entry, &mut pages))?;
        let trees = Trees { tree: tree.finish(&mut pages)?, trailing: trailing.finish(&mut pages)? };
        self.pages.finish()?;
        Ok(trees)
    }

    fn note(&self, entries: &[StoredEntry]) {
        self.shared.counters.entries.fetch_add(entries.len() as u64, Ordering::Relaxed);
        if let Some(last) = entries.last() {
            self.shared.set_current(last.entry.name.to_string());
        }
    }
}
