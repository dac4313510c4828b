//! `prune`: frees what no snapshot needs.

use backup_core::config::{ByteSize, Span};
use backup_core::report::{CollectReport, CollectionOutcome};
use backup_core::repository::{CollectOptions, RepackOptions};

use crate::context::{Context, host};
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::parse::percent;

/// Options of `prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be freed, and free nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for backups that are running; after that the next `prune` goes on
    #[arg(long, value_name = "SPAN", default_value = "1m")]
    wait: Span,
    /// How long what is freed stays for those who are restoring a snapshot that was forgotten
    #[arg(long, value_name = "SPAN", default_value = "0s")]
    grace: Span,
    /// How much of what is kept may be needed by nobody; packs of which only a part is needed are written anew until it is
    /// no more
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    max_unused: u8,
    /// Read at most so many bytes to write packs anew
    #[arg(long, value_name = "SIZE")]
    max_repack_size: Option<ByteSize>,
    /// Write no packs anew
    #[arg(long, conflicts_with_all = ["max_unused", "max_repack_size"])]
    no_repack: bool,
    /// Delete evidence that is older, but for the newest thousand of it; see `evidence list`
    #[arg(long, value_name = "SPAN", default_value = "800d")]
    keep_evidence: Span,
    /// Go on although a snapshot is not how things change, and nobody has looked at it; see `anomaly`
    #[arg(long)]
    ignore_anomalies: bool,
}

/// Prunes.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository_directly().await?;
    let max_bytes = args.max_repack_size.map_or(u64::MAX, |size| size.bytes());
    let repack = RepackOptions { max_unused_percent: args.max_unused, max_bytes };
    let options = CollectOptions {
        dry_run: args.dry_run,
        wait: args.wait.duration(),
        grace: args.grace.duration(),
        repack: if args.no_repack { RepackOptions::NEVER } else { repack },
        // Which moments of a log must stay recoverable is said where logs are archived.
        logs: None,
        ignore_anomalies: args.ignore_anomalies,
        keep_evidence: Some(args.keep_evidence.duration()),
        host: host(),
    };
    if !args.dry_run {
        context.record("prune", &repository);
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
    if report.outcome == CollectionOutcome::Abandoned && !report.damaged_objects.is_empty() {
        return writeln!(
            out,
            "nothing is freed as long as something that a snapshot needs cannot be read; see `verify` and `repair`"
        );
    }
    if report.outcome == CollectionOutcome::Paused {
        for id in &report.anomalies {
            writeln!(out, "anomalous {id}")?;
        }
        return writeln!(
            out,
            "nothing is freed until somebody has looked at these snapshots; see `backup anomaly list` and `anomaly confirm`"
        );
    }
    for id in &report.expired {
        writeln!(out, "{} {id}", if dry_run { "would expire" } else { "expired" })?;
    }
    writeln!(
        out,
        "{} in {} needed by {}, about {} of it by nobody",
        human::bytes(report.bytes_kept),
        human::count(report.packs_kept, "pack", "packs"),
        human::count(report.snapshots, "snapshot", "snapshots"),
        human::bytes(report.bytes_unused),
    )?;
    let unneeded = human::count(report.packs_unneeded, "pack", "packs");
    let bytes = human::bytes(report.bytes_unneeded);
    match report.outcome {
        _ if dry_run => writeln!(out, "{bytes} in {unneeded} would be freed")?,
        CollectionOutcome::Waiting => {
            let sessions: Vec<String> =
                report.sessions_waiting.iter().map(|id| format!("{:.8}", id.to_string())).collect();
            writeln!(
                out,
                "{bytes} in {unneeded} can be freed when sessions that were begun before have ended ({}); the next `prune` \
                 goes on",
                sessions.join(", ")
            )?;
        }
        _ => {}
    }
    if report.packs_repacked > 0 {
        let packs = human::count(report.packs_repacked, "pack", "packs");
        match dry_run {
            true => writeln!(out, "of {packs} what is needed would be written anew")?,
            false => writeln!(
                out,
                "wrote anew what is needed of {packs} ({})",
                human::bytes(report.bytes_repacked)
            )?,
        }
    }
    if !dry_run {
        writeln!(
            out,
            "freed {} in {}",
            human::bytes(report.bytes_freed),
            human::count(report.objects_deleted, "pack", "packs")
        )?;
    }
    if report.packs_waiting > 0 {
        let waiting = human::count(report.packs_waiting, "pack stays", "packs stay");
        writeln!(out, "{waiting} for those who may be reading; a later `prune` frees them")?;
    }
    if report.more_unneeded {
        writeln!(out, "there is more: run `prune` again")?;
    }
    if report.more_to_repack {
        writeln!(out, "more packs are worth writing anew than was permitted, or than there is room for")?;
    }
    Ok(())
}
