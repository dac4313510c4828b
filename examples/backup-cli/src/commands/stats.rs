//! `stats`: sizes and ratios, by kind of data and over time.

use std::io::Write;

use backup_core::report::{RunEstimate, SeriesStats, StatsReport};

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;

/// Options of `stats`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show each run of each series, too
    #[arg(long)]
    runs: bool,
}

/// Shows them.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let mut report = context.repository().await?.stats(&context.job()).await?;
    if !args.runs {
        report.series.iter_mut().for_each(|series| series.runs.clear());
    }
    context.progress.clear();
    context.output.document(&report, |out| show(&report, out))?;
    Ok(Exit::complete_if(report.damaged_objects.is_empty()))
}

fn show(report: &StatsReport, out: &mut dyn Write) -> std::io::Result<()> {
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
    if !report.by_data.is_empty() {
        writeln!(out, "by kind of data, in the newest snapshots:")?;
    }
    for (kind, stats) in &report.by_data {
        writeln!(
            out,
            "  {:10} {} in {}; {:.0}% smaller by compression, {:.1} times by deduplication",
            human::name(kind),
            human::bytes(stats.bytes),
            human::count(stats.files, "file", "files"),
            stats.compression_percent,
            stats.dedup_ratio
        )?;
    }
    report.series.iter().try_for_each(|series| show_series(series, out))
}

fn show_series(series: &SeriesStats, out: &mut dyn Write) -> std::io::Result<()> {
    let label = series.label.as_ref().map(|label| format!(" [{label}]")).unwrap_or_default();
    let about = format!("{} {} on {}{label}", series.source, series.identity.join(" "), series.host);
    writeln!(
        out,
        "{}: {}, {} in {}",
        human::name(&about),
        human::count(series.snapshots, "snapshot", "snapshots"),
        human::bytes(series.bytes_logical),
        human::count(series.entries, "entry", "entries")
    )?;
    if let (Some(content), Some(stored)) = (series.bytes_logical_per_day, series.bytes_stored_per_day) {
        let sign = if content < 0.0 { "-" } else { "+" };
        let (content, stored) = (human::bytes(content.abs() as u64), human::bytes(stored as u64));
        writeln!(out, "  a day: content {sign}{content}, stored {stored}")?;
    }
    if let Some(next) = &series.next {
        writeln!(out, "  next: {}", estimated(next))?;
    }
    for run in &series.runs {
        let took = run.seconds.map(human::seconds).unwrap_or_else(|| "?".to_owned());
        let stored = run.bytes_stored.map(human::bytes).unwrap_or_else(|| "?".to_owned());
        writeln!(
            out,
            "  {}  {:.8}  {}, new {}, stored {stored} in {took}",
            human::time(run.time),
            run.snapshot.to_string(),
            human::bytes(run.bytes_logical),
            human::bytes(run.bytes_added)
        )?;
    }
    Ok(())
}

/// What a run will probably need, in words.
pub(super) fn estimated(next: &RunEstimate) -> String {
    format!(
        "about {}, reading {} and storing {}, by the last {}",
        human::seconds(next.seconds),
        human::bytes(next.bytes_read),
        human::bytes(next.bytes_stored),
        human::count(next.runs, "run", "runs")
    )
}
