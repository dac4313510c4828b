//! `list`: the snapshots.

use std::collections::BTreeMap;

use backup_core::report::Outcome as Whole;
use backup_core::{SnapshotId, SnapshotInfo};
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};

/// Options of `list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Show what this policy of the configuration would keep, and why
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

#[derive(Serialize)]
struct Item<'a> {
    #[serde(flatten)]
    info: &'a SnapshotInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<&'a [String]>,
}

/// Lists them.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let policy = match &args.policy {
        Some(name) => {
            let config = context.need_config()?;
            let missing = || Failure::usage(format!("the configuration has no policy `{name}`"));
            let component = config.policies.get(name).ok_or_else(missing)?;
            let at = format!("policies.{name}");
            Some(context.registry.make_policy(component, &context.file(), &at).map_err(Failure::input)?)
        }
        None => None,
    };
    let repository = context.repository_anywhere().await?;
    let job = context.job();
    let listed = Snapshots::load(&repository, context).await?;
    let snapshots: Vec<SnapshotInfo> =
        listed.all(context).iter().filter(|snapshot| args.filter.passes(snapshot)).cloned().collect();
    let decisions = match &policy {
        Some(policy) => policy.decide(&repository.facts(&snapshots, &job).await?, job.now()),
        None => Vec::new(),
    };
    let reasons: BTreeMap<SnapshotId, Vec<String>> =
        decisions.into_iter().map(|decision| (decision.id, decision.reasons)).collect();
    context.output.begin_list("snapshots")?;
    for info in &snapshots {
        let keep = policy.as_ref().map(|_| reasons.get(&info.id).map(Vec::as_slice).unwrap_or_default());
        context.output.item(&Item { info, keep }, line(info, keep))?;
    }
    let more = [("repository", json!(repository.id())), ("damaged_objects", listed.damage())];
    context.output.end_list(more.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())?;
    if snapshots.is_empty() && !args.filter.is_empty() { Ok(Exit::Nothing) } else { Ok(Exit::Done) }
}

fn line(info: &SnapshotInfo, keep: Option<&[String]>) -> String {
    let mut line = format!(
        "{:.8}  {}  {:8}  {:>10}  {}",
        info.id.to_string(),
        human::time(info.time),
        human::name(&info.source),
        human::bytes(info.bytes_logical),
        human::name(&format!("{}:{}", info.host, info.identity.join(" ")))
    );
    if let Some(label) = &info.label {
        line.push_str(&format!("  [{}]", human::name(label)));
    }
    for (key, value) in &info.tags {
        line.push_str(&format!("  {}", human::name(&format!("{key}={value}"))));
    }
    if info.outcome == Whole::Partial {
        line.push_str("  PARTIAL");
    }
    match keep {
        Some([]) => line.push_str("  not kept"),
        Some(reasons) => line.push_str(&format!("  kept: {}", human::name(&reasons.join(", ")))),
        None => {}
    }
    line
}
