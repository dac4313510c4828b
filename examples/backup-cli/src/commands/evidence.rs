//! `evidence`: what was done, and what came of it.

use backup_core::repository::VerifyLevel;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;

/// Evidence.
#[derive(Debug, Subcommand)]
pub enum Evidence {
    /// List it, the newest first, and since when everything is verified
    List(Args),
}

/// Options of `evidence list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this kind, like verify
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// So much of it at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    last: usize,
}

/// Lists it.
pub async fn run(command: Evidence, context: &mut Context) -> Outcome {
    let Evidence::List(args) = command;
    let (repository, job) = (context.repository().await?, context.job());
    let all = repository.evidence(args.kind.as_deref(), args.last, &job).await?;
    let checksum = repository.ledger(VerifyLevel::Checksum, &job).await?.everything_since();
    let content = repository.ledger(VerifyLevel::Content, &job).await?.everything_since();
    let items: Vec<Value> = all
        .iter()
        .map(|evidence| {
            let mut item = json!(evidence);
            // In it it is a string, as what it says is its version's affair; whoever reads JSON wants JSON.
            if let Some(report) = item.get_mut("report") {
                *report = serde_json::from_str(&evidence.document.report).unwrap_or_default();
            }
            item
        })
        .collect();
    let document = json!({ "evidence": items, "verified": { "checksum": checksum, "content": content } });
    context.output.document(&document, |out| {
        for evidence in &all {
            let document = &evidence.document;
            writeln!(
                out,
                "{:.8}  {}  {:8}  {}  {} on {} in {}",
                document.evidence.to_string(),
                human::time(evidence.stored.unwrap_or(document.time)),
                human::name(&document.kind),
                if document.passed { "passed" } else { "FAILED" },
                human::name(&document.program),
                human::name(&document.host),
                human::seconds(document.seconds)
            )?;
        }
        for (level, since) in [("hashes", checksum), ("contents", content)] {
            match since {
                Some(since) => writeln!(out, "all {level} were verified since {}", human::time(since))?,
                None => writeln!(out, "not all {level} were ever verified, as far as is recorded")?,
            }
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}
