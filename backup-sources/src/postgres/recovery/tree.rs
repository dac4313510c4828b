//! Small things done to a directory and what is below it, without ever following a link: removing, giving away, syncing.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use backup_core::{Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// How deep a cluster's directories go at most, and far beyond.
const DEPTH_MAX: usize = 64;

/// Names below a directory, with those of all directories that lead to them.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(HashSet<Box<[u8]>>);

impl Names {
    /// Adds a name and whatever leads there.
    pub(super) fn insert(&mut self, name: &[u8]) {
        let mut rest = name;
        while !rest.is_empty() && self.0.insert(rest.into()) {
            let parent = rest.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
            rest = rest.get(..parent).unwrap_or_default();
        }
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.0.contains(name)
    }
}

/// Opens a directory; one that is a link is an error.
pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| failed("cannot be opened as a directory", path, errno))
}

/// Makes a directory that only its owner can enter, and those above it, and makes that durable.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    make_directory(parent)?;
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => sync(parent),
        Err(errno) => Err(failed("cannot be made", path, errno)),
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync(path: &Path) -> Result<()> {
    let synced = fs::File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error::io(format!("`{}` cannot be made durable", path.display()), error))
}

/// Makes the whole file system of a directory durable: all that was done to many files, owners too.
pub(super) fn sync_all(path: &Path) -> Result<()> {
    let cannot =
        |error| Error::io(format!("the file system of `{}` cannot be made durable", path.display()), error);
    let directory = fs::File::open(path).map_err(cannot)?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(&directory).map_err(|errno| cannot(errno.into()))?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    directory.sync_all().map_err(cannot)
}

/// Writes a file under another name first, and durably.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = |error: io::Error| Error::io(format!("`{}` cannot be written", path.display()), error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal(format!("`{}` names no file", path.display())));
    };
    let waiting = parent.join(format!(".{}.new", name.to_string_lossy()));
    remove(&waiting)?;
    let mut file = {
        use std::os::unix::fs::OpenOptionsExt;
        fs::File::options().write(true).create_new(true).mode(0o600).open(&waiting).map_err(cannot)?
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(cannot)?;
    fs::rename(&waiting, path).map_err(cannot)?;
    sync(parent)
}

/// Removes a file, or a link, if it is there. Its directory is not synced.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("`{}` cannot be removed", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Moves a file, if it is there, and makes that durable.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(Error::io(format!("`{}` cannot be moved to `{}`", from.display(), to.display()), error))
        }
        Ok(()) => to.parent().map_or(Ok(()), sync),
    }
}

/// Removes what stands below a directory and is not to be kept, and makes that durable. Names are those below it.
pub(super) fn sweep(path: &Path, keep: &Names) -> Result<u64> {
    sweep_opened(&open(path)?, path, keep)
}

fn sweep_opened(directory: &OwnedFd, path: &Path, keep: &Names) -> Result<u64> {
    let mut removed = 0;
    sweep_below(directory.as_fd(), &mut Vec::new(), keep, 0, &mut removed)
        .map_err(|(name, errno)| failed("cannot be removed", &path.join(lossy(&name)), errno))?;
    Ok(removed)
}

/// The same below one of the directories in `path`, if it is there. What stands beside it is somebody else's. Names are those below `path`.
pub(super) fn sweep_one(path: &Path, name: &str, keep: &Names) -> Result<u64> {
    let directory = open(path)?;
    let below = std::ffi::CString::new(name).map_err(|_| Error::internal("a directory's name has a NUL"))?;
    let below = match subdirectory(directory.as_fd(), &below) {
        Ok(below) => below,
        Err(Errno::NOENT) => return Ok(0),
        Err(errno) => return Err(failed("cannot be opened as a directory", &path.join(name), errno)),
    };
    let mut removed = 0;
    sweep_below(below.as_fd(), &mut name.as_bytes().to_vec(), keep, 1, &mut removed)
        .map_err(|(name, errno)| failed("cannot be removed", &path.join(lossy(&name)), errno))?;
    Ok(removed)
}

/// Removes everything below a directory.
pub(super) fn empty(path: &Path) -> Result<u64> {
    sweep(path, &Names::default())
}

/// The same of one that is open; `path` is what errors call it.
pub(super) fn empty_opened(directory: &OwnedFd, path: &Path) -> Result<u64> {
    sweep_opened(directory, path, &Names::default())
}

type Failed = (Vec<u8>, Errno);

fn sweep_below(
    directory: BorrowedFd<'_>,
    prefix: &mut Vec<u8>,
    keep: &Names,
    depth: usize,
    removed: &mut u64,
) -> std::result::Result<(), Failed> {
    let mut changed = false;
    for (name, kind) in entries(directory).map_err(|errno| (prefix.clone(), errno))? {
        let len = prefix.len();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(name.to_bytes());
        let kept = keep.contains(prefix) || (len == 0 && name.to_bytes() == b"lost+found");
        if kind == FileType::Directory {
            if depth >= DEPTH_MAX {
                return Err((prefix.clone(), Errno::LOOP));
            }
            let below = subdirectory(directory, &name).map_err(|errno| (prefix.clone(), errno))?;
            // A name that is kept is one of these or below it, or everything below goes.
            if !(kept && len == 0 && name.to_bytes() == b"lost+found") {
                sweep_below(below.as_fd(), prefix, keep, depth.saturating_add(1), removed)?;
            }
        }
        if !kept {
            let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(directory, &name, flags).map_err(|errno| (prefix.clone(), errno))?;
            *removed = removed.saturating_add(1);
            changed = true;
        }
        prefix.truncate(len);
    }
    if changed {
        rustix::fs::fsync(directory).map_err(|errno| (prefix.clone(), errno))?;
    }
    Ok(())
}

/// Gives a directory and everything below it to a user and a group.
pub(super) fn own(path: &Path, user: u32, group: u32) -> Result<()> {
    own_opened(&open(path)?, path, user, group)
}

/// The same of one that is open; `path` is what errors call it.
pub(super) fn own_opened(directory: &OwnedFd, path: &Path, user: u32, group: u32) -> Result<()> {
    let owner = (Uid::from_raw(user), Gid::from_raw(group));
    rustix::fs::fchown(directory, Some(owner.0), Some(owner.1))
        .and_then(|()| own_below(directory.as_fd(), owner, 0))
        .map_err(|errno| failed("cannot be given to the server's user", path, errno))
}

fn own_below(directory: BorrowedFd<'_>, owner: (Uid, Gid), depth: usize) -> std::result::Result<(), Errno> {
    for (name, kind) in entries(directory)? {
        rustix::fs::chownat(directory, &name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind == FileType::Directory {
            if depth >= DEPTH_MAX {
                return Err(Errno::LOOP);
            }
            own_below(subdirectory(directory, &name)?.as_fd(), owner, depth.saturating_add(1))?;
        }
    }
    Ok(())
}

/// Whom a directory belongs to.
pub(super) fn owner_of(path: &Path) -> Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path);
    let metadata =
        metadata.map_err(|error| Error::io(format!("`{}` cannot be looked at", path.display()), error))?;
    Ok((metadata.uid(), metadata.gid()))
}

/// Leaves a directory to its owner, and to its group if it was so: the server refuses to start in one that others may enter.
pub(super) fn close_to_others(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let cannot = |error| Error::io(format!("the mode of `{}` cannot be set", path.display()), error);
    let mode = fs::symlink_metadata(path).map_err(cannot)?.permissions().mode() & 0o7777;
    let wanted = if mode == 0o750 { 0o750 } else { 0o700 };
    if mode == wanted {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(wanted)).map_err(cannot)
}

fn entries(directory: BorrowedFd<'_>) -> std::result::Result<Vec<(std::ffi::CString, FileType)>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

fn subdirectory(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

fn failed(what: &str, path: &Path, errno: Errno) -> Error {
    Error::io(format!("`{}` {what}", path.display()), errno.into())
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_goes_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
        for path in ["root/a/b/c", "root/d/e", "root/lost+found/x", "outside/f"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
            fs::write(directory.path().join(path).join("file"), "x").unwrap();
        }
        std::os::unix::fs::symlink(&outside, root.join("a/link")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("kept")).unwrap();
        let mut keep = Names::default();
        keep.insert(b"a/b/c/file");
        keep.insert(b"kept");
        assert_eq!(sweep(&root, &keep).unwrap(), 4);
        for (path, there) in
            [("a/b/c/file", true), ("a/link", false), ("d", false), ("lost+found/x/file", true)]
        {
            assert_eq!(root.join(path).symlink_metadata().is_ok(), there, "{path}");
        }
        assert!(outside.join("f/file").exists());
        empty(&root).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        assert!(outside.join("f/file").exists());
        assert!(empty(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn what_stands_beside_one_directory_stays() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in ["PG_15_202209061/5", "PG_14_202107181/5"] {
            fs::create_dir_all(root.join(path)).unwrap();
            for file in ["16384", "16385"] {
                fs::write(root.join(path).join(file), "x").unwrap();
            }
        }
        let mut keep = Names::default();
        keep.insert(b"PG_15_202209061/5/16384");
        assert_eq!(sweep_one(root, "PG_15_202209061", &keep).unwrap(), 1);
        for (path, there) in [
            ("PG_15_202209061/5/16384", true),
            ("PG_15_202209061/5/16385", false),
            ("PG_14_202107181/5/16384", true),
            ("PG_14_202107181/5/16385", true),
        ] {
            assert_eq!(root.join(path).exists(), there, "{path}");
        }
        assert_eq!(sweep_one(root, "PG_16_202307071", &keep).unwrap(), 0);
        std::os::unix::fs::symlink("PG_14_202107181", root.join("link")).unwrap();
        assert!(sweep_one(root, "link", &keep).is_err());
        assert!(root.join("PG_14_202107181/5/16384").exists());
    }
}
