//! Looking at single names below the target: part by part, so that no part can be a link and no name is too long.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Result;

/// The target, and the directory below it that was looked into last.
#[derive(Debug)]
pub(super) struct Below {
    root: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Below {
    pub(super) fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: openat(CWD, root, DIRECTORY, Mode::empty())?, last: None })
    }

    /// What stands at `name`; of a link, the link.
    pub(super) fn look(&mut self, name: &[u8]) -> Result<Stat> {
        let (parent, last) = self.parent(name)?;
        statat(parent, last, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Where the link at `name` points.
    pub(super) fn link_target(&mut self, name: &[u8]) -> Result<Vec<u8>> {
        let (parent, last) = self.parent(name)?;
        Ok(readlinkat(parent, last, Vec::new())?.into_bytes())
    }

    /// The file at `name`, for reading.
    pub(super) fn file(&mut self, name: &[u8]) -> Result<File> {
        let (parent, last) = self.parent(name)?;
        // A pipe that took the file's place must not keep us waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(parent, last, flags, Mode::empty())?.into())
    }

    fn parent<'n>(&mut self, name: &'n [u8]) -> Result<(BorrowedFd<'_>, &'n OsStr)> {
        let Some(slash) = name.iter().rposition(|byte| *byte == b'/') else {
            return Ok((self.root.as_fd(), OsStr::from_bytes(name)));
        };
        let directory = name.get(..slash).unwrap_or_default();
        let last = OsStr::from_bytes(name.get(slash.saturating_add(1)..).unwrap_or_default());
        let known = self.last.take().filter(|(path, _)| path == directory);
        let found = match known {
            Some(known) => known,
            None => (directory.to_vec(), self.walk(directory)?),
        };
        Ok((self.last.insert(found).1.as_fd(), last))
    }

    fn walk(&self, directory: &[u8]) -> Result<OwnedFd> {
        let mut parts = directory.split(|byte| *byte == b'/');
        let open = |at: BorrowedFd<'_>, part: &[u8]| {
            openat(at, OsStr::from_bytes(part), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
        };
        let first = open(self.root.as_fd(), parts.next().unwrap_or_default())?;
        parts.try_fold(first, |at, part| open(at.as_fd(), part))
    }
}

// Passing through a directory takes no permission to list it.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_are_found_part_by_part_and_never_through_a_link() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/file"), "x").unwrap();
        std::fs::write(outside.path().join("file"), "x").unwrap();
        symlink(outside.path(), root.path().join("a/link")).unwrap();
        let mut below = Below::new(root.path()).unwrap();
        assert_eq!(below.look(b"a/b/file").unwrap().st_size, 1);
        assert_eq!(below.link_target(b"a/link").unwrap(), outside.path().as_os_str().as_bytes());
        assert!(below.look(b"a").is_ok() && below.file(b"a/b/file").is_ok());
        assert!(below.look(b"a/link/file").is_err() && below.file(b"a/link").is_err());
        assert!(below.look(b"a/b/other").is_err() && below.look(b"other/file").is_err());
    }
}
