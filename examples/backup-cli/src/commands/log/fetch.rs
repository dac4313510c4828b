//! `log fetch`: what `restore_command` runs.

use std::path::PathBuf;

use backup_sources::postgres::archive::{Fetched, Spool};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::postgres::Places;

/// Options of `log fetch`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the file is there; 1 it provably was never archived, as it lies beyond the end of the log; 126 and above \
                  for everything else, so that no server takes a failure for the end of the log."
)]
pub struct Args {
    /// The file's name, as %f has it
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to write it, as %p has it
    #[arg(value_name = "DEST")]
    destination: PathBuf,
    /// Fetch so many segments after it at once, and keep them for the next calls
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u8).range(0..=64))]
    ahead: u8,
    /// The directory that keeps them [default: in the cache directory]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// The cluster, by its system identifier, where the repository has logs of several
    #[arg(long, value_name = "NUMBER")]
    system: Option<u64>,
}

/// Fetches. [`Exit::Nothing`] is what never was archived.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let file = args.name.parse().map_err(Failure::input)?;
    let opened = context.wal_archive(Places::Answering, args.system).await?;
    let directory = args.spool.or_else(|| context.global.cache_dir.as_ref().map(|cache| cache.join("wal")));
    let spool = match directory {
        Some(directory) if args.ahead > 0 => Spool::at(directory, args.ahead.into()),
        _ => Spool::none(),
    };
    let fetched = spool.fetch(&opened.archive, file, &args.destination, &context.job()).await?;
    match fetched {
        Fetched::Found(_) => {
            let document = json!({ "file": args.name, "destination": args.destination });
            context.output.document(&document, |_| Ok(()))?;
            Ok(Exit::Done)
        }
        // A place that does not answer may have it.
        Fetched::NeverArchived => match opened.silent.into_iter().next() {
            Some(failure) => Err(failure),
            None => Err(Failure::nothing(format!("{} was never archived", args.name))),
        },
    }
}
