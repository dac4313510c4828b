//! Files that are being written, and what killed processes left of them.
//!
//! A temporary file stands in a directory that no object key can name and is locked (`flock`) by its writer until it
//! has its final name. Whoever can lock one knows that its writer is gone, and may remove it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Random, Result, SystemRandom};
use rustix::fs::{Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::disk::{Directory, Disk};
use super::tree::{Tree, open_directory};

/// The directory of temporary files below the root. No component of an object key starts with a dot.
pub(super) const DIRECTORY: &str = ".tmp";

/// How often a new name is tried when a sweeper took the file before it was locked.
const ATTEMPTS: usize = 16;

/// A written, synced, locked file without its final name; removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    directory: Directory,
    name: String,
    disk: Arc<dyn Disk>,
    published: bool,
    // Held for its lock.
    _file: File,
}

impl Temporary {
    /// Writes `bytes` into a new temporary file and makes them durable.
    pub(super) fn write(tree: &Tree, bytes: &[u8]) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::create(tree) {
                Ok(Some(mut temporary)) => {
                    temporary
                        .fill(bytes)
                        .map_err(|error| Error::io("the object could not be written", error))?;
                    return Ok(temporary);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => last = Some(error),
                Err(error) => return Err(Error::io("no temporary file could be created", error)),
            }
        }
        let last = last.unwrap_or_else(|| io::ErrorKind::Interrupted.into());
        if rustix::fs::fstat(tree.root().file()).is_ok_and(|root| root.st_nlink == 0) {
            return Err(Error::io("the store's directory was deleted while it was in use", last));
        }
        Err(Error::io("temporary files keep vanishing; is something else cleaning `.tmp`?", last)
            .with_kind(ErrorKind::Transient))
    }

    /// Gives the file its final name; [`io::ErrorKind::AlreadyExists`] if that is taken, and then nothing changed.
    pub(super) fn publish(&mut self, to: &Directory, name: &str) -> io::Result<()> {
        self.disk.publish(&self.directory, &self.name, to, name)?;
        self.published = true;
        Ok(())
    }

    /// A new, empty, locked file; none if a sweeper was faster than the lock.
    fn create(tree: &Tree) -> io::Result<Option<Self>> {
        let directory = open_or_make_directory(tree)?;
        let mut random = [0; 16];
        SystemRandom.fill(&mut random)?;
        let name = hex::encode(random);
        let file = tree.disk.create_file(&directory, &name)?;
        let disk = Arc::clone(&tree.disk);
        let temporary = Self { directory, name, disk, published: false, _file: file };
        match rustix::fs::flock(&temporary._file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            // Where nobody can lock, no sweeper can either, and leftovers stay.
            Err(errno) => tracing::debug!(%errno, "temporary files cannot be locked here"),
        }
        // Before the lock a sweeper could have removed the name.
        let links = rustix::fs::fstat(&temporary._file)?.st_nlink;
        Ok((links > 0).then_some(temporary))
    }

    fn fill(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(&self.directory, &self.name, &mut self._file, bytes)?;
        self.disk.sync_file(&self.directory, &self.name, &self._file)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = self.disk.remove_file(&self.directory, &self.name)
        {
            tracing::debug!(%error, name = self.name, "a temporary file stays until the store is opened again");
        }
    }
}

/// Removes the temporary files whose writers are gone, as far as possible, and returns how many. Those of live
/// processes, this one included, are locked and stay.
pub(super) fn sweep(tree: &Tree) -> usize {
    let Ok(directory) = open_directory(tree.root(), DIRECTORY) else { return 0 };
    let Ok(entries) = Dir::read_from(directory.file()) else { return 0 };
    let names = entries.filter_map(|entry| entry.ok());
    names.filter(|entry| remove_abandoned(tree, &directory, entry.file_name())).count()
}

fn remove_abandoned(tree: &Tree, directory: &Directory, name: &CStr) -> bool {
    let Ok(name) = name.to_str() else { return false };
    // Only names of our making: someone else's file is none of our business.
    if name.len() != 32 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(directory.file(), name, flags, Mode::empty()) else { return false };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    // If the file got its final name since it was listed, this name is gone and nothing happens.
    let removed = tree.disk.remove_file(directory, name).is_ok();
    if removed {
        tracing::info!(name, "removed the temporary file of a process that is gone");
    }
    removed
}

fn open_or_make_directory(tree: &Tree) -> io::Result<Directory> {
    match open_directory(tree.root(), DIRECTORY) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    match tree.disk.make_directory(tree.root(), DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Ok(open_directory(tree.root(), DIRECTORY)?)
}
