//! `copy`: snapshots into another repository, under its keys.

use std::collections::BTreeSet;
use std::path::PathBuf;

use backup_core::SnapshotInfo;
use backup_core::report::{CopyReport, Outcome as Whole};

use crate::args::Global;
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};

/// Options of `copy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Snapshots to copy; without any, all that pass the filters and are not there
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    /// The other repository: a path, a URL, or a name in the configuration
    #[arg(long, value_name = "URL")]
    to: String,
    /// A file with the other repository's passphrase [default: what unlocks this one]
    #[arg(long, value_name = "FILE", env = "BACKUP_TO_PASSWORD_FILE")]
    to_password_file: Option<PathBuf>,
    /// The other repository's key file [default: what unlocks this one]
    #[arg(long, value_name = "FILE", env = "BACKUP_TO_KEY_FILE")]
    to_key_file: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// Say what would be copied, and copy nothing
    #[arg(long)]
    dry_run: bool,
}

/// Copies.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let mut location = context.named(&args.to, "--to")?;
    if args.to_password_file.is_some() || args.to_key_file.is_some() {
        let global = context.global.clone();
        location = location.unlocked_by(Global {
            password_file: args.to_password_file.clone(),
            key_file: args.to_key_file.clone(),
            ..global
        });
    }
    let from = context.repository_anywhere().await?;
    let to = context.open(&location).await?;
    if from.id() == to.id() {
        return Err(Failure::usage(format!("{} is the repository itself", location.shown)));
    }
    let job = context.job();
    let listed = Snapshots::load(&from, context).await?;
    let chosen: Vec<SnapshotInfo> = if args.snapshots.is_empty() {
        listed.all(context).iter().filter(|info| args.filter.passes(info)).cloned().collect()
    } else {
        let mut ids = BTreeSet::new();
        for text in &args.snapshots {
            ids.insert(listed.find(text, &args.filter, context)?.id);
        }
        listed.all(context).iter().filter(|info| ids.contains(&info.id)).cloned().collect()
    };
    if args.dry_run {
        let there = to.copies_of(&from, &chosen, &job).await?;
        let missing: Vec<&SnapshotInfo> = chosen.iter().filter(|info| !there.contains(&info.id)).collect();
        context.output.begin_list("would_copy")?;
        for info in missing {
            context.output.item(
                &info.id,
                format!("would copy {:.8}  {}", info.id.to_string(), human::time(info.time)),
            )?;
        }
        context.output.end_list(Default::default())?;
        return Ok(Exit::Done);
    }
    context.record("copy", &to);
    let report = from.copy_to(&to, &chosen, &job).await?;
    context.progress.clear();
    context.output.document(&report, |out| show(&report, out))?;
    let whole = report.copied.iter().all(|copied| copied.skipped.is_empty());
    Ok(Exit::complete_if(whole && report.damaged_objects.is_empty()))
}

fn show(report: &CopyReport, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    for copied in &report.copied {
        let partial = if copied.outcome == Whole::Partial { ", PARTIAL" } else { "" };
        writeln!(out, "copied {:.8} as {}{partial}", copied.snapshot.to_string(), copied.copy)?;
        for skipped in copied.skipped.named() {
            writeln!(out, "  without {}: {}", human::name(&skipped.name), human::name(&skipped.reason))?;
        }
    }
    for damaged in &report.damaged_objects {
        writeln!(out, "not copied {}: {}", damaged.object, human::name(&damaged.reason))?;
    }
    writeln!(
        out,
        "{} copied, {} there already; {} read, {} stored",
        human::count(report.copied.len() as u64, "snapshot", "snapshots"),
        report.already_there,
        human::bytes(report.bytes_read),
        human::bytes(report.bytes_copied)
    )
}
