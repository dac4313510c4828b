//! `repair`: the index anew from the packs, snapshots again without what is lost.

use backup_core::report::RepairReport;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;

/// Options of `repair index` and `repair snapshots`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be done, and store nothing
    #[arg(long)]
    dry_run: bool,
}

/// Repairs the index.
pub async fn index(args: Args, context: &mut Context) -> Outcome {
    let report = context.repository_directly().await?.repair_index(args.dry_run, &context.job()).await?;
    show(
        &report,
        "pack",
        "packs",
        if args.dry_run { "would be indexed anew" } else { "indexed anew" },
        context,
    )
}

/// Repairs snapshots.
pub async fn snapshots(args: Args, context: &mut Context) -> Outcome {
    let report = context.repository_directly().await?.repair_snapshots(args.dry_run, &context.job()).await?;
    let done = if args.dry_run { "would be stored again" } else { "stored again, without what is lost" };
    show(&report, "snapshot", "snapshots", done, context)
}

fn show(report: &RepairReport, one: &str, many: &str, done: &str, context: &mut Context) -> Outcome {
    context.progress.clear();
    context.output.document(report, |out| {
        for lost in &report.lost {
            writeln!(out, "lost {}: {}", lost.object, human::name(&lost.reason))?;
        }
        for snapshot in &report.snapshots {
            if let Some(repaired) = snapshot.repaired {
                writeln!(out, "{} stands for {}, which stays", repaired, snapshot.original)?;
            }
        }
        writeln!(out, "{} {done}", human::count(report.rebuilt, one, many))
    })?;
    Ok(Exit::complete_if(report.lost.is_empty()))
}
