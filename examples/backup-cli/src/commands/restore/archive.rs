//! `restore --tar`: an archive in place of a directory.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use backup_core::report::RestoreReport;
use backup_core::repository::{Repository, RestoreOptions, Selection, Snapshot};
use backup_core::{Error, JobContext};
use backup_sources::TarTarget;
use tokio::io::{AsyncWrite, BufWriter};

use crate::exit::{Failure, Outcome};

/// Bytes written at once.
const BUFFER_BYTES: usize = 1 << 20;

type Stream = Pin<Box<dyn AsyncWrite + Send>>;

/// Where an archive goes.
#[derive(Debug)]
pub(super) enum Destination {
    Output,
    /// A file that is not there yet.
    File(PathBuf),
}

impl Destination {
    /// What the option says; `-` is standard output.
    pub(super) fn new(path: &Path, json: bool) -> Outcome<Self> {
        match path.as_os_str() == "-" {
            true if json => Err(Failure::usage(
                "with --json, standard output is one JSON document: name a file with --tar FILE",
            )),
            true => Ok(Self::Output),
            false => Ok(Self::File(path.to_owned())),
        }
    }

    /// Writes the archive. A file that is not whole does not stay.
    pub(super) async fn restore(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        options: &RestoreOptions,
        job: &JobContext,
    ) -> Outcome<RestoreReport> {
        let path = match self {
            Self::Output => {
                let (report, _) =
                    write(Box::pin(tokio::io::stdout()), repository, snapshot, options, job).await?;
                return Ok(report);
            }
            Self::File(path) => path,
        };
        let failed =
            |doing: &str, error| Error::io(format!("the file {} cannot be {doing}", path.display()), error);
        let opened = tokio::fs::OpenOptions::new().write(true).create_new(true).open(path).await;
        let file = opened.map_err(|error| failed("created", error))?;
        let kept = file.try_clone().await.map_err(|error| failed("written", error))?;
        let written = match write(Box::pin(file), repository, snapshot, options, job).await {
            Ok((report, stream)) => {
                drop(stream);
                kept.sync_all().await.map(|()| report).map_err(|error| failed("written", error).into())
            }
            Err(failure) => Err(failure),
        };
        if written.is_err() {
            let _ = tokio::fs::remove_file(path).await;
        }
        written
    }
}

async fn write(
    stream: Stream,
    repository: &Repository,
    snapshot: &Snapshot,
    options: &RestoreOptions,
    job: &JobContext,
) -> Outcome<(RestoreReport, BufWriter<Stream>)> {
    let target = TarTarget::new(BufWriter::with_capacity(BUFFER_BYTES, stream));
    let report = repository.restore(snapshot, &target, options, job).await?;
    let selects = matches!(options.select, Selection::Filter(_));
    if selects && report.entries_written == 0 && report.failed.is_empty() {
        return Err(super::nothing_matches(snapshot.info().id));
    }
    Ok((report, target.into_inner()?))
}
