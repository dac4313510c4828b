//! The walk: depth first, directories sorted, one system call a regular file, a bounded number of open directories.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use backup_core::{Attribute, Entry, EntryKind, EntryName, Item, OwnerNames, Skipped};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::inode::Hidden;
use super::links::{AWAITED_MAX, HardLinks};
use super::listing::{Listing, ListingBuffer};
use super::metadata::{self, Settling, Xattrs};
use super::owners::Owners;
use super::roots::Root;
use super::{Settings, XattrsRead, inode};
use crate::system::{describe, file_type, size};
use crate::view::PREFIX;

/// Directories kept open at once; those further up are opened again on the way back.
const OPEN_MAX: usize = 64;
/// The first line of a tag that marks a directory of caches (bford.info/cachedir).
const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Says of names, which come in order, whether the walk is to see them and what is below.
pub(crate) struct Guide(Box<Sees>);

type Sees = dyn FnMut(&[u8]) -> bool + Send;

impl Guide {
    pub(crate) fn new(sees: impl FnMut(&[u8]) -> bool + Send + 'static) -> Self {
        Self(Box::new(sees))
    }
}

/// A walk in progress.
pub(super) struct Walk {
    settings: Settings,
    guide: Option<Guide>,
    roots: VecDeque<Root>,
    stack: Vec<Frame>,
    /// The name of the entry in hand.
    name: Vec<u8>,
    /// How much of names the path that is walked takes, with the slash behind it.
    base_len: usize,
    /// The parents of the last root that were yielded already.
    parents: Vec<EntryName>,
    links: HardLinks,
    buffer: ListingBuffer,
    xattrs: Xattrs,
    /// The directory that `xattrs` reads from: the depth of its frame.
    entered: Option<usize>,
    forgotten_told: bool,
    settling: Settling,
    owners: Owners,
}

/// A directory that is being walked.
struct Frame {
    /// None while it is too far up to be kept open.
    directory: Option<OwnedFd>,
    identity: (u64, u64),
    listing: Listing,
    /// Length of this directory's name, to which those of its entries are added.
    name_len: usize,
    /// The file system that the walk must stay on, if it must.
    device: u64,
}

impl Walk {
    pub(super) fn new(settings: Settings, roots: Vec<Root>, guide: Option<Guide>) -> Self {
        Self {
            settings,
            guide,
            roots: roots.into(),
            stack: Vec::new(),
            name: Vec::new(),
            base_len: 0,
            parents: Vec::new(),
            links: HardLinks::default(),
            buffer: ListingBuffer::new(),
            xattrs: Xattrs::new(),
            entered: None,
            forgotten_told: false,
            settling: Settling::new(),
            owners: Owners::default(),
        }
    }

    /// Adds items to `out` until it holds `max`; false at the end of the walk.
    pub(super) fn fill(&mut self, out: &mut Vec<Item>, max: usize) -> bool {
        while out.len() < max {
            if self.stack.is_empty() {
                match self.roots.pop_front() {
                    Some(root) => self.start(&root, out),
                    None => {
                        self.tell_forgotten(out);
                        return false;
                    }
                }
            } else {
                self.step(out);
            }
        }
        true
    }

    /// The names of the owners that were seen.
    pub(super) fn into_owner_names(self) -> OwnerNames {
        self.owners.into_names()
    }

    /// Yields the parents of `root` and the root itself.
    fn start(&mut self, root: &Root, out: &mut Vec<Item>) {
        self.name.clear();
        self.base_len = root.name.as_ref().map_or(0, |name| name.as_bytes().len().saturating_add(1));
        let (base, skip) = root.base();
        self.xattrs.start((&base, skip));
        let Some(name) = &root.name else {
            // Only the content of this directory has names.
            match open_directory(CWD, &*root.path, true) {
                Ok(directory) => self.descend(directory, None, out),
                Err(error) => out
                    .push(skipped(&root.path, &format!("the directory cannot be read: {}", describe(error)))),
            }
            return;
        };
        let mut ancestors: Vec<EntryName> = std::iter::successors(name.parent(), EntryName::parent).collect();
        ancestors.reverse();
        for ancestor in &ancestors {
            if !self.parents.contains(ancestor) {
                self.parent(ancestor, &root.ancestor_path(ancestor), out);
            }
        }
        self.parents = ancestors;
        self.name.extend_from_slice(name.as_bytes());
        let (above, last) = split(&root.path);
        let directory = match open_path(above) {
            Ok(directory) => directory,
            Err(error) => return out.push(skipped(name.as_bytes(), &unseen(error))),
        };
        let Ok(last) = CString::new(last) else {
            return out.push(skipped(name.as_bytes(), &unseen(Errno::NOENT)));
        };
        self.xattrs.enter(directory.as_fd());
        self.entered = None;
        self.visit(
            directory.as_fd(),
            &last,
            Visit { explicit: true, follow: root.follow, device: None },
            out,
        );
    }

    /// Yields a directory that was not asked for itself, so that a restore can make it again.
    fn parent(&mut self, name: &EntryName, path: &[u8], out: &mut Vec<Item>) {
        let stat = match rustix::fs::stat(path) {
            Ok(stat) => stat,
            Err(error) => return out.push(skipped(name.as_bytes(), &describe(error))),
        };
        let mut entry = plain(name.clone(), EntryKind::Directory);
        entry.posix = Some(metadata::posix(&stat));
        let attributes = open_path(path).and_then(|directory| {
            self.xattrs.enter(directory.as_fd());
            self.entered = None;
            self.xattrs.read(c".")
        });
        match attributes {
            Ok(attributes) => entry.attributes = attributes,
            Err(Errno::NOENT) => {}
            Err(error) => out.push(skipped(name.as_bytes(), &unreadable_attributes(error))),
        }
        // Whoever may not list it may still pass through it; then its flags are not to be had.
        match open_directory(CWD, path, true) {
            Ok(directory) => self.add_inode(&mut entry, inode::of_open(&directory), out),
            Err(_) => {
                let found = open_path(path).map_or((Vec::new(), None), |place| inode::born(&place, c""));
                self.add_inode(&mut entry, found, out);
            }
        }
        self.owners.see(&entry);
        out.push(entry.into());
    }

    /// Adds what the inode has beside its stat, or says that it cannot be read.
    fn add_inode(
        &mut self,
        entry: &mut Entry,
        (mut found, hidden): (Vec<Attribute>, Option<Hidden>),
        out: &mut Vec<Item>,
    ) {
        // Their names stand before those of extended attributes.
        found.append(&mut entry.attributes);
        entry.attributes = found;
        if let Some(hidden) = hidden.filter(|hidden| hidden.error != Errno::NOENT) {
            out.push(skipped(entry.name.as_bytes(), &hidden.to_string()));
        }
    }

    /// Yields the next entry of the innermost directory, or leaves it.
    fn step(&mut self, out: &mut Vec<Item>) {
        let depth = self.stack.len();
        // The frame is out of the stack while its entry is looked at, which may push another.
        let Some(mut frame) = self.stack.pop() else { return };
        let Some(directory) = frame.directory.as_ref() else {
            self.stack.push(frame);
            return self.leave(out, true);
        };
        let Some(name) = frame.listing.next() else {
            self.stack.push(frame);
            return self.leave(out, false);
        };
        if self.entered != Some(depth) {
            self.xattrs.enter(directory.as_fd());
            self.entered = Some(depth);
        }
        self.name.truncate(frame.name_len);
        if frame.name_len > 0 {
            self.name.push(b'/');
        }
        self.name.extend_from_slice(name.to_bytes());
        let device = Some(frame.device);
        let inner = self.look(directory.as_fd(), name, Visit { explicit: false, follow: false, device }, out);
        self.stack.push(frame);
        if let Some((inner, stat)) = inner {
            self.descend(inner, Some(stat), out);
        }
    }

    fn visit(&mut self, directory: impl AsFd, name: &CStr, visit: Visit, out: &mut Vec<Item>) {
        if let Some((inner, stat)) = self.look(directory, name, visit, out) {
            self.descend(inner, Some(stat), out);
        }
    }

    /// Yields `name` in `directory`; if it is a directory to be walked, returns it opened.
    fn look(
        &mut self,
        directory: impl AsFd,
        name: &CStr,
        visit: Visit,
        out: &mut Vec<Item>,
    ) -> Option<(OwnedFd, Stat)> {
        if let Some(Guide(sees)) = &mut self.guide
            && !visit.explicit
            && !sees(&self.name)
        {
            return None;
        }
        let flags = if visit.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        // The clock is read before the file, so that what happens in between counts as recent.
        let mut seen = metadata::now();
        let mut stat = rustix::fs::statat(&directory, name, flags);
        if self.settings.stamps
            && let Ok(first) = &stat
            && file_type(first) == FileType::RegularFile
            && let Some(wait) = self.settling.wait(first, seen)
        {
            std::thread::sleep(wait);
            seen = metadata::now();
            stat = rustix::fs::statat(&directory, name, flags);
        }
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) => {
                out.push(skipped(&self.name, &unseen(error)));
                return None;
            }
        };
        let kind = file_type(&stat);
        let is_directory = kind == FileType::Directory;
        if !visit.explicit {
            if is_directory && self.settings.hides_views && is_view(name) {
                return None;
            }
            if self.settings.filter.excludes(&self.name, self.base_len, is_directory) {
                return None;
            }
            let limit = self.settings.larger_than;
            if kind == FileType::RegularFile && limit.is_some_and(|limit| size(&stat) > limit) {
                return None;
            }
        }
        let entry_name = match EntryName::new(&self.name) {
            Ok(name) => name,
            Err(error) => {
                out.push(skipped(&self.name, error.message()));
                return None;
            }
        };
        let mut entry = plain(entry_name, EntryKind::File);
        entry.posix = Some(metadata::posix(&stat));
        let link = if is_directory { None } else { self.links.see(&stat, &entry.name) };
        if let Some(link) = link {
            entry.kind = link;
            out.push(entry.into());
            return None;
        }
        match kind {
            FileType::RegularFile => {
                entry.size = Some(size(&stat));
                entry.stamp = if self.settings.stamps { metadata::stamp(&stat, seen) } else { None };
                entry.sparse = metadata::is_sparse(&stat);
            }
            FileType::Directory => entry.kind = EntryKind::Directory,
            FileType::Symlink => match rustix::fs::readlinkat(&directory, name, Vec::new()) {
                Ok(target) => {
                    entry.kind = EntryKind::Symlink { target: target.into_bytes().into_boxed_slice() }
                }
                Err(error) => {
                    self.links.unsee(&stat, &entry.name);
                    out.push(skipped(&self.name, &format!("the link cannot be read: {}", describe(error))));
                    return None;
                }
            },
            FileType::Fifo => entry.kind = EntryKind::Fifo,
            FileType::Socket => entry.kind = EntryKind::Socket,
            FileType::CharacterDevice => entry.kind = EntryKind::CharDevice { device: device(&stat) },
            FileType::BlockDevice => entry.kind = EntryKind::BlockDevice { device: device(&stat) },
            FileType::Unknown => {
                self.links.unsee(&stat, &entry.name);
                out.push(skipped(&self.name, "it is of a kind that is not known"));
                return None;
            }
        }
        let attributes = match (self.settings.xattrs, visit.follow) {
            (XattrsRead::Never, _) => Ok(Vec::new()),
            (XattrsRead::WithContent, _) if kind == FileType::RegularFile => Ok(Vec::new()),
            (_, false) => self.xattrs.of(&self.name, name),
            // What the link points to, not the link.
            (_, true) => open_directory(&directory, name, true).and_then(|inner| {
                self.entered = None;
                self.xattrs.enter(inner.as_fd());
                self.xattrs.read(c".")
            }),
        };
        match attributes {
            Ok(attributes) => entry.attributes = attributes,
            Err(Errno::NOENT) => {}
            Err(error) => {
                out.push(skipped(&self.name, &unreadable_attributes(error)));
            }
        }
        let elsewhere = visit.device.is_some_and(|device| device != stat.st_dev);
        let descends = is_directory && !(elsewhere && self.settings.one_file_system);
        let opened = descends.then(|| open_directory(&directory, name, visit.follow));
        if self.settings.xattrs != XattrsRead::Never {
            match &opened {
                Some(Ok(inner)) => self.add_inode(&mut entry, inode::of_open(inner), out),
                // Files tell with their content.
                _ if kind == FileType::RegularFile => {}
                _ => self.add_inode(&mut entry, inode::born(&directory, name), out),
            }
            self.owners.see(&entry);
        }
        out.push(entry.into());
        match opened? {
            Ok(inner) => Some((inner, stat)),
            Err(error) => {
                out.push(skipped(&self.name, &format!("the directory cannot be read: {}", describe(error))));
                None
            }
        }
    }

    /// Lists an opened directory, whose name is the one in hand, and makes it the innermost.
    fn descend(&mut self, directory: OwnedFd, stat: Option<Stat>, out: &mut Vec<Item>) {
        let stat = match stat.map_or_else(|| rustix::fs::fstat(&directory), Ok) {
            Ok(stat) => stat,
            Err(error) => return out.push(skipped(&self.name, &describe(error))),
        };
        let (mut listing, failure) = Listing::read(&directory, &mut self.buffer);
        if let Some(error) = failure {
            out.push(skipped(
                &self.name,
                &format!("the directory cannot be read in full: {}", describe(error)),
            ));
        }
        let tag = self.settings.present.iter().map(Vec::as_slice).find(|tag| listing.contains(tag));
        let cache = || self.settings.caches && listing.contains(b"CACHEDIR.TAG") && is_cache(&directory);
        if let Some(tag) = tag {
            listing.retain(tag);
        } else if cache() {
            listing.retain(b"CACHEDIR.TAG");
        }
        // A mount point below a file system that must not be left is its own only if it was asked for.
        let device = self.stack.last().map_or(stat.st_dev, |frame| frame.device);
        self.stack.push(Frame {
            directory: Some(directory),
            identity: (stat.st_dev, stat.st_ino),
            listing,
            name_len: self.name.len(),
            device,
        });
        if let Some(far) = self.stack.len().checked_sub(OPEN_MAX.saturating_add(1))
            && let Some(frame) = self.stack.get_mut(far)
        {
            frame.directory = None;
        }
    }

    /// Leaves the innermost directory. If the one above was closed meanwhile, it is opened again by way of `..`.
    fn leave(&mut self, out: &mut Vec<Item>, lost: bool) {
        let Some(frame) = self.stack.pop() else { return };
        self.entered = None;
        if lost {
            self.name.truncate(frame.name_len);
            out.push(skipped(
                &self.name,
                "the directory was moved while it was read; its further content is missing",
            ));
        }
        let Some(above) = self.stack.last_mut() else { return };
        if above.directory.is_some() {
            return;
        }
        let Some(directory) = frame.directory else { return };
        let reopened = open_directory(&directory, c"..", false).ok().filter(|directory| {
            rustix::fs::fstat(directory).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == above.identity)
        });
        above.directory = reopened;
    }

    fn tell_forgotten(&mut self, out: &mut Vec<Item>) {
        let forgotten = self.links.forgotten();
        if forgotten > 0 && !self.forgotten_told {
            self.forgotten_told = true;
            let why = format!(
                "{forgotten} names with hard links were stored as files of their own, \
                 because more than {AWAITED_MAX} inodes had names still to come"
            );
            out.push(Item::Skipped(Skipped::new("hard links", why)));
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Visit {
    /// The caller named it: filters do not apply.
    explicit: bool,
    /// A link is followed.
    follow: bool,
    /// The file system of the root.
    device: Option<u64>,
}

/// The directory of `path` and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(0) => (b"/", path.get(1..).filter(|last| !last.is_empty()).unwrap_or(b".")),
        Some(at) => {
            (path.get(..at).unwrap_or_default(), path.get(at.saturating_add(1)..).unwrap_or_default())
        }
        None => (b".", path),
    }
}

fn plain(name: EntryName, kind: EntryKind) -> Entry {
    Entry { name, kind, posix: None, attributes: Vec::new(), size: None, stamp: None, sparse: false }
}

fn skipped(name: &[u8], why: &str) -> Item {
    Item::Skipped(Skipped::new(String::from_utf8_lossy(name), why))
}

fn unseen(error: Errno) -> String {
    if error == Errno::NOENT { "it vanished before it was read".into() } else { describe(error) }
}

fn unreadable_attributes(error: Errno) -> String {
    format!("extended attributes cannot be read: {}", describe(error))
}

fn device(stat: &Stat) -> (u32, u32) {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
}

fn open_path(path: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn open_directory(at: impl AsFd, name: impl rustix::path::Arg, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flags = if follow { flags } else { flags | OFlags::NOFOLLOW };
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Whether a directory is a view that a backup reads from, or was.
fn is_view(name: &CStr) -> bool {
    name.to_bytes().strip_prefix(b".").is_some_and(|name| name.starts_with(PREFIX.as_bytes()))
}

fn is_cache(directory: impl AsFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(tag) = rustix::fs::openat(directory, c"CACHEDIR.TAG", flags, Mode::empty()) else { return false };
    let mut start = [0; CACHEDIR_SIGNATURE.len()];
    rustix::io::pread(&tag, &mut start, 0).is_ok_and(|len| start.get(..len) == Some(CACHEDIR_SIGNATURE))
}
