//! `run`: configured jobs, and sets of them as one.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::config::{Config, HookFailure, JobConfig, SetConfig};
use backup_core::format::document::{SetComponent, SnapshotSet};
use backup_core::report::{BackupReport, Outcome as Whole};
use backup_core::repository::{BackupOptions, Repository};
use backup_core::{Error, SnapshotId};
use serde_json::{Map, Value, json};

use super::snapshot;
use crate::context::{Context, host};
use crate::exit::{Exit, Failure, Outcome, kind_name};
use crate::places::Settled;
use crate::{hooks, human};

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of jobs and sets [default: all sets, and the jobs that are in none]
    #[arg(value_name = "JOB")]
    names: Vec<String>,
    /// Leave this component of a set out; repeat for more
    #[arg(long, value_name = "COMPONENT")]
    skip: Vec<String>,
}

/// What is to be run, in order.
#[derive(Debug)]
enum Step<'a> {
    Job(&'a str, &'a JobConfig),
    Set(&'a str, &'a SetConfig),
}

/// How one job ended.
#[derive(Debug)]
struct Ended {
    component: String,
    set: Option<String>,
    required: bool,
    restore_order: u32,
    result: Result<BackupReport, Why>,
    /// The places that have it, where there are several.
    settled: Option<Settled>,
    /// A command after the backup failed.
    after: Option<String>,
    /// Commands that failed where that is only to be told.
    warnings: Vec<String>,
}

/// One job with the commands around it, done.
#[derive(Debug)]
struct Around {
    result: Result<BackupReport, Why>,
    settled: Option<Settled>,
    after: Option<String>,
    warnings: Vec<String>,
}

/// Why there is no snapshot.
#[derive(Debug)]
enum Why {
    Failed(Failure),
    Skipped,
}

/// Runs them.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let config = context.need_config()?;
    let steps = steps(&config, &args)?;
    let mut repositories = BTreeMap::new();
    let mut all: Vec<Ended> = Vec::new();
    let mut sets: Vec<Value> = Vec::new();
    for step in &steps {
        match step {
            Step::Job(name, job) => {
                let Around { result, settled, after, warnings } =
                    one(context, &config, name, job, &mut repositories).await;
                let (component, set) = ((*name).to_owned(), None);
                all.push(Ended {
                    component,
                    set,
                    required: true,
                    restore_order: 0,
                    result,
                    settled,
                    after,
                    warnings,
                });
                tell(context, all.last());
            }
            Step::Set(name, set) => {
                let from = all.len();
                run_set(context, &config, (name, set), &args.skip, &mut repositories, &mut all).await;
                sets.push(
                    record(context, &config, (name, set), all.get(from..).unwrap_or_default(), &repositories)
                        .await?,
                );
            }
        }
        context.job().check()?;
    }
    for repository in repositories.values() {
        context.record("run", repository);
    }
    finish(context, &all, &sets)
}

fn steps<'a>(config: &'a Config, args: &Args) -> Outcome<Vec<Step<'a>>> {
    let mut steps = Vec::new();
    for name in &args.names {
        if let Some((name, set)) = config.sets.get_key_value(name) {
            steps.push(Step::Set(name, set));
        } else if let Some((name, job)) = config.jobs.get_key_value(name) {
            steps.push(Step::Job(name, job));
        } else {
            let known: Vec<&str> = config.sets.keys().chain(config.jobs.keys()).map(String::as_str).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let name = human::name(name);
            return Err(Failure::usage(format!(
                "the configuration has no job or set `{name}`; it has {known}"
            )));
        }
    }
    if args.names.is_empty() {
        let members: BTreeSet<&str> = config
            .sets
            .values()
            .flat_map(|set| &set.components)
            .map(|component| component.job.as_str())
            .collect();
        steps.extend(config.sets.iter().map(|(name, set)| Step::Set(name, set)));
        let alone = config.jobs.iter().filter(|(name, _)| !members.contains(name.as_str()));
        steps.extend(alone.map(|(name, job)| Step::Job(name, job)));
    }
    if steps.is_empty() {
        return Err(Failure::usage("the configuration has neither jobs nor sets"));
    }
    let components: BTreeSet<&str> = steps
        .iter()
        .flat_map(|step| match step {
            Step::Set(_, set) => set.components.as_slice(),
            Step::Job(..) => &[],
        })
        .map(|component| component.name())
        .collect();
    if let Some(unknown) = args.skip.iter().find(|name| !components.contains(name.as_str())) {
        let known = components.into_iter().collect::<Vec<_>>().join(", ");
        let unknown = human::name(unknown);
        return Err(Failure::usage(format!(
            "no set that is to be run has a component `{unknown}`; components are: {known}"
        )));
    }
    Ok(steps)
}

async fn run_set(
    context: &mut Context,
    config: &Config,
    (set_name, set): (&str, &SetConfig),
    skip: &[String],
    repositories: &mut BTreeMap<String, Repository>,
    all: &mut Vec<Ended>,
) {
    for component in &set.components {
        let name = component.name();
        let nothing = |why| Around { result: Err(why), settled: None, after: None, warnings: Vec::new() };
        let Around { result, settled, after, warnings } = match config.jobs.get(&component.job) {
            _ if skip.iter().any(|skipped| skipped == name) => nothing(Why::Skipped),
            Some(job) => one(context, config, &component.job, job, repositories).await,
            // The configuration was checked when it was read.
            None => nothing(Why::Failed(Failure::usage(format!("there is no job `{}`", component.job)))),
        };
        all.push(Ended {
            component: name.to_owned(),
            set: Some(set_name.to_owned()),
            required: component.required,
            restore_order: component.restore_order,
            result,
            settled,
            after,
            warnings,
        });
        tell(context, all.last());
    }
}

/// Stores the set's own object, and says what it is.
async fn record(
    context: &Context,
    config: &Config,
    (name, set): (&str, &SetConfig),
    ended: &[Ended],
    repositories: &BTreeMap<String, Repository>,
) -> Outcome<Value> {
    let job = context.job();
    let whole =
        ended.iter().all(|ended| matches!(&ended.result, Ok(report) if report.outcome == Whole::Complete));
    let stored = SnapshotSet {
        id: SnapshotId::random(&**job.random())?,
        name: name.to_owned(),
        time: job.now(),
        outcome: if whole { Whole::Complete } else { Whole::Partial },
        components: ended.iter().map(component).collect(),
        tags: BTreeMap::new(),
    };
    let repository =
        set.components.first().and_then(|first| config.jobs.get(&first.job)).map(|job| &job.repository);
    let some = ended.iter().any(|ended| ended.result.is_ok());
    let id = match repository.and_then(|name| repositories.get(name)).filter(|_| some) {
        Some(repository) => {
            repository.create_set(&stored, &job).await?;
            Some(stored.id)
        }
        // Nothing was backed up: there is nothing to hold together.
        None => None,
    };
    // It is stored after all that it names, and so reaches the other places by itself.
    let problems = match (id, repository) {
        (Some(_), Some(name)) => context.settle_sets(&context.configured(name)?).await?,
        _ => Vec::new(),
    };
    let acknowledged = problems.iter().all(|(required, _)| !required);
    let failed = !acknowledged || ended.iter().any(Ended::fails);
    let outcome = if failed {
        "failed"
    } else if whole {
        "complete"
    } else {
        "partial"
    };
    let mut document = json!({ "set": id, "name": name, "outcome": outcome });
    if let (Value::Object(members), false) = (&mut document, problems.is_empty()) {
        let lines: Vec<String> = problems.into_iter().map(|(_, line)| line).collect();
        members.insert("acknowledged".into(), json!(acknowledged));
        members.insert("warnings".into(), json!(lines));
    }
    Ok(document)
}

fn component(ended: &Ended) -> SetComponent {
    SetComponent {
        name: ended.component.clone(),
        snapshot: ended.result.as_ref().ok().and_then(|report| report.snapshot),
        outcome: ended.result.as_ref().ok().map(|report| report.outcome),
        reason: match &ended.result {
            Ok(_) => None,
            Err(Why::Skipped) => Some("skipped on request".into()),
            Err(Why::Failed(failure)) => Some(failure.message.clone()),
        },
        restore_order: ended.restore_order,
    }
}

/// One job with the commands around it.
async fn one(
    context: &Context,
    config: &Config,
    name: &str,
    job: &JobConfig,
    repositories: &mut BTreeMap<String, Repository>,
) -> Around {
    let time = job.hook_timeout.map_or(hooks::TIME_DEFAULT, |span| span.duration());
    let mut warnings = Vec::new();
    let result = between(context, config, name, job, time, repositories, &mut warnings).await;
    let mut after = None;
    for argv in &job.after {
        // What was stopped must be started again, also after a cancellation.
        match (hooks::run(argv, time).await, job.hook_failure) {
            (Ok(()), _) => {}
            (Err(error), HookFailure::Warn) => warnings.push(error.to_string()),
            (Err(error), HookFailure::Fail) => {
                after.get_or_insert_with(|| error.to_string());
            }
        }
    }
    let (result, settled) = match result {
        Ok((report, settled)) => (Ok(report), settled),
        Err(failure) => (Err(Why::Failed(failure)), None),
    };
    Around { result, settled, after, warnings }
}

async fn between(
    context: &Context,
    config: &Config,
    name: &str,
    job: &JobConfig,
    time: std::time::Duration,
    repositories: &mut BTreeMap<String, Repository>,
    warnings: &mut Vec<String>,
) -> Outcome<(BackupReport, Option<Settled>)> {
    let running = context.job();
    running.check()?;
    // The repository is opened first: no service is stopped for a backup that cannot be stored.
    let location = context.configured(&job.repository)?;
    let repository = match repositories.get(&job.repository) {
        Some(open) => open.clone(),
        None => {
            let (open, elsewhere) = context.open_anywhere(&location).await?;
            warnings.extend(elsewhere);
            repositories.insert(job.repository.clone(), open.clone());
            open
        }
    };
    let missing = || Failure::usage(format!("there is no source `{}`", job.source));
    let component = config.sources.get(&job.source).ok_or_else(missing)?;
    let at = format!("sources.{}", job.source);
    #[cfg(feature = "postgres")]
    let build = context.build_source(component, &location).await?;
    #[cfg(not(feature = "postgres"))]
    let build = context.build();
    let source = context.registry.make_source(component, &context.file(), &at, &build).await;
    let source = source.map_err(Failure::input)?;
    for argv in &job.before {
        let done = tokio::select! {
            done = hooks::run(argv, time) => done,
            () = running.cancellation().cancelled() => return Err(Error::cancelled().into()),
        };
        match (done, job.hook_failure) {
            (Ok(()), _) => {}
            (Err(error), HookFailure::Warn) => warnings.push(error.to_string()),
            (Err(error), HookFailure::Fail) => return Err(error.into()),
        }
    }
    let options = BackupOptions {
        host: job.host.clone().unwrap_or_else(host),
        label: Some(job.label.clone().unwrap_or_else(|| name.to_owned())),
        tenant: job.tenant.clone(),
        description: job.description.clone(),
        tags: job.tags.clone(),
        transforms: context.writing(&location)?,
        verify_encoding: job.verify_encoding,
        ..BackupOptions::default()
    };
    let report = snapshot::take(context, &repository, source, &options, component.kind == "files").await?;
    #[cfg(feature = "postgres")]
    if component.kind == "postgres"
        && let Err(failure) = context.record_moment(&job.source, component, &repository).await
    {
        // The backup is good without.
        warnings.push(format!("nothing was recorded for drills: {}", failure.message));
    }
    let settled = context.settle(&location, report.snapshot).await?;
    warnings.extend(settled.iter().flat_map(|settled| settled.problems()));
    Ok((report, settled))
}

impl Ended {
    /// Whether it makes the whole run fail. What was left out on request does not.
    fn fails(&self) -> bool {
        let lacking = self.settled.as_ref().is_some_and(|settled| !settled.acknowledged);
        self.after.is_some()
            || (self.required && lacking)
            || (self.required && matches!(self.result, Err(Why::Failed(_))))
    }

    fn exit(&self) -> Exit {
        match &self.result {
            _ if self.fails() => Exit::Failed,
            Ok(report) => Exit::complete_if(report.outcome == Whole::Complete),
            Err(Why::Skipped) => Exit::Done,
            Err(Why::Failed(_)) => Exit::Partial,
        }
    }

    fn document(&self) -> Value {
        let mut members = Map::new();
        members.insert("name".into(), json!(self.component));
        members.insert("in_set".into(), json!(self.set));
        members.insert("required".into(), json!(self.required));
        match &self.result {
            Ok(report) => {
                if let Value::Object(report) = snapshot::document(report, self.settled.as_ref()) {
                    members.extend(report);
                }
            }
            Err(Why::Skipped) => {
                members.insert("outcome".into(), json!("skipped"));
            }
            Err(Why::Failed(failure)) => {
                members.insert("outcome".into(), json!("failed"));
                members.insert("error".into(), json!({ "kind": failure.kind, "message": failure.message }));
            }
        }
        if let Some(after) = &self.after {
            members.insert(
                "after_error".into(),
                json!({ "kind": kind_name(backup_core::ErrorKind::Io), "message": after }),
            );
        }
        if !self.warnings.is_empty() {
            members.insert("warnings".into(), json!(self.warnings));
        }
        Value::Object(members)
    }
}

/// Says on standard error what went wrong, as it happens.
fn tell(context: &mut Context, ended: Option<&Ended>) {
    let Some(ended) = ended else { return };
    if context.output.is_json() {
        return;
    }
    for warning in &ended.warnings {
        context.console.say(format_args!("{}: {}", ended.component, human::name(warning)));
    }
    match &ended.result {
        Ok(report) => snapshot::name_skipped(context, report),
        Err(Why::Skipped) => {}
        Err(Why::Failed(failure)) => {
            context.console.say(format_args!("{}: {}", ended.component, human::name(&failure.message)));
        }
    }
    if let Some(after) = &ended.after {
        context.console.say(format_args!("{}: {}", ended.component, human::name(after)));
    }
}

fn finish(context: &mut Context, all: &[Ended], sets: &[Value]) -> Outcome {
    // The worst decides: failed before partial before done.
    let of_sets = sets
        .iter()
        .filter(|set| set.get("outcome").is_some_and(|outcome| outcome == "failed"))
        .map(|_| Exit::Failed);
    let exit = match all.iter().map(Ended::exit).chain(of_sets).collect::<Vec<_>>() {
        exits if exits.contains(&Exit::Failed) => Exit::Failed,
        exits if exits.contains(&Exit::Partial) => Exit::Partial,
        _ => Exit::Done,
    };
    let set = sets.last().and_then(|set| set.get("set")).cloned().unwrap_or_default();
    let outcome = match exit {
        Exit::Done => "complete",
        Exit::Partial => "partial",
        _ => "failed",
    };
    let components: Vec<Value> = all.iter().map(Ended::document).collect();
    let document = json!({ "set": set, "outcome": outcome, "sets": sets, "components": components });
    context.output.document(&document, |out| {
        for ended in all {
            let name = ended
                .set
                .as_ref()
                .map_or_else(|| ended.component.clone(), |set| format!("{set}/{}", ended.component));
            write!(out, "{name}: ")?;
            match &ended.result {
                Ok(report) => snapshot::write(report, out)?,
                Err(Why::Skipped) => writeln!(out, "left out on request")?,
                Err(Why::Failed(_)) if ended.required => writeln!(out, "FAILED")?,
                Err(Why::Failed(_)) => writeln!(out, "failed, not required")?,
            }
        }
        for set in sets {
            let text = |key: &str| set.get(key).and_then(Value::as_str).unwrap_or("none").to_owned();
            writeln!(out, "set {} ({}): {}", text("name"), text("set"), text("outcome"))?;
            let warnings = set.get("warnings").and_then(Value::as_array).into_iter().flatten();
            for warning in warnings.filter_map(Value::as_str) {
                writeln!(out, "  {}", human::name(warning))?;
            }
        }
        Ok(())
    })?;
    Ok(exit)
}
