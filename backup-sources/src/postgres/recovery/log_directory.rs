//! The directory of a cluster's log: `pg_wal`, which may be a link to another disk.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::tree;
use crate::system;

/// It, opened. By its name it may be another one the next moment: the data directory is not root's, and whoever owns it may put a link to
/// anything there.
#[derive(Debug)]
pub(super) struct LogDirectory {
    directory: OwnedFd,
    path: PathBuf,
}

impl LogDirectory {
    /// That of a data directory; none if there is none.
    ///
    /// # Errors
    ///
    /// It cannot be opened. For root, too: it is a link to a directory that does not belong to whom the data directory belongs to, so that
    /// root would empty for that one, and give away, what is somebody else's.
    pub(super) fn open(data: &Path) -> Result<Option<Self>> {
        Self::open_for(data, system::is_root())
    }

    fn open_for(data: &Path, is_root: bool) -> Result<Option<Self>> {
        let path = data.join("pg_wal");
        let looked_at = |error| Error::io(format!("`{}` cannot be looked at", path.display()), error);
        let kind = match path.symlink_metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(looked_at(error)),
        };
        if !kind.is_symlink() {
            let directory = tree::open(&path)?;
            return Ok(Some(Self { directory, path }));
        }
        let opened =
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = opened.map_err(|errno| looked_at(errno.into()))?;
        let owner = rustix::fs::fstat(&directory).map_err(|errno| looked_at(errno.into()))?.st_uid;
        let wanted = data.metadata().map_err(looked_at)?.uid();
        if is_root && owner != wanted {
            let message = format!(
                "`{}` is a link to `{}`, which belongs to the user {owner} and the data directory to {wanted}: as root nothing is \
                 changed there. Give it to the server's user, or remove the link",
                path.display(),
                std::fs::canonicalize(&path).unwrap_or_default().display()
            );
            return Err(Error::invalid_input(message));
        }
        Ok(Some(Self { directory, path }))
    }

    /// Removes everything in it.
    pub(super) fn empty(&self) -> Result<()> {
        tree::empty_opened(&self.directory, &self.path).map(drop)
    }

    /// Makes the directory in it that a server wants there.
    pub(super) fn make_status(&self) -> Result<()> {
        let made = match rustix::fs::mkdirat(&self.directory, "archive_status", Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => rustix::fs::fsync(&self.directory),
            Err(errno) => Err(errno),
        };
        made.map_err(|errno| {
            let path = self.path.join("archive_status");
            Error::io(format!("`{}` cannot be made", path.display()), errno.into())
        })
    }

    /// Gives it and everything in it to a user and a group.
    pub(super) fn own(&self, user: u32, group: u32) -> Result<()> {
        tree::own_opened(&self.directory, &self.path, user, group)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn root_changes_nothing_where_a_link_leads_to_somebody_elses_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&log).unwrap();
        assert!(LogDirectory::open_for(&data, true).unwrap().is_none());
        symlink(&log, data.join("pg_wal")).unwrap();
        fs::write(log.join("000000010000000000000009"), "x").unwrap();
        let own = LogDirectory::open_for(&data, true).unwrap().unwrap();
        own.empty().unwrap();
        assert_eq!(fs::read_dir(&log).unwrap().count(), 0);
        own.make_status().unwrap();
        own.make_status().unwrap();
        assert!(log.join("archive_status").is_dir());

        // The system's for a user, and root's for nobody.
        let others = if system::is_root() {
            chown(&data, Some(65_534), Some(65_534)).unwrap();
            log.as_path()
        } else {
            Path::new("/usr")
        };
        fs::remove_file(data.join("pg_wal")).unwrap();
        symlink(others, data.join("pg_wal")).unwrap();
        let error = LogDirectory::open_for(&data, true).unwrap_err().to_string();
        assert!(error.contains(others.to_str().unwrap()) && error.contains("as root"), "{error}");
        assert!(
            LogDirectory::open_for(&data, false).unwrap().is_some(),
            "who is not root can do no more than its user"
        );

        // What the name leads to later is not what was opened.
        fs::remove_file(data.join("pg_wal")).unwrap();
        fs::create_dir(data.join("pg_wal")).unwrap();
        let opened = LogDirectory::open_for(&data, true).unwrap().unwrap();
        fs::rename(data.join("pg_wal"), data.join("moved")).unwrap();
        fs::write(data.join("moved/file"), "x").unwrap();
        symlink(&log, data.join("pg_wal")).unwrap();
        opened.empty().unwrap();
        assert!(log.join("archive_status").is_dir(), "what the link leads to was emptied");
        assert_eq!(fs::read_dir(data.join("moved")).unwrap().count(), 0);
    }
}
