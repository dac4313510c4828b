//! What stands already where a file is to be restored, and what becomes of it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Wanted};
use super::beneath::Directory;
use super::{Opened, Overwrite, locks, refused};
use crate::system::{file_type, modified, size};

/// What was met.
#[derive(Debug)]
pub(super) enum Met {
    /// Nothing, or what is replaced as a whole.
    Nothing,
    /// A file whose parts may be right.
    Former(OwnedFd, Stat),
    /// A file that counts as unchanged; metadata is put right.
    Current(OwnedFd),
    /// What is not to be touched.
    Kept,
}

/// Decides about what stands at the name already. Changes nothing of it.
pub(super) fn meet(opened: &Opened, wanted: &Wanted, directory: &Directory, name: &[u8]) -> io::Result<Met> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Met::Nothing),
        Err(error) => return Err(error.into()),
    };
    let keep = match opened.settings.overwrite {
        Overwrite::Never => true,
        Overwrite::IfNewer => wanted.modified().is_none_or(|time| time <= modified(&stat)),
        Overwrite::Always | Overwrite::IfChanged => false,
    };
    if keep {
        return Ok(Met::Kept);
    }
    if file_type(&stat) != FileType::RegularFile {
        return Ok(Met::Nothing);
    }
    let Some(file) = reopen(directory, name, &stat, OFlags::RDONLY)? else { return Ok(Met::Nothing) };
    let unchanged = opened.settings.overwrite == Overwrite::IfChanged
        && wanted.size == Some(size(&stat))
        && wanted.modified() == Some(modified(&stat));
    Ok(match (unchanged, stat.st_nlink) {
        (true, 1) => {
            if wanted.is_locked() {
                locks::unlock(&file);
            }
            Met::Current(file)
        }
        (false, 1) => Met::Former(file, stat),
        // Whoever sets anything of a file with several names sets it of all of them, wherever they stand.
        (true, _) if opened.has(&stat, wanted) && attributes::are_set(&file, &wanted.attributes) => Met::Kept,
        _ => Met::Nothing,
    })
}

/// Opens a file that stands there, if it still is the one and may be opened so.
pub(super) fn reopen(
    directory: &Directory,
    name: &[u8],
    stat: &Stat,
    access: OFlags,
) -> io::Result<Option<OwnedFd>> {
    // A fifo in its place would make the open wait.
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        // Being executed, not permitted, or replaced: a new file takes its place.
        Err(
            Errno::TXTBSY
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::NXIO
            | Errno::NOENT
            | Errno::ISDIR,
        ) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let now = rustix::fs::fstat(&file)?;
    // Still as many names: what is set of a file with several is set of all of them.
    let same = (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino)
        && file_type(&now) == FileType::RegularFile
        && now.st_nlink == stat.st_nlink;
    Ok(same.then_some(file))
}

/// Removes what stands at a name, unless it is a directory with content.
pub(super) fn make_room(directory: &Directory, name: &[u8], stat: &Stat) -> io::Result<()> {
    let flags = if file_type(stat) == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            Err(refused("a directory with content stands there; remove it first"))
        }
        // It became something else; the next look tells what.
        Err(Errno::ISDIR | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
