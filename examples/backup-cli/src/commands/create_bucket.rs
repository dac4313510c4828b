//! `create bucket`: a snapshot of the objects of a bucket.

use backup_core::config::Component;

use super::snapshot::{self, Naming};
use crate::context::Context;
use crate::exit::Outcome;

/// Options of `create bucket`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to back up: s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, with the cloud's usual environment
    /// variables; a configuration can have credentials of their own for it
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    naming: Naming,
    /// Read everything and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Decode again what was compressed and encrypted, and compare, before it is stored
    #[arg(long)]
    verify_encoding: bool,
}

/// Makes the snapshot.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let bucket = Component::new("bucket").with("url", args.url);
    let source = context.registry.make_source(&bucket, "create bucket", "", &context.build()).await?;
    let location = context.location()?;
    let repository = context.open(&location).await?;
    let mut options = args.naming.options(args.dry_run);
    options.transforms = context.writing(&location)?;
    options.verify_encoding = args.verify_encoding;
    let report = snapshot::take(context, &repository, source, &options, false).await?;
    snapshot::finish(context, &report)
}
