//! `create command`: a snapshot of what a program prints.

use std::ffi::OsString;
use std::sync::Arc;

use backup_core::config::Span;
use backup_sources::CommandSource;

use super::snapshot::Making;
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
    making: Making,
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
    args.making.of(Arc::new(source), false, context).await
}
