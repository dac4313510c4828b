//! `create command`: a snapshot of what a program prints.

use std::ffi::OsString;
use std::sync::Arc;

use backup_core::config::Span;
use backup_sources::CommandSource;

use super::snapshot::{self, Naming};
use crate::context::Context;
use crate::exit::{Failure, Outcome};

/// Options of `create command`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The name of the entry that holds the output, like dumps/orders.sql
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Kill the program and make no snapshot if it takes longer, like 2h
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    #[command(flatten)]
    naming: Naming,
    /// Read everything and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Decode again what was compressed and encrypted, and compare, before it is stored
    #[arg(long)]
    verify_encoding: bool,
    /// The program and its arguments, after `--`; no shell is involved
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Makes the snapshot.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let mut source = CommandSource::new(args.name, args.command).map_err(Failure::input)?;
    if let Some(timeout) = args.timeout {
        source = source.timeout(timeout.duration());
    }
    let location = context.location()?;
    let repository = context.open(&location).await?;
    let mut options = args.naming.options(args.dry_run);
    options.transforms = context.writing(&location)?;
    options.verify_encoding = args.verify_encoding;
    let report = snapshot::take(context, &repository, Arc::new(source), &options, false).await?;
    snapshot::finish(context, &report)
}
