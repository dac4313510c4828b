//! `drill`: recoveries that are rehearsed, with their evidence.

mod chosen;

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::config::{Settings, Span};
use backup_sources::postgres::drill::{
    Check, CommonReport, Drill, DrillReport, DrillSettings, Examination, Expect,
};
use backup_sources::postgres::recovery::RecoveryTarget;
use serde_json::{Value, json};

use self::chosen::{Chosen, common_target};
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::postgres::{Looking, Target};
use crate::select::Filter;

/// Options of `drill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A drill of the configuration, or snapshots: an id, the start of one, or `latest`. Several, of different clusters, are recovered to one
    /// common moment: the latest that the logs of all of them reach, unless a target is given
    #[arg(value_name = "SNAP", required = true)]
    snapshots: Vec<String>,
    #[command(flatten)]
    target: Target,
    /// The directory in which clusters are made, in one of their own, and removed; a configured drill has its own
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// A question and its answer: DATABASE: QUERY = ANSWER; without an answer any will do. Repeat for more
    #[arg(long = "query", value_name = "QUESTION", value_parser = question)]
    queries: Vec<Check>,
    /// The directory of the server's programs [default: where packages of its version put them]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// As whom the server runs, by name; for root, as whom none does
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// The role that asks
    #[arg(long, value_name = "ROLE", default_value = "postgres")]
    role: String,
    /// Libraries that the server loads, where tables or functions need them
    #[arg(long, value_name = "NAMES")]
    preload: Option<String>,
    /// Do not ask pg_verifybackup
    #[arg(long)]
    no_verify_backup: bool,
    /// Do not ask pg_amcheck
    #[arg(long)]
    no_amcheck: bool,
    /// How long the server may take to recover
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    limit: Span,
    /// Write the report into this file, too
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Store no evidence in the repository
    #[arg(long)]
    no_record: bool,
    #[command(flatten)]
    looking: Looking,
    #[command(flatten)]
    filter: Filter,
}

fn question(text: &str) -> Result<Check, String> {
    let wrong = || format!("`{text}` is no question; write it as: shop: select count(*) from orders = 12");
    let (database, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (query, expect) = match rest.rsplit_once(" = ") {
        Some((query, answer)) => (query, Expect::value(answer.trim())),
        None => (rest, Expect::Anything),
    };
    if database.trim().is_empty() || query.trim().is_empty() {
        return Err(wrong());
    }
    Ok(Check::new(query.trim(), database.trim(), query.trim(), expect))
}

/// Rehearses.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    match configured(&args.snapshots, context)? {
        Some((settings, drill)) => run_configured(&settings, &drill, context).await,
        None => run_given(args, context).await,
    }
}

/// The drill of the configuration that is meant, if one is.
fn configured(names: &[String], context: &Context) -> Outcome<Option<(Settings, DrillSettings)>> {
    let Some(config) = &context.config else { return Ok(None) };
    let Some((name, component)) = names.first().and_then(|name| config.drills.get_key_value(name)) else {
        return Ok(None);
    };
    if names.len() > 1 {
        let message = format!(
            "`{name}` is a drill of the configuration, which says itself what is rehearsed: give it alone"
        );
        return Err(Failure::usage(message));
    }
    read(name, component, context).map(Some)
}

/// What the configuration says of a drill.
pub(super) fn read(
    name: &str,
    component: &backup_core::config::Component,
    context: &Context,
) -> Outcome<(Settings, DrillSettings)> {
    let settings = Settings::new(context.file(), format!("drills.{name}"), component.settings.clone());
    if component.kind != "postgres" {
        let message = format!("`{}` cannot be rehearsed; there is `postgres`", component.kind.escape_debug());
        return Err(Failure::input(settings.error(message)));
    }
    let drill = DrillSettings::of(&settings).map_err(Failure::input)?;
    context.configured(drill.repository())?;
    Ok((settings, drill))
}

async fn run_configured(settings: &Settings, drill: &DrillSettings, context: &mut Context) -> Outcome {
    // The server fetches its log from there, too.
    context.global.repo.get_or_insert_with(|| drill.repository().to_owned());
    let looking = Looking::default();
    let repository = context.repository_anywhere().await?;
    let latest = RecoveryTarget::latest();
    let mut clusters = Vec::with_capacity(drill.clusters().len());
    for cluster in drill.clusters() {
        clusters
            .push(Chosen::newest(|info| cluster.has(info), &repository, &latest, &looking, context).await?);
    }
    let mut target = common_target(&clusters, latest)?;
    let mut recorded = Vec::new();
    if let (true, Some(cluster)) = (drill.is_to_recorded_moment(), clusters.first()) {
        let moment = context.recorded_moment(cluster.base(), &repository).await?;
        target = moment.target();
        recorded.extend(moment.checks());
    }
    let build = context.build();
    let mut drills = Vec::with_capacity(clusters.len());
    for cluster in drill.clusters() {
        let made = drill.drill(cluster, target.clone(), settings, &build).map_err(Failure::input)?;
        drills.push(recorded.drain(..).fold(made, Drill::check));
    }
    context.record("drill", &repository);
    let rehearsed = rehearse(clusters, drills, &target, context).await?;
    finish(&rehearsed, drill.report(&build).as_deref(), context).await
}

async fn run_given(args: Args, context: &mut Context) -> Outcome {
    let target = args.target.target()?;
    let scratch = args
        .scratch
        .clone()
        .ok_or_else(|| Failure::usage("give --scratch DIR, where the cluster is made and removed"))?;
    let repository = context.repository_anywhere().await?;
    let mut clusters = Vec::with_capacity(args.snapshots.len());
    for name in &args.snapshots {
        clusters.push(Chosen::named(name, &args.filter, &repository, &target, &args.looking, context).await?);
    }
    let target = common_target(&clusters, target)?;
    let report = args.report.clone();
    let no_record = args.no_record;
    let drill = args.drill(scratch, target.clone())?;
    let drills = vec![drill; clusters.len()];
    if !no_record {
        context.record("drill", &repository);
    }
    let rehearsed = rehearse(clusters, drills, &target, context).await?;
    finish(&rehearsed, report.as_deref(), context).await
}

impl Args {
    fn drill(self, scratch: PathBuf, target: RecoveryTarget) -> Outcome<Drill> {
        let mut drill = Drill::new(scratch, target).role(self.role).recovery_limit(self.limit.duration());
        drill = self.queries.into_iter().fold(drill, Drill::check);
        if let Some(programs) = self.programs {
            drill = drill.programs(programs);
        }
        if let Some(owner) = &self.owner {
            let (user, group) = crate::postgres::user(owner)?;
            drill = drill.run_as(user, group);
        }
        if let Some(preload) = self.preload {
            drill = drill.preload(preload);
        }
        if self.no_verify_backup {
            drill = drill.without_verifying();
        }
        if self.no_amcheck {
            drill = drill.without_amcheck();
        }
        if self.looking.is_trusting() {
            drill = drill.allow_unproven();
        }
        Ok(drill)
    }
}

/// What came of one cluster, or of several to one moment.
#[derive(Debug)]
enum Rehearsed {
    One(Box<DrillReport>),
    Several(CommonReport),
}

async fn rehearse(
    clusters: Vec<Chosen>,
    drills: Vec<Drill>,
    target: &RecoveryTarget,
    context: &Context,
) -> Outcome<Rehearsed> {
    let mut reports = Vec::with_capacity(clusters.len());
    for (cluster, drill) in clusters.into_iter().zip(drills) {
        let command = context.restore_command(cluster.base().system_identifier)?;
        reports.push(drill.run(&cluster.source(command)?, &context.job()).await?);
    }
    context.progress.clear();
    Ok(match (reports.len(), reports.pop()) {
        (1, Some(report)) => Rehearsed::One(Box::new(report)),
        (_, last) => {
            reports.extend(last);
            Rehearsed::Several(CommonReport::new(chosen::time_of(target), reports))
        }
    })
}

async fn finish(rehearsed: &Rehearsed, report: Option<&Path>, context: &mut Context) -> Outcome {
    let document = rehearsed.document();
    if let Some(path) = report {
        let text = format!("{document:#}\n");
        let shown = path.display().to_string();
        let written = tokio::fs::write(path, text).await;
        written.map_err(|e| Failure::from(backup_core::Error::io(shown, e)))?;
    }
    context.output.document(&document, |out| rehearsed.show(out))?;
    Ok(if rehearsed.passed() { Exit::Done } else { Exit::Failed })
}

impl Rehearsed {
    fn passed(&self) -> bool {
        match self {
            Self::One(report) => report.passed,
            Self::Several(report) => report.passed,
        }
    }

    /// As `--json` has it.
    fn document(&self) -> Value {
        let (mut document, rto, rpo) = match self {
            Self::One(report) => return one(report),
            Self::Several(report) => (json!(report), report.rto(), report.rpo()),
        };
        if let (Value::Object(members), Self::Several(report)) = (&mut document, self) {
            members.insert("drills".into(), report.drills.iter().map(one).collect());
            insert_times(members, rto, rpo);
        }
        document
    }

    fn show(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let report = match self {
            Self::One(report) => return show(report, out),
            Self::Several(report) => report,
        };
        for drill in &report.drills {
            let system =
                drill.system_identifier.map_or_else(|| "unknown".to_owned(), |system| system.to_string());
            writeln!(out, "cluster {system}")?;
            show(drill, out)?;
        }
        let moment = report.moment.map_or_else(|| "the target".to_owned(), |moment| moment.to_string());
        let passed = if report.passed { "PASSED" } else { "FAILED" };
        writeln!(
            out,
            "{passed}: {} to {moment}",
            human::count(report.drills.len() as u64, "cluster", "clusters")
        )?;
        writeln!(
            out,
            "recovered in {}; what would have been lost: {}",
            took(report.rto()),
            took(report.rpo())
        )
    }
}

/// The report of one cluster as `--json` has it.
fn one(report: &DrillReport) -> Value {
    let mut document = json!(report);
    if let Value::Object(members) = &mut document {
        insert_times(members, report.rto, report.rpo);
    }
    document
}

fn insert_times(members: &mut serde_json::Map<String, Value>, rto: Option<Duration>, rpo: Option<Duration>) {
    members.insert("rto_seconds".into(), json!(rto.map(|rto| rto.as_secs_f64())));
    members.insert("rpo_seconds".into(), json!(rpo.map(|rpo| rpo.as_secs_f64())));
}

fn took(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "not known".to_owned(), |duration| human::seconds(duration.as_secs_f64()))
}

fn show(report: &DrillReport, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    writeln!(out, "{}: {}", if report.passed { "PASSED" } else { "FAILED" }, human::name(&report.target))?;
    for failure in &report.failures {
        writeln!(out, "{}: {}", human::name(&failure.part), human::name(&failure.why))?;
    }
    for phase in &report.phases {
        writeln!(out, "{:8}  {}", phase.part, human::seconds(phase.duration.as_secs_f64()))?;
    }
    for (program, examination) in [("pg_verifybackup", &report.verified), ("pg_amcheck", &report.amcheck)] {
        match examination {
            Examination::Passed => writeln!(out, "{program}: nothing is wrong")?,
            Examination::Failed { why } => writeln!(out, "{program}: {}", human::name(why))?,
            Examination::NotDone { why } => writeln!(out, "{program}: not asked: {}", human::name(why))?,
        }
    }
    writeln!(out, "recovered in {}; what would have been lost: {}", took(report.rto), took(report.rpo))
}
