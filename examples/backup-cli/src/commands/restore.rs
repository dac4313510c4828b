//! `restore`: a snapshot, or a part of it, below a directory or as an archive.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::config::Span;
use backup_core::report::RestoreReport;
use backup_core::repository::{RestoreOptions, Selection};
use backup_core::{Entry, SnapshotId};
use backup_sources::{DirectoryTarget, Overwrite, Owner};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::find::Pattern;
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};
use archive::Destination;
use extra::Removed;
use plan::Plan;

mod archive;
mod below;
mod compare;
mod extra;
mod plan;
mod safety;
mod thaw;

/// Options of `restore`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id, the start of one, or `latest`
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// The directory to write below; names stand there as they are stored (etc/ssl/…)
    #[arg(long, value_name = "DIR", required_unless_present = "tar")]
    to: Option<PathBuf>,
    /// Write a tar archive in place of a directory, with owners by name and number, times, links and extended attributes:
    /// into a new file, or to standard output (-)
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "to", "overwrite", "delete", "safety_snapshot", "dry_run", "verify", "no_owner", "numeric_owner", "devices",
        ],
    )]
    tar: Option<PathBuf>,
    /// Only what this name or glob matches, with everything below; repeat for more
    #[arg(long = "path", value_name = "GLOB")]
    paths: Vec<String>,
    /// What happens to what stands there already
    #[arg(long, value_enum, default_value_t = Existing::Always, value_name = "WHEN")]
    overwrite: Existing,
    /// Delete what stands in restored directories and is not in the snapshot
    #[arg(long)]
    delete: bool,
    /// Before anything is overwritten or deleted make a snapshot of exactly that, in the same repository: to undo the
    /// restore, restore that one into the same directory. What the restore adds stays
    #[arg(long)]
    safety_snapshot: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Read everything back and compare it with the snapshot
    #[arg(long)]
    verify: bool,
    /// Record in the repository that this was restored, and what came of it; see `evidence list`
    #[arg(long, conflicts_with = "dry_run")]
    record: bool,
    /// Leave owners alone: everything belongs to whoever restores
    #[arg(long)]
    no_owner: bool,
    /// Restore owners by their numbers, not to those who have their names here
    #[arg(long)]
    numeric_owner: bool,
    /// Make device nodes, too; only root may
    #[arg(long)]
    devices: bool,
    /// Where the store keeps content in a class from which it cannot be read at once: ask for what is needed, to stay readable for so many
    /// days, and restore it once it is there
    #[arg(long, value_name = "DAYS", conflicts_with = "dry_run", value_parser = clap::value_parser!(u32).range(1..=365))]
    thaw: Option<u32>,
    /// How long to wait for it; after that the same command goes on another time
    #[arg(long, value_name = "SPAN", default_value = "0s", requires = "thaw")]
    thaw_wait: Span,
    /// How soon it should be there, and how much that may cost
    #[arg(long, value_enum, default_value_t = Speed::Standard, value_name = "SPEED", requires = "thaw")]
    thaw_speed: Speed,
    #[command(flatten)]
    filter: Filter,
}

/// How soon what is cold should be readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Speed {
    /// Within days
    Bulk,
    /// Within hours
    Standard,
    /// As soon as possible
    Expedited,
}

/// When something that stands there already is overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Existing {
    /// Always; of files, only the parts that differ are written
    Always,
    /// Unless it is a file of the same size and modification time
    IfChanged,
    /// If the snapshot's is newer
    IfNewer,
    /// Never
    Never,
}

impl Existing {
    fn as_target(self) -> Overwrite {
        match self {
            Self::Always => Overwrite::Always,
            Self::IfChanged => Overwrite::IfChanged,
            Self::IfNewer => Overwrite::IfNewer,
            Self::Never => Overwrite::Never,
        }
    }
}

/// Restores.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let patterns: Arc<[Pattern]> =
        args.paths.iter().map(|glob| Pattern::new(glob)).collect::<Outcome<Vec<_>>>()?.into();
    let Some(to) = args.to.clone() else { return to_archive(&args, &patterns, context).await };
    if std::fs::metadata(&to).is_ok_and(|there| !there.is_dir()) {
        return Err(Failure::usage(format!("{} is not a directory", to.display())));
    }
    if args.verify && matches!(args.overwrite, Existing::Never | Existing::IfNewer) {
        return Err(Failure::usage(
            "with --overwrite never or if-newer the target may differ on purpose: leave out --verify",
        ));
    }
    let repository = context.repository_anywhere().await?;
    let job = context.job();
    let snapshots = Snapshots::load(&repository, context).await?;
    let info = snapshots.find(&args.snapshot, &args.filter, context)?;
    let snapshot = repository.snapshot(info.id, &job).await?;
    let asks = context.console.interactive && !context.global.yes && !args.dry_run;
    let plan = if asks || args.dry_run || args.delete || !patterns.is_empty() {
        Some(Plan::make(&snapshot, &to, &patterns, args.overwrite, args.delete, &job).await?)
    } else {
        None
    };
    if let Some(plan) = &plan {
        if plan.selected == 0 && !patterns.is_empty() {
            return Err(nothing_matches(info.id));
        }
        if args.dry_run {
            let document = plan.document();
            context.output.document(&document, |out| plan.write(out))?;
            return Ok(Exit::Done);
        }
        if asks && plan.destroys() {
            let mut shown = Vec::new();
            let _ = plan.write(&mut shown);
            context.console.say(String::from_utf8_lossy(&shown).trim_end());
            context.console.confirm("Go on?").await?;
        }
    }
    let target = DirectoryTarget::builder(&to)
        .overwrite(args.overwrite.as_target())
        .owner(if args.no_owner { Owner::Ignore } else { Owner::Auto })
        .devices(args.devices)
        .numeric_owner(args.numeric_owner)
        .build();
    if args.record {
        context.record("restore", &repository);
    }
    let options = options(&patterns);
    thaw::until_readable(&args, &repository, &snapshot, &options.select, context).await?;
    let safety = if args.safety_snapshot {
        let deleted = plan.as_ref().map(|plan| plan.extra.as_slice()).unwrap_or_default();
        safety::make(context, &repository, &target, &snapshot, &options.select, deleted).await?
    } else {
        None
    };
    let mut report = repository.restore(&snapshot, &target, &options, &job).await?;
    report.safety_snapshot = safety;
    if args.verify {
        let started = std::time::Instant::now();
        report.failed.extend(compare::contents(&snapshot, &to, &options.select, &report.failed, &job).await?);
        report.duration_seconds += started.elapsed().as_secs_f64();
    }
    context.progress.clear();
    let extra = plan.map(|plan| plan.extra).unwrap_or_default();
    let removed = if report.failed.is_empty() {
        let root = to.clone();
        let removing = tokio::task::spawn_blocking(move || extra::remove(&root, extra));
        removing.await.map_err(|_| backup_core::Error::internal("the task that deletes failed"))?
    } else {
        // Something went wrong: nothing is destroyed on top of it.
        let why = "left alone, since the restore is not complete";
        Removed { gone: Vec::new(), left: extra.into_iter().map(|name| (name, why.to_owned())).collect() }
    };
    finish(context, &report, &removed)
}

async fn to_archive(args: &Args, patterns: &Arc<[Pattern]>, context: &mut Context) -> Outcome {
    let path = args.tar.as_deref().ok_or_else(|| Failure::usage("say where to: --to DIR or --tar FILE"))?;
    let destination = Destination::new(path, context.output.is_json())?;
    let repository = context.repository_anywhere().await?;
    let job = context.job();
    let snapshots = Snapshots::load(&repository, context).await?;
    let info = snapshots.find(&args.snapshot, &args.filter, context)?;
    let snapshot = repository.snapshot(info.id, &job).await?;
    if args.record {
        context.record("restore", &repository);
    }
    let options = options(patterns);
    thaw::until_readable(args, &repository, &snapshot, &options.select, context).await?;
    let report = destination.restore(&repository, &snapshot, &options, &job).await?;
    context.progress.clear();
    match destination {
        // The archive is what is printed.
        Destination::Output => {
            say_failed(context, &report);
            Ok(Exit::complete_if(report.failed.is_empty()))
        }
        Destination::File(_) => finish(context, &report, &Removed::default()),
    }
}

fn options(patterns: &Arc<[Pattern]>) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    if !patterns.is_empty() {
        let patterns = Arc::clone(patterns);
        let chosen = move |entry: &Entry| patterns.iter().any(|pattern| pattern.matches_tree(&entry.name));
        options.select = Selection::Filter(Arc::new(chosen));
    }
    options
}

fn nothing_matches(snapshot: SnapshotId) -> Failure {
    Failure::nothing(format!("nothing in snapshot {snapshot} matches --path"))
}

fn say_failed(context: &mut Context, report: &RestoreReport) {
    for item in report.failed.named() {
        let (name, reason) = (human::name(&item.name), human::name(&item.reason));
        context.console.say(format_args!("failed {name}: {reason}"));
    }
}

fn finish(context: &mut Context, report: &RestoreReport, removed: &Removed) -> Outcome {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let mut document = serde_json::to_value(report).unwrap_or_default();
    if let Value::Object(members) = &mut document {
        members.insert("deleted".into(), removed.gone.iter().map(|name| text(name)).collect());
        let left = removed.left.iter().map(|(name, reason)| json!({ "name": text(name), "reason": reason }));
        members.insert("not_deleted".into(), left.collect());
    }
    if !context.output.is_json() {
        say_failed(context, report);
        if let Some(id) = report.safety_snapshot {
            context.console.say(format_args!("what was replaced is in the snapshot {id}"));
        }
        for note in &report.notes {
            context.console.say(format_args!("note: {}", human::name(note)));
        }
        for (name, reason) in &removed.left {
            context.console.say(format_args!(
                "not deleted {}: {}",
                human::name(&text(name)),
                human::name(reason)
            ));
        }
    }
    context.output.document(&document, |out| {
        write!(
            out,
            "{} restored, {} written, {} were there already",
            human::count(report.entries_written, "entry", "entries"),
            human::bytes(report.bytes_written),
            human::bytes(report.bytes_unchanged)
        )?;
        if !removed.gone.is_empty() {
            write!(out, ", {} deleted", removed.gone.len())?;
        }
        let failed = report.failed.count();
        if failed > 0 {
            write!(out, ", {failed} FAILED")?;
        }
        writeln!(out, " in {}", human::seconds(report.duration_seconds))
    })?;
    Ok(Exit::complete_if(report.failed.is_empty() && removed.left.is_empty()))
}
