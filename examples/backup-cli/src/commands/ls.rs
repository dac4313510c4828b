//! `ls`: the entries of a snapshot.

use backup_core::EntryName;
use serde_json::{Map, json};

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::select::{Filter, Snapshots};
use crate::shown::{self, ShownEntry};

/// Options of `ls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id, the start of one, or `latest`
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// Only this entry and what is below it
    #[arg(value_name = "PATH")]
    path: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

/// Lists them.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let below = args.path.as_deref().map(name_of).transpose()?.flatten();
    let repository = context.repository_anywhere().await?;
    let job = context.job();
    let snapshots = Snapshots::load(&repository, context).await?;
    let info = snapshots.find(&args.snapshot, &args.filter, context)?;
    let snapshot = repository.snapshot(info.id, &job).await?;
    let mut entries = snapshot.entries(below.as_ref(), &job).await?;
    let mut next = entries.next().await?;
    if next.is_none()
        && let Some(path) = &below
    {
        return Err(Failure::nothing(format!("{path} is not in snapshot {}", info.id)));
    }
    context.output.begin_list("entries")?;
    while let Some(stored) = next {
        context.output.item(&ShownEntry::new(&stored.entry, None), shown::line(&stored.entry))?;
        next = entries.next().await?;
    }
    context.output.end_list(Map::from_iter([("snapshot".to_owned(), json!(info.id))]))?;
    Ok(Exit::Done)
}

/// The name that a path on the command line means: without slashes around it. None: the top.
pub(super) fn name_of(path: &str) -> Outcome<Option<EntryName>> {
    let trimmed = path.trim_start_matches("./").trim_matches('/');
    if trimmed.is_empty() || trimmed == "." {
        return Ok(None);
    }
    EntryName::new(trimmed).map(Some).map_err(Failure::input)
}
