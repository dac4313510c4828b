//! The files of a cluster on this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use backup_core::source::Gone;
use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rustix::fs::{Advice, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::control::ControlFile;
use super::reader::{Listed, ListedKind, Listing, Opener, PgFile, PgFileReader};
use crate::files::open_below;
use crate::system::{changed, file_type, modified, size};

/// The longest file that is read as a whole.
const WHOLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files at least this long are announced to the kernel's read-ahead.
const SEQUENTIAL_BYTES: u64 = 1024 * 1024;

/// How directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Files below a data directory.
///
/// What is opened is opened below descriptors of the data directory and of the tablespaces, and no link is followed on the
/// way: who may write there, and nowhere else, must not lead a backup that runs as root to other files.
#[derive(Debug, Clone)]
pub(super) struct LocalFiles {
    root: PathBuf,
    directory: Arc<OwnedFd>,
    /// The directories that the links in `pg_tblspc` lead to, as far as they were asked for.
    tablespaces: Arc<Mutex<BTreeMap<u32, Arc<OwnedFd>>>>,
}

impl LocalFiles {
    /// Opens the data directory. Blocks.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let directory = rustix::fs::open(root, DIRECTORY, Mode::empty()).map_err(|errno| {
            let message = format!("the data directory {} cannot be opened", root.display());
            Error::io(message, errno.into())
        })?;
        Ok(Self { root: root.to_owned(), directory: directory.into(), tablespaces: Arc::default() })
    }

    /// Where a path is: the directory that it is looked for below, and the rest of it.
    fn place<'a>(&self, path: &'a str) -> (Arc<OwnedFd>, &'a str) {
        let in_tablespace = path.strip_prefix("pg_tblspc/").and_then(|rest| {
            let (oid, rest) = rest.split_once('/').unwrap_or((rest, "."));
            Some((Arc::clone(self.tablespaces().get(&oid.parse().ok()?)?), rest))
        });
        in_tablespace.unwrap_or_else(|| (Arc::clone(&self.directory), path))
    }

    fn tablespaces(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<OwnedFd>>> {
        self.tablespaces.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn open_file(&self, path: &str) -> io::Result<File> {
        let (directory, rest) = self.place(path);
        // A pipe put in the file's place must not make the open wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match open_below(&*directory, rest.as_bytes(), flags) {
            Ok(file) => file,
            // The server removed it, and replay of the log will: it removes nothing else while a backup runs.
            Err(Errno::NOENT) => return Err(Gone.into_error()),
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it was replaced by something else than a file before it was read"));
        }
        Ok(file.into())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let files = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&files)).await;
        done.map_err(|error| Error::internal("reading the data directory broke off").with_source(error))?
    }

    /// What `postmaster.pid` says: the server's port and when it started, in seconds since 1970.
    pub(super) async fn postmaster(&self) -> Result<Option<(u16, i64)>> {
        let Some(bytes) = self.read_all("postmaster.pid").await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().skip(2);
        let started = lines.next().and_then(|line| line.trim().parse().ok());
        let port = lines.next().and_then(|line| line.trim().parse().ok());
        Ok(port.zip(started))
    }

    pub(super) async fn control(&self) -> Result<ControlFile> {
        let bytes = self.read_all("global/pg_control").await?;
        let bytes = bytes.ok_or_else(|| {
            let message =
                format!("{} is no data directory: it has no global/pg_control", self.root.display());
            Error::new(ErrorKind::NotFound, message)
        })?;
        ControlFile::parse(&bytes)
    }
}

#[async_trait]
impl PgFileReader for LocalFiles {
    async fn list(&self, directory: &str) -> Result<Option<Listing>> {
        let directory = directory.to_owned();
        self.blocking(move |files| {
            let (base, rest) = files.place(if directory.is_empty() { "." } else { &directory });
            match list(&*base, rest.as_bytes()) {
                Ok(listing) => Ok(Some(listing)),
                Err(Errno::NOENT) if !directory.is_empty() => Ok(None),
                Err(errno) => {
                    let message =
                        format!("the directory {} cannot be listed", files.root.join(&directory).display());
                    Err(Error::io(message, errno.into()))
                }
            }
        })
        .await
    }

    async fn tablespace(&self, oid: u32) -> Result<String> {
        self.blocking(move |files| {
            let path = format!("pg_tblspc/{oid}");
            match rustix::fs::readlinkat(&files.directory, &path, Vec::new()) {
                Ok(target) => {
                    // The link was made by the server, and this once it is followed.
                    let opened = rustix::fs::openat(&files.directory, &path, DIRECTORY, Mode::empty());
                    let opened = opened.map_err(|errno| {
                        // Whoever drops a tablespace leaves its directory, so that one that is not there was not dropped.
                        let message = format!(
                            "the directory of a tablespace cannot be opened ({errno}): bring back the disk that it is on, or drop \
                             the tablespace"
                        );
                        Error::new(ErrorKind::Io, message).with_entry(&path)
                    })?;
                    files.tablespaces().insert(oid, opened.into());
                    target.into_string().map_err(|_| {
                        let message = "the tablespace's directory has a name that is not in UTF-8";
                        Error::new(ErrorKind::Unsupported, message).with_entry(&path)
                    })
                }
                // One in place has its directory where others have a link.
                Err(Errno::INVAL) => Ok(path),
                Err(errno) => Err(Error::io(format!("the link {path} cannot be read"), errno.into())),
            }
        })
        .await
    }

    async fn read_all(&self, path: &str) -> Result<Option<Bytes>> {
        let path = path.to_owned();
        self.blocking(move |files| {
            let read = files.open_file(&path).and_then(|file| {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut io::Read::take(file, WHOLE_BYTES_MAX), &mut bytes)?;
                Ok(bytes)
            });
            match read {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) if Gone::is(&error) => Ok(None),
                Err(error) => Err(Error::io("it cannot be read", error).with_entry(&path)),
            }
        })
        .await
    }

    fn open(&self, path: &str, end: Option<u64>, expected: u64, wanted: Option<&[Range<u64>]>) -> Opener {
        let is_sequential = wanted.is_none() && expected >= SEQUENTIAL_BYTES;
        let (files, path) = (self.clone(), path.to_owned());
        Box::new(move || {
            let file = files.open_file(&path)?;
            if is_sequential {
                // Only advice: nothing depends on it.
                let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
            }
            Ok(Box::new(LocalFile { file, at: 0, end: end.unwrap_or(u64::MAX) }))
        })
    }
}

fn list(base: impl AsFd, path: &[u8]) -> Result<Listing, Errno> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let directory = if path == b"." {
        rustix::fs::openat(base, ".", flags, Mode::empty())?
    } else {
        open_below(base, path, flags)?
    };
    let mut listing = Listing::default();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let Ok(text) = name.to_str() else {
            listing.unnamed.push(name.to_string_lossy().into_owned());
            continue;
        };
        let kind = match file_type(&stat) {
            FileType::RegularFile => ListedKind::File,
            FileType::Directory => ListedKind::Directory,
            FileType::Symlink => {
                ListedKind::Symlink(rustix::fs::readlinkat(&directory, name, Vec::new())?.into_bytes())
            }
            _ => ListedKind::Special,
        };
        let changed = changed(&stat);
        let mut stamp = stat.st_ino.to_le_bytes().to_vec();
        stamp.extend(changed.seconds().to_le_bytes());
        stamp.extend(changed.nanoseconds().to_le_bytes());
        listing.entries.push(Listed {
            name: text.to_owned(),
            kind,
            bytes: size(&stat),
            modified: modified(&stat),
            owner: Some((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)),
            stamp,
        });
    }
    Ok(listing)
}

struct LocalFile {
    file: File,
    at: u64,
    end: u64,
}

impl PgFile for LocalFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        let len = self.file.read_at(buffer, self.at)?;
        self.at = self.at.saturating_add(u64::try_from(len).unwrap_or_default());
        Ok(len)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.at = self.at.saturating_add(bytes);
        Ok(())
    }

    fn read_again(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0_usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or_default());
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(len) => filled = filled.saturating_add(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
