//! `anomaly`: snapshots that are not how things change; collections wait until somebody has looked at them.

use backup_core::SnapshotInfo;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Anomaly {
    /// List those that nobody has looked at
    List,
    /// Say that a snapshot is as it should be, so that `prune` goes on
    Confirm(ConfirmArgs),
}

/// Options of `anomaly confirm`.
#[derive(Debug, clap::Args)]
pub struct ConfirmArgs {
    /// The snapshot: an id, or the start of one
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// What was found
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Runs one.
pub async fn run(command: Anomaly, context: &mut Context) -> Outcome {
    match command {
        Anomaly::List => list(context).await,
        Anomaly::Confirm(args) => confirm(&args, context).await,
    }
}

async fn list(context: &mut Context) -> Outcome {
    let anomalies = context.repository().await?.anomalies(&context.job()).await?;
    context.output.document(&json!({ "anomalies": anomalies }), |out| {
        for info in &anomalies {
            writeln!(out, "{}", line(info))?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

async fn confirm(args: &ConfirmArgs, context: &mut Context) -> Outcome {
    let repository = context.repository().await?;
    let listed = Snapshots::load(&repository, context).await?;
    let id = listed.find(&args.snapshot, &Filter::default(), context)?.id;
    context.record("confirm", &repository);
    repository.confirm_anomaly(id, &args.reason, &context.job()).await?;
    context.output.document(&json!({ "snapshot": id }), |out| writeln!(out, "{id} is as it should be"))?;
    Ok(Exit::Done)
}

/// What is known of one, in a line.
fn line(info: &SnapshotInfo) -> String {
    let about = human::name(&format!("{}:{}", info.host, info.identity.join(" ")));
    let (score, reasons) =
        info.anomaly.as_ref().map(|anomaly| (anomaly.score, anomaly.reasons.join("; "))).unwrap_or_default();
    format!("{}  {}  {about}  {score}/100: {}", info.id, human::time(info.time), human::name(&reasons))
}
