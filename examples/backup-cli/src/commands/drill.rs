//! `drill`: a recovery that is rehearsed, with its evidence.

use std::path::PathBuf;

use backup_core::config::Span;
use backup_sources::postgres::drill::{Check, Drill, DrillReport, Examination, Expect, StoredCluster};
use serde_json::{Value, json};

use super::restore_postgres::bases;
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::postgres::{Looking, Target, can_lead};
use crate::select::Filter;

/// Options of `drill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id, the start of one, or `latest`
    #[arg(value_name = "SNAP")]
    snapshot: String,
    #[command(flatten)]
    target: Target,
    /// The directory in which the cluster is made, in one of its own, and removed
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,
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
    let target = args.target.target()?;
    let repository = context.repository_anywhere().await?;
    let mut found = bases(&args.snapshot, &args.filter, &repository, context).await?;
    let command = context.restore_command()?;
    // The newest that can lead there is rehearsed.
    let at = found.iter().rposition(|(base, _)| can_lead(base, &target)).unwrap_or(0);
    let chosen = found.swap_remove(at);
    let inventory = args.looking.inventory(std::slice::from_ref(&chosen), &target, context).await?;
    let snapshot = repository.snapshot(chosen.1.id, &context.job()).await?;
    let source = StoredCluster::new(repository.clone(), snapshot, inventory, command)?;
    let mut drill = Drill::new(args.scratch, target).role(args.role).recovery_limit(args.limit.duration());
    drill = args.queries.into_iter().fold(drill, Drill::check);
    if let Some(programs) = args.programs {
        drill = drill.programs(programs);
    }
    if let Some(owner) = &args.owner {
        let (user, group) = crate::postgres::user(owner)?;
        drill = drill.run_as(user, group);
    }
    if let Some(preload) = args.preload {
        drill = drill.preload(preload);
    }
    if args.no_verify_backup {
        drill = drill.without_verifying();
    }
    if args.no_amcheck {
        drill = drill.without_amcheck();
    }
    if args.looking.is_trusting() {
        drill = drill.allow_unproven();
    }
    if !args.no_record {
        context.record("drill", &repository);
    }
    let report = drill.run(&source, &context.job()).await?;
    context.progress.clear();
    let document = document(&report);
    if let Some(path) = args.report {
        let text = format!("{document:#}\n");
        let shown = path.display().to_string();
        let written = tokio::fs::write(&path, text).await;
        written.map_err(|e| Failure::from(backup_core::Error::io(shown, e)))?;
    }
    context.output.document(&document, |out| show(&report, out))?;
    Ok(if report.passed { Exit::Done } else { Exit::Failed })
}

/// As `--json` has it.
fn document(report: &DrillReport) -> Value {
    let mut document = json!(report);
    if let Value::Object(members) = &mut document {
        members.insert("rto_seconds".into(), json!(report.rto.map(|rto| rto.as_secs_f64())));
        members.insert("rpo_seconds".into(), json!(report.rpo.map(|rpo| rpo.as_secs_f64())));
    }
    document
}

fn show(report: &DrillReport, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let took = |duration: Option<std::time::Duration>| {
        duration.map_or_else(|| "not known".to_owned(), |duration| human::seconds(duration.as_secs_f64()))
    };
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
