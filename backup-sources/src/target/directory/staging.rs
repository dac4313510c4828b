//! Where files are written before they have their names: a directory `.backup-partial` of the target.
//!
//! What replaces something, and what is long, is written here and moved to its name when it is whole. So a name means the
//! old content or the new one at any moment, whatever happens to the process. What a restore that was killed left here has
//! a name that the same entry gets again: it is continued, or removed at the end of the next restore.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::EntryName;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::beneath::{Beneath, Directory, MountId};
use super::refused;
use crate::system::{file_type, size};

/// The directory's name.
pub const PARTIAL: &str = ".backup-partial";

/// File systems below the root, each of which has a staging directory of its own: a file cannot be moved between two.
const PLACES_MAX: usize = 64;

/// The staging directories of a target.
#[derive(Debug, Default)]
pub(super) struct Staging {
    places: Mutex<Vec<Arc<Place>>>,
    next: AtomicU64,
}

/// A staging directory.
#[derive(Debug)]
struct Place {
    /// What it stands in.
    parent: Arc<Directory>,
    directory: Directory,
    mount: MountId,
    /// It was there before this restore, and may hold what another one left.
    was_there: bool,
}

/// A file without its final name. It is removed when it is dropped before it was moved or kept.
#[derive(Debug)]
pub(super) struct Temporary {
    file: OwnedFd,
    place: Arc<Place>,
    name: String,
    /// Bytes that an earlier restore left in it.
    pub(super) left: u64,
    stays: bool,
}

impl Staging {
    /// Looks for what an earlier restore left.
    pub(super) fn find(beneath: &Beneath) -> io::Result<Self> {
        let staging = Self::default();
        let root = beneath.existing(b"")?;
        match rustix::fs::statat(&*root, PARTIAL, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => {
                let place = Place::open(root)?;
                staging.lock().push(Arc::new(place));
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(staging)
    }

    /// What an earlier restore left of the entry `name`, which is to stand in `directory`.
    pub(super) fn left(&self, directory: &Directory, name: &EntryName) -> Option<Temporary> {
        let mount = directory.mount();
        let place = self.lock().iter().find(|place| place.mount == mount && place.was_there).cloned()?;
        let stable = stable_name(name);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.directory, stable.as_str(), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let usable =
            file_type(&stat) == FileType::RegularFile && size(&stat) > 0 && own(&file, &place, &stable);
        usable.then(|| Temporary { file, place, name: stable, left: size(&stat), stays: false })
    }

    /// A new file for the entry `name`, which is to stand in `directory`, open to nobody else.
    pub(super) fn create(
        &self,
        beneath: &Beneath,
        directory: &Directory,
        name: &EntryName,
    ) -> io::Result<Temporary> {
        let stable = stable_name(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for attempt in 0..8 {
            let place = self.place(beneath, directory, name)?;
            // What stands at the stable name is of another restore that is at work, or of no use.
            let name = if attempt < 2 { stable.clone() } else { self.unique(&stable) };
            match rustix::fs::openat(&place.directory, name.as_str(), flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) if own(&file, &place, &name) => {
                    return Ok(Temporary { file, place, name, left: 0, stays: false });
                }
                Ok(_) => {}
                Err(Errno::EXIST) => place.remove_if_left(&name),
                // Another restore into the same directory ended, and took the staging directory with it.
                Err(Errno::NOENT) => self.forget(&place),
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused(
            "what stands in the directory for what is not finished is changed by others all the time",
        ))
    }

    /// Makes something by `make` under a name of its own and moves it to `name` in `directory`, over what stands there.
    pub(super) fn replace(
        &self,
        beneath: &Beneath,
        directory: &Directory,
        name: &EntryName,
        make: impl FnOnce(&Directory, &[u8]) -> Result<(), Errno>,
    ) -> io::Result<()> {
        let place = self.place(beneath, directory, name)?;
        let temporary = self.unique(&stable_name(name));
        make(&place.directory, temporary.as_bytes())?;
        let moved = rustix::fs::renameat(&place.directory, temporary.as_str(), directory, name.file_name());
        // Of two names of one file none is moved; otherwise it is gone.
        let _ = rustix::fs::unlinkat(&place.directory, temporary.as_str(), AtFlags::empty());
        Ok(moved?)
    }

    /// Removes what is left, but for what another restore is at work with, and the staging directories.
    pub(super) fn sweep(&self) {
        self.lock().iter().for_each(|place| place.sweep());
    }

    /// The staging directory for what is to stand in `directory`: as far up as the same file system reaches.
    fn place(&self, beneath: &Beneath, directory: &Directory, name: &EntryName) -> io::Result<Arc<Place>> {
        let mount = directory.mount();
        let mut places = self.lock();
        if let Some(place) = places.iter().find(|place| place.mount == mount) {
            return Ok(Arc::clone(place));
        }
        let mut refusal = None;
        let path = name.as_bytes();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in std::iter::once(0).chain(ends) {
            let above = beneath.existing(path.get(..end).unwrap_or_default())?;
            if above.mount() != mount {
                continue;
            }
            match Place::open(above) {
                Ok(place) => {
                    let place = Arc::new(place);
                    if places.len() >= PLACES_MAX {
                        places.remove(0);
                    }
                    places.push(Arc::clone(&place));
                    return Ok(place);
                }
                // Maybe only what is below may be written to.
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| Errno::NOENT.into()))
    }

    fn forget(&self, gone: &Arc<Place>) {
        self.lock().retain(|place| !Arc::ptr_eq(place, gone));
    }

    fn unique(&self, stable: &str) -> String {
        let (process, next) = (std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        format!("{stable}-{process}-{next}")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn open(parent: Arc<Directory>) -> io::Result<Self> {
        let was_there = match rustix::fs::mkdirat(&*parent, PARTIAL, Mode::RWXU) {
            Ok(()) => false,
            Err(Errno::EXIST) => true,
            Err(error) => return Err(error.into()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*parent, PARTIAL, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        // Whoever else could change it could change what is moved out of it.
        let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
        if !ours {
            return Err(refused(format!(
                "`{PARTIAL}` in the target is kept for what a restore has not finished, and is somebody else's: remove it"
            )));
        }
        let directory = Directory::new(fd, &stat);
        let mount = directory.mount();
        Ok(Self { parent, directory, mount, was_there })
    }

    /// Removes a file that no restore is at work with.
    fn remove_if_left(&self, name: &str) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let at_work = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => {
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
            }
            Err(_) => false,
        };
        if !at_work {
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }

    fn sweep(&self) {
        let Ok(stat) = rustix::fs::fstat(&*self.parent) else { return };
        if let Ok(entries) = rustix::fs::Dir::read_from(&self.directory) {
            for entry in entries.flatten() {
                if let Ok(name) = entry.file_name().to_str()
                    && !matches!(name, "." | "..")
                {
                    self.remove_if_left(name);
                }
            }
        }
        let removed = rustix::fs::unlinkat(&*self.parent, PARTIAL, AtFlags::REMOVEDIR);
        if removed.is_ok() {
            // The directory above may have its time already.
            let _ = rustix::fs::utimensat(&*self.parent, c".", &times(&stat), AtFlags::empty());
        }
    }
}

impl Temporary {
    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Whether a file made here has no group or access list but those that any new file has.
    pub(super) fn is_plain(&self) -> bool {
        self.left == 0 && !self.place.directory.passes_on
    }

    /// Gives the file its name, over what stands there unless that is a directory, or `replace` is not set.
    pub(super) fn move_to(&mut self, directory: &Directory, name: &[u8], replace: bool) -> Result<(), Errno> {
        let (from, temporary) = (&self.place.directory, self.name.as_str());
        let moved = match replace {
            true => rustix::fs::renameat(from, temporary, directory, name),
            false => {
                match rustix::fs::renameat_with(from, temporary, directory, name, RenameFlags::NOREPLACE) {
                    // Not every file system can.
                    Err(Errno::INVAL | Errno::NOSYS) => {
                        rustix::fs::renameat(from, temporary, directory, name)
                    }
                    moved => moved,
                }
            }
        };
        self.stays = moved.is_ok();
        moved
    }

    /// Leaves it for another restore to continue.
    pub(super) fn keep(mut self) {
        self.stays = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.stays {
            let _ = rustix::fs::unlinkat(&self.place.directory, self.name.as_str(), AtFlags::empty());
        }
    }
}

/// Whether an entry's name is kept for the target's own use.
pub(in crate::target) fn is_reserved(name: &EntryName) -> bool {
    name.components().next() == Some(PARTIAL.as_bytes())
}

/// Makes `file` this restore's own, if nobody else is at work with it and its name still means it.
fn own(file: &OwnedFd, place: &Place, name: &str) -> bool {
    // Where there are no locks, two restores at once are not told apart.
    if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return false;
    }
    let named = rustix::fs::statat(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW);
    match (rustix::fs::fstat(file), named) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino, a.st_nlink) == (b.st_dev, b.st_ino, 1),
        _ => false,
    }
}

/// The same for the same entry in every run. Two entries that share one do not share a file: it is locked.
fn stable_name(name: &EntryName) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn times(stat: &Stat) -> Timestamps {
    let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec: i64::try_from(tv_nsec).unwrap_or_default() };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}
