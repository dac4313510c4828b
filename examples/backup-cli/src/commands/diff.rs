//! `diff`: what changed from one snapshot to another.

use backup_core::SnapshotId;
use backup_core::repository::{Change, ChangeKind};
use serde::Serialize;
use serde_json::{Map, json};

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};
use crate::shown::ShownEntry;

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The earlier one: an id, the start of one, or `latest`
    #[arg(value_name = "A")]
    from: String,
    /// The later one
    #[arg(value_name = "B")]
    to: String,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Serialize)]
struct ShownChange {
    kind: &'static str,
    name: String,
    before: Option<ShownEntry>,
    after: Option<ShownEntry>,
}

/// Compares them.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository_anywhere().await?;
    let job = context.job();
    let snapshots = Snapshots::load(&repository, context).await?;
    let mut id = |text: &str| -> Outcome<SnapshotId> { Ok(snapshots.find(text, &args.filter, context)?.id) };
    let (from, to) = (id(&args.from)?, id(&args.to)?);
    let (before, after) = (repository.snapshot(from, &job).await?, repository.snapshot(to, &job).await?);
    let mut changes = repository.diff(&before, &after, &job).await?;
    let mut counts = [0_u64; 4];
    context.output.begin_list("changes")?;
    while let Some(change) = changes.next().await? {
        let (place, kind, sign) = shown(change.kind);
        if let Some(count) = counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
        let line = format!("{sign} {}", human::name(&change.name.to_string()));
        context.output.item(&item(&change, kind), line)?;
    }
    let [added, removed, modified, metadata] = counts;
    let more = json!({ "from": from, "to": to, "added": added, "removed": removed, "modified": modified, "metadata": metadata });
    context.output.end_list(more.as_object().cloned().unwrap_or_else(Map::new))?;
    Ok(Exit::Done)
}

fn item(change: &Change, kind: &'static str) -> ShownChange {
    let entry = |entry: &Option<backup_core::Entry>| entry.as_ref().map(|entry| ShownEntry::new(entry, None));
    ShownChange {
        kind,
        name: change.name.to_string(),
        before: entry(&change.before),
        after: entry(&change.after),
    }
}

fn shown(kind: ChangeKind) -> (usize, &'static str, char) {
    match kind {
        ChangeKind::Added => (0, "added", '+'),
        ChangeKind::Removed => (1, "removed", '-'),
        ChangeKind::Modified => (2, "modified", 'M'),
        _ => (3, "metadata", 'U'),
    }
}
