//! `health`: one look for whoever watches: 0 all is well, 1 a warning, 2 critical, and one line of why.

use std::time::Duration;

use backup_core::config::Span;
use backup_core::report::{HealthReport, HealthStatus};
use backup_core::repository::HealthOptions;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::select::Filter;

/// Options of `health`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all is well; 1 a warning; 2 critical, also when the repository cannot be read."
)]
pub struct Args {
    /// How old the newest complete snapshot of each series may be before that is critical
    #[arg(long, value_name = "SPAN", default_value = "30h")]
    max_age: Span,
    /// How old it may be before that is worth a warning [default: five sixths of --max-age]
    #[arg(long, value_name = "SPAN")]
    warn_age: Option<Span>,
    /// Warn where something was not verified for so long; see `verify --oldest`
    #[arg(long, value_name = "SPAN")]
    max_unverified: Option<Span>,
    /// Warn where what a directory of the repository is on is filled to so many hundredths
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    max_disk: Option<u8>,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    filter: Filter,
}

/// What is expected of the logs of PostgreSQL. Without a server named, those are asked that the configuration backs up to this repository.
#[cfg(feature = "postgres")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
struct LogArgs {
    #[command(flatten)]
    server: crate::postgres::ServerArgs,
    /// How long something may wait for being archived before that is critical
    #[arg(long, value_name = "SPAN")]
    max_log_lag: Option<Span>,
    /// Warn where no recovery was rehearsed with success for so long
    #[arg(long, value_name = "SPAN")]
    max_drill_age: Option<Span>,
}

/// Judges.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let report = match look(&args, context).await {
        Ok(report) => report,
        Err(failure) if failure.exit == Exit::Usage => return Err(failure),
        Err(failure) => {
            let mut report = HealthReport::default();
            report.add("repository".into(), HealthStatus::Critical, failure.message);
            report
        }
    };
    context.output.document(&report, |out| {
        let worst = report.checks.iter().filter(|check| check.status == report.status);
        let why: Vec<String> = match report.status {
            HealthStatus::Ok => vec![human::count(report.checks.len() as u64, "check", "checks")],
            _ => worst.map(|check| human::name(&format!("{}: {}", check.name, check.message))).collect(),
        };
        let status = match report.status {
            HealthStatus::Ok => "OK",
            HealthStatus::Warning => "WARNING",
            HealthStatus::Critical => "CRITICAL",
        };
        writeln!(out, "{status} {}", why.join("; "))
    })?;
    // Those who watch know 0, 1 and 2; what 2 means elsewhere they do not.
    Ok(match report.status {
        HealthStatus::Ok => Exit::Done,
        HealthStatus::Warning => Exit::Failed,
        HealthStatus::Critical => Exit::Usage,
    })
}

async fn look(args: &Args, context: &Context) -> Result<HealthReport, Failure> {
    let max_age = args.max_age.duration();
    let warn_age = args.warn_age.map_or_else(|| fraction(max_age), Span::duration);
    let options = HealthOptions {
        max_age: Some(max_age),
        warn_age: Some(warn_age),
        max_unverified: args.max_unverified.map(Span::duration),
    };
    let repository = context.repository().await?;
    let filter = args.filter.clone();
    let mut report = repository.health(&options, &move |info| filter.passes(info), &context.job()).await?;
    judge_places(max_age, &mut report, context).await?;
    #[cfg(feature = "postgres")]
    {
        let LogArgs { server, max_log_lag, max_drill_age } = &args.log;
        let (server, span) = (server.server(context).await?, |span: &Option<Span>| span.map(Span::duration));
        let limits = (span(max_log_lag), span(max_drill_age));
        context.judge_postgres(&repository, server, limits, &mut report).await?;
    }
    if let Some(max) = args.max_disk {
        judge_disks(max, &mut report, context)?;
    }
    Ok(report)
}

/// Whether each place has what it should have.
async fn judge_places(max_age: Duration, report: &mut HealthReport, context: &Context) -> Outcome<()> {
    let location = context.location()?;
    if location.others.is_empty() {
        return Ok(());
    }
    let places = context.places(&location).await?.report(&context.job()).await?;
    for place in places.places {
        let late = place.lag_seconds.is_some_and(|lag| lag > max_age.as_secs());
        let bad = if place.required { HealthStatus::Critical } else { HealthStatus::Warning };
        let (status, message) = match (&place.error, place.missing) {
            (Some(error), _) => (bad, format!("does not answer: {error}")),
            (None, 0) => (HealthStatus::Ok, "has everything".to_owned()),
            (None, missing) => {
                let lacks = human::count(missing, "snapshot", "snapshots");
                (if late { bad } else { HealthStatus::Warning }, format!("lacks {lacks}"))
            }
        };
        report.add(format!("place {}", place.name), status, message);
    }
    Ok(())
}

/// How full the disks are that places are directories on.
fn judge_disks(max: u8, report: &mut HealthReport, context: &Context) -> Outcome<()> {
    let location = context.location()?;
    for place in location.all() {
        let Some(path) = context.directory_of(place) else { continue };
        let name = format!("disk of {}", place.shown);
        match crate::space::of(&path) {
            Ok(space) => {
                let percent = space.percent_used();
                let status = if percent >= max { HealthStatus::Warning } else { HealthStatus::Ok };
                report.add(name, status, format!("{percent}% of {} used", human::bytes(space.all)));
            }
            Err(error) => report.add(name, HealthStatus::Warning, format!("cannot be found out: {error}")),
        }
    }
    Ok(())
}

fn fraction(max_age: Duration) -> Duration {
    max_age.checked_mul(5).map_or(max_age, |five| five / 6)
}
