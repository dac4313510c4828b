//! Flags that forbid further changes: taken away before what has them is restored again, and set last of all.
//!
//! Nothing can be put into an immutable directory, and nothing can link to an immutable file. So they wait until
//! everything else is done.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use backup_core::{EntryName, Skipped};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::beneath::Beneath;
use crate::flags;
use crate::system::file_type;

/// Bytes of names that may wait; what comes beyond is locked at once, and what must link to it fails and is named.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is to be locked when everything else is done.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    locks: Vec<Lock>,
    bytes: usize,
}

#[derive(Debug)]
struct Lock {
    name: EntryName,
    identity: (u64, u64),
    wanted: u32,
}

impl Locks {
    /// Remembers to lock what is open as `file` and stands at `name`; what could not be done, if it was done at once.
    pub(super) fn later(&self, file: impl AsFd, name: &EntryName, wanted: u32) -> Result<(), String> {
        if wanted & flags::LOCKS == 0 {
            return Ok(());
        }
        let Ok(stat) = rustix::fs::fstat(&file) else { return flags::set(file, wanted, flags::LOCKS) };
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = name.as_bytes().len().saturating_add(size_of::<Lock>());
        if waiting.bytes.saturating_add(bytes) > WAITING_BYTES_MAX {
            drop(waiting);
            return flags::set(file, wanted, flags::LOCKS);
        }
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        waiting.locks.push(Lock { name: name.clone(), identity: (stat.st_dev, stat.st_ino), wanted });
        Ok(())
    }

    /// Locks what waits for it; what could not be done.
    pub(super) fn set(&self, beneath: &Beneath) -> Vec<Skipped> {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let done = waiting.locks.iter().map(|lock| (lock, lock.set(beneath)));
        done.filter_map(|(lock, done)| Some(Skipped::new(&lock.name, done.err()?))).collect()
    }
}

impl Lock {
    fn set(&self, beneath: &Beneath) -> Result<(), String> {
        let file = open(beneath, &self.name).map_err(|error| {
            format!("its inode flags cannot be set, since it cannot be opened again: {error}")
        })?;
        let stat = rustix::fs::fstat(&file).map_err(crate::system::describe)?;
        if (stat.st_dev, stat.st_ino) != self.identity {
            return Err("its inode flags are not set: something else took its place".into());
        }
        flags::set(&file, self.wanted, flags::LOCKS)
    }
}

/// Takes the locks from a directory that stands at `name` already and that the snapshot locks, too.
pub(super) fn unlock_directory(beneath: &Beneath, name: &EntryName) {
    if let Ok(directory) = open(beneath, name) {
        unlock(&directory);
    }
}

/// Takes the locks from an open file or directory. What is not permitted shows when it is written to.
pub(super) fn unlock(file: impl AsFd) {
    let _ = flags::set(file, 0, flags::LOCKS);
}

/// Opens a file or directory below the root for its flags, whatever it became meanwhile.
fn open(beneath: &Beneath, name: &EntryName) -> io::Result<OwnedFd> {
    let parent = name.parent();
    let directory = beneath.existing(parent.as_ref().map_or(b"", EntryName::as_bytes))?;
    open_in(&*directory, name.file_name())
}

/// Opens `name` in `directory` for its flags; only files and directories have them.
pub(super) fn open_in(directory: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    // A fifo in its place would make the open wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat: Stat = rustix::fs::fstat(&file)?;
    match file_type(&stat) {
        FileType::RegularFile | FileType::Directory => Ok(file),
        _ => Err(Errno::NOTSUP.into()),
    }
}
