//! `schema`: the JSON Schema of the configuration.

use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// No options.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the schema.
pub fn run(_: Args, context: &mut Context) -> Outcome {
    let schema = backup_core::config::schema();
    context.output.document(&schema, |out| writeln!(out, "{schema:#}"))?;
    Ok(Exit::Done)
}
