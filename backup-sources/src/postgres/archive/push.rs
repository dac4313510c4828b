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
    /// Files that were ready and could not be archived now: the server asks for them again, and is told then.
    pub failed: Vec<NotPushed>,
    /// Files that are ready still.
    pub left: u64,
}

/// A file that could not be archived beside the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotPushed {
    /// Its name.
    pub file: String,
    /// Why.
    pub why: String,
}

/// Archives the file `name` of the directory `pg_wal`, and with it what else the server has ready: with many segments waiting, requests are
/// shared and objects stored side by side. It returns only once the file that was asked for is durable in every place.
///
/// What is archived beside it never keeps it from being acknowledged: where one of several files fails, each is archived by itself, that which
/// was asked for first.
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
            Err(error) => failed.push(not_pushed(other, &error)),
        }
    }
    let (outcome, done) = match archive.put_all(&all, system, job).await {
        Ok(outcomes) => {
            let done: Vec<WalFile> = all.iter().skip(1).map(|(file, _)| *file).collect();
            (outcomes.first().copied().unwrap_or(Archived::Stored), done)
        }
        Err(error) if error.is_cancelled() || all.len() == 1 => return Err(error),
        Err(_) => one_by_one(archive, &all, system, &mut failed, job).await?,
    };
    let marked = done.clone();
    blocking(move || mark_done(&directory, &marked)).await?;
    let left = others.waiting.saturating_sub(done.len() as u64);
    Ok(PushReport { outcome, others: done.iter().map(WalFile::to_string).collect(), failed, left })
}

/// Archives the first of these files, and then the others: those that are durable, and those that are not.
async fn one_by_one(
    archive: &WalArchive,
    all: &[(WalFile, Bytes)],
    system: Option<u64>,
    failed: &mut Vec<NotPushed>,
    job: &JobContext,
) -> Result<(Archived, Vec<WalFile>)> {
    let (mut outcome, mut done) = (None, Vec::new());
    let mut broken = None;
    for (file, content) in all {
        let put = match &broken {
            None => archive.put(*file, content.clone(), system, job).await,
            Some(message) => Err(Error::new(ErrorKind::Transient, String::clone(message))),
        };
        match put {
            Ok(archived) if outcome.is_none() => outcome = Some(archived),
            Ok(_) => done.push(*file),
            Err(error) if outcome.is_none() => return Err(error),
            // It is not about this file: the next would not fare better, and the server waits.
            Err(error) if !is_of_the_file(&error) => {
                failed.push(not_pushed(*file, &error));
                broken.get_or_insert_with(|| error.to_string());
            }
            Err(error) => failed.push(not_pushed(*file, &error)),
        }
    }
    Ok((outcome.unwrap_or(Archived::Stored), done))
}

fn is_of_the_file(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Corruption | ErrorKind::InvalidInput)
}

fn not_pushed(file: WalFile, error: &Error) -> NotPushed {
    tracing::warn!(%file, %error, "is ready and cannot be archived");
    NotPushed { file: file.to_string(), why: error.to_string() }
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
