//! `log push`: what `archive_command` runs.

use std::path::{Path, PathBuf};

use backup_sources::postgres::archive::{self, PushOptions};

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::postgres::Places;

/// Options of `log push`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the file is durable in every required place; 1 to 125 it is not, and the server asks again."
)]
pub struct Args {
    /// The file, as %p has it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Archive at most so many files in one call, of those that the server has ready; after ten seconds none is begun with
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u8).range(1..=64))]
    batch: u8,
    /// The cluster, by its system identifier, where the repository has logs of several
    #[arg(long, value_name = "NUMBER")]
    system: Option<u64>,
    /// Begin the log of another cluster in a repository that has one already
    #[arg(long)]
    new_system: bool,
}

/// Archives.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let name = args.file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::usage(format!("{} is no file of a log", args.file.display())))?;
    let directory = match args.file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut archive = context.wal_archive(Places::Required, args.system).await?.archive;
    if args.new_system {
        archive = archive.admitting_new_systems();
    }
    let options = PushOptions::of_files(args.batch.into());
    let report = archive::push(&archive, directory, name, options, &context.job()).await?;
    for failed in &report.failed {
        context.console.say(format!(
            "{} is ready and cannot be archived: {}",
            failed.file,
            human::name(&failed.why)
        ));
    }
    context.output.document(&report, |out| {
        let others = human::count(report.others.len() as u64, "other file", "other files");
        writeln!(out, "archived {name} and {others}; {} ready", report.left)
    })?;
    Ok(Exit::Done)
}
