//! `show`: everything that is known about a snapshot.

use std::io::Write;

use backup_core::SnapshotInfo;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};

/// Options of `show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id, the start of one, or `latest`
    #[arg(value_name = "SNAP")]
    snapshot: String,
    #[command(flatten)]
    filter: Filter,
}

/// Shows it.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository_anywhere().await?;
    let snapshots = Snapshots::load(&repository, context).await?;
    let info = snapshots.find(&args.snapshot, &args.filter, context)?;
    context.output.document(&json!({ "snapshots": [info] }), |out| write(info, out))?;
    Ok(Exit::Done)
}

fn write(info: &SnapshotInfo, out: &mut dyn Write) -> std::io::Result<()> {
    let mut line = |key: &str, value: String| writeln!(out, "{key:12} {}", human::name(&value));
    line("snapshot", info.id.to_string())?;
    line("time", human::time(info.time))?;
    line("source", info.source.clone())?;
    for part in &info.identity {
        line("of", part.clone())?;
    }
    line("host", info.host.clone())?;
    for (key, value) in [("label", &info.label), ("tenant", &info.tenant), ("description", &info.description)]
    {
        if let Some(value) = value {
            line(key, value.clone())?;
        }
    }
    for (key, value) in &info.tags {
        line("tag", format!("{key}={value}"))?;
    }
    for (key, value) in &info.position {
        line("position", format!("{key}={value}"))?;
    }
    if let Some(parent) = info.parent {
        line("parent", parent.to_string())?;
    }
    line("outcome", format!("{:?}", info.outcome).to_lowercase())?;
    line("entries", info.entries.to_string())?;
    line("content", human::bytes(info.bytes_logical))?;
    line("new content", human::bytes(info.bytes_added))?;
    for item in &info.skipped {
        line("skipped", format!("{}: {}", item.name, item.reason))?;
    }
    let more = info.skipped_count.saturating_sub(info.skipped.len() as u64);
    if more > 0 {
        line("skipped", format!("and {more} more"))?;
    }
    Ok(())
}
