//! `verify`: whether what is stored is what was stored.

use std::io::Write;

use backup_core::config::{Access, Span};
use backup_core::report::VerifyReport;
use backup_core::repository::{Done, Slices, VerifyLevel, VerifyOptions, verify_keyless};
use clap::ValueEnum;

use crate::context::{Context, host};
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::output::PROGRAM;
use crate::parse::{Percent, percent};

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How deep to look
    #[arg(long, value_enum, default_value_t = Level::Checksum, value_name = "LEVEL")]
    level: Level,
    /// Look at a random part of the packs only, like 10%
    #[arg(long, value_name = "PERCENT")]
    sample: Option<Percent>,
    /// Look at the packs that were not looked at for the longest time, so much of all, like 10%, and record that
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with_all = ["sample", "keyless"])]
    oldest: Option<u8>,
    /// Look at all packs that were not looked at for so long, and record that
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["sample", "keyless"])]
    within: Option<Span>,
    /// Record what was looked at and what was found; see `evidence list`
    #[arg(long, conflicts_with = "keyless")]
    record: bool,
    /// Check hashes only, without any key
    #[arg(long)]
    keyless: bool,
}

/// How deep a verification looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Everything that a snapshot needs is there
    Structure,
    /// And every object has the hash that its name says
    Checksum,
    /// And everything decrypts, decompresses and is the content that was backed up
    Content,
}

/// Verifies.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    if args.keyless && args.level == Level::Content {
        return Err(Failure::usage(
            "contents cannot be read without a key: leave out --keyless or choose another --level",
        ));
    }
    let level = match args.level {
        Level::Structure => VerifyLevel::Structure,
        Level::Checksum => VerifyLevel::Checksum,
        Level::Content => VerifyLevel::Content,
    };
    let sample_percent = args.sample.map(|percent| percent.0);
    let mut options = VerifyOptions { level, sample_percent, ..VerifyOptions::default() };
    let report = if args.keyless {
        let location = context.location()?;
        let sink = context.sink(&location, Access::Open).await?;
        verify_keyless(&*sink, &options, &context.job()).await?
    } else {
        // From the store: copies of what it had once would prove nothing.
        let (repository, job) = (context.repository_directly().await?, context.job());
        if args.oldest.is_some() || args.within.is_some() {
            let since = args.within.map(|span| {
                let seconds = i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX);
                job.now().saturating_add_seconds(-seconds)
            });
            let ledger = repository.ledger(level, &job).await?;
            options.slices = Some(ledger.due(args.oldest.unwrap_or(1), since));
        }
        let (time, started) = (job.now(), std::time::Instant::now());
        let report = repository.verify(&options, &job).await?;
        if args.record || options.slices.is_some() {
            // A sample says nothing about any one pack.
            let slices = options.slices.or(options.sample_percent.is_none().then(Slices::all));
            let done = Done {
                kind: "verify",
                time,
                seconds: started.elapsed().as_secs_f64(),
                host: &host(),
                program: PROGRAM,
                passed: report.is_clean(),
                verified: slices.map(|slices| (level, slices)),
                report: &report,
            };
            repository.record(&done, &job).await?;
        }
        report
    };
    context.progress.clear();
    context.output.document(&report, |out| write(&report, out))?;
    Ok(Exit::complete_if(report.is_clean()))
}

fn write(report: &VerifyReport, out: &mut dyn Write) -> std::io::Result<()> {
    for object in &report.damaged_objects {
        writeln!(out, "damaged object {}: {}", object.object, human::name(&object.reason))?;
    }
    for entry in &report.damaged_entries {
        let name = if entry.name.is_empty() { "(part of the listing)" } else { &entry.name };
        writeln!(
            out,
            "damaged entry {:.8} {}: {}",
            entry.snapshot.to_string(),
            human::name(name),
            human::name(&entry.reason)
        )?;
    }
    let checked = &report.checked;
    writeln!(
        out,
        "{}: {} ({}), {}, {}, {} checked in {}",
        if report.is_clean() { "everything is as it should be" } else { "DAMAGED" },
        human::count(checked.objects, "object", "objects"),
        human::bytes(checked.bytes),
        human::count(checked.snapshots, "snapshot", "snapshots"),
        human::count(checked.entries, "entry", "entries"),
        human::count(checked.chunks, "chunk", "chunks"),
        human::seconds(report.duration_seconds)
    )
}
