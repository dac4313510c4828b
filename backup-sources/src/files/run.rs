//! One run: the walk on a thread of its own, content opened where the engine asks.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use async_channel::{Receiver, Sender};
use async_trait::async_trait;
use backup_core::{Content, Entry, EntryName, Error, Finished, Item, OwnerNames, Result, SourceRun};

use super::content::{self, Expected};
use super::owners::Owners;
use super::roots::Root;
use super::walk::{Guide, Walk};
use super::{Settings, XattrsRead};
use crate::system;
use crate::view::Taken;

/// Items that the walk hands over at once.
const BATCH_ITEMS: usize = 512;
/// Batches that may wait to be fetched.
const BATCHES_WAITING: usize = 8;

/// A run of a [`FilesSource`](super::FilesSource).
pub(crate) struct FilesRun {
    batches: Receiver<Batch>,
    rest: std::vec::IntoIter<Item>,
    ended: bool,
    owners: OwnerNames,
    /// Those in access lists that are read with content, if they are.
    listed: Option<Arc<Mutex<Owners>>>,
    bases: Arc<[Base]>,
    euid: u32,
    is_root: bool,
    /// Last, so that what is read from it is let go first.
    view: Option<Taken>,
}

/// Where the entries of one root are opened.
#[derive(Debug)]
pub(super) struct Base {
    /// The name of the root.
    pub(super) name: Option<EntryName>,
    /// The root itself where its content is at the top of the snapshot, otherwise the directory that it is in.
    pub(super) directory: OwnedFd,
    /// The root's last component: what its entries' paths start with. Empty for a root at the top.
    pub(super) first: Vec<u8>,
}

enum Batch {
    Items(Vec<Item>),
    // The channel closing by itself means that the walk broke off.
    End(OwnerNames),
}

impl FilesRun {
    /// Starts the walk. It ends by itself when the run is dropped.
    pub(super) fn start(
        settings: Settings,
        roots: Vec<Root>,
        bases: Vec<Base>,
        view: Option<Taken>,
        guide: Option<Guide>,
    ) -> Result<Self> {
        let (sender, batches) = async_channel::bounded(BATCHES_WAITING);
        let listed = (settings.xattrs == XattrsRead::WithContent).then(Arc::default);
        std::thread::Builder::new()
            .name("backup-walk".into())
            .spawn(move || walk(Walk::new(settings, roots, guide), &sender))
            .map_err(|error| Error::io("the thread that walks the files cannot be started", error))?;
        Ok(Self {
            batches,
            rest: Vec::new().into_iter(),
            ended: false,
            owners: OwnerNames::default(),
            listed,
            bases: bases.into(),
            euid: rustix::process::geteuid().as_raw(),
            is_root: system::is_root(),
            view,
        })
    }
}

fn walk(mut walk: Walk, sender: &Sender<Batch>) {
    let mut more = true;
    while more {
        let mut items = Vec::with_capacity(BATCH_ITEMS);
        more = walk.fill(&mut items, BATCH_ITEMS);
        // Nobody listens any more: the run was dropped.
        if sender.send_blocking(Batch::Items(items)).is_err() {
            return;
        }
    }
    let _ = sender.send_blocking(Batch::End(walk.into_owner_names()));
}

#[async_trait]
impl SourceRun for FilesRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        while self.rest.len() == 0 && !self.ended {
            match self.batches.recv().await {
                Ok(Batch::Items(items)) if items.len() <= max => {
                    if !items.is_empty() {
                        return Ok(items);
                    }
                }
                Ok(Batch::Items(items)) => self.rest = items.into_iter(),
                Ok(Batch::End(owners)) => {
                    self.owners = owners;
                    self.ended = true;
                }
                Err(_) => return Err(Error::internal("the walk of the files broke off")),
            }
        }
        Ok(self.rest.by_ref().take(max).collect())
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let within = |base: &&Base| base.name.as_ref().is_none_or(|name| entry.name.is_within(name));
        let (at, base) =
            self.bases.iter().enumerate().find(|(_, base)| within(base)).ok_or_else(|| {
                Error::invalid_input("this entry is not of this run").with_entry(&entry.name)
            })?;
        let skip = base.name.as_ref().map_or(0, |name| name.as_bytes().len());
        let rest = entry.name.as_bytes().get(skip..).unwrap_or_default();
        let path = [base.first.as_slice(), rest].concat();
        let owner = entry.posix.map(|posix| posix.uid);
        let expected = Expected {
            stamp: entry.stamp.clone(),
            sparse: entry.sparse,
            quiet: self.is_root || owner == Some(self.euid),
            owners: self.listed.clone(),
        };
        let bases = Arc::clone(&self.bases);
        Ok(Content::blocking(move || {
            let base = bases.get(at).ok_or(std::io::ErrorKind::NotFound)?;
            content::open(&base.directory, &path, &expected)
        }))
    }

    async fn finish(&mut self) -> Result<Finished> {
        let mut finished = Finished { owners: std::mem::take(&mut self.owners), ..Finished::default() };
        if let Some(listed) = self.listed.take() {
            listed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add_to(&mut finished.owners);
        }
        if let Some(view) = self.view.take() {
            // What is open in it would keep it from being given up.
            self.bases = Arc::new([]);
            let released = tokio::task::spawn_blocking(move || view.release()).await;
            finished.skipped = released
                .map_err(|error| Error::internal("giving up the view broke off").with_source(error))?;
        }
        Ok(finished)
    }
}
