//! The few system calls that durability and create-once rest on, behind a trait, so that tests can watch each one,
//! leave it out or make it fail.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// An open directory of the store.
#[derive(Debug)]
pub struct Directory {
    file: File,
    path: String,
}

impl Directory {
    /// The directory behind `file`, which stands at `path` below the store's root (empty for the root).
    pub fn new(file: impl Into<File>, path: impl Into<String>) -> Self {
        Self { file: file.into(), path: path.into() }
    }

    /// The open directory.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path below the root, without a slash at either end; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path below the root of `name` in this directory.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }
}

/// What a [`LocalSink`](crate::LocalSink) does to the file system. All calls block.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a file, which must not exist, for writing.
    fn create_file(&self, directory: &Directory, name: &str) -> io::Result<File>;

    /// Appends all of `bytes` to the file created as `name` in `directory`.
    fn write(&self, directory: &Directory, name: &str, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file's content durable.
    fn sync_file(&self, directory: &Directory, name: &str, file: &File) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Directory) -> io::Result<()>;

    /// Creates a directory; [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn make_directory(&self, parent: &Directory, name: &str) -> io::Result<()>;

    /// Gives a file its final name in one atomic step; [`io::ErrorKind::AlreadyExists`] if that is taken.
    fn publish(&self, from: &Directory, temporary: &str, to: &Directory, name: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, directory: &Directory, name: &str) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_directory(&self, parent: &Directory, name: &str) -> io::Result<()>;
}

/// The operating system's calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_file(&self, directory: &Directory, name: &str) -> io::Result<File> {
        // The file is read-only for everyone from the start; only this descriptor can write.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: OwnedFd = rustix::fs::openat(&directory.file, name, flags, Mode::RUSR)?;
        Ok(file.into())
    }

    fn write(&self, _: &Directory, _: &str, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        super::direct::write(file, bytes)
    }

    fn sync_file(&self, _: &Directory, _: &str, file: &File) -> io::Result<()> {
        // The standard library's call: on macOS it reaches the medium, which a plain fsync does not.
        file.sync_all()
    }

    fn sync_directory(&self, directory: &Directory) -> io::Result<()> {
        directory.file.sync_all()
    }

    fn make_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&parent.file, name, Mode::RWXU)?)
    }

    fn publish(&self, from: &Directory, temporary: &str, to: &Directory, name: &str) -> io::Result<()> {
        match rename_new(from, temporary, to, name) {
            // Network file systems and old kernels know no such rename; a second link is as atomic.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_new(from, temporary, to, name),
            done => Ok(done?),
        }
    }

    fn remove_file(&self, directory: &Directory, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&directory.file, name, AtFlags::empty())?)
    }

    fn remove_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&parent.file, name, AtFlags::REMOVEDIR)?)
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_new(from: &Directory, temporary: &str, to: &Directory, name: &str) -> Result<(), Errno> {
    rustix::fs::renameat_with(&from.file, temporary, &to.file, name, rustix::fs::RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_new(_: &Directory, _: &str, _: &Directory, _: &str) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

fn link_new(from: &Directory, temporary: &str, to: &Directory, name: &str) -> io::Result<()> {
    rustix::fs::linkat(&from.file, temporary, &to.file, name, AtFlags::empty())?;
    // The object stands; a temporary name that stays behind is swept with the others.
    let _ = rustix::fs::unlinkat(&from.file, temporary, AtFlags::empty());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_exclusive_rename_is_missing_a_link_takes_its_place() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(File::open(root.path()).unwrap(), "");
        for name in ["first", "second"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        link_new(&directory, "first", &directory, "object").unwrap();
        let refused = link_new(&directory, "second", &directory, "object").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(root.path().join("object")).unwrap(), b"first");
        // The published name is the only one; the refused file is its writer's to remove.
        assert!(!root.path().join("first").exists());
        assert!(root.path().join("second").exists());
    }
}
