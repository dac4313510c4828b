//! `create bucket`: a snapshot of the objects of a bucket.

use backup_core::config::Component;

use super::snapshot::Making;
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
    making: Making,
}

/// Makes the snapshot.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let bucket = Component::new("bucket").with("url", args.url);
    let source = context.registry.make_source(&bucket, "create bucket", "", &context.build()).await?;
    args.making.of(source, false, context).await
}
