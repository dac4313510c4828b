//! `restore-postgres --connection`: databases from dumps, planned first.

use std::path::PathBuf;

use backup_core::config::Span;
use backup_core::{Snapshot, SnapshotInfo};
use backup_sources::postgres::Connect;
use backup_sources::postgres::logical::LogicalBackup;
use backup_sources::postgres::logical::restore::{
    Found, GlobalsReport, LogicalPlan, LogicalReport, LogicalRestore,
};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};

/// Options of `restore-postgres --connection`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Databases from dumps (--connection)")]
pub(super) struct Dumps {
    /// The server to restore dumps into, made by `create postgres --mode logical`: as libpq has it
    #[arg(
        long,
        value_name = "CONNECTION",
        conflicts_with_all = ["to", "Moment", "standby", "tablespaces", "replace", "start", "owner", "unread_log", "allow_unproven"]
    )]
    pub(super) connection: Option<String>,
    /// Restore this database only; repeat for more [default: all of the backup]
    #[arg(long = "database", value_name = "NAME", requires = "connection")]
    databases: Vec<String>,
    /// Restore the one database that is named into this one, which is there
    #[arg(long, value_name = "NAME", requires = "databases", conflicts_with = "create")]
    into: Option<String>,
    /// Restore this table only: columns and rows, no indexes, constraints or sequences; repeat for more
    #[arg(long = "table", value_name = "NAME", requires = "databases", conflicts_with = "create")]
    tables: Vec<String>,
    /// Make databases that are not there, as they were
    #[arg(long, requires = "connection")]
    create: bool,
    /// Replace what is there and in the dump; what is not in the dump stays
    #[arg(long, requires = "connection")]
    clean: bool,
    /// First make the roles and tablespaces that are not there; those that are stay as they are
    #[arg(long, requires = "connection")]
    globals: bool,
    /// Restore owners, privileges and tablespaces, too
    #[arg(long, requires = "connection")]
    owners: bool,
    /// Become this role after logging in
    #[arg(long, value_name = "ROLE", requires = "connection")]
    role: Option<String>,
    /// Connections that restore at once; more than one need --scratch [default: 1]
    #[arg(long, value_name = "N", requires = "connection", value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: Option<u8>,
    /// The directory below which a dump is put for several connections, or in the directory format
    #[arg(long, value_name = "DIR", requires = "connection")]
    scratch: Option<PathBuf>,
    /// Do not restore in one transaction: what was restored before an error stays
    #[arg(long, requires = "connection")]
    in_steps: bool,
    /// How long the restore of one database may take [default: no limit]
    #[arg(long, value_name = "SPAN", requires = "connection")]
    restore_timeout: Option<Span>,
}

impl Dumps {
    /// Whether any of these options is given.
    pub(super) fn are_given(&self) -> bool {
        !self.databases.is_empty()
            || !self.tables.is_empty()
            || self.into.is_some()
            || self.create
            || self.clean
            || self.globals
            || self.owners
            || self.role.is_some()
            || self.connections.is_some()
            || self.scratch.is_some()
            || self.in_steps
            || self.restore_timeout.is_some()
    }
}

/// What `restore-postgres` takes beside that matters here.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) snapshot: String,
    pub(super) filter: Filter,
    pub(super) dry_run: bool,
    pub(super) programs: Option<PathBuf>,
}

/// Restores.
pub(super) async fn run(connection: &str, dumps: Dumps, rest: Rest, context: &mut Context) -> Outcome {
    let connect = Connect::parse(connection).map_err(Failure::input)?;
    let repository = context.repository_anywhere().await?;
    let info = find(&rest, &Snapshots::load(&repository, context).await?, context)?;
    let snapshot = repository.snapshot(info.id, &context.job()).await?;
    let (clean, globals) = (dumps.clean, dumps.globals);
    let restore = restore(connect, dumps, rest.programs)?;
    let job = context.job();
    let plan = restore.plan(&snapshot, &job).await?;
    if rest.dry_run {
        context.output.document(&json!({ "plan": plan }), |out| show(&plan, out))?;
        return Ok(Exit::Done);
    }
    let destroys = clean && plan.databases.iter().any(|database| database.found == Found::Full);
    if destroys && context.console.interactive && !context.global.yes {
        let mut shown = Vec::new();
        let _ = show(&plan, &mut shown);
        context.console.say(String::from_utf8_lossy(&shown).trim_end());
        context.console.confirm("Go on?").await?;
    }
    let made = match globals {
        true => Some(roles(&restore, &snapshot, context).await?),
        false => None,
    };
    let report = restore.apply(&plan, &snapshot, &job).await?;
    context.progress.clear();
    let document = json!({ "plan": plan, "globals": made, "databases": report.databases });
    context.output.document(&document, |out| tell(&plan, made.as_ref(), &report, out))?;
    Ok(Exit::complete_if(made.is_none_or(|made| made.failed.is_empty())))
}

/// The logical backup that is meant.
fn find(rest: &Rest, snapshots: &Snapshots, context: &mut Context) -> Outcome<SnapshotInfo> {
    if rest.snapshot != "latest" {
        return Ok(snapshots.find(&rest.snapshot, &rest.filter, context)?.clone());
    }
    // Physical backups are snapshots of the same kind.
    let mut all = snapshots.all(context).iter();
    let newest = all.rfind(|info| LogicalBackup::of(info).is_ok() && rest.filter.passes(info));
    newest
        .cloned()
        .ok_or_else(|| Failure::nothing("no complete logical backup of PostgreSQL passes the filters"))
}

fn restore(connect: Connect, dumps: Dumps, programs: Option<PathBuf>) -> Outcome<LogicalRestore> {
    let mut restore = LogicalRestore::new(connect)
        .databases(dumps.databases)
        .create(dumps.create)
        .clean(dumps.clean)
        .owners(dumps.owners)
        .in_steps(dumps.in_steps)
        .jobs(dumps.connections.map_or(1, usize::from));
    for table in dumps.tables {
        restore = restore.table(table);
    }
    if let Some(into) = dumps.into {
        restore = restore.into_database(into);
    }
    if let Some(role) = dumps.role {
        restore = restore.role(role);
    }
    if let Some(scratch) = dumps.scratch {
        restore = restore.scratch(super::absolute(&scratch)?);
    }
    if let Some(programs) = programs {
        restore = restore.programs(programs);
    }
    if let Some(limit) = dumps.restore_timeout {
        restore = restore.timeout(limit.duration());
    }
    Ok(restore)
}

async fn roles(
    restore: &LogicalRestore,
    snapshot: &Snapshot,
    context: &mut Context,
) -> Outcome<GlobalsReport> {
    let made = restore.apply_globals(snapshot, &context.job()).await?;
    if !context.output.is_json() {
        for failed in &made.failed {
            context.console.say(format_args!("not restored: {}", human::name(failed)));
        }
    }
    Ok(made)
}

/// A plan for people.
fn show(plan: &LogicalPlan, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    writeln!(out, "from the backup {}, into {}", plan.backup.id, human::name(&plan.server))?;
    for database in &plan.databases {
        let what = match database.found {
            Found::Nothing => "is made",
            Found::Empty => "is empty",
            Found::Full => "is NOT empty, and what is in the dump is replaced",
        };
        let (name, into) = (human::name(&database.name), human::name(&database.into));
        writeln!(out, "{name}, {}: {into} {what}", human::bytes(database.bytes))?;
        for relation in &database.replaced {
            writeln!(out, "  there: {}", human::name(relation))?;
        }
    }
    for note in &plan.notes {
        writeln!(out, "note: {}", human::name(note))?;
    }
    Ok(())
}

fn tell(
    plan: &LogicalPlan,
    made: Option<&GlobalsReport>,
    report: &LogicalReport,
    out: &mut dyn std::io::Write,
) -> std::io::Result<()> {
    show(plan, out)?;
    if let Some(made) = made {
        let kept = human::count(made.kept.len() as u64, "role or tablespace", "roles and tablespaces");
        writeln!(
            out,
            "{} about roles and tablespaces; {kept} as before",
            human::count(made.done, "statement", "statements")
        )?;
    }
    for database in &report.databases {
        writeln!(out, "restored {} in {}", human::name(&database.into), human::seconds(database.seconds))?;
    }
    Ok(())
}
