//! `archive_command`: what a server asks to have archived, and what else is ready.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use backup_core::{Archived, Error, ErrorKind, JobContext, Result};
use bytes::Bytes;
use serde::Serialize;

use super::WalArchive;
use crate::postgres::wal::WalFile;

/// Longest file of a server's log: a segment of the largest size.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most names of a directory that are looked at.
const NAMES_MAX: usize = 1_000_000;

const READY: &str = ".ready";
const DONE: &str = ".done";

/// What else is archived when a server asks for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushOptions {
    /// Most files of one call, that which was asked for included. 1: nothing else.
    pub files_max: usize,
    /// Most bytes of one call, which are in memory at once; one file may be longer.
    pub bytes_max: u64,
}

impl PushOptions {
    /// So many files at once, and 16 MiB of memory for each.
    #[must_use]
    pub fn of_files(files_max: usize) -> Self {
        let files_max = files_max.clamp(1, 64);
        Self { files_max, bytes_max: (files_max as u64).saturating_mul(16 << 20) }
    }
}

/// Eight files, 128 MiB.
impl Default for PushOptions {
    fn default() -> Self {
        Self::of_files(8)
    }
}

/// What one call archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PushReport {
    /// Whether the file that was asked for had to be stored.
    pub outcome: Archived,
    /// Files that were archived beside it.
    pub others: Vec<String>,
    /// Files that were ready and could not be archived now: the server asks for them again.
    pub failed: Vec<String>,
    /// Files that are ready still.
    pub left: u64,
}

/// Archives the file `name` of the directory `pg_wal`, and with it what else the server has ready: with many segments waiting, requests are
/// shared and objects stored side by side. It returns only once the file that was asked for is durable in every place.
///
/// What was archived beside it is marked as the server itself would do it: `archive_status/X.ready` becomes `X.done`. There are no other marks, and
/// these are in no backup, so that none is left to lie after a restore. A server that finds `X.done` does not ask for X; one that asks
/// nevertheless is told that it is there.
///
/// Which cluster it is, is read from `global/pg_control` beside `pg_wal`, or from the segment.
///
/// # Errors
///
/// As [`WalArchive::put`], for the file that was asked for; [`ErrorKind::InvalidInput`] for a name that is none of a log's files. An
/// `archive_command` must exit with 1 to 125 then, never more: the server gives up archiving at signals and at codes above 125.
/// Cancellation: what was archived stays, nothing is marked that is not durable.
pub async fn push(
    archive: &WalArchive,
    pg_wal: &Path,
    name: &str,
    options: PushOptions,
    job: &JobContext,
) -> Result<PushReport> {
    let file: WalFile = name.parse()?;
    let directory = pg_wal.to_owned();
    let (asked, system) = blocking({
        let directory = directory.clone();
        move || Ok((read(&directory, file)?, system_identifier(&directory)))
    })
    .await?;
    let others = blocking({
        let directory = directory.clone();
        let left = options.bytes_max.saturating_sub(asked.len() as u64);
        move || Ok(ready_beside(&directory, file, options.files_max.saturating_sub(1), left))
    })
    .await?;
    let mut failed = Vec::new();
    let mut all = vec![(file, asked.clone())];
    for (other, content) in others.read {
        match archive.check(other, &content) {
            Ok(_) => all.push((other, content)),
            Err(error) => {
                tracing::warn!(file = %other, %error, "is ready and cannot be archived");
                failed.push(other.to_string());
            }
        }
    }
    let mut archived = archive.put_all(&all, system, job).await;
    if archived.as_ref().is_err_and(|error| !error.is_cancelled()) && all.len() > 1 {
        // One that fails must not keep from being archived what was asked for.
        failed.extend(all.drain(1..).map(|(file, _)| file.to_string()));
        archived = archive.put_all(&all, system, job).await;
    }
    let archived = archived?;
    let outcome = archived.first().copied().unwrap_or(Archived::Stored);
    let done: Vec<WalFile> = all.iter().skip(1).map(|(file, _)| *file).collect();
    let marked = done.clone();
    blocking(move || mark_done(&directory, &marked)).await?;
    let left = others.waiting.saturating_sub(done.len() as u64);
    Ok(PushReport { outcome, others: done.iter().map(WalFile::to_string).collect(), failed, left })
}

/// Files that a server has ready for its archive: how far archiving is behind.
///
/// # Errors
///
/// The directory cannot be read.
pub fn queue_length(pg_wal: &Path) -> Result<u64> {
    Ok(ready(pg_wal)?.len() as u64)
}

#[derive(Debug, Default)]
struct Beside {
    read: Vec<(WalFile, Bytes)>,
    /// How many were ready.
    waiting: u64,
}

/// What is ready beside a file, as the server would choose: histories first, then in order.
fn ready_beside(pg_wal: &Path, asked: WalFile, files: usize, mut bytes: u64) -> Beside {
    let mut names = match ready(pg_wal) {
        Ok(names) => names,
        // It only makes the call less useful.
        Err(error) => {
            tracing::warn!(%error, "what else is ready cannot be seen");
            return Beside::default();
        }
    };
    names.retain(|name| *name != asked);
    names.sort_by_key(|name| (!matches!(name, WalFile::History(_)), name.to_string()));
    let mut beside = Beside { read: Vec::new(), waiting: names.len() as u64 };
    for name in names.into_iter().take(files) {
        match read_up_to(pg_wal, name, bytes) {
            Ok(content) => {
                bytes = bytes.saturating_sub(content.len() as u64);
                beside.read.push((name, content));
            }
            Err(_) => break,
        }
    }
    beside
}

fn ready(pg_wal: &Path) -> Result<Vec<WalFile>> {
    let status = pg_wal.join("archive_status");
    let entries = fs::read_dir(&status).map_err(|e| Error::io(status.display().to_string(), e))?;
    let mut found = BTreeSet::new();
    for entry in entries.take(NAMES_MAX) {
        let name = entry.map_err(|e| Error::io(status.display().to_string(), e))?.file_name();
        let file: Option<WalFile> =
            name.to_str().and_then(|name| name.strip_suffix(READY)).and_then(|name| name.parse().ok());
        found.extend(file);
    }
    Ok(found.into_iter().collect())
}

fn read(pg_wal: &Path, file: WalFile) -> Result<Bytes> {
    read_up_to(pg_wal, file, FILE_BYTES_MAX)
}

fn read_up_to(pg_wal: &Path, file: WalFile, bytes_max: u64) -> Result<Bytes> {
    let path = pg_wal.join(file.to_string());
    let unreadable = |e| Error::io(format!("{} cannot be read", path.display()), e);
    let opened = fs::File::open(&path).map_err(unreadable)?;
    let len = opened.metadata().map_err(unreadable)?.len();
    if len > bytes_max {
        let message = format!("{} has {len} bytes, more than are read at once", path.display());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    opened.take(len).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 != len {
        return Err(Error::new(ErrorKind::Io, format!("{} was cut short while it was read", path.display())));
    }
    Ok(content.into())
}

/// Marks what is durable, as the server would.
fn mark_done(pg_wal: &Path, files: &[WalFile]) -> Result<()> {
    let status = pg_wal.join("archive_status");
    for file in files {
        let mark = |end| -> PathBuf { status.join(format!("{file}{end}")) };
        match fs::rename(mark(READY), mark(DONE)) {
            Ok(()) => {}
            // The server saw to it, or removed the segment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Then the server asks for it, and is told that it is there.
            Err(error) => tracing::warn!(%file, %error, "is archived and cannot be marked so"),
        }
    }
    Ok(())
}

/// The cluster, as its control file says: its first eight bytes.
fn system_identifier(pg_wal: &Path) -> Option<u64> {
    let resolved = fs::canonicalize(pg_wal).ok();
    let beside = [pg_wal.parent(), resolved.as_deref().and_then(Path::parent)];
    for data in beside.into_iter().flatten() {
        let mut first = [0; 8];
        let opened = fs::File::open(data.join("global").join("pg_control"));
        if opened.and_then(|mut file| file.read_exact(&mut first)).is_ok() {
            return Some(u64::from_le_bytes(first)).filter(|system| *system != 0);
        }
    }
    None
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal("reading a server's log failed").with_source(e))?
}
