//! `stats`: sizes and ratios.

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;

/// No options.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Shows them.
pub async fn run(_: Args, context: &mut Context) -> Outcome {
    let report = context.repository().await?.stats(&context.job()).await?;
    context.progress.clear();
    context.output.document(&report, |out| {
        for object in &report.damaged_objects {
            writeln!(out, "damaged object {}: {}", object.object, human::name(&object.reason))?;
        }
        writeln!(out, "{:12} {}", "snapshots", report.snapshots)?;
        writeln!(out, "{:12} {}", "content", human::bytes(report.bytes_logical))?;
        writeln!(out, "{:12} {}", "distinct", human::bytes(report.bytes_unique))?;
        let objects = human::count(report.objects, "object", "objects");
        writeln!(out, "{:12} {} in {objects}", "stored", human::bytes(report.bytes_stored))?;
        writeln!(out, "{:12} {:.2}", "ratio", report.ratio)?;
        for (kind, stats) in &report.by_kind {
            let objects = human::count(stats.objects, "object", "objects");
            writeln!(out, "  {kind:10} {} in {objects}", human::bytes(stats.bytes_stored))?;
        }
        Ok(())
    })?;
    Ok(Exit::complete_if(report.damaged_objects.is_empty()))
}
