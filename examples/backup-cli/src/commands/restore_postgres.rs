//! `restore-postgres`: a cluster at a moment, or databases from dumps, planned first.

mod logical;

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::config::Span;
use backup_core::repository::{Repository, RestoreOptions};
use backup_core::{Snapshot, SnapshotInfo};
use backup_sources::postgres::recovery::{
    BaseBackup, Place, PlanRequest, Programs, Recovered, RecoveryPlan, RecoverySettings, RecoveryState,
    Server, Speed, TargetAction, WatchUntil, finish, prepare, watch,
};
use clap::ValueEnum;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::postgres::{Looking, Target, refused};
use crate::select::{Filter, Snapshots};

/// Options of `restore-postgres`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id, the start of one, or `latest`: the newest from which the target can be reached
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// The data directory to write
    #[arg(long, value_name = "DIR", required_unless_present = "connection", conflicts_with = "connection")]
    to: Option<PathBuf>,
    #[command(flatten)]
    dumps: logical::Dumps,
    #[command(flatten)]
    target: Target,
    /// What the server does at the target
    #[arg(long, value_enum, default_value_t = Action::Pause, value_name = "ACTION")]
    action: Action,
    /// Go on as a standby
    #[arg(long)]
    standby: bool,
    /// Where a tablespace goes, by its number; repeat for more
    #[arg(long = "tablespace-map", value_name = "OID=DIR", value_parser = tablespace)]
    tablespaces: Vec<(u32, PathBuf)>,
    /// Replace the cluster that stands in the directory; only what differs is fetched
    #[arg(long)]
    replace: bool,
    /// Plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Start the server, and wait until it has recovered
    #[arg(long)]
    start: bool,
    /// How long the server may take
    #[arg(long, value_name = "SPAN", default_value = "1d", requires = "start")]
    start_limit: Span,
    /// The directory of the server's programs [default: where packages of its version put them]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// The directory for the server's socket and first log [default: beside the data directory]
    #[arg(long, value_name = "DIR", requires = "start")]
    socket: Option<PathBuf>,
    /// The port in the name of its socket
    #[arg(long, value_name = "PORT", default_value_t = 5432, requires = "start")]
    port: u16,
    /// Whom the files belong to, and as whom the server runs, by name; root may say so
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    #[command(flatten)]
    looking: Looking,
    #[command(flatten)]
    filter: Filter,
}

/// What a server does at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Stay there and answer questions
    Pause,
    /// Become a primary
    Promote,
    /// Stop
    Shutdown,
}

fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let parsed = text.split_once('=').and_then(|(oid, path)| Some((oid.parse().ok()?, PathBuf::from(path))));
    parsed.ok_or_else(|| format!("`{text}` maps no tablespace; write it as 16384=/srv/fast"))
}

/// Recovers.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    if let Some(connection) = args.dumps.connection.clone() {
        let Args { snapshot, filter, dry_run, programs, dumps, .. } = args;
        let rest = logical::Rest { snapshot, filter, dry_run, programs };
        return logical::run(&connection, dumps, rest, context).await;
    }
    if args.dumps.are_given() {
        return Err(Failure::usage("databases and dumps need a server: give --connection instead of --to"));
    }
    let to = args.to.as_deref();
    let to = to.ok_or_else(|| Failure::usage("say where to: --to DIR, or --connection for dumps"))?;
    let target = args.target.target()?;
    let repository = context.repository_anywhere().await?;
    let bases = bases(&args.snapshot, &args.filter, &repository, context).await?;
    let system = bases.last().map(|(base, _)| base.system_identifier).unwrap_or_default();
    let command = context.restore_command(system)?;
    let inventory = args.looking.inventory(&bases, &target, context).await?;
    let mut place = Place::new(absolute(to)?);
    for (oid, directory) in args.tablespaces {
        place = place.tablespace(oid, absolute(&directory)?);
    }
    if args.replace {
        place = place.replacing();
    }
    let surveyed = (place.clone(), bases.iter().map(|(base, _)| base.clone()).collect::<Vec<_>>());
    let survey = blocking(move || surveyed.0.survey(&surveyed.1)).await?;
    let newest = bases.last().map(|(base, _)| base.major_version());
    let programs = match (&args.programs, newest) {
        (Some(directory), _) => Some(Programs::at(directory).await?),
        (None, Some(major)) if args.start => Some(Programs::find(major).await?),
        _ => None,
    };
    let plain: Vec<BaseBackup> = bases.iter().map(|(base, _)| base.clone()).collect();
    let request = PlanRequest {
        bases: &plain,
        inventory: &inventory,
        target: &target,
        place: Some(&survey),
        programs: programs.as_ref().map(Programs::major),
        standby: args.standby,
        allow_unproven: args.looking.is_trusting(),
        speed: Speed::default(),
    };
    let plan = RecoveryPlan::make(&request).map_err(backup_core::Error::from)?;
    if args.dry_run {
        context.output.document(&json!({ "plan": plan }), |out| show(&plan, out))?;
        return Ok(Exit::Done);
    }
    let wanted = bases.iter().find(|(base, _)| base.id == plan.base.id);
    let (_, info) = wanted.ok_or_else(|| refused("the plan is of no snapshot"))?;
    let snapshot = repository.snapshot(info.id, &context.job()).await?;
    let mut settings = RecoverySettings::new(command).action(match args.action {
        Action::Pause => TargetAction::Pause,
        Action::Promote => TargetAction::Promote,
        Action::Shutdown => TargetAction::Shutdown,
    });
    if let Some(owner) = &args.owner {
        let (user, group) = crate::postgres::user(owner)?;
        settings = settings.owned_by(user, group);
    }
    let (recovered, written) = put(&plan, &repository, &snapshot, &settings, context).await?;
    let state = match programs.filter(|_| args.start) {
        Some(programs) => {
            let socket = args.socket.unwrap_or_else(|| recovered.data.clone());
            let server = Server::new(programs, &recovered, socket, args.port);
            Some(start(&server, &plan, args.start_limit.duration(), context).await?)
        }
        None => None,
    };
    context.progress.clear();
    let document = json!({ "plan": plan, "recovered": recovered, "restore": written, "state": state });
    context.output.document(&document, |out| {
        show(&plan, out)?;
        writeln!(out, "{} is in place", recovered.data.display())?;
        match &state {
            Some(state) => writeln!(out, "{}", told(state)),
            None => writeln!(out, "start the server there: it recovers by itself, and {}", does(args.action)),
        }
    })?;
    Ok(Exit::Done)
}

/// Base backups to choose from, the newest last.
pub(super) async fn bases(
    snapshot: &str,
    filter: &Filter,
    repository: &Repository,
    context: &mut Context,
) -> Outcome<Vec<(BaseBackup, SnapshotInfo)>> {
    let snapshots = Snapshots::load(repository, context).await?;
    if snapshot != "latest" {
        let info = snapshots.find(snapshot, filter, context)?.clone();
        return Ok(vec![(BaseBackup::of(&info)?, info)]);
    }
    bases_of(snapshots.all(context).iter().filter(|info| info.source == "postgres" && filter.passes(info)))
}

/// Those of snapshots that are base backups of one cluster, the newest last.
pub(super) fn bases_of<'a>(
    snapshots: impl Iterator<Item = &'a SnapshotInfo>,
) -> Outcome<Vec<(BaseBackup, SnapshotInfo)>> {
    // Dumps are snapshots of the same kind, from which no server recovers.
    let mut bases: Vec<(BaseBackup, SnapshotInfo)> =
        snapshots.filter_map(|info| Some((BaseBackup::of(info).ok()?, info.clone()))).collect();
    bases.sort_by_key(|(base, _)| (base.stop_time, base.stop_lsn));
    if bases.is_empty() {
        return Err(Failure::nothing("no complete physical backup of PostgreSQL passes the filters"));
    }
    let systems: std::collections::BTreeSet<u64> =
        bases.iter().map(|(base, _)| base.system_identifier).collect();
    if systems.len() > 1 {
        let message = "there are backups of several clusters: say which by a filter (--label, --tag), or name a snapshot";
        return Err(Failure::usage(message));
    }
    Ok(bases)
}

/// Restores a cluster's files and puts them in place.
pub(super) async fn put(
    plan: &RecoveryPlan,
    repository: &Repository,
    snapshot: &Snapshot,
    settings: &RecoverySettings,
    context: &Context,
) -> Outcome<(Recovered, backup_core::RestoreReport)> {
    let target = prepare(plan).await?;
    let report = repository.restore(snapshot, &target, &RestoreOptions::default(), &context.job()).await?;
    let recovered = finish(plan, &target, &report, settings).await?;
    Ok((recovered, report))
}

async fn start(
    server: &Server,
    plan: &RecoveryPlan,
    limit: Duration,
    context: &Context,
) -> Outcome<RecoveryState> {
    server.start().await?;
    Ok(watch(server, plan, WatchUntil::Done, limit, &context.job()).await?)
}

fn does(action: Action) -> &'static str {
    match action {
        Action::Pause => "pauses at the target: look whether it is the right moment, then `pg_ctl promote`",
        Action::Promote => "becomes a primary at the target",
        Action::Shutdown => "stops at the target",
    }
}

fn told(state: &RecoveryState) -> String {
    match state {
        RecoveryState::Consistent { replayed } => {
            format!("the server is consistent at {replayed} and goes on")
        }
        RecoveryState::Paused { replayed } => {
            format!(
                "the server is paused at the target, {replayed}: look whether it is the right moment, then `pg_ctl promote`"
            )
        }
        RecoveryState::Promoted { timeline, at } => {
            format!("the server is a primary on timeline {timeline}, from {at} on")
        }
        RecoveryState::Following { replayed } => format!("the standby has replayed up to {replayed}"),
        _ => "the server has met its target and stopped".to_owned(),
    }
}

/// A plan for people.
pub(super) fn show(plan: &RecoveryPlan, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    writeln!(
        out,
        "from the backup {} of {}, {}",
        plan.base.id,
        human::time(plan.base.stop_time),
        human::bytes(plan.file_bytes)
    )?;
    for run in &plan.segments {
        writeln!(out, "replays {} to {}", run.first, run.last)?;
    }
    writeln!(
        out,
        "to {} on timeline {}, about {}",
        plan.target,
        plan.timeline,
        human::seconds(plan.estimate.as_secs_f64())
    )?;
    match &plan.reached.proof {
        Some(proof) => writeln!(out, "which is there: {}", human::name(proof))?,
        None => writeln!(out, "which is taken on trust")?,
    }
    for note in &plan.notes {
        writeln!(out, "note: {}", human::name(note))?;
    }
    Ok(())
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|e| refused(format!("{} is no directory: {e}", path.display())))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> backup_core::Result<T> + Send + 'static,
) -> Outcome<T> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| backup_core::Error::internal("looking at the directory failed").with_source(e))??)
}
