//! `repair index`: the index anew from the packs.

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;

/// Options of `repair index`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be done, and store nothing
    #[arg(long)]
    dry_run: bool,
}

/// Repairs it.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let report = context.repository_directly().await?.repair_index(args.dry_run, &context.job()).await?;
    context.progress.clear();
    context.output.document(&report, |out| {
        for lost in &report.lost {
            writeln!(out, "lost {}: {}", lost.object, human::name(&lost.reason))?;
        }
        let verb = if args.dry_run { "would be indexed anew" } else { "indexed anew" };
        writeln!(out, "{} {verb}", human::count(report.rebuilt, "pack", "packs"))
    })?;
    Ok(Exit::complete_if(report.lost.is_empty()))
}
