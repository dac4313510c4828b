//! `hold`: a snapshot that must not be forgotten.

use backup_core::SnapshotId;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::parse::Until;
use crate::select::{Filter, Snapshots};

/// Options of `hold`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The snapshot: an id, the start of one, or `latest`; without it all holds are listed
    #[arg(value_name = "SNAP")]
    snapshot: Option<String>,
    /// Until when: 2027-11-20, 2027-11-20T08:00:00Z, or 90d from now on; for ever if not given
    #[arg(long, value_name = "TIME", requires = "snapshot")]
    until: Option<Until>,
    /// Why
    #[arg(long, value_name = "TEXT", requires = "snapshot", default_value = "")]
    reason: String,
    /// End this hold of the snapshot instead
    #[arg(long, value_name = "HOLD", requires = "snapshot", conflicts_with_all = ["until", "reason"])]
    release: Option<SnapshotId>,
    #[command(flatten)]
    filter: Filter,
}

/// Holds, releases or lists.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository().await?;
    let job = context.job();
    let Some(text) = args.snapshot else {
        let holds = repository.holds(&job).await?;
        context.output.document(&json!({ "holds": holds }), |out| {
            for hold in &holds {
                let until = hold.until.map_or_else(|| "for ever".into(), human::time);
                writeln!(
                    out,
                    "{}  until {until}  {}  (hold {})",
                    hold.snapshot,
                    human::name(&hold.reason),
                    hold.hold
                )?;
            }
            Ok(())
        })?;
        return Ok(Exit::Done);
    };
    let listed = Snapshots::load(&repository, context).await?;
    let id = listed.find(&text, &args.filter, context)?.id;
    context.record("hold", &repository);
    if let Some(hold) = args.release {
        repository.release(id, hold, &job).await?;
        context.output.document(&json!({ "snapshot": id, "released": hold }), |out| {
            writeln!(out, "{id} is not held by {hold} any more")
        })?;
        return Ok(Exit::Done);
    }
    let held = repository.hold(id, args.until.map(|until| until.0), &args.reason, &job).await?;
    context.output.document(&held, |out| {
        let until =
            held.until.map_or_else(|| "for ever".into(), |until| format!("until {}", human::time(until)));
        writeln!(out, "{id} is held {until}; the hold is {}", held.hold)
    })?;
    Ok(Exit::Done)
}
