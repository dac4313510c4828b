//! `forget`: snapshots that no rule keeps, or that are named, are listed no more; `prune` frees what only they need.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::config::Span;
use backup_core::repository::ForgetOptions;
use backup_core::{RetentionPolicy, SnapshotId, SnapshotInfo};
use backup_retention::{CalendarSpan, Caught, Count, GroupBy, RetentionConfig, SafetyCatch};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::parse::{Tag, percent};
use crate::select::{Filter, Snapshots};

/// Options of `forget`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Snapshots to forget; without any, those that the rules do not keep
    #[arg(value_name = "SNAP", conflicts_with = "Rules")]
    snapshots: Vec<String>,
    #[command(flatten)]
    rules: Rules,
    #[command(flatten)]
    filter: Filter,
    /// For how long `undelete` can take it back for certain; `prune` lets them expire afterwards
    #[arg(long, value_name = "SPAN", default_value = "0s")]
    undelete_for: Span,
    /// Why, for those who wonder
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Stop where the rules would forget more than this share of what one source, host and label has, until that very plan is
    /// confirmed [default: what the configuration says of the place, or no limit]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_share: Option<u8>,
    /// Confirm the plan that was stopped
    #[arg(long, value_name = "CODE")]
    confirm: Option<String>,
    /// Say what would be forgotten, and forget nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is kept.
#[derive(Debug, clap::Args)]
#[group(id = "Rules", multiple = true)]
#[command(next_help_heading = "Rules: a snapshot that any of them keeps is kept")]
struct Rules {
    /// Keep the newest so many
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep the newest of each of so many hours
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u32>,
    /// Keep the newest of each of so many days
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// Keep the newest of each of so many weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// Keep the newest of each of so many months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// Keep the newest of each of so many years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
    /// Keep everything for so long: 90d, 1y6m
    #[arg(long, value_name = "SPAN")]
    keep_within: Option<CalendarSpan>,
    /// Keep what has this tag; repeat for more
    #[arg(long = "keep-tag", value_name = "KEY=VALUE")]
    keep_tags: Vec<Tag>,
    /// Keep what this policy of the configuration keeps
    #[arg(long, value_name = "NAME", conflicts_with_all = [
        "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within",
        "keep_tags", "group_by", "time_zone",
    ])]
    policy: Option<String>,
    /// What is told apart, each with counts of its own: source, host, label, tenant, tag:NAME [default: the first four]
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    group_by: Vec<GroupBy>,
    /// The time zone of days and hours [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

impl Rules {
    fn policy(&self, context: &Context) -> Outcome<Option<Arc<dyn RetentionPolicy>>> {
        if let Some(name) = &self.policy {
            return context.policy(name).map(Some);
        }
        let config = RetentionConfig {
            keep_last: self.keep_last,
            keep_hourly: self.keep_hourly.map(Count::Some),
            keep_daily: self.keep_daily.map(Count::Some),
            keep_weekly: self.keep_weekly.map(Count::Some),
            keep_monthly: self.keep_monthly.map(Count::Some),
            keep_yearly: self.keep_yearly.map(Count::Some),
            keep_within: self.keep_within,
            keep_tags: self.keep_tags.iter().map(|tag| format!("{}={}", tag.key, tag.value)).collect(),
            time_zone: self.time_zone.clone(),
            group_by: (!self.group_by.is_empty()).then(|| self.group_by.clone()),
            ..RetentionConfig::default()
        };
        let is_empty = RetentionConfig { time_zone: None, group_by: None, ..config.clone() }
            == RetentionConfig::default();
        if is_empty {
            return Ok(None);
        }
        config.build().map(Some).map_err(Failure::input)
    }
}

#[derive(Serialize)]
struct Kept<'a> {
    snapshot: SnapshotId,
    reasons: &'a [String],
}

#[derive(Serialize)]
struct Document<'a> {
    keep: Vec<Kept<'a>>,
    remove: Vec<SnapshotId>,
    /// What was forgotten by this call; none of a dry run.
    forgotten: Vec<SnapshotId>,
    /// What confirms the plan, where it forgets more than it may unconfirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<String>,
}

/// Forgets.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let mut policy = args.rules.policy(context)?;
    if policy.is_none() && args.snapshots.is_empty() {
        // What the configuration says of the place.
        policy = context.location()?.purpose.policy.as_ref().map(|name| context.policy(name)).transpose()?;
    }
    if policy.is_none() && args.snapshots.is_empty() {
        return Err(Failure::usage("say what to keep, like --keep-daily 7, or name the snapshots to forget"));
    }
    let repository = context.repository().await?;
    let job = context.job();
    let listed = Snapshots::load(&repository, context).await?;
    let mut reasons: Vec<(SnapshotInfo, Vec<String>)> = Vec::new();
    let mut caught = None;
    if let Some(policy) = policy {
        // Where one cannot be read nobody knows which would displace which.
        listed.all(context);
        if context.incomplete {
            return Err(Failure {
                exit: Exit::Failed,
                kind: "corruption",
                message: "some snapshots cannot be read, so nothing is forgotten by rules; see `verify`"
                    .into(),
            });
        }
        let all: Vec<SnapshotInfo> =
            listed.all(context).iter().filter(|s| args.filter.passes(s)).cloned().collect();
        let facts = repository.facts(&all, &job).await?;
        // A clock that is ahead would make everything old.
        let mut decisions = policy.decide(&facts, repository.now(&job).await?);
        let held = repository.held_now(&job).await?;
        for decision in decisions.iter_mut().filter(|decision| held.contains(&decision.id)) {
            decision.reasons.push("held".to_owned());
        }
        // What went before an anomaly may be all that is left of something: then nothing goes unconfirmed.
        let share = match repository.anomalies(&job).await?.is_empty() {
            true => args.max_share.or(context.location()?.purpose.max_share),
            false => Some(0),
        };
        if args.confirm.is_some() && share.is_none() {
            return Err(Failure::usage(
                "--confirm confirms a plan that was stopped, and nothing stops one here: say --max-share, too",
            ));
        }
        caught = share.and_then(|share| SafetyCatch::new(share).check(&facts, &decisions));
        reasons.extend(all.into_iter().zip(decisions).map(|(info, decision)| (info, decision.reasons)));
    } else {
        let mut chosen = BTreeSet::new();
        for text in &args.snapshots {
            chosen.insert(listed.find(text, &args.filter, context)?.id);
        }
        let all = listed.all(context).iter().cloned();
        reasons.extend(all.map(|info| {
            let kept = (!chosen.contains(&info.id)).then(|| "not named".to_owned());
            (info, kept.into_iter().collect())
        }));
    }
    let remove: Vec<&SnapshotInfo> =
        reasons.iter().filter(|(_, reasons)| reasons.is_empty()).map(|(info, _)| info).collect();
    let ids: Vec<SnapshotId> = remove.iter().map(|info| info.id).collect();
    if let Some(caught) = caught.as_ref().filter(|caught| args.confirm.as_ref() != Some(&caught.confirmation))
        && !args.dry_run
    {
        let Caught { series, dropped, of, confirmation } = caught;
        let message = format!(
            "the rules would forget {dropped} of the {of} snapshots of {}, which is more than --max-share permits, or follows an \
             anomaly (see `backup anomaly list`): look at the plan with --dry-run, and if it is right confirm it with --confirm \
             {confirmation}",
            human::name(series)
        );
        return Err(Failure { exit: Exit::Failed, kind: "needs_confirmation", message });
    }
    if context.console.interactive && !context.global.yes && !args.dry_run && !ids.is_empty() {
        for info in &remove {
            context.console.say(line("forget", info, &[]));
        }
        context.console.confirm("Go on?").await?;
    }
    let options =
        ForgetOptions { undelete_seconds: args.undelete_for.duration().as_secs(), reason: args.reason };
    if !args.dry_run && !ids.is_empty() {
        context.record("forget", &repository);
    }
    let forgotten = if args.dry_run { Vec::new() } else { repository.forget(&ids, &options, &job).await? };
    let keep = reasons.iter().filter(|(_, reasons)| !reasons.is_empty());
    let keep = keep.map(|(info, reasons)| Kept { snapshot: info.id, reasons }).collect();
    let confirmation = caught.map(|caught| caught.confirmation);
    let document = Document { keep, remove: ids, forgotten, confirmation };
    context.output.document(&document, |out| {
        for (info, reasons) in &reasons {
            let done = match (reasons.is_empty(), args.dry_run) {
                (false, _) => "keep",
                (true, true) => "would forget",
                (true, false) => "forgot",
            };
            writeln!(out, "{}", line(done, info, reasons))?;
        }
        if let Some(confirmation) = &document.confirmation {
            writeln!(out, "more than is permitted unconfirmed: --confirm {confirmation}")?;
        }
        if !document.remove.is_empty() && !args.dry_run {
            writeln!(
                out,
                "`backup prune` frees what only they need; until then `backup undelete` takes it back"
            )?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn line(done: &str, info: &SnapshotInfo, reasons: &[String]) -> String {
    let about = human::name(&format!("{}:{}", info.host, info.identity.join(" ")));
    let mut line = format!("{done:12}  {:.8}  {}  {about}", info.id.to_string(), human::time(info.time));
    if !reasons.is_empty() {
        line.push_str(&format!("  ({})", human::name(&reasons.join(", "))));
    }
    line
}
