//! `places`: what each place of the repository has and lacks, and bringing it there.

use backup_core::config::Access;
use backup_core::report::{PlacesReport, ReplicateReport};
use backup_core::repository::{CaughtUp, Repository, peek_config};
use serde_json::json;

use crate::context::{Context, Location};
use crate::exit::{Exit, Failure, Outcome};
use crate::{human, places};

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Places {
    /// Show what each place has and lacks, how far it lags, and whether that is 3-2-1: three copies, two media, one off-site
    Report,
    /// Bring to each place what it lacks, from whichever of the others has it
    Sync(SyncArgs),
}

/// Options of `places sync`.
#[derive(Debug, clap::Args)]
pub struct SyncArgs {
    /// Make the repository in places where it is not; without this an empty place is taken for one that is not mounted
    #[arg(long)]
    create: bool,
}

/// Runs one.
pub async fn run(command: Places, context: &mut Context) -> Outcome {
    let location = context.location()?;
    if location.others.is_empty() {
        return Err(Failure::usage(
            "the repository has one place: name others with --place URL, or as `replicas` in the configuration",
        ));
    }
    match command {
        Places::Report => report(&location, context).await,
        Places::Sync(args) => sync(&args, &location, context).await,
    }
}

async fn report(location: &Location, context: &mut Context) -> Outcome {
    let report = context.places(location).await?.report(&context.job()).await?;
    context.progress.clear();
    context.output.document(&report, |out| show(&report, out))?;
    Ok(Exit::complete_if(report.places.iter().all(|place| place.error.is_none() && place.missing == 0)))
}

fn show(report: &PlacesReport, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    for place in &report.places {
        let is = if place.required { "required" } else { "best effort" };
        let off_site = if place.off_site { ", off-site" } else { "" };
        let medium = place.medium.as_deref().unwrap_or("unknown");
        write!(out, "{} ({is}, {medium}{off_site}): ", human::name(&place.name))?;
        match (&place.error, place.missing) {
            (Some(error), _) => writeln!(out, "DOES NOT ANSWER: {}", human::name(error))?,
            (None, 0) => {
                writeln!(out, "{}, all there", human::count(place.snapshots, "snapshot", "snapshots"))?
            }
            (None, missing) => writeln!(
                out,
                "{}, LACKS {missing} of about {}; the oldest is {} old",
                human::count(place.snapshots, "snapshot", "snapshots"),
                human::bytes(place.missing_bytes),
                human::seconds(place.lag_seconds.unwrap_or(0) as f64)
            )?,
        }
    }
    let is = if report.is_3_2_1 { "3-2-1" } else { "NOT 3-2-1" };
    let copies = human::count(report.copies.into(), "whole copy", "whole copies");
    let media = human::count(report.media.into(), "medium", "media");
    writeln!(out, "{is}: {copies} on {media}, {} off-site", report.off_site)
}

async fn sync(args: &SyncArgs, location: &Location, context: &mut Context) -> Outcome {
    if args.create {
        create(location, context).await?;
    }
    let places = context.places(location).await?;
    if let Ok(first) = places.first() {
        context.record("replicate", &first);
    }
    let caught_up = places.catch_up(&places::options(), &context.job()).await?;
    context.progress.clear();
    let documents: Vec<_> = caught_up.iter().map(document).collect();
    context.output.document(&json!({ "places": documents }), |out| {
        for CaughtUp { name, result, .. } in &caught_up {
            match result {
                Ok(report) => brought(&human::name(name), report, out)?,
                Err(error) => writeln!(out, "{}: FAILED: {}", human::name(name), human::name(error))?,
            }
        }
        Ok(())
    })?;
    let exits = caught_up.iter().map(|place| match &place.result {
        Err(_) if place.required => Exit::Failed,
        Ok(report) if report.is_complete() => Exit::Done,
        _ => Exit::Partial,
    });
    // Failed before partial before done.
    let worst = exits.min_by_key(|exit| match exit {
        Exit::Failed => 0,
        Exit::Partial => 1,
        _ => 2,
    });
    Ok(worst.unwrap_or(Exit::Done))
}

/// Makes the repository in places where it is not.
async fn create(location: &Location, context: &Context) -> Outcome<()> {
    let (repository, _) = context.open_anywhere(location).await?;
    create_in(&repository, &location.all(), context).await
}

/// Makes the repository in these places, where it is not there.
pub(super) async fn create_in(
    repository: &Repository,
    places: &[&Location],
    context: &Context,
) -> Outcome<()> {
    for place in places {
        create_at(repository, place, context).await?;
    }
    Ok(())
}

async fn create_at(repository: &Repository, place: &Location, context: &Context) -> Outcome<()> {
    let created = async {
        let sink = context.sink(place, Access::Create).await?;
        // What holds a repository was tried when that was made.
        if context.job().until_cancelled(peek_config(&*sink)).await.is_err() {
            context.probe(&sink).await?;
        }
        repository.create_place(sink, &context.job()).await.map_err(Failure::from)
    };
    let named =
        |failure: Failure| Failure { message: format!("{}: {}", place.shown, failure.message), ..failure };
    created.await.map(drop).map_err(named)
}

fn document(place: &CaughtUp) -> serde_json::Value {
    let CaughtUp { name, required, result } = place;
    match result {
        Ok(report) => json!({ "name": name, "required": required, "report": report }),
        Err(error) => json!({ "name": name, "required": required, "error": error }),
    }
}

fn brought(name: &str, report: &ReplicateReport, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let count = human::count(report.snapshots.len() as u64, "snapshot", "snapshots");
    writeln!(out, "{name}: {count} brought, {} stored", human::bytes(report.bytes_copied))?;
    for snapshot in &report.busy {
        writeln!(out, "{name}: {snapshot} is being brought by another process")?;
    }
    for damaged in &report.damaged_objects {
        writeln!(out, "{name}: not brought {}: {}", damaged.object, human::name(&damaged.reason))?;
    }
    for damaged in &report.read_elsewhere {
        writeln!(
            out,
            "{name}: {} is damaged and was read elsewhere: {}",
            damaged.object,
            human::name(&damaged.reason)
        )?;
    }
    Ok(())
}
