//! The directories of a local store: opened one by one, never through a symbolic link, and made durable.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use backup_core::{Error, ErrorKind, ObjectKey, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::buffers::ReadBuffers;
use super::disk::{Directory, Disk};

/// Levels of directories that stay for ever: `data/ab` at level 2 does, `control/sessions/<id>` at level 3 goes with
/// its last object. Only directories that stay may be remembered as durable: another process cannot take them away.
pub(super) const PERMANENT_LEVELS: usize = 2;

/// Directories remembered as durable; beyond it they are synced again each time.
const DURABLE_MAX: usize = 4096;

/// The directories below one root.
#[derive(Debug)]
pub(super) struct Tree {
    root: Arc<Directory>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) buffers: ReadBuffers,
    durable: Mutex<HashSet<String>>,
}

/// The open directories from the root down to that of an object.
#[derive(Debug)]
pub(super) struct Chain(Vec<Arc<Directory>>);

impl Chain {
    /// The directory that holds the object.
    pub(super) fn leaf(&self) -> Option<&Arc<Directory>> {
        self.0.last()
    }

    /// The directories, the root first.
    pub(super) fn directories(&self) -> &[Arc<Directory>] {
        &self.0
    }
}

impl Tree {
    /// The tree below the directory at `path`, which exists.
    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>) -> io::Result<Self> {
        // The root itself may be reached through links: the caller named it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root: OwnedFd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            root: Arc::new(Directory::new(root, "")),
            disk,
            buffers: ReadBuffers::default(),
            durable: Mutex::default(),
        })
    }

    pub(super) fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// The directories of `key`, as far as they exist; none if one of them does not.
    pub(super) fn find(&self, key: &ObjectKey) -> Result<Option<Chain>> {
        let mut chain = vec![Arc::clone(&self.root)];
        for name in directory_names(key) {
            let Some(parent) = chain.last() else { break };
            match open_directory(parent, name) {
                Ok(directory) => chain.push(Arc::new(directory)),
                Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
                // A file: then no key continues below it. A link is refused, not taken for absence.
                Err(Errno::NOTDIR) if !is_link(parent, name) => return Ok(None),
                Err(errno) => return Err(directory_error(parent, name, errno)),
            }
        }
        Ok(Some(Chain(chain)))
    }

    /// The directories of `key`, created where they are missing.
    pub(super) fn make(&self, key: &ObjectKey) -> Result<Chain> {
        let mut chain = vec![Arc::clone(&self.root)];
        for name in directory_names(key) {
            let Some(parent) = chain.last() else { break };
            let directory = self.open_or_make(parent, name)?;
            chain.push(Arc::new(directory));
        }
        Ok(Chain(chain))
    }

    /// Makes durable that the object stands in its directory and that this is reached from the root. Directories made
    /// by others count as not durable until this process synced them once.
    pub(super) fn sync(&self, chain: &Chain) -> io::Result<()> {
        let directories = chain.directories();
        if let Some(leaf) = directories.last() {
            self.disk.sync_directory(leaf)?;
        }
        for (level, pair) in directories.windows(2).enumerate().rev() {
            let [parent, child] = pair else { continue };
            if self.lock().contains(child.path()) {
                continue;
            }
            self.disk.sync_directory(parent)?;
            let mut durable = self.lock();
            if level < PERMANENT_LEVELS && durable.len() < DURABLE_MAX {
                durable.insert(child.path().to_owned());
            }
        }
        Ok(())
    }

    fn open_or_make(&self, parent: &Directory, name: &str) -> Result<Directory> {
        match open_directory(parent, name) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(|errno| directory_error(parent, name, errno)),
        }
        match self.disk.make_directory(parent, name) {
            Ok(()) => {}
            // Another process made it meanwhile, or it is something else, which the next call finds out.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let message = format!("the directory `{}` could not be created", parent.path_of(name));
                return Err(Error::io(message, error));
            }
        }
        open_directory(parent, name).map_err(|errno| directory_error(parent, name, errno))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.durable.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Opens the directory `name`; anything else of that name, a link included, is [`Errno::NOTDIR`] or [`Errno::LOOP`].
pub(super) fn open_directory(parent: &Directory, name: &str) -> Result<Directory, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened: OwnedFd = rustix::fs::openat(parent.file(), name, flags, Mode::empty())?;
    Ok(Directory::new(opened, parent.path_of(name)))
}

/// Opens the regular file `name` for reading; none if there is none.
pub(super) fn open_object(parent: &Directory, name: &str) -> Result<Option<(File, u64)>> {
    // Without NONBLOCK, opening a named pipe that someone put here would wait for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(parent.file(), name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
        Err(Errno::LOOP | Errno::MLINK) => return Err(link_error(&parent.path_of(name))),
        Err(errno) => return Err(Error::io("the object could not be opened", errno.into())),
    };
    let metadata = file.metadata().map_err(|error| Error::io("the object could not be examined", error))?;
    if metadata.is_file() { Ok(Some((file, metadata.len()))) } else { Ok(None) }
}

/// The components of `key` before its last.
fn directory_names(key: &ObjectKey) -> impl Iterator<Item = &str> {
    let directories = key.as_str().rsplit_once('/').map(|(directories, _)| directories);
    directories.into_iter().flat_map(|directories| directories.split('/'))
}

fn is_link(parent: &Directory, name: &str) -> bool {
    let stat = rustix::fs::statat(parent.file(), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink())
}

fn directory_error(parent: &Directory, name: &str, errno: Errno) -> Error {
    let path = parent.path_of(name);
    match errno {
        Errno::NOTDIR | Errno::LOOP | Errno::MLINK if is_link(parent, name) => link_error(&path),
        Errno::NOTDIR => {
            let message = format!("`{path}` is an object or a file, so no object can stand below it");
            Error::invalid_input(message)
        }
        Errno::NAMETOOLONG => {
            Error::invalid_input(format!("`{path}` is too long for the names of this file system"))
        }
        errno => Error::io(format!("the directory `{path}` could not be opened"), errno.into()),
    }
}

fn link_error(path: &str) -> Error {
    let message =
        format!("`{path}` is a symbolic link; a store follows none below its root. Put the real thing there");
    Error::new(ErrorKind::Denied, message)
}
