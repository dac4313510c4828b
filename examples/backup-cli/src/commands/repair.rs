//! `repair`: the index anew from the packs, packs from other places, snapshots again without what is lost.

use backup_core::report::{DamagedObject, HealReport, RepairReport};
use backup_core::repository::{VerifyLevel, VerifyOptions};

use crate::context::{Context, host};
use crate::exit::{Exit, Failure, Outcome};
use crate::human;

/// Options of `repair index` and `repair snapshots`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be done, and store nothing
    #[arg(long)]
    dry_run: bool,
}

/// Repairs the index.
pub async fn index(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository_directly().await?;
    if !args.dry_run {
        context.record("repair", &repository);
    }
    let report = repository.repair_index(args.dry_run, &context.job()).await?;
    show(
        &report,
        "pack",
        "packs",
        if args.dry_run { "would be indexed anew" } else { "indexed anew" },
        context,
    )
}

/// Options of `repair packs`.
#[derive(Debug, clap::Args)]
pub struct PacksArgs {
    /// How thoroughly to look for damage before: what is there (structure), whether its bytes are right (checksum)
    #[arg(long, value_enum, default_value_t = Look::Checksum)]
    level: Look,
    /// Say what is damaged, and bring nothing back
    #[arg(long)]
    dry_run: bool,
}

/// How thoroughly to look for damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Look {
    Structure,
    Checksum,
}

/// Brings back what is damaged from the other places.
pub async fn packs(args: PacksArgs, context: &mut Context) -> Outcome {
    let location = context.location()?;
    if location.others.is_empty() {
        return Err(Failure::usage(
            "nothing can come back: the repository has one place; name others with --place URL, or as `replicas` in the \
             configuration",
        ));
    }
    let job = context.job();
    let repository = context.open_directly_with_others(&location).await?;
    let level = match args.level {
        Look::Structure => VerifyLevel::Structure,
        Look::Checksum => VerifyLevel::Checksum,
    };
    let mut found = repository.verify(&VerifyOptions { level, ..VerifyOptions::default() }, &job).await?;
    // A pack that is gone, and that no index names, is missed by entries alone; most often they miss what is named.
    if let Some(entry) = found.damaged_entries.first()
        && (!args.dry_run || found.damaged_objects.is_empty())
    {
        let reason =
            format!("does not say where everything is that {} needs: {}", entry.snapshot, entry.reason);
        found.damaged_objects.push(DamagedObject { object: "index".to_owned(), reason });
    }
    if !args.dry_run {
        context.record("repair", &repository);
    }
    let report = if args.dry_run {
        HealReport { lost: found.damaged_objects, ..HealReport::default() }
    } else {
        repository.heal(&found.damaged_objects, &host(), &job).await?
    };
    context.progress.clear();
    context.output.document(&report, |out| {
        for healed in &report.healed {
            writeln!(out, "healed {healed}")?;
        }
        for rewritten in &report.rewritten {
            writeln!(out, "packed anew what was in {rewritten}")?;
        }
        for misread in &report.misread {
            writeln!(out, "whole, and merely misread: {misread}")?;
        }
        let lost = if args.dry_run { "damaged" } else { "lost" };
        for object in &report.lost {
            writeln!(out, "{lost} {}: {}", object.object, human::name(&object.reason))?;
        }
        let objects = report.healed.len().saturating_add(report.rewritten.len());
        let done = human::count(objects as u64, "object", "objects");
        writeln!(out, "{done} came back, {} put", human::bytes(report.bytes_copied))
    })?;
    Ok(Exit::complete_if(report.lost.is_empty()))
}

/// Repairs snapshots.
pub async fn snapshots(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository_directly().await?;
    if !args.dry_run {
        context.record("repair", &repository);
    }
    let report = repository.repair_snapshots(args.dry_run, &context.job()).await?;
    let done = if args.dry_run { "would be stored again" } else { "stored again, without what is lost" };
    show(&report, "snapshot", "snapshots", done, context)
}

fn show(report: &RepairReport, one: &str, many: &str, done: &str, context: &mut Context) -> Outcome {
    context.progress.clear();
    context.output.document(report, |out| {
        for lost in &report.lost {
            writeln!(out, "lost {}: {}", lost.object, human::name(&lost.reason))?;
        }
        for snapshot in &report.snapshots {
            if let Some(repaired) = snapshot.repaired {
                writeln!(out, "{} stands for {}, which stays", repaired, snapshot.original)?;
            }
        }
        writeln!(out, "{} {done}", human::count(report.rebuilt, one, many))
    })?;
    Ok(Exit::complete_if(report.lost.is_empty()))
}
