//! `log expire`: frees the log that nothing needs any more.

use backup_core::LogRetention;
use backup_core::config::Span;
use backup_core::report::{CollectReport, CollectionOutcome};
use backup_core::repository::{CollectOptions, RepackOptions};

use crate::context::{Context, host};
use crate::exit::{Exit, Outcome};
use crate::human;

/// Options of `log expire`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep what every moment of so long ago needs, from the newest older snapshot on; what a kept snapshot needs by itself always
    /// stays
    #[arg(long, value_name = "SPAN")]
    within: Span,
    /// Say what would be freed, and free nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for backups that are running; after that the next call goes on
    #[arg(long, value_name = "SPAN", default_value = "1m")]
    wait: Span,
}

/// Expires.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository_directly().await?;
    let options = CollectOptions {
        dry_run: args.dry_run,
        wait: args.wait.duration(),
        repack: RepackOptions::NEVER,
        logs: Some(LogRetention { within: args.within.duration() }),
        host: host(),
        ..CollectOptions::default()
    };
    if !args.dry_run {
        context.record("log expire", &repository);
    }
    let report = repository.collect(&options, &context.job()).await?;
    context.progress.clear();
    context.output.document(&report, |out| show(&report, args.dry_run, out))?;
    let done = report.damaged_objects.is_empty() && report.outcome != CollectionOutcome::Paused;
    Ok(Exit::complete_if(done))
}

fn show(report: &CollectReport, dry_run: bool, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    for damaged in &report.damaged_objects {
        writeln!(out, "damaged {}: {}", damaged.object, human::name(&damaged.reason))?;
    }
    for id in &report.anomalies {
        writeln!(out, "nothing is freed until somebody has looked at {id}; see `backup anomaly list`")?;
    }
    let objects = human::count(report.log_objects_unneeded, "object", "objects");
    let bytes = human::bytes(report.log_bytes_unneeded);
    match (dry_run, report.outcome) {
        (true, _) => writeln!(out, "{bytes} of the log in {objects} would be freed"),
        (false, CollectionOutcome::Waiting) => {
            writeln!(
                out,
                "{bytes} of the log in {objects} can be freed when backups that are running have ended: run it again"
            )
        }
        (false, _) => writeln!(
            out,
            "{bytes} of the log in {objects} needed by nobody, freed {}",
            human::bytes(report.bytes_freed)
        ),
    }
}
