//! `cat`: the content of an entry.

use std::path::PathBuf;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ls::name_of;
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::select::{Filter, Snapshots};
use crate::shown::ShownEntry;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Options of `cat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id, the start of one, or `latest`
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// The entry
    #[arg(value_name = "PATH")]
    path: String,
    /// Write to a new file instead of standard output; needed with --json
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
}

/// Writes it.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    if context.output.is_json() && args.output.is_none() {
        return Err(Failure::usage(
            "with --json, standard output is one JSON document: name a file with --output",
        ));
    }
    let nothing =
        |name: &str| Failure::nothing(format!("{} is not in the snapshot", crate::human::name(name)));
    let name = name_of(&args.path)?.ok_or_else(|| nothing(&args.path))?;
    let repository = context.repository_anywhere().await?;
    let job = context.job();
    let snapshots = Snapshots::load(&repository, context).await?;
    let info = snapshots.find(&args.snapshot, &args.filter, context)?;
    let snapshot = repository.snapshot(info.id, &job).await?;
    let mut stored = snapshot.entry(&name, &job).await?.ok_or_else(|| nothing(&args.path))?;
    if let backup_core::EntryKind::HardLink { to } = stored.entry.kind.clone() {
        stored = snapshot.entry(&to, &job).await?.ok_or_else(|| nothing(&to.to_string()))?;
    }
    if !stored.entry.kind.has_content() {
        return Err(Failure::usage(format!("{name} is a {} and has no content", stored.entry.kind.as_str())));
    }
    let mut reader = snapshot.open(&stored, &job).await?;
    let mut file = match &args.output {
        Some(path) => {
            Some(tokio::fs::OpenOptions::new().write(true).create_new(true).open(path).await.map_err(
                |e| backup_core::Error::io(format!("the file {} cannot be created", path.display()), e),
            )?)
        }
        None => None,
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut written = 0_u64;
    loop {
        job.check()?;
        let count = reader.read(&mut buffer).await.map_err(backup_core::Error::from)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        match &mut file {
            Some(file) => file.write_all(bytes).await.map_err(backup_core::Error::from)?,
            None => context.output.raw().write_all(bytes).map_err(Failure::output)?,
        }
        written = written.saturating_add(count as u64);
    }
    match file {
        Some(mut file) => {
            file.flush().await.map_err(backup_core::Error::from)?;
            let entry = ShownEntry::new(&stored.entry, Some(info.id));
            context.output.document(&json!({ "entries": [entry], "bytes_written": written }), |_| Ok(()))?;
        }
        None => context.output.raw().flush().map_err(Failure::output)?,
    }
    Ok(Exit::Done)
}
