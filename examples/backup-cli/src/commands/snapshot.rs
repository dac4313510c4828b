//! What the commands that make snapshots share.

use std::io::Write;
use std::sync::Arc;

use backup_core::Source;
use backup_core::report::{BackupReport, Outcome as Whole};
use backup_core::repository::{BackupOptions, Repository};
use serde_json::{Value, json};

use crate::context::{Context, host};
use crate::estimate;
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::parse::Tag;
use crate::places::{self, Settled};

/// What a snapshot is called.
#[derive(Debug, clap::Args)]
struct Naming {
    /// The series of snapshots that this one belongs to
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// A tag; repeat for more
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    /// The host to record [default: this one]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Free words about it
    #[arg(long, value_name = "WORDS")]
    description: Option<String>,
}

/// What the commands that make one snapshot take beside their source.
#[derive(Debug, clap::Args)]
pub(super) struct Making {
    #[command(flatten)]
    naming: Naming,
    /// Read everything and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Decode again what was compressed and encrypted, and compare, before it is stored
    #[arg(long)]
    verify_encoding: bool,
}

impl Making {
    /// Makes the snapshot and writes the report; `walkable` as for [`take`].
    pub(super) async fn of(self, source: Arc<dyn Source>, walkable: bool, context: &mut Context) -> Outcome {
        self.of_noting(None, source, walkable, context).await
    }

    /// The same, with something that is to be said of the snapshot in its report.
    pub(super) async fn of_noting(
        self,
        note: Option<&'static str>,
        source: Arc<dyn Source>,
        walkable: bool,
        context: &mut Context,
    ) -> Outcome {
        let location = context.location()?;
        let (repository, elsewhere) = context.open_anywhere(&location).await?;
        if let Some(why) = elsewhere {
            context.console.say(why);
        }
        let Naming { label, tags, host: named, description } = self.naming;
        let options = BackupOptions {
            host: named.unwrap_or_else(host),
            label,
            description,
            tags: tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
            dry_run: self.dry_run,
            verify_encoding: self.verify_encoding,
            transforms: context.writing(&location)?,
            ..BackupOptions::default()
        };
        let report = take(context, &repository, source, &options, walkable).await?;
        let settled = context.settle(&location, report.snapshot).await?;
        finish(context, &report, settled.as_ref(), note)
    }
}

/// Makes a snapshot; `walkable` says that walking the source a second time, for an estimate, is harmless.
pub(super) async fn take(
    context: &Context,
    repository: &Repository,
    source: Arc<dyn Source>,
    options: &BackupOptions,
    walkable: bool,
) -> backup_core::Result<BackupReport> {
    let meter = context.progress.meter.clone();
    let estimating = meter.filter(|_| walkable).map(|meter| {
        meter.reset();
        estimate::in_background(source.clone(), meter)
    });
    let report = repository.backup(&*source, options, &context.job()).await;
    if let Some(task) = estimating {
        task.abort();
    }
    context.progress.clear();
    report
}

/// The report as `--json` has it.
pub(super) fn document(report: &BackupReport, settled: Option<&Settled>) -> Value {
    let mut document = serde_json::to_value(report).unwrap_or_default();
    if let Value::Object(members) = &mut document {
        members.insert("skipped_count".into(), json!(report.skipped.count()));
        if let Some(Settled { acknowledged, places }) = settled {
            members.insert("acknowledged".into(), json!(acknowledged));
            members.insert("places".into(), json!(places));
        }
    }
    document
}

/// The report for people.
pub(super) fn write(report: &BackupReport, out: &mut dyn Write) -> std::io::Result<()> {
    match &report.snapshot {
        Some(id) => write!(out, "snapshot {id}")?,
        None => write!(out, "dry run, nothing stored")?,
    }
    if report.outcome == Whole::Partial {
        write!(out, ", PARTIAL: {} skipped", human::count(report.skipped.count(), "item", "items"))?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "{}, {} ({} unchanged); read {}, new {}, stored {} in {}",
        human::count(report.entries, "entry", "entries"),
        human::bytes(report.bytes_logical),
        report.entries_unchanged,
        human::bytes(report.bytes_read),
        human::bytes(report.bytes_added),
        human::bytes(report.bytes_stored),
        human::seconds(report.duration_seconds)
    )
}

/// Names what was skipped on standard error, and says how the command ends.
pub(super) fn conclude(context: &mut Context, report: &BackupReport) -> Exit {
    name_skipped(context, report);
    Exit::complete_if(report.outcome == Whole::Complete)
}

/// Names what was skipped, and what is unusual, on standard error; with `--json` the document names it.
pub(super) fn name_skipped(context: &mut Context, report: &BackupReport) {
    if context.output.is_json() {
        return;
    }
    for reason in
        report.anomaly.iter().filter(|anomaly| anomaly.pauses()).flat_map(|anomaly| &anomaly.reasons)
    {
        context.console.say(format_args!("ANOMALY: {}; see `backup anomaly`", human::name(reason)));
    }
    for item in report.skipped.named() {
        context.console.say(format_args!(
            "skipped {}: {}",
            human::name(&item.name),
            human::name(&item.reason)
        ));
    }
    let more = report.skipped.count().saturating_sub(report.skipped.named().len() as u64);
    if more > 0 {
        context.console.say(format_args!("and {more} more"));
    }
}

/// Writes the result of one snapshot.
fn finish(
    context: &mut Context,
    report: &BackupReport,
    settled: Option<&Settled>,
    note: Option<&str>,
) -> Outcome {
    let exit = conclude(context, report);
    for problem in settled.iter().flat_map(|settled| settled.problems()) {
        context.console.say(human::name(&problem));
    }
    let mut document = document(report, settled);
    if let (Value::Object(members), Some(note)) = (&mut document, note) {
        members.insert("note".into(), json!(note));
    }
    context.output.document(&document, |out| {
        write(report, out)?;
        note.map_or(Ok(()), |note| writeln!(out, "{note}"))
    })?;
    Ok(places::exit(exit, settled))
}
