//! `log receive`: the log as a server writes it.

use std::sync::Arc;

use backup_core::config::Span;
use backup_sources::postgres::Lsn;
use backup_sources::postgres::receive::{ReceiveOptions, Receiver};

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::postgres::{Places, ServerArgs};

/// Options of `log receive`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The replication slot, for which the server keeps what was not received; made if it is not there. A configured source may have one
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,
    /// Fail if the slot is not there
    #[arg(long)]
    no_create_slot: bool,
    /// How long bytes may wait before they are stored as a part of their segment
    #[arg(long, value_name = "SPAN", default_value = "1s")]
    flush_interval: Span,
    /// Go on after a part of the log was lost, which is recorded; take a full backup then
    #[arg(long)]
    accept_gap: bool,
    /// End once everything up to this position is durable
    #[arg(long, value_name = "LSN")]
    until: Option<Lsn>,
    /// Give up once connections have failed for so long [default: never]
    #[arg(long, value_name = "SPAN")]
    give_up_after: Option<Span>,
    /// Begin the log of another cluster in a repository that has one already
    #[arg(long)]
    new_system: bool,
}

/// Receives until the position is reached, or a signal comes.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let server = args.server.server(context).await?;
    let server = server.ok_or_else(|| {
        Failure::usage("give the server: --connection, or --server and its name in the configuration")
    })?;
    let slot = args.slot.or(server.slot);
    if slot.is_none() && args.no_create_slot {
        return Err(Failure::usage("--no-create-slot is about a slot: give --slot NAME"));
    }
    let mut archive = context.wal_archive(Places::Required, None).await?.archive;
    if args.new_system {
        archive = archive.admitting_new_systems();
    }
    let mut options = ReceiveOptions::default();
    options.create_slot = slot.is_some() && !args.no_create_slot;
    options.slot = slot;
    options.flush_interval = args.flush_interval.duration();
    options.accept_gap = args.accept_gap;
    options.until = args.until;
    options.give_up_after = args.give_up_after.map(Span::duration);
    let receiver = Receiver::new(server.connect, Arc::new(archive), options).map_err(Failure::input)?;
    let ended = receiver.run(&context.job()).await;
    let status = match ended {
        Ok(status) => status,
        // Who stops it has what was acknowledged.
        Err(error) if error.is_cancelled() => receiver.status().borrow().clone(),
        Err(error) => return Err(error.into()),
    };
    context.progress.clear();
    context.output.document(&status, |out| {
        writeln!(out, "received up to {}, durable up to {}", status.received, status.flushed)
    })?;
    Ok(Exit::Done)
}
