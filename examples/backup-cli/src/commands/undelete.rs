//! `undelete`: takes back that a snapshot was forgotten.

use backup_core::report::ForgottenSnapshot;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;

/// Options of `undelete`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The snapshot: an id, or the start of one; without it those that can be undeleted are listed
    #[arg(value_name = "SNAP")]
    snapshot: Option<String>,
}

/// Undeletes.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let repository = context.repository().await?;
    let job = context.job();
    let forgotten = repository.forgotten(&job).await?;
    let Some(text) = args.snapshot else {
        context.output.document(&json!({ "forgotten": forgotten }), |out| {
            for snapshot in &forgotten {
                let ForgottenSnapshot { snapshot, forgotten, reason, .. } = snapshot;
                writeln!(out, "{snapshot}  forgotten {}  {}", human::time(*forgotten), human::name(reason))?;
            }
            Ok(())
        })?;
        return Ok(Exit::Done);
    };
    let start = text.to_ascii_lowercase();
    let ids = forgotten.iter().map(|snapshot| snapshot.snapshot);
    let matching: Vec<_> = ids.filter(|id| !start.is_empty() && id.to_string().starts_with(&start)).collect();
    let id = match matching[..] {
        [id] => id,
        [] => {
            let shown = human::name(&text);
            return Err(Failure::nothing(format!(
                "no forgotten snapshot has an id that starts with `{shown}`"
            )));
        }
        _ => return Err(Failure::usage("several forgotten snapshots have ids that start like this")),
    };
    context.record("undelete", &repository);
    repository.undelete(id, &job).await?;
    context.output.document(&json!({ "snapshot": id }), |out| writeln!(out, "{id} is kept"))?;
    Ok(Exit::Done)
}
