//! Reading a file's content, and noticing what happens to it meanwhile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use backup_core::Attribute;
use backup_core::source::BlockingContent;
use rustix::fs::{Advice, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::inode::Hidden;
use super::owners::Owners;
use super::{inode, metadata};
use crate::system::{changed, file_type, modified, size};

/// The longest path that the kernel resolves at once.
const PATH_MAX: usize = 4096;
/// Files at least this long are announced to the kernel's read-ahead.
const SEQUENTIAL_BYTES: u64 = 1024 * 1024;

/// What the walk knew about a file that is to be opened.
#[derive(Debug)]
pub(super) struct Expected {
    /// The stamp of the walk, which holds the inode; none if there is none.
    pub(super) stamp: Option<Box<[u8]>>,
    /// Whether it had holes.
    pub(super) sparse: bool,
    /// Whether it may be read without leaving a trace in its access time.
    pub(super) quiet: bool,
    /// Who notes the owners in its access lists, if its extended attributes are wanted with the content.
    pub(super) owners: Option<Arc<Mutex<Owners>>>,
}

/// Opens the file at `path` below `root` without following any link, and makes sure that it is the expected one.
pub(super) fn open(root: impl AsFd, path: &[u8], expected: &Expected) -> io::Result<FileContent> {
    let file = open_quietly(root, path, expected.quiet)?;
    let stat = rustix::fs::fstat(&file)?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(io::Error::other("it was replaced by something else than a file before it was read"));
    }
    let inode = expected.stamp.as_deref().and_then(metadata::stamped_inode);
    if inode.is_some_and(|inode| inode != stat.st_ino) {
        return Err(io::Error::other("it was replaced by another file before it was read"));
    }
    if size(&stat) >= SEQUENTIAL_BYTES {
        // Only advice: nothing depends on it.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
    }
    let data_end = if expected.sparse { 0 } else { u64::MAX };
    let owners = expected.owners.clone();
    Ok(FileContent { file, opened: stat, at: 0, data_end, ended: false, owners, hidden: None })
}

/// A regular file that is read from start to end.
#[derive(Debug)]
pub(super) struct FileContent {
    file: OwnedFd,
    opened: Stat,
    at: u64,
    /// Where the data in hand ends and a hole may begin; the end of all things if there are none.
    data_end: u64,
    ended: bool,
    owners: Option<Arc<Mutex<Owners>>>,
    /// What hid some of the inode's attributes.
    hidden: Option<Hidden>,
}

impl FileContent {
    /// Moves `data_end` beyond the position, or says how many bytes of a hole come first.
    fn hole(&mut self) -> io::Result<u64> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(data) if data > self.at => Ok(data.saturating_sub(self.at)),
            Ok(_) => {
                self.data_end = match rustix::fs::seek(&self.file, SeekFrom::Hole(self.at)) {
                    Ok(hole) if hole > self.at => hole,
                    _ => u64::MAX,
                };
                Ok(0)
            }
            // Beyond the last data: a hole to the end, which is where the file ends now.
            Err(Errno::NXIO) => Ok(size(&rustix::fs::fstat(&self.file)?).saturating_sub(self.at)),
            // This file system knows no holes.
            Err(_) => {
                self.data_end = u64::MAX;
                Ok(0)
            }
        }
    }
}

impl BlockingContent for FileContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.at >= self.data_end {
            let hole = self.hole()?;
            if hole > 0 {
                let len = usize::try_from(hole).unwrap_or(usize::MAX).min(buffer.len());
                buffer.iter_mut().take(len).for_each(|byte| *byte = 0);
                self.at = self.at.saturating_add(u64::try_from(len).unwrap_or_default());
                return Ok(len);
            }
        }
        let data = usize::try_from(self.data_end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = data.min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let len = rustix::io::retry_on_intr(|| rustix::io::pread(&self.file, &mut *buffer, self.at))?;
        self.at = self.at.saturating_add(u64::try_from(len).unwrap_or_default());
        // A regular file gives less than asked for only at its end: that saves the read of nothing.
        self.ended = len < wanted && self.at >= size(&self.opened) || len == 0;
        Ok(len)
    }

    fn attributes(&mut self) -> Vec<Attribute> {
        let (mut attributes, hidden) = inode::of_open(&self.file);
        self.hidden = hidden;
        if let Some(owners) = &self.owners {
            match metadata::xattrs_of_open(&self.file) {
                Ok(xattrs) if xattrs.is_empty() => {}
                Ok(xattrs) => {
                    owners.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).see_lists(&xattrs);
                    attributes.extend(xattrs);
                }
                Err(error) => self.hidden = Some(Hidden { what: "extended attributes", error }),
            }
        }
        attributes
    }

    fn finish(&mut self) -> Option<String> {
        let now = match rustix::fs::fstat(&self.file) {
            Ok(now) => now,
            Err(error) => return Some(format!("whether it changed while it was read is not known: {error}")),
        };
        let state = |stat: &Stat| (size(stat), modified(stat), changed(stat));
        (state(&now) != state(&self.opened) || self.at != size(&self.opened))
            .then(|| "it changed while it was read".to_owned())
            .or_else(|| self.hidden.map(|hidden| hidden.to_string()))
    }
}

fn open_quietly(root: impl AsFd, path: &[u8], quiet: bool) -> Result<OwnedFd, Errno> {
    // A fifo put in the file's place must not make the open wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if quiet {
        match open_below(&root, path, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => {}
            other => return other,
        }
    }
    open_below(root, path, flags)
}

/// Opens `path` below `root`, following no link on the way.
pub(crate) fn open_below(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if path.len() < PATH_MAX {
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
            // A kernel or a sandbox without the call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            other => return other,
        }
    }
    let mut directory: Option<OwnedFd> = None;
    let mut parts = path.split(|&byte| byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let at = directory.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        if parts.peek().is_none() {
            return rustix::fs::openat(at, part, flags, Mode::empty());
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = Some(rustix::fs::openat(at, part, step, Mode::empty())?);
    }
    Err(Errno::NOENT)
}
