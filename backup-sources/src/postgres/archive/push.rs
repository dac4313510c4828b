//! `archive_command`: what a server asks to have archived, and what else is ready.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{Archived, Error, JobContext, Result};
use serde::Serialize;

use super::WalArchive;
use super::waves::{Buffers, Waves};
use crate::postgres::wal::WalFile;

/// Most names of a directory that are looked at.
const NAMES_MAX: usize = 1_000_000;

/// Files of one call, at most and unless told otherwise: as many as a server of PostgreSQL 15 looks up before it looks again.
const FILES_MAX: usize = 64;
/// A segment of the usual size.
const FILE_BYTES: u64 = 16 << 20;
/// How long others are begun with, unless told otherwise.
const BEGUN_WITHIN: Duration = Duration::from_secs(10);

const READY: &str = ".ready";
const DONE: &str = ".done";

/// What else is archived when a server asks for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushOptions {
    /// Most files of one call, that which was asked for included. 1: nothing else.
    pub files_max: usize,
    /// Most bytes of one call, of which at most four files or 64 MiB are in memory at once; one file may be longer.
    pub bytes_max: u64,
    /// How long after its beginning a call begins with further files; what is under way then is finished. So a server hears in time from a
    /// slow store that the file is archived which it has asked for.
    pub begun_within: Duration,
}

impl PushOptions {
    /// So many files in one call, at most 64, and 16 MiB for each.
    #[must_use]
    pub fn of_files(files_max: usize) -> Self {
        let files_max = files_max.clamp(1, FILES_MAX);
        let bytes_max = (files_max as u64).saturating_mul(FILE_BYTES);
        Self { files_max, bytes_max, begun_within: BEGUN_WITHIN }
    }
}

/// Sixty-four files, 1 GiB, none of which is begun with after ten seconds.
impl Default for PushOptions {
    fn default() -> Self {
        Self::of_files(FILES_MAX)
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
/// What was archived beside it is marked as the server itself would do it, as soon as that and the file that was asked for are durable:
/// `archive_status/X.ready` becomes `X.done`. There are no other marks, and
/// these are in no backup, so that none is left to lie after a restore. A server that finds `X.done` does not ask for X; one that asks
/// nevertheless is told that it is there.
///
/// Which cluster it is, is read from `global/pg_control` beside `pg_wal`, or from the segment.
///
/// # Errors
///
/// As [`WalArchive::put`], for the file that was asked for; [`InvalidInput`](backup_core::ErrorKind::InvalidInput) for a name that is none of a log's files. An
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
    let (system, others) = blocking({
        let directory = directory.clone();
        move || Ok((system_identifier(&directory), ready_beside(&directory, file, options)))
    })
    .await?;
    let waves = Waves { archive, pg_wal: &directory, asked: file, system, buffers: Buffers::default(), job };
    let mut report = PushReport {
        outcome: Archived::Stored,
        others: Vec::new(),
        failed: Vec::new(),
        left: others.waiting,
    };
    // Beside what is archived next, which a wait for a thread would keep from going on. As many as there are waves.
    let mut marking = Vec::new();
    let archived = waves.archive(others.asked_bytes, &others.files, options.begun_within, |wave| {
        report.outcome = wave.outcome.unwrap_or(report.outcome);
        report.others.extend(wave.done.iter().map(WalFile::to_string));
        report.failed.extend(wave.failed);
        let directory = directory.clone();
        marking.push(tokio::task::spawn_blocking(move || mark_done(&directory, &wave.done)));
    });
    let archived = archived.await;
    for marked in marking {
        marked.await.map_err(|e| Error::internal("marking what is archived failed").with_source(e))?;
    }
    archived?;
    report.left = report.left.saturating_sub(report.others.len() as u64);
    Ok(report)
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
    /// What is archived as well, each with the length that it has.
    files: Vec<(WalFile, u64)>,
    /// How many were ready.
    waiting: u64,
    /// How long the file is that was asked for.
    asked_bytes: u64,
}

/// What is ready beside a file, as the server would choose: histories first, then in order.
fn ready_beside(pg_wal: &Path, asked: WalFile, options: PushOptions) -> Beside {
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
    let length = |name: WalFile| fs::metadata(pg_wal.join(name.to_string())).map(|about| about.len());
    let asked_bytes = length(asked).unwrap_or_default();
    let mut beside = Beside { files: Vec::new(), waiting: names.len() as u64, asked_bytes };
    let mut left = options.bytes_max.saturating_sub(asked_bytes);
    for name in names.into_iter().take(options.files_max.saturating_sub(1)) {
        match length(name) {
            Ok(bytes) if bytes <= left => {
                left = left.saturating_sub(bytes);
                beside.files.push((name, bytes));
            }
            _ => break,
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

/// Marks what is durable, as the server would.
fn mark_done(pg_wal: &Path, files: &[WalFile]) {
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

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal("reading a server's log failed").with_source(e))?
}
