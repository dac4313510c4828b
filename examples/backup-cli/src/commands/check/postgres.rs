//! Servers: that they answer, that a backup may be begun, and that their log goes somewhere. Nothing is begun.

use backup_core::config::{Component, Config};
use backup_core::report::{HealthReport, HealthStatus};
use backup_sources::postgres::health::{ServerState, judge_server};
use backup_sources::postgres::readiness;

use super::{Checks, Status};
use crate::commands::drill;
use crate::context::Context;
use crate::exit::Outcome;
use crate::human;

/// Looks at a server.
pub(super) async fn check_server(context: &Context, name: &str, component: &Component, checks: &mut Checks) {
    if let Err(failure) = look(context, name, component, checks).await {
        checks.push(format!("source {name}"), Status::Failed, failure.message);
    }
}

async fn look(context: &Context, name: &str, component: &Component, checks: &mut Checks) -> Outcome<()> {
    let (_, parsed) = context.postgres_settings(name, component)?;
    let server = context.configured_server(name, component).await?;
    let found = readiness(&server.connect, parsed.is_read_over_sql()).await?;
    let standby = if found.is_standby { ", a standby" } else { "" };
    let mut detail = format!("{}{standby}", found.version);
    if let Some(bytes) = found.bytes {
        detail.push_str(&format!(", {} in databases", human::bytes(bytes)));
    }
    let status = if found.is_minimal || !found.lacks.is_empty() { Status::Failed } else { Status::Ok };
    if found.is_minimal {
        detail.push_str("; wal_level is minimal, with which no backup can be made: set it to replica");
    }
    if !found.lacks.is_empty() {
        detail.push_str(&format!("; the role may not call {}", found.lacks.join(", ")));
    }
    checks.push(format!("source {name}"), status, detail);
    if !parsed.has_archived_log() {
        return Ok(());
    }
    let state = ServerState::of(&server.connect, server.slot.as_deref()).await?;
    let mut judged = HealthReport::default();
    judge_server(&state, &mut judged);
    if judged.checks.is_empty() {
        checks.push(format!("archiving of {name}"), Status::Ok, "the server calls what archives its log");
    }
    for check in judged.checks {
        let status = match check.status {
            HealthStatus::Ok => Status::Ok,
            // Before the first run of whoever receives the log there is no slot.
            _ => Status::Warning,
        };
        checks.push(format!("archiving of {name}"), status, format!("{}: {}", check.name, check.message));
    }
    Ok(())
}

/// Drills: that their settings make sense is all that is looked at.
pub(super) fn check_drills(context: &Context, config: &Config, checks: &mut Checks) {
    for (name, component) in &config.drills {
        let read = drill::read(name, component, context);
        let clusters = |(_, drill): (_, backup_sources::postgres::drill::DrillSettings)| {
            human::count(drill.clusters().len() as u64, "cluster", "clusters")
        };
        checks.result(format!("drill {name}"), read.map(clusters));
    }
}
