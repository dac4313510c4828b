//! `check`: places, keys and sources, before the first backup and after every change.

#[cfg(feature = "postgres")]
mod postgres;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_core::config::{Access, Config};
use backup_core::protection::ProtectionHeader;
use backup_core::{FrameContext, JobContext, ObjectType, Protection, SnapshotInfo};
use serde::Serialize;
use serde_json::json;

use super::stats::estimated;
use crate::context::{Context, Location, host};
use crate::estimate::estimate;
use crate::exit::{Exit, Failure, Outcome};
use crate::{human, space};

/// How long a source is walked for an estimate.
const ESTIMATE_TIME: Duration = Duration::from_secs(60);
/// Free space below which a place is doubtful, in percent.
const FREE_PERCENT_LOW: u8 = 10;

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Jobs and sets of the configuration [default: everything in it, or the repository of --repo]
    #[arg(value_name = "JOB")]
    names: Vec<String>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    status: Status,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn push(&mut self, name: impl Into<String>, status: Status, detail: impl Into<String>) {
        self.0.push(Check { name: name.into(), status, detail: detail.into() });
    }

    /// What worked, or the failure.
    fn result(&mut self, name: impl Into<String>, result: Outcome<String>) -> bool {
        let good = result.is_ok();
        match result {
            Ok(detail) => self.push(name, Status::Ok, detail),
            Err(failure) => self.push(name, Status::Failed, failure.message),
        }
        good
    }
}

/// Checks.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let mut checks = Checks::default();
    let (locations, sources) = what(context, &args)?;
    for location in locations.iter().flat_map(Location::all).collect::<Vec<_>>() {
        check_repository(context, location, &mut checks).await;
    }
    if let Some(config) = context.config.clone() {
        for name in &sources {
            check_source(context, &config, name, &mut checks).await;
        }
        for name in jobs(&config, &args.names) {
            estimate_job(context, &config, name, &mut checks).await;
        }
        if args.names.is_empty() {
            check_named(context, &config, &mut checks);
        }
    }
    context.job().check()?;
    context.progress.clear();
    let failed = checks.0.iter().any(|check| check.status == Status::Failed);
    let status = if failed { Status::Failed } else { Status::Ok };
    context.output.document(&json!({ "checks": checks.0, "status": status }), |out| {
        for check in &checks.0 {
            let status = match check.status {
                Status::Ok => "ok     ",
                Status::Warning => "WARNING",
                Status::Failed => "FAILED ",
            };
            writeln!(out, "{status}  {}: {}", check.name, human::name(&check.detail))?;
        }
        Ok(())
    })?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// The repositories and sources that the arguments mean.
fn what(context: &Context, args: &Args) -> Outcome<(Vec<Location>, BTreeSet<String>)> {
    let Some(config) = context.config.clone() else {
        if args.names.is_empty() {
            return Ok((vec![context.location()?], BTreeSet::new()));
        }
        return context.need_config().map(|_| Default::default());
    };
    let mut jobs = BTreeSet::new();
    for name in &args.names {
        match (config.jobs.get(name), config.sets.get(name)) {
            (Some(job), _) => jobs.extend([(job.source.clone(), job.repository.clone())]),
            (None, Some(set)) => jobs.extend(
                set.components
                    .iter()
                    .filter_map(|component| config.jobs.get(&component.job))
                    .map(|job| (job.source.clone(), job.repository.clone())),
            ),
            (None, None) => {
                let name = human::name(name);
                return Err(Failure::usage(format!("the configuration has no job or set `{name}`")));
            }
        }
    }
    let mut repositories: BTreeSet<String> = jobs.iter().map(|(_, repository)| repository.clone()).collect();
    let mut sources: BTreeSet<String> = jobs.into_iter().map(|(source, _)| source).collect();
    if args.names.is_empty() {
        repositories.extend(config.repositories.keys().cloned());
        sources.extend(config.sources.keys().cloned());
    }
    let mut locations =
        repositories.iter().map(|name| context.configured(name)).collect::<Outcome<Vec<_>>>()?;
    // A repository given beside the configuration is meant, too.
    if args.names.is_empty()
        && context.global.repo.as_ref().is_some_and(|repo| !config.repositories.contains_key(repo))
    {
        locations.push(context.location()?);
    }
    Ok((locations, sources))
}

async fn check_repository(context: &Context, location: &Location, checks: &mut Checks) {
    let shown = &location.shown;
    let keys = context.recipients(location).await;
    let keys_good = checks.result(
        format!("keys of {shown}"),
        keys.map(|keys| human::count(keys.len() as u64, "secret found", "secrets found")),
    );
    let sink = match context.sink(location, Access::Open).await {
        Ok(sink) => sink,
        Err(failure) if failure.kind == "not_found" => {
            let detail = format!("is not there yet; `backup init` creates it ({})", failure.message);
            checks.push(format!("place of {shown}"), Status::Warning, detail);
            return;
        }
        Err(failure) => {
            checks.push(format!("place of {shown}"), Status::Failed, failure.message);
            return;
        }
    };
    let probed = context.probe(&sink).await;
    let what =
        "reachable; creates an object once, also for sixteen callers at the same time; reads and lists";
    checks.result(format!("place of {shown}"), probed.map(|()| what.into()));
    if let Some(path) = context.directory_of(location) {
        free_space(shown, &path, checks);
    }
    match context.unlock(location, &sink).await {
        _ if !keys_good => {}
        Ok(protection) => {
            let tried = trial(&*protection, &context.job());
            checks.result(format!("protection of {shown}"), tried);
            let opened =
                context.open_directly(location).await.map(|repository| format!("opens: {}", repository.id()));
            checks.result(format!("repository {shown}"), opened);
        }
        Err(failure) if failure.kind == "not_found" => {
            checks.push(format!("repository {shown}"), Status::Warning, failure.message);
        }
        Err(failure) => checks.push(format!("protection of {shown}"), Status::Failed, failure.message),
    }
}

/// Seals a frame with the keys and opens it again.
fn trial(protection: &dyn Protection, job: &JobContext) -> Outcome<String> {
    const PLAIN: &[u8] = b"a trial of the keys";
    let mut salt = [0; 32];
    job.random().fill(&mut salt)?;
    let repository = protection.repository().0;
    let sealed = protection.seal(ObjectType::Evidence, salt)?;
    let header: &ProtectionHeader = &sealed.header;
    let frame = FrameContext {
        chunks: 1,
        repository: &repository,
        object_type: ObjectType::Evidence,
        salt: &salt,
        ordinal: 0,
        plain_len: PLAIN.len(),
        associated_data: b"check",
    };
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    sealed.seal.encode(&frame, PLAIN, &mut stored)?;
    let open = protection.open(ObjectType::Evidence, header)?;
    open.decode(&frame, &stored, &mut plain, PLAIN.len())?;
    if plain != PLAIN {
        return Err(backup_core::Error::internal("what was sealed does not open to the same").into());
    }
    // A flipped bit must not open.
    if let Some(byte) = stored.first_mut() {
        *byte ^= 1;
    }
    if open.decode(&frame, &stored, &mut Vec::new(), PLAIN.len()).is_ok() {
        return Err(backup_core::Error::internal("what was changed still opens").into());
    }
    Ok(format!("sealed and opened with {}", protection.seal_name()))
}

async fn check_source(context: &Context, config: &Arc<Config>, name: &str, checks: &mut Checks) {
    let Some(component) = config.sources.get(name) else { return };
    #[cfg(feature = "postgres")]
    if component.kind == "postgres" {
        // To list its files would begin a backup.
        return postgres::check_server(context, name, component, checks).await;
    }
    let at = format!("sources.{name}");
    let looked = async {
        let made = context.registry.make_source(component, &context.file(), &at, &context.build()).await;
        let source = made.map_err(Failure::input)?;
        Outcome::Ok(estimate(&*source, ESTIMATE_TIME, &context.job()).await?)
    };
    match looked.await {
        Ok(found) => {
            let least = if found.whole { "" } else { "at least " };
            let entries = human::count(found.entries, "entry", "entries");
            let mut detail = format!("{least}{entries}, {}", human::bytes(found.bytes));
            if found.skipped > 0 {
                detail.push_str(&format!(", {} cannot be read", found.skipped));
            }
            checks.push(
                format!("source {name}"),
                if found.skipped > 0 { Status::Warning } else { Status::Ok },
                detail,
            );
        }
        Err(failure) => checks.push(format!("source {name}"), Status::Failed, failure.message),
    }
}

/// The jobs that these names mean: jobs and those of sets, or all.
fn jobs<'a>(config: &'a Config, names: &'a [String]) -> BTreeSet<&'a str> {
    if names.is_empty() {
        return config.jobs.keys().map(String::as_str).collect();
    }
    let components = names.iter().filter_map(|name| config.sets.get(name)).flat_map(|set| &set.components);
    let of_sets = components.map(|component| component.job.as_str());
    names.iter().map(String::as_str).filter(|name| config.jobs.contains_key(*name)).chain(of_sets).collect()
}

/// What the next run of a job will probably need, where there were any before.
async fn estimate_job(context: &Context, config: &Config, name: &str, checks: &mut Checks) {
    let Some(job) = config.jobs.get(name) else { return };
    let label = job.label.as_deref().unwrap_or(name);
    let host = job.host.clone().unwrap_or_else(host);
    let looked = async {
        let (repository, _) = context.open_anywhere(&context.configured(&job.repository)?).await?;
        let of_job = |info: &SnapshotInfo| {
            info.label.as_deref() == Some(label) && info.host == host && info.tenant == job.tenant
        };
        Outcome::Ok(repository.estimate(&of_job, &context.job()).await?)
    };
    // That the repository cannot be opened is said of the repository.
    if let Ok(Some(next)) = looked.await {
        checks.push(format!("estimate of {name}"), Status::Ok, estimated(&next));
    }
}

/// Transforms and policies: that they can be made is all there is to see.
fn check_named(context: &Context, config: &Config, checks: &mut Checks) {
    let file = context.file();
    for (name, component) in &config.transforms {
        let made = context.registry.make_transform(component, &file, &format!("transforms.{name}"));
        checks.result(
            format!("transform {name}"),
            made.map(|made| made.name().to_owned()).map_err(Failure::input),
        );
    }
    for (name, component) in &config.policies {
        let made = context.registry.make_policy(component, &file, &format!("policies.{name}"));
        checks.result(format!("policy {name}"), made.map(|_| component.kind.clone()).map_err(Failure::input));
    }
    #[cfg(feature = "postgres")]
    postgres::check_drills(context, config, checks);
}

fn free_space(shown: &str, path: &Path, checks: &mut Checks) {
    let name = format!("space of {shown}");
    match space::of(path) {
        Ok(space) => {
            let percent = space.percent_free();
            let status = if percent < FREE_PERCENT_LOW { Status::Warning } else { Status::Ok };
            let (free, all) = (human::bytes(space.free), human::bytes(space.all));
            checks.push(name, status, format!("{free} free of {all} ({percent}%)"));
        }
        Err(error) => checks.push(name, Status::Warning, format!("cannot be found out: {error}")),
    }
}
