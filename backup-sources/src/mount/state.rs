//! What the kernel asks, answered from the repository.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use backup_core::entry::XATTR_PREFIX;
use backup_core::observer::Event;
use backup_core::repository::{StoredEntry, TreeEntry};
use backup_core::{
    EntryKind, EntryName, Error, ErrorKind, JobContext, Repository, Result, Skipped, SnapshotId, Timestamp,
};
use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType};
use tokio::sync::Semaphore;

use super::MountOptions;
use super::attributes::{self, Owner};
use super::catalogue::{Catalogue, Item, join};
use super::content::OpenFile;
use super::listing::{EntryDirectory, Listed, OpenDirectory};
use super::nodes::{Node, Nodes};
use super::pieces::Pieces;
use super::views::{View, Views, is_link};

/// Files and directories that may be open at once.
const HANDLES_MAX: usize = 16 * 1024;
/// Files and directories with damage that are told of by name; further ones are counted.
const TOLD_MAX: usize = 10_000;
/// For how long a list of snapshots is taken to be current.
const LIST_AGE_MAX: Duration = Duration::from_secs(3);
/// Longest target of a link that the system reads (`PATH_MAX`, limits.h, with its end).
const TARGET_BYTES_MAX: usize = 4095;
/// Most memory for pieces of contents.
const PIECES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What kernel requests are answered with.
pub(super) type Answer<T> = std::result::Result<T, Errno>;

/// A mounted repository.
#[derive(Debug)]
pub(super) struct State {
    repository: Repository,
    options: MountOptions,
    job: JobContext,
    owner: Owner,
    nodes: Nodes,
    views: Views,
    catalogue: Mutex<Arc<Catalogue>>,
    /// When the list of snapshots was read last; held while it is read.
    listed: tokio::sync::Mutex<Instant>,
    handles: Mutex<HashMap<u64, Handle>>,
    handle: AtomicU64,
    pieces: Arc<Pieces>,
    readers_ahead: Arc<Semaphore>,
    /// Files and directories with damage, which were told of.
    told: Mutex<HashSet<Node>>,
    unreadable: AtomicU64,
}

/// Something open.
#[derive(Debug, Clone)]
enum Handle {
    File(Arc<OpenFile>),
    Directory(Arc<tokio::sync::Mutex<OpenDirectory>>),
}

/// An open directory, locked: one reader at a time.
pub(super) type Directory = Arc<tokio::sync::Mutex<OpenDirectory>>;

impl State {
    /// Reads the list of snapshots, so that what fails at once does not get mounted.
    pub(super) async fn new(
        repository: Repository,
        options: MountOptions,
        job: JobContext,
        owner: Owner,
    ) -> Result<Self> {
        let bytes_max = (job.resources().memory_bytes() / 4).min(PIECES_BYTES_MAX);
        let readers = job.resources().workers().max(2);
        let state = Self {
            views: Views::new(repository.clone()),
            repository,
            options,
            job,
            owner,
            nodes: Nodes::default(),
            catalogue: Mutex::default(),
            listed: tokio::sync::Mutex::new(Instant::now()),
            handles: Mutex::default(),
            handle: AtomicU64::new(1),
            pieces: Arc::new(Pieces::new(bytes_max)),
            readers_ahead: Arc::new(Semaphore::new(readers)),
            told: Mutex::default(),
            unreadable: AtomicU64::new(0),
        };
        state.list().await?;
        Ok(state)
    }

    pub(super) fn job(&self) -> &JobContext {
        &self.job
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Files and directories that could not be read in full so far.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    // The snapshots as the store lists them now.
    async fn list(&self) -> Result<()> {
        let (snapshots, damaged) = self.repository.snapshots_and_damage(&self.job).await?;
        for (key, error) in damaged {
            self.tell(Node::Above(key.as_str().into()), &key, &error);
        }
        let shown: Vec<_> = snapshots.iter().filter(|snapshot| self.options.passes(snapshot)).collect();
        let catalogue = Catalogue::new(shown.iter().copied());
        let mut held = locked(&self.catalogue);
        if shown.iter().any(|snapshot| held.time(snapshot.id).is_none()) {
            // Snapshots opened from now on see what is new in the index.
            self.views.close_all();
        }
        *held = Arc::new(catalogue);
        Ok(())
    }

    /// The directories above the snapshots, not older than a few seconds, unless the store does not answer.
    async fn catalogue(&self) -> Arc<Catalogue> {
        // While one reads the list, the others take what there is.
        if let Ok(mut listed) = self.listed.try_lock()
            && listed.elapsed() > LIST_AGE_MAX
        {
            let read = self.list().await;
            *listed = Instant::now();
            if let Err(error) = read {
                self.tell(Node::Above("list".into()), &"the list of snapshots", &error);
            }
        }
        locked(&self.catalogue).clone()
    }

    /// What stands under a name in a directory.
    pub(super) async fn lookup(&self, parent: u64, name: &[u8]) -> Answer<(FileAttr, bool)> {
        let (node, attr) = match self.nodes.get(parent)? {
            Node::Above(path) => {
                let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
                let catalogue = self.catalogue().await;
                let item = catalogue.get(&path, name).ok_or(Errno::ENOENT)?;
                let node = node_above(item, &join(&path, name));
                let attr = self.attr_above(item, &node, &catalogue);
                (node, attr)
            }
            Node::Entry { snapshot, name: parent } => {
                let below = match &parent {
                    Some(parent) => parent.join(name),
                    None => EntryName::new(name),
                };
                let below = below.map_err(|_| Errno::ENOENT)?;
                let view = self.view(snapshot).await?;
                let found = view.entry(&below, &self.job).await;
                let found = found.map_err(|error| self.failed(snapshot, Some(&below), &error))?;
                self.attr_entry(&view, &found.ok_or(Errno::ENOENT)?).await?
            }
        };
        self.nodes.remember(&node)?;
        Ok((attr, matches!(node, Node::Above(_) | Node::Entry { name: None, .. })))
    }

    /// What `stat` says of an inode, and whether that may change.
    pub(super) async fn attr(&self, inode: u64) -> Answer<(FileAttr, bool)> {
        let node = self.nodes.get(inode)?;
        match &node {
            Node::Above(path) => {
                let catalogue = self.catalogue().await;
                let item = self.item(path, &catalogue)?;
                Ok((self.attr_above(&item, &node, &catalogue), true))
            }
            Node::Entry { snapshot, name: None } => Ok((self.attr_top(*snapshot, inode), true)),
            Node::Entry { snapshot, name: Some(name) } => {
                let view = self.view(*snapshot).await?;
                let found = self.entry(&view, name).await?;
                Ok((self.attr_entry(&view, &found).await?.1, false))
            }
        }
    }

    /// Where a link points.
    pub(super) async fn target(&self, inode: u64) -> Answer<Vec<u8>> {
        let target = match self.nodes.get(inode)? {
            Node::Above(path) => match self.item(&path, &*self.catalogue().await)? {
                Item::Link(target) => target.into_bytes(),
                _ => return Err(Errno::EINVAL),
            },
            Node::Entry { snapshot, name } => {
                match self.stored(snapshot, name.as_ref()).await?.map(|stored| stored.entry.kind) {
                    Some(EntryKind::Symlink { target }) => target.into(),
                    _ => return Err(Errno::EINVAL),
                }
            }
        };
        match target.len() {
            // The system would take what stands before it for all.
            _ if target.contains(&0) => Err(Errno::EIO),
            ..=TARGET_BYTES_MAX => Ok(target),
            _ => Err(Errno::ENAMETOOLONG),
        }
    }

    /// The names of an inode's extended attributes, each with a NUL behind it.
    pub(super) async fn xattr_names(&self, inode: u64) -> Answer<Vec<u8>> {
        let Node::Entry { snapshot, name } = self.nodes.get(inode)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        if let Some(stored) = self.stored(snapshot, name.as_ref()).await? {
            let all = stored.entry.attributes.iter();
            for name in all.filter_map(|attribute| attribute.name.strip_prefix(XATTR_PREFIX)) {
                names.extend_from_slice(name);
                names.push(0);
            }
        }
        Ok(names)
    }

    /// The value of an extended attribute.
    pub(super) async fn xattr(&self, inode: u64, name: &[u8]) -> Answer<Vec<u8>> {
        let Node::Entry { snapshot, name: entry } = self.nodes.get(inode)? else {
            return Err(Errno::NO_XATTR);
        };
        let stored = self.stored(snapshot, entry.as_ref()).await?.ok_or(Errno::NO_XATTR)?;
        let value = stored.entry.attribute(&[XATTR_PREFIX, name].concat()).map(<[u8]>::to_vec);
        value.ok_or(Errno::NO_XATTR)
    }

    /// Opens a file.
    pub(super) async fn open(&self, inode: u64) -> Answer<u64> {
        let Node::Entry { snapshot, name: Some(name) } = self.nodes.get(inode)? else {
            return Err(Errno::EISDIR);
        };
        let view = self.view(snapshot).await?;
        let stored = self.entry(&view, &name).await?.stored.ok_or(Errno::EISDIR)?;
        if !stored.entry.kind.has_content() {
            return Err(Errno::EINVAL);
        }
        let content = view.tree.open(&stored, &self.job);
        self.keep(Handle::File(Arc::new(OpenFile::new(inode, snapshot, name, content))))
    }

    /// Reads a range of an open file.
    pub(super) async fn read(&self, handle: u64, range: Range<u64>) -> Answer<Bytes> {
        let Some(Handle::File(file)) = locked(&self.handles).get(&handle).cloned() else {
            return Err(Errno::EBADF);
        };
        file.read_ahead(range.clone(), &self.pieces, &self.readers_ahead).await;
        file.read(range, &self.pieces)
            .await
            .map_err(|error| self.failed(file.snapshot, Some(&file.name), &error))
    }

    /// Opens a directory; whether what it holds may change.
    pub(super) async fn open_directory(&self, inode: u64) -> Answer<(u64, bool)> {
        let node = self.nodes.get(inode)?;
        let changes = matches!(node, Node::Above(_));
        let directory = match node {
            Node::Above(path) => {
                let catalogue = self.catalogue().await;
                if catalogue.list(&path).is_none() {
                    return Err(Errno::ENOENT);
                }
                OpenDirectory::Above { catalogue, path }
            }
            Node::Entry { snapshot, name } => {
                let view = self.view(snapshot).await?;
                OpenDirectory::Entry(Box::new(EntryDirectory::new(view, name, &self.job)))
            }
        };
        let handle = self.keep(Handle::Directory(Arc::new(tokio::sync::Mutex::new(directory))))?;
        Ok((handle, changes))
    }

    /// An open directory.
    pub(super) fn directory(&self, handle: u64) -> Answer<Directory> {
        match locked(&self.handles).get(&handle) {
            Some(Handle::Directory(directory)) => Ok(directory.clone()),
            _ => Err(Errno::EBADF),
        }
    }

    /// The name at a place in a directory, none behind the last.
    pub(super) async fn listed(&self, directory: &mut OpenDirectory, place: u64) -> Answer<Option<Listed>> {
        let found = directory.at(place, &self.job).await;
        let (Node::Entry { snapshot, name }, error) = (directory.node(), directory.damage()) else {
            return found.map_err(|_| Errno::EIO);
        };
        match (found, error) {
            (Ok(None), Some(error)) => Err(self.failed(snapshot, name.as_ref(), error)),
            (Ok(found), _) => Ok(found),
            (Err(error), _) => Err(self.failed(snapshot, name.as_ref(), &error)),
        }
    }

    /// The inode number and kind of a name in a directory.
    pub(super) fn brief(&self, directory: &OpenDirectory, listed: &Listed) -> (u64, FileType) {
        let kind = match listed {
            Listed::Above { item: Item::Link(_), .. } => FileType::Symlink,
            Listed::Above { .. } => FileType::Directory,
            // What a hard link is a name of may be anything but a directory; nearly always it is a file.
            Listed::Entry(child) => child
                .stored
                .as_ref()
                .map_or(FileType::Directory, |stored| attributes::file_type(&stored.entry.kind)),
        };
        let node = self.brief_node(directory, listed);
        (node.map_or(0, |node| self.nodes.number(&node)), kind)
    }

    /// What a name in a directory stands for.
    pub(super) fn brief_node(&self, directory: &OpenDirectory, listed: &Listed) -> Option<Node> {
        match (listed, directory) {
            (Listed::Above { item, path, .. }, _) => Some(node_above(item, path)),
            (Listed::Entry(child), OpenDirectory::Entry(directory)) => {
                let name = match child.stored.as_ref().map(|stored| &stored.entry.kind) {
                    Some(EntryKind::HardLink { to }) => to,
                    _ => &child.name,
                };
                Some(Node::Entry { snapshot: directory.view.id, name: Some(name.clone()) })
            }
            (Listed::Entry(_), OpenDirectory::Above { .. }) => None,
        }
    }

    /// What is said of something that cannot be looked at.
    pub(super) fn attr_unknown(&self, number: u64, kind: FileType) -> FileAttr {
        attributes::plain(number, kind, 0, Timestamp::default(), self.owner)
    }

    /// What `stat` says of a name in a directory, the node to be remembered, and whether that may change.
    pub(super) async fn listed_attr(
        &self,
        directory: &OpenDirectory,
        listed: &Listed,
    ) -> Answer<(Node, FileAttr, bool)> {
        match (listed, directory) {
            (Listed::Above { item, path, .. }, OpenDirectory::Above { catalogue, .. }) => {
                let node = node_above(item, path);
                let attr = self.attr_above(item, &node, catalogue);
                Ok((node, attr, true))
            }
            (Listed::Entry(child), OpenDirectory::Entry(directory)) => {
                let view = &directory.view;
                let (node, attr) = match &child.stored {
                    Some(stored) if is_link(stored) => {
                        let behind = view.behind(stored, &self.job).await;
                        let behind = behind.map_err(|e| self.failed(view.id, Some(&child.name), &e))?;
                        self.attr_entry(view, &behind).await?
                    }
                    _ => self.attr_entry(view, child).await?,
                };
                Ok((node, attr, false))
            }
            _ => Err(Errno::EIO),
        }
    }

    /// The directory that a directory stands in.
    pub(super) fn parent(&self, node: &Node) -> u64 {
        let parent = match node {
            Node::Above(path) => Node::Above(super::catalogue::split(path).map_or("", |(up, _)| up).into()),
            Node::Entry { name: None, .. } => Node::Above("snapshots".into()),
            Node::Entry { snapshot, name: Some(name) } => {
                Node::Entry { snapshot: *snapshot, name: name.parent() }
            }
        };
        self.nodes.number(&parent)
    }

    /// Closes a file or directory.
    pub(super) fn close(&self, handle: u64) {
        locked(&self.handles).remove(&handle);
    }

    fn keep(&self, opened: Handle) -> Answer<u64> {
        let mut handles = locked(&self.handles);
        if handles.len() >= HANDLES_MAX {
            return Err(Errno::ENFILE);
        }
        let handle = self.handle.fetch_add(1, Ordering::Relaxed);
        handles.insert(handle, opened);
        Ok(handle)
    }

    async fn view(&self, snapshot: SnapshotId) -> Answer<Arc<View>> {
        let view = self.views.get(snapshot, &self.job).await;
        view.map_err(|error| self.failed(snapshot, None, &error))
    }

    async fn entry(&self, view: &View, name: &EntryName) -> Answer<TreeEntry> {
        let found = view.entry(name, &self.job).await;
        found.map_err(|error| self.failed(view.id, Some(name), &error))?.ok_or(Errno::ESTALE)
    }

    async fn stored(&self, snapshot: SnapshotId, name: Option<&EntryName>) -> Answer<Option<StoredEntry>> {
        let Some(name) = name else { return Ok(None) };
        let view = self.view(snapshot).await?;
        Ok(self.entry(&view, name).await?.stored)
    }

    fn item(&self, path: &str, catalogue: &Catalogue) -> Answer<Item> {
        match super::catalogue::split(path) {
            None => Ok(Item::Directory(String::new())),
            Some((parent, name)) => catalogue.get(parent, name).cloned().ok_or(Errno::ENOENT),
        }
    }

    fn attr_above(&self, item: &Item, node: &Node, catalogue: &Catalogue) -> FileAttr {
        let number = self.nodes.number(node);
        let (kind, size, time) = match item {
            Item::Directory(_) => (FileType::Directory, 0, catalogue.latest),
            Item::Link(target) => (FileType::Symlink, target.len() as u64, catalogue.latest),
            Item::Snapshot(id) => return self.attr_top(*id, number),
        };
        attributes::plain(number, kind, size, time, self.owner)
    }

    fn attr_top(&self, snapshot: SnapshotId, number: u64) -> FileAttr {
        attributes::plain(number, FileType::Directory, 0, self.time(snapshot), self.owner)
    }

    /// The node of something in a snapshot that is no hard link, and what `stat` says of it.
    async fn attr_entry(&self, view: &View, found: &TreeEntry) -> Answer<(Node, FileAttr)> {
        let node = Node::Entry { snapshot: view.id, name: Some(found.name.clone()) };
        let number = self.nodes.number(&node);
        let attr = match &found.stored {
            None => attributes::plain(number, FileType::Directory, 0, self.time(view.id), self.owner),
            Some(stored) => {
                let names = view.names(stored, &self.job).await;
                let names = names.map_err(|error| self.failed(view.id, Some(&found.name), &error))?;
                if stored.entry.size.is_some_and(|size| i64::try_from(size).is_err()) {
                    return Err(Errno::EOVERFLOW);
                }
                attributes::of_entry(number, &stored.entry, names, self.time(view.id), self.owner)
            }
        };
        Ok((node, attr))
    }

    fn time(&self, snapshot: SnapshotId) -> Timestamp {
        locked(&self.catalogue).time(snapshot).unwrap_or_default()
    }

    /// Tells of a failure, and what the kernel is answered.
    fn failed(&self, snapshot: SnapshotId, name: Option<&EntryName>, error: &Error) -> Errno {
        match error.kind() {
            // Deleted since it was listed.
            ErrorKind::NotFound if name.is_none() => return Errno::ENOENT,
            ErrorKind::Cancelled => return Errno::EIO,
            ErrorKind::Corruption => self.views.close(snapshot),
            _ => {}
        }
        let shown = name.map_or_else(|| "its top".to_owned(), EntryName::to_string);
        self.tell(
            Node::Entry { snapshot, name: name.cloned() },
            &format_args!("{:.8}: {shown}", snapshot.to_string()),
            error,
        );
        Errno::EIO
    }

    fn tell(&self, about: Node, name: &dyn std::fmt::Display, error: &Error) {
        let mut told = locked(&self.told);
        if told.contains(&about) {
            return;
        }
        self.unreadable.fetch_add(1, Ordering::Relaxed);
        if told.len() < TOLD_MAX {
            told.insert(about);
            drop(told);
            self.job.emit(&Event::Skipped(Skipped::new(name, error)));
        }
    }
}

fn node_above(item: &Item, path: &str) -> Node {
    match item {
        Item::Snapshot(id) => Node::Entry { snapshot: *id, name: None },
        _ => Node::Above(path.into()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
