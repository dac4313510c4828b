//! Directories below the root, opened without following links, and a small cache of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::refused;
use crate::system;

/// The kernel takes no longer path at once.
const PATH_MAX: usize = 4096;
/// Parts of the cache, each with its own lock, so that threads seldom meet.
const SHARDS: usize = 16;
/// Open directories in each part.
const SHARD_DIRECTORIES: usize = 8;

/// A directory below the root.
#[derive(Debug)]
pub(in crate::target) struct Directory {
    fd: OwnedFd,
    device: u64,
    /// New files in it are of this group.
    group: Option<Gid>,
    mount: OnceLock<MountId>,
    /// What is made in it takes its group or its default access list: both must be set even where they look right.
    pub(super) passes_on: bool,
}

/// A mount of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MountId {
    device: u64,
    mount: u64,
}

/// The root and what was opened below it lately.
#[derive(Debug)]
pub(in crate::target) struct Beneath {
    root: Arc<Directory>,
    shards: Box<[Mutex<Vec<Cached>>]>,
    /// The kernel lacks `openat2`, or a sandbox refuses it.
    stepwise: AtomicBool,
}

#[derive(Debug)]
struct Cached {
    path: Box<[u8]>,
    directory: Arc<Directory>,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    pub(super) fn new(fd: OwnedFd, stat: &Stat) -> Self {
        let mut path = own_path(&fd);
        path.push(0);
        let path = std::ffi::CStr::from_bytes_with_nul(&path).unwrap_or(c"");
        let default_list =
            rustix::fs::getxattr_query(path, c"system.posix_acl_default").is_ok_and(|len| len > 0);
        let group = (stat.st_mode & 0o2000 != 0).then(|| Gid::from_raw(stat.st_gid));
        let passes_on = group.is_some() || default_list;
        Self { fd, device: stat.st_dev, group, mount: OnceLock::new(), passes_on }
    }

    /// The group that new files in it take from it, if they do.
    pub(super) fn group(&self) -> Option<Gid> {
        self.group
    }

    /// What a file can be moved within: one mount of one file system.
    pub(super) fn mount(&self) -> MountId {
        *self.mount.get_or_init(|| {
            let stat = rustix::fs::statx(&self.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
            MountId { device: self.device, mount: stat.map_or(0, |stat| stat.stx_mnt_id) }
        })
    }
}

/// A path to an open file: the way to calls that take no descriptor.
pub(super) fn own_path(fd: impl AsFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into_bytes()
}

impl Beneath {
    /// Opens the root itself; the links on the way to it are the caller's own.
    pub(in crate::target) fn open(root: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self {
            root: Arc::new(Directory::new(fd, &stat)),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            stepwise: AtomicBool::new(false),
        })
    }

    /// Whether nothing stands in the root yet, as far as can be seen.
    pub(super) fn is_empty(&self) -> bool {
        let Ok(root) = self.open_root() else { return false };
        let Ok(entries) = rustix::fs::Dir::read_from(&root) else { return false };
        let mut others = entries.filter(
            |entry| !matches!(entry, Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..")),
        );
        others.next().is_none()
    }

    /// The root, to be read or synced.
    pub(super) fn open_root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, c".", flags, Mode::empty())?)
    }

    /// The directory that `name` stands in, made if need be, and the last component of `name`.
    pub(super) fn parent<'a>(&self, name: &'a [u8], replace: bool) -> io::Result<(Arc<Directory>, &'a [u8])> {
        match name.iter().rposition(|&byte| byte == b'/') {
            None => Ok((Arc::clone(&self.root), name)),
            Some(at) => {
                let directory = self.directory(name.get(..at).unwrap_or_default(), replace)?;
                Ok((directory, name.get(at.saturating_add(1)..).unwrap_or_default()))
            }
        }
    }

    /// The directory at `path`, made if it does not exist, with its parents, open to nobody else until it is complete.
    ///
    /// A link in its place is refused; something else makes room only if `replace`.
    pub(super) fn directory(&self, path: &[u8], replace: bool) -> io::Result<Arc<Directory>> {
        if let Some(directory) = self.cached(path) {
            return Ok(directory);
        }
        let fd = match self.resolve(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => self.make(path, replace)?,
            other => other?,
        };
        self.admit(path, fd)
    }

    /// The directory at `path`, which must exist.
    pub(in crate::target) fn existing(&self, path: &[u8]) -> io::Result<Arc<Directory>> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(directory) = self.cached(path) {
            return Ok(directory);
        }
        let fd = self.resolve(path).map_err(|error| match error {
            Errno::LOOP => through_a_link(path),
            error => error.into(),
        })?;
        self.admit(path, fd)
    }

    fn admit(&self, path: &[u8], fd: OwnedFd) -> io::Result<Arc<Directory>> {
        let stat = rustix::fs::fstat(&fd)?;
        // Without these bits nothing could be put into a directory of one's own; it gets its mode back when it is complete.
        if stat.st_mode & 0o700 != 0o700
            && !system::is_root()
            && stat.st_uid == rustix::process::geteuid().as_raw()
        {
            let path = own_path(&fd);
            let _ = rustix::fs::chmod(path.as_slice(), Mode::from_raw_mode((stat.st_mode | 0o700) & 0o7777));
        }
        let directory = Arc::new(Directory::new(fd, &stat));
        self.remember(path, Arc::clone(&directory));
        Ok(directory)
    }

    /// Opens `path` below the root without following links.
    fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !self.stepwise.load(Ordering::Relaxed) {
            let mut at: Option<OwnedFd> = None;
            let mut rest = path;
            loop {
                let (part, further) = split_at_most(rest);
                let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(from, part, flags, Mode::empty(), resolve) {
                    Ok(fd) if further.is_empty() => return Ok(fd),
                    Ok(fd) => at = Some(fd),
                    Err(Errno::NOSYS | Errno::PERM) => break,
                    // The kernel could not tell because something was moved meanwhile: step by step it can.
                    Err(Errno::AGAIN) => return self.resolve_stepwise(path, flags),
                    Err(error) => return Err(error),
                }
                rest = further;
            }
            self.stepwise.store(true, Ordering::Relaxed);
        }
        self.resolve_stepwise(path, flags)
    }

    fn resolve_stepwise(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut at: Option<OwnedFd> = None;
        for part in path.split(|&byte| byte == b'/') {
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            // With O_PATH and O_NOFOLLOW a link is opened itself, and then is no directory.
            at = Some(rustix::fs::openat(from, part, flags, Mode::empty())?);
        }
        at.ok_or(Errno::NOENT)
    }

    /// Makes what is missing of `path`, one component after the other.
    fn make(&self, path: &[u8], replace: bool) -> io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        let mut end = 0_usize;
        for part in path.split(|&byte| byte == b'/') {
            end = end.saturating_add(part.len());
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            at = Some(step(from, part, path.get(..end).unwrap_or(path), replace)?);
            end = end.saturating_add(1);
        }
        at.ok_or_else(|| Errno::NOENT.into())
    }

    fn shard(&self, path: &[u8]) -> Option<&Mutex<Vec<Cached>>> {
        // FNV-1a: short and good enough to spread directories.
        let hash = path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let shards = u64::try_from(self.shards.len()).ok()?;
        self.shards.get(usize::try_from((hash >> 32).checked_rem(shards)?).ok()?)
    }

    fn cached(&self, path: &[u8]) -> Option<Arc<Directory>> {
        let mut shard = self.shard(path)?.lock().unwrap_or_else(PoisonError::into_inner);
        let at = shard.iter().rposition(|cached| *cached.path == *path)?;
        let directory = Arc::clone(&shard.get(at)?.directory);
        // The one used last stands last.
        shard.get_mut(at..)?.rotate_left(1);
        Some(directory)
    }

    fn remember(&self, path: &[u8], directory: Arc<Directory>) {
        let Some(shard) = self.shard(path) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= SHARD_DIRECTORIES {
            shard.remove(0);
        }
        shard.push(Cached { path: path.into(), directory });
    }
}

/// Opens or makes the directory `part` in `from`; `path` is its name for errors.
fn step(from: BorrowedFd<'_>, part: &[u8], path: &[u8], replace: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Others may make or remove the same name meanwhile, but not for ever.
    for _ in 0..8 {
        match rustix::fs::openat(from, part, flags, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => match rustix::fs::mkdirat(from, part, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            },
            Err(Errno::NOTDIR | Errno::LOOP) => {
                match rustix::fs::statat(from, part, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if system::file_type(&stat) == rustix::fs::FileType::Symlink => {
                        return Err(through_a_link(path));
                    }
                    Ok(_) if !replace => {
                        let path = String::from_utf8_lossy(path);
                        return Err(refused(format!(
                            "something else stands where the directory `{path}` must be"
                        )));
                    }
                    Ok(_) => match rustix::fs::unlinkat(from, part, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                        Err(error) => return Err(error.into()),
                    },
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(refused(format!(
        "the directory `{}` is changed by others all the time",
        String::from_utf8_lossy(path)
    )))
}

fn through_a_link(path: &[u8]) -> io::Error {
    let path = String::from_utf8_lossy(path);
    refused(format!(
        "a symbolic link stands where the directory `{path}` must be; links are not followed: remove it"
    ))
}

/// As many components of `path` as the kernel takes at once, and the rest.
fn split_at_most(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() < PATH_MAX {
        return (path, b"");
    }
    let head = path.get(..PATH_MAX.saturating_sub(1)).unwrap_or(path);
    match head.iter().rposition(|&byte| byte == b'/') {
        Some(at) => {
            (path.get(..at).unwrap_or_default(), path.get(at.saturating_add(1)..).unwrap_or_default())
        }
        None => (path, b""),
    }
}
