//! Looking into and deleting from the target, without ever following a symbolic link.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, fstat, futimens, openat, statat,
    unlinkat,
};
use rustix::io::{Errno, Result};

/// Deepest directory that is deleted.
const DEPTH_MAX: usize = 256;

/// The names in the directory `name` below `root`; an empty name is `root` itself.
pub(super) fn children(root: &Path, name: &[u8]) -> Result<Vec<Vec<u8>>> {
    list(&open(root, name)?)
}

/// What became of names that were to be deleted.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) gone: Vec<Vec<u8>>,
    /// With the reason.
    pub(super) left: Vec<(Vec<u8>, String)>,
}

/// Deletes names below `root`, with all that is below them.
pub(super) fn remove(root: &Path, names: Vec<Vec<u8>>) -> Removed {
    let mut removed = Removed::default();
    for name in names {
        let (parent, last): (&[u8], &[u8]) = match name.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (
                name.get(..slash).unwrap_or_default(),
                name.get(slash.saturating_add(1)..).unwrap_or_default(),
            ),
            None => (&[], &name),
        };
        match open(root, parent).and_then(|directory| remove_quietly(&directory, last)) {
            Ok(()) | Err(Errno::NOENT) => removed.gone.push(name),
            Err(error) => removed.left.push((name, error.to_string())),
        }
    }
    removed
}

/// The directory `name` below `root`, opened part by part so that no part can be a link.
fn open(root: &Path, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = openat(CWD, root, flags, Mode::empty())?;
    for part in name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        directory = openat(&directory, OsStr::from_bytes(part), flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(directory)
}

fn list(directory: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

/// Deletes without leaving a trace in the times of the directory, which the restore has set.
fn remove_quietly(directory: &OwnedFd, name: &[u8]) -> Result<()> {
    let there = fstat(directory)?;
    remove_at(directory, name, 0)?;
    let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec: i64::try_from(tv_nsec).unwrap_or_default() };
    let times = Timestamps {
        last_access: at(there.st_atime, there.st_atime_nsec),
        last_modification: at(there.st_mtime, there.st_mtime_nsec),
    };
    futimens(directory, &times)
}

fn remove_at(directory: impl AsFd, name: &[u8], depth: usize) -> Result<()> {
    let path = OsStr::from_bytes(name);
    let there = statat(&directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
        return unlinkat(&directory, path, AtFlags::empty());
    }
    if depth >= DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let inner = openat(&directory, path, flags, Mode::empty())?;
    for child in list(&inner)? {
        remove_at(&inner, &child, depth.saturating_add(1))?;
    }
    unlinkat(&directory, path, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_never_leaves_the_target() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), "x").unwrap();
        let target = tempfile::tempdir().unwrap();
        let link = target.path().join("link");
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        std::fs::create_dir_all(target.path().join("tree/deep")).unwrap();
        std::fs::write(target.path().join("tree/deep/file"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), target.path().join("tree/deep/link")).unwrap();
        assert!(children(target.path(), b"link").is_err());
        let names = ["link/precious", "tree", "gone"].map(|name| name.as_bytes().to_vec()).to_vec();
        let removed = remove(target.path(), names);
        assert_eq!(removed.gone, [b"tree".to_vec(), b"gone".to_vec()]);
        assert_eq!(removed.left.len(), 1);
        assert!(outside.path().join("precious").exists());
        // The link itself can be deleted; where it points stays.
        assert_eq!(remove(target.path(), vec![b"link".to_vec()]).left, []);
        assert!(!link.is_symlink() && outside.path().join("precious").exists());
    }
}
