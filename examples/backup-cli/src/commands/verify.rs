//! `verify`: whether what is stored is what was stored.

use std::io::Write;

use backup_core::config::Access;
use backup_core::report::VerifyReport;
use backup_core::repository::{VerifyLevel, VerifyOptions, verify_keyless};
use clap::ValueEnum;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::parse::Percent;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How deep to look
    #[arg(long, value_enum, default_value_t = Level::Checksum, value_name = "LEVEL")]
    level: Level,
    /// Look at a random part of the packs only, like 10%
    #[arg(long, value_name = "PERCENT")]
    sample: Option<Percent>,
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
    let options = VerifyOptions { level, sample_percent: args.sample.map(|percent| percent.0) };
    let report = if args.keyless {
        let location = context.location()?;
        let sink = context.sink(&location, Access::Open).await?;
        verify_keyless(&*sink, &options, &context.job()).await?
    } else {
        // From the store: copies of what it had once would prove nothing.
        context.repository_directly().await?.verify(&options, &context.job()).await?
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
