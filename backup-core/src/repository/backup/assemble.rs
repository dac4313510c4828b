//! Puts finished batches back into order and builds the snapshot's trees from them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::kept::Room;
use super::names::SeenNames;
use super::packer::SharedPages;
use super::shared::Shared;
use super::sort::EntrySorter;
use super::worker::Done;
use crate::format::entries::StoredEntry;
use crate::format::page::TreeRoot;
use crate::repository::tree::EntryTreeBuilder;
use crate::{DataKind, Entry, EntryKind, EntryOrder, Error, Result, Skipped};

/// Batches that may be under way at once; what bounds the memory of entries out of order.
pub(crate) const WINDOW_BATCHES: usize = 32;

/// What feeder and assembler agree on.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) permits: Semaphore,
    /// For what is taken from the parent in parts.
    pub(crate) room: Room,
    /// The number of the first batch of entries that were known only at the end.
    pub(crate) trailing_from: AtomicU64,
}

impl Window {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(WINDOW_BATCHES),
            room: Room::default(),
            trailing_from: AtomicU64::new(u64::MAX),
        })
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
        let resources = self.shared.job.resources().clone();
        let mut names = SeenNames::new(resources.scratch_directory());
        let new_sorter = || EntrySorter::new(resources.scratch_directory());
        let (mut sorter, mut late) = (new_sorter(), new_sorter());
        let mut late_names = HashSet::new();
        while let Ok(done) = self.done.recv_blocking() {
            self.shared.check()?;
            waiting.insert(done.sequence, done.entries);
            while let Some(entries) = waiting.remove(&next) {
                let is_trailing = next >= self.window.trailing_from.load(Ordering::Acquire);
                for stored in entries {
                    if !is_trailing && self.is_held_back(&stored) {
                        continue;
                    }
                    self.count(&stored);
                    match (is_trailing, self.order) {
                        (true, _) => {
                            late_names.insert(names.hash(&stored.entry.name));
                            late.push(stored)?;
                        }
                        (false, EntryOrder::Sorted) => {
                            names.push(&stored.entry.name)?;
                            tree.push(&stored, &mut pages)?;
                        }
                        (false, EntryOrder::Unsorted) => sorter.push(stored)?,
                    }
                }
                next = next.saturating_add(1);
                self.window.permits.add_permits(1);
            }
        }
        self.shared.check()?;
        sorter.finish(|stored| {
            if self.leads_nowhere(&stored.entry) {
                return Ok(());
            }
            names.push(&stored.entry.name)?;
            tree.push(&stored, &mut pages)
        })?;
        let twice = names.among(&late_names)?;
        late.finish(|stored| {
            let name = &stored.entry.name;
            if twice.contains(&names.hash(name)) {
                let message = "the source yielded this name among its entries and again at its end";
                return Err(Error::invalid_input(message).with_entry(name));
            }
            trailing.push(&stored, &mut pages)
        })?;
        let trees = Trees { tree: tree.finish(&mut pages)?, trailing: trailing.finish(&mut pages)? };
        self.pages.finish()?;
        Ok(trees)
    }

    fn count(&self, stored: &StoredEntry) {
        let counters = &self.shared.counters;
        counters.entries.fetch_add(1, Ordering::Relaxed);
        if stored.entry.kind == EntryKind::File {
            let of_kind = counters.kind(DataKind::of(&stored.entry.name));
            of_kind.files.fetch_add(1, Ordering::Relaxed);
            of_kind.bytes.fetch_add(stored.content.len(), Ordering::Relaxed);
        }
    }

    // A link to a file that was left out waits until all else was read.
    fn is_held_back(&self, stored: &StoredEntry) -> bool {
        if !self.shared.left_out.is_orphan(&stored.entry) {
            return false;
        }
        if !self.shared.left_out.hold_back(&stored.entry) {
            self.skip_link(&stored.entry);
        }
        true
    }

    // What comes in no order may link to a file that was left out only later; then it is too late for another try.
    fn leads_nowhere(&self, entry: &Entry) -> bool {
        let nowhere = self.shared.left_out.is_orphan(entry);
        if nowhere {
            self.shared.counters.entries.fetch_sub(1, Ordering::Relaxed);
            self.skip_link(entry);
        }
        nowhere
    }

    fn skip_link(&self, link: &Entry) {
        let EntryKind::HardLink { to } = &link.kind else { return };
        self.shared.skip(Skipped::new(&link.name, format!("it is a link to `{to}`, which was skipped")));
    }
}
