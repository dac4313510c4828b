//! `mount`: all snapshots as a file system, until it is unmounted.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::Observer;
use backup_core::observer::Event;
use backup_sources::mount::{MountOptions, mount};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::select::Filter;

/// Options of `mount`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
In DIR, snapshots/ has all snapshots by their time (UTC), ids/ links to them by id, and hosts/, labels/ and tags/ by those;
`latest` is a link to the last. New snapshots appear by themselves.

It stays until Ctrl-C, SIGTERM, or `fusermount3 -u DIR` from elsewhere. If the program is killed, DIR stays a dead mount,
which `fusermount3 -u DIR` removes. Reads of what is damaged fail (Input/output error); the damage is named here, and the
program ends with code 3.")]
pub struct Args {
    /// An existing directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Let other users in, with the rights that modes and access lists give them
    #[arg(long)]
    allow_other: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Mounts them, and waits for the end.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository_anywhere().await?;
    let job = context.job().with_observer(Arc::new(Damage));
    let filter = args.filter;
    let options =
        MountOptions::default().allow_other(args.allow_other).filter(move |snapshot| filter.passes(snapshot));
    let mounted = mount(&repository, &args.directory, &options, &job).await.map_err(Failure::input)?;
    let shown = args.directory.display().to_string();
    let document = json!({ "mounted": shown, "repository": repository.id().to_string() });
    context.output.document(&document, |out| {
        let shown = human::name(&shown);
        writeln!(out, "mounted on {shown}; Ctrl-C, or `fusermount3 -u {shown}` from elsewhere, unmounts it")
    })?;
    let report = mounted.finished().await?;
    Ok(Exit::complete_if(report.unreadable == 0))
}

/// Names what cannot be read as it is met, while the command waits.
#[derive(Debug)]
struct Damage;

impl Observer for Damage {
    fn on_event(&self, event: &Event) {
        use std::io::Write;
        if let Event::Skipped(skipped) = event {
            let name = human::name(&skipped.name);
            let _ = writeln!(std::io::stderr(), "damaged {name}: {}", human::name(&skipped.reason));
        }
    }
}
