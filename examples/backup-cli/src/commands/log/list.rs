//! `log list`: what is archived, segment by segment.

use backup_core::ListedLog;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;

/// Options of `log list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster, by its system identifier [default: all whose log is there]
    #[arg(long, value_name = "NUMBER")]
    system: Option<u64>,
}

/// Lists.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let (repository, job) = (context.repository_anywhere().await?, context.job());
    let lineages = match args.system {
        Some(system) => vec![system.to_string()],
        None => repository.log_lineages(&job).await?,
    };
    let mut listed: Vec<(String, Vec<ListedLog>)> = Vec::new();
    for lineage in lineages {
        let segments = repository.list_log(&lineage, &job).await?;
        listed.push((lineage, segments));
    }
    let lineages: Vec<_> = listed
        .iter()
        .map(|(lineage, segments)| json!({ "lineage": lineage, "segments": segments }))
        .collect();
    context.output.document(&json!({ "lineages": lineages }), |out| {
        for (lineage, segments) in &listed {
            writeln!(out, "lineage {}", human::name(lineage))?;
            for segment in segments {
                let part = if segment.is_whole { "" } else { "  (its beginning)" };
                writeln!(
                    out,
                    "{}  {}{part}",
                    human::name(&segment.name.segment),
                    human::bytes(segment.bytes_stored)
                )?;
            }
        }
        Ok(())
    })?;
    let found = listed.iter().any(|(_, segments)| !segments.is_empty());
    Ok(if found { Exit::Done } else { Exit::Nothing })
}
