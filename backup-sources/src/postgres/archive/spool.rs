//! Segments that are fetched before a server asks for them.

use std::fs;
use std::io::{self, ErrorKind as IoErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backup_core::{Error, JobContext, Repository, Result};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::fs::OFlags;
use rustix::process::{Pid, geteuid};
use sha2::{Digest, Sha256};

use super::{Fetched, WalArchive, log_name};
use crate::postgres::wal::{SegmentName, SegmentSize, WalFile, check_segment};

/// Ends the name of a file that is being written.
const PART: &str = ".part";
/// Most names of a directory that are looked at for what was left there.
const NAMES_MAX: usize = 100_000;
/// Digits of a content's hash that its name in a spool has.
const HASH_DIGITS: usize = 32;
/// Segments that a spool keeps at most, and their bytes, those that are fetched ahead twice: what was put there first is removed. A server that
/// begins again elsewhere does not ask for it any more.
const KEPT_MAX: usize = 256;
const KEPT_BYTES_MAX: u64 = 2 * AHEAD_BYTES_MAX;
/// Bytes that are fetched ahead at most, and how many of them at once: but always one segment, however long those of a cluster are.
const AHEAD_BYTES_MAX: u64 = 1 << 30;
const AT_ONCE_BYTES_MAX: u64 = 128 << 20;
/// Longest file that can be a segment.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// A directory in which segments stand that a recovering server will ask for next: they are fetched side by side, where the server asks
/// for one after the other.
///
/// Only whole segments come there, and what is taken from there is what was put there: its name has its hash, and what others own or may
/// write to is passed over. Each cluster of each repository has a directory of its own, as branches of one cluster in two repositories can
/// have segments of the same name. The directory may be emptied whenever nobody fetches.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: Option<PathBuf>,
    ahead: usize,
}

impl Spool {
    /// None: files are fetched when they are asked for.
    pub fn none() -> Self {
        Self { directory: None, ahead: 0 }
    }

    /// A directory, which is made if it does not exist, and how many segments are fetched beyond the one that was asked for: at most 64, and
    /// at most a GiB of them. With what nobody has asked for since, about two GiB stay there.
    pub fn at(directory: impl Into<PathBuf>, ahead: usize) -> Self {
        Self { directory: Some(directory.into()), ahead: ahead.min(64) }
    }

    /// Gets a file of the log and writes it to `destination`, whole or not at all. What a call that was killed has left beside it is removed.
    ///
    /// # Errors
    ///
    /// As [`WalArchive::get`]; `destination` cannot be written. That segments could not be fetched ahead is no error.
    /// Cancellation: nothing stands at `destination`.
    pub async fn fetch(
        &self,
        archive: &WalArchive,
        file: WalFile,
        destination: &Path,
        job: &JobContext,
    ) -> Result<Fetched> {
        let segment = match file {
            WalFile::Segment(segment) => Some(segment),
            _ => None,
        };
        let lineage = archive.system_identifier(job).await?;
        let repository = archive.places().first().map(Repository::id);
        let directory = self.directory.as_ref().zip(lineage).zip(repository);
        let directory = directory.map(|((directory, lineage), repository)| {
            directory.join(repository.to_string()).join(lineage.to_string())
        });
        let spooled = match (&directory, segment, lineage) {
            (Some(directory), Some(segment), Some(lineage)) => {
                take(directory.clone(), segment, lineage).await
            }
            _ => None,
        };
        let content = match spooled {
            Some(content) => content,
            None => {
                let ahead = self.fetch_ahead(archive, segment, directory.as_deref(), job);
                match tokio::join!(archive.get(file, job), ahead).0? {
                    Fetched::Found(content) => content,
                    Fetched::NeverArchived => return Ok(Fetched::NeverArchived),
                }
            }
        };
        let (writing, destination) = (content.clone(), destination.to_owned());
        blocking(move || {
            sweep(&destination);
            write(&destination, &writing)
        })
        .await?;
        Ok(Fetched::Found(content))
    }

    /// Fetches what comes next. What cannot be had now will be asked for.
    async fn fetch_ahead(
        &self,
        archive: &WalArchive,
        segment: Option<SegmentName>,
        directory: Option<&Path>,
        job: &JobContext,
    ) {
        let (Some(segment), Some(directory)) = (segment, directory) else { return };
        let Some(size) = size_of(archive, segment, job).await else { return };
        let (ahead, at_once) = bounds(self.ahead, size);
        let next = std::iter::successors(segment.next(size), |name| name.next(size)).take(ahead);
        let fetching: Vec<_> = next
            .map(|name| async move {
                match archive.get_whole(name, job).await {
                    Ok(Some(content)) => put(directory.to_owned(), name, content).await,
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                }
            })
            .collect();
        let mut fetched = stream::iter(fetching).buffer_unordered(at_once);
        while let Some(result) = fetched.next().await {
            if let Err(error) = result {
                tracing::debug!(%error, "a segment was not fetched ahead");
            }
        }
    }
}

/// How many segments are fetched ahead, of those that are wanted, and how many at once.
pub(super) fn bounds(wanted: usize, size: SegmentSize) -> (usize, usize) {
    let fitting =
        |bytes: u64| usize::try_from(bytes.saturating_div(size.bytes())).unwrap_or(usize::MAX).max(1);
    (wanted.min(fitting(AHEAD_BYTES_MAX)), fitting(AT_ONCE_BYTES_MAX))
}

/// How long segments are, as the one that is asked for says while it is being fetched: a process that fetches one file knows it from nowhere
/// else, and names of segments count on in another way for every size.
async fn size_of(archive: &WalArchive, segment: SegmentName, job: &JobContext) -> Option<SegmentSize> {
    if let Some(known) = archive.known_segment_size() {
        return Some(known);
    }
    let lineage = archive.system_identifier(job).await.ok()??;
    let name = log_name(lineage, WalFile::Segment(segment));
    for place in archive.places() {
        if let Ok(Some(outline)) = place.outline_log(&name, job).await {
            return outline.segment_bytes.and_then(|bytes| SegmentSize::new(bytes).ok());
        }
    }
    None
}

fn named(segment: SegmentName, content: &[u8]) -> String {
    let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{segment}.{}", hash.get(..HASH_DIGITS).unwrap_or_default())
}

/// Takes a segment out of a spool, if it is there and as it was put.
async fn take(directory: PathBuf, segment: SegmentName, lineage: u64) -> Option<Bytes> {
    let taken = blocking(move || {
        let prefix = format!("{segment}.");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(_) => return Ok(None),
        };
        for entry in entries.flatten().take(KEPT_MAX.saturating_mul(2)) {
            let name = entry.file_name();
            // What is being written has a longer name.
            let is_put = |name: &&str| {
                name.strip_prefix(&prefix)
                    .is_some_and(|hash| hash.len() == HASH_DIGITS && !hash.contains('.'))
            };
            let Some(name) = name.to_str().filter(is_put) else { continue };
            let content = read_own(&entry.path()).unwrap_or_default();
            let is_whole = named(segment, &content) == name;
            let _ = fs::remove_file(entry.path());
            let size = SegmentSize::new(content.len() as u64).ok();
            let header = is_whole.then(|| check_segment(&content, segment, size).ok()).flatten();
            if header.is_some_and(|header| header.system_identifier == lineage) {
                return Ok(Some(Bytes::from(content)));
            }
        }
        Ok(None)
    });
    taken.await.ok().flatten()
}

/// Reads what this user alone can have put there: a spool may stand where others can put something, and a server would replay it.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    // No link is followed, and no pipe waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let about = file.metadata()?;
    let is_own = about.uid() == geteuid().as_raw() && about.mode() & 0o022 == 0;
    if !about.is_file() || !is_own || about.len() > SEGMENT_BYTES_MAX {
        return Err(IoErrorKind::PermissionDenied.into());
    }
    let mut content = Vec::new();
    file.take(SEGMENT_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// Puts a segment into a spool.
async fn put(directory: PathBuf, segment: SegmentName, content: Bytes) -> Result<()> {
    blocking(move || {
        let shown = |e| Error::io(directory.display().to_string(), e);
        // What a database's log holds is nobody else's.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(shown)?;
        make_room(&directory, content.len() as u64).map_err(shown)?;
        let path = directory.join(named(segment, &content));
        sweep(&path);
        write(&path, &content)
    })
    .await
}

/// Removes what was put into a spool first, until there is room for so many bytes more.
fn make_room(directory: &Path, bytes: u64) -> io::Result<()> {
    let mut there = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        // What somebody else has taken meanwhile takes no room.
        let Ok(about) = entry.metadata() else { continue };
        there.push((about.modified().ok(), entry.path(), about.len()));
    }
    there.sort();
    let too_many = there.len() >= KEPT_MAX;
    let surplus = if too_many { there.len().saturating_sub(KEPT_MAX.saturating_div(2)) } else { 0 };
    let mut kept = there.iter().fold(bytes, |sum, (_, _, length)| sum.saturating_add(*length));
    for (at, (_, path, length)) in there.iter().enumerate() {
        if at >= surplus && kept <= KEPT_BYTES_MAX {
            break;
        }
        let _ = fs::remove_file(path);
        kept = kept.saturating_sub(*length);
    }
    Ok(())
}

/// Removes what processes have left that were killed while they wrote a file. What cannot be seen stays.
fn sweep(path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return;
    };
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().take(NAMES_MAX) {
        let found = entry.file_name();
        let rest = found.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.'));
        let writer = rest.and_then(|rest| rest.strip_suffix(PART)?.parse().ok());
        if writer.and_then(Pid::from_raw).is_some_and(is_gone) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_gone(writer: Pid) -> bool {
    rustix::process::test_kill_process(writer).is_err_and(|error| error == rustix::io::Errno::SRCH)
}

/// Writes a file under another name first, which says who writes it.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}{PART}", std::process::id()));
    let part = path.with_file_name(name);
    let written = (|| {
        match fs::remove_file(&part) {
            Err(error) if error.kind() != IoErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        drop(file);
        fs::rename(&part, path)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&part);
        Error::io(path.display().to_string(), error)
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal("writing a file of the log failed").with_source(e))?
}
