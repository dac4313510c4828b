//! Waiting for content that the store cannot read at once.

use std::sync::Arc;
use std::time::Duration;

use backup_core::report::ThawReport;
use backup_core::repository::{Repository, Selection, Snapshot, ThawOptions};
use backup_core::{Thaw, ThawSpeed};

use super::{Args, Speed};
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;

/// How often the store is asked how far it is: what takes hours may take minutes more.
const POLL: Duration = Duration::from_secs(60);

/// Asks for what the selection needs, and waits as long as the arguments say. Nothing is restored before all of it can be read.
pub(super) async fn until_readable(
    args: &Args,
    repository: &Repository,
    snapshot: &Snapshot,
    select: &Selection,
    context: &Context,
) -> Outcome<()> {
    let Some(days) = args.thaw else { return Ok(()) };
    let wait = args.thaw_wait.duration();
    let options = ThawOptions {
        select: select.clone(),
        days,
        speed: match args.thaw_speed {
            Speed::Bulk => ThawSpeed::Bulk,
            Speed::Standard => ThawSpeed::Standard,
            Speed::Expedited => ThawSpeed::Expedited,
        },
        wait,
        // Who waits for a minute wants to know at its end.
        poll: POLL.min(wait / 10).max(Duration::from_millis(100)),
    };
    let thaw = of_place(context).await?;
    let report = repository.thaw(snapshot, &*thaw, &options, &context.job()).await?;
    context.progress.clear();
    if report.waiting == 0 { Ok(()) } else { Err(not_yet(&report)) }
}

async fn of_place(context: &Context) -> Outcome<Arc<dyn Thaw>> {
    let location = context.location()?;
    let none = || {
        Failure::usage(format!(
            "{} has nothing that cannot be read at once: leave out --thaw",
            location.shown
        ))
    };
    context.thaw(&location).await?.ok_or_else(none)
}

fn not_yet(report: &ThawReport) -> Failure {
    let message = format!(
        "{} of {} ({}) were asked for and cannot be read yet; run the same command again later, or wait for them with --thaw-wait",
        report.waiting,
        human::count(report.objects, "pack", "packs"),
        human::bytes(report.bytes_waiting)
    );
    Failure { exit: Exit::Failed, kind: "cold", message }
}
