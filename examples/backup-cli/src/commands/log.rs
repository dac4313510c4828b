//! `log`: the write-ahead log of PostgreSQL: into the repository, out of it, and what is missing.

use clap::Subcommand;

use crate::context::Context;
use crate::exit::Outcome;

pub mod audit;
pub mod expire;
pub mod fetch;
pub mod list;
pub mod push;
pub mod receive;

/// The log of a cluster.
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Archive a file of the log: archive_command = 'backup log push %p'
    Push(push::Args),
    /// Get a file of the log: restore_command = 'backup log fetch %f %p'
    Fetch(fetch::Args),
    /// Receive the log from a server as it is written, until stopped
    Receive(receive::Args),
    /// Look for gaps, missing histories and places that are behind
    Audit(audit::Args),
    /// List what is archived of each timeline
    List(list::Args),
    /// Free the log that no snapshot and no moment of the last days needs
    Expire(expire::Args),
}

/// Runs a command about the log.
pub async fn run(command: Log, context: &mut Context) -> Outcome {
    match command {
        Log::Push(args) => push::run(args, context).await,
        Log::Fetch(args) => fetch::run(args, context).await,
        Log::Receive(args) => receive::run(args, context).await,
        Log::Audit(args) => audit::run(args, context).await,
        Log::List(args) => list::run(args, context).await,
        Log::Expire(args) => expire::run(args, context).await,
    }
}
