//! How well a cluster's log is archived, and whether anybody rehearsed a recovery.
//!
//! These judgements are added to a repository's own [`HealthReport`], which knows how old snapshots are.
//!
//! ```no_run
//! # async fn example(repository: backup_core::Repository) -> backup_core::Result<()> {
//! use std::time::Duration;
//! use backup_core::{JobContext, report::HealthStatus};
//! use backup_sources::postgres::{Connect, WalArchive, health};
//!
//! let job = JobContext::new();
//! let mut report = repository.health(&Default::default(), &|_| true, &job).await?;
//! let connect = Connect::parse("host=/run/postgresql user=backup")?;
//! let server = health::ServerState::of(&connect, Some("backup")).await?;
//! let archive = WalArchive::new(vec![repository.clone()])?;
//! let expected = health::Expected { max_lag: Some(Duration::from_secs(900)) };
//! health::judge_log(&archive, Some(&server), &repository.snapshots(&job).await?, &expected, &mut report, &job).await?;
//! health::judge_drills(&repository, Some(Duration::from_secs(8 * 86400)), &mut report, &job).await?;
//! println!("{}", report.status == HealthStatus::Ok);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use backup_core::report::{HealthReport, HealthStatus};
use backup_core::{Error, ErrorKind, JobContext, Repository, Result, SnapshotInfo, Timestamp};
use serde::Serialize;

use super::archive::{TimelineAudit, WalAudit};
use super::connect::explain;
use super::receive::{SlotState, WalStatus};
use super::recovery::BaseBackup;
use super::wal::SegmentName;
use super::{Connect, Lsn, WalArchive};

/// Evidence of drills that is read to find the last good one.
const DRILLS_READ_MAX: usize = 100;

/// What is expected of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// For so long at most the server may have something that is not archived: the recovery point objective.
    pub max_lag: Option<Duration>,
}

/// What a server says of how its log is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerState {
    /// The cluster.
    pub system_identifier: u64,
    /// Up to where its log goes: of a standby, up to where it has received it.
    pub end: Lsn,
    /// Whether `archive_command` or `archive_library` is called.
    pub archives: bool,
    /// The last segment that was tried was not archived.
    pub archiving_fails: bool,
    /// How long the server lets a segment that has something in it wait before it begins another.
    pub archive_timeout: Option<Duration>,
    /// The replication slot that was asked for: its name, and what it is if it is there.
    pub slot: Option<(String, Option<SlotState>)>,
}

impl ServerState {
    /// Asks a server. Every user may.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or does not say.
    pub async fn of(connect: &Connect, slot: Option<&str>) -> Result<Self> {
        const ASK: &str = "select s.system_identifier, \
             (case when pg_catalog.pg_is_in_recovery() \
              then coalesce(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) \
              else pg_catalog.pg_current_wal_flush_lsn() end)::text, \
             current_setting('archive_mode') = 'always' \
              or (current_setting('archive_mode') = 'on' and not pg_catalog.pg_is_in_recovery()), \
             coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false), \
             (select setting::int8 from pg_catalog.pg_settings where name = 'archive_timeout') \
             from pg_catalog.pg_control_system() as s, pg_catalog.pg_stat_archiver as a";
        let client = connect.connect_to_ask().await?;
        let failed = |error: tokio_postgres::Error| explain(&error);
        let row = client.query_one(ASK, &[]).await.map_err(failed)?;
        let system: i64 = row.try_get(0).map_err(failed)?;
        let end: Option<String> = row.try_get(1).map_err(failed)?;
        let end = end.ok_or_else(|| Error::invalid_input("the server has no log yet"))?;
        let timeout: i64 = row.try_get(4).map_err(failed)?;
        let slot = match slot {
            None => None,
            Some(name) => Some((name.to_owned(), SlotState::of(&client, name).await?)),
        };
        Ok(Self {
            system_identifier: system.cast_unsigned(),
            end: end.parse()?,
            archives: row.try_get(2).map_err(failed)?,
            archiving_fails: row.try_get(3).map_err(failed)?,
            archive_timeout: u64::try_from(timeout)
                .ok()
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            slot,
        })
    }
}

/// Judges a log: that nothing is missing which the newest backup needs to be recovered to any later moment, that it is not behind, that
/// the server archives and keeps what was not received. `snapshots` are those of the repository; others than base backups of the cluster
/// are passed over.
///
/// Without `server` the age of the newest part of the log counts for its lag, and a database in which nothing happens looks late.
///
/// # Errors
///
/// Those of the places; whoever asks for health takes them for a critical state. That there is no log is a judgement, no error.
pub async fn judge_log(
    archive: &WalArchive,
    server: Option<&ServerState>,
    snapshots: &[SnapshotInfo],
    expected: &Expected,
    report: &mut HealthReport,
    job: &JobContext,
) -> Result<()> {
    let archive =
        server.map_or_else(|| archive.clone(), |server| archive.clone().of_system(server.system_identifier));
    let name = |what: &str, system: u64| format!("{what} of PostgreSQL {system}");
    if let Some(server) = server {
        judge_server(server, report);
    }
    let audit = match archive.audit(server.map(|server| server.end), job).await {
        Ok(audit) => audit,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let system = server.map(|server| server.system_identifier).unwrap_or_default();
            report.add(name("log", system), HealthStatus::Critical, "nothing of it is archived".into());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let system = audit.system_identifier;
    let bases = snapshots.iter().filter_map(|info| BaseBackup::of(info).ok());
    let newest = bases
        .filter(|base| base.system_identifier == system)
        .max_by_key(|base| (base.stop_time, base.stop_lsn));
    let (status, message) = judge_gaps(&audit, newest.as_ref());
    report.add(name("log", system), status, message);
    if let Some(files) = audit.behind.iter().copied().max().filter(|files| *files > 0) {
        // What has just come in is brought to the other places by and by.
        let late = |since| expected.max_lag.is_none_or(|max| age(since, job.now()) > max);
        let is_late = audit.behind_since.is_none_or(late);
        let status = if is_late { HealthStatus::Warning } else { HealthStatus::Ok };
        report.add(
            name("places of the log", system),
            status,
            format!("a place lacks {files} files that another has"),
        );
    }
    if let Some(max) = expected.max_lag {
        let (status, message) = judge_lag(&audit, server, max, job.now());
        report.add(name("lag of the log", system), status, message);
    }
    Ok(())
}

/// Judges drills by their evidence in a repository: the last one of each cluster must have passed, and the last good one be younger than
/// `max_age`.
///
/// # Errors
///
/// Those of the store.
pub async fn judge_drills(
    repository: &Repository,
    max_age: Option<Duration>,
    report: &mut HealthReport,
    job: &JobContext,
) -> Result<()> {
    let drills = repository.evidence(Some("drill"), DRILLS_READ_MAX, job).await?;
    let name = || "drill".to_owned();
    let when =
        |evidence: &backup_core::repository::Evidence| evidence.stored.unwrap_or(evidence.document.time);
    let failed = last_failed(drills.iter().map(|drill| (&*drill.document.report, drill.document.passed)));
    for (system, at) in failed {
        let of = system.map_or_else(String::new, |system| format!(" of PostgreSQL {system}"));
        let time = drills.get(at).map(when).unwrap_or_default();
        report.add(name(), HealthStatus::Critical, format!("the last one{of}, of {time}, failed"));
    }
    let Some(max_age) = max_age else { return Ok(()) };
    let good = drills.iter().filter(|drill| drill.document.passed).map(when).max();
    let (status, message) = match good {
        None => (HealthStatus::Warning, "no recovery was ever rehearsed with success".to_owned()),
        Some(time) if age(time, job.now()) > max_age => {
            (HealthStatus::Warning, format!("the last good one is of {time}"))
        }
        Some(time) => (HealthStatus::Ok, format!("a recovery was rehearsed at {time}")),
    };
    report.add(name(), status, message);
    Ok(())
}

/// Which drills failed that were the last of their cluster, of drills from the newest on: the cluster, and the drill's place among them. Of
/// those that failed before it was known what they were of, only the newest of all counts. A drill is its report, and whether it passed.
fn last_failed<'a>(drills: impl Iterator<Item = (&'a str, bool)>) -> Vec<(Option<u64>, usize)> {
    let mut judged = BTreeSet::new();
    let mut failed = Vec::new();
    for (at, (report, passed)) in drills.enumerate() {
        for (system, passed) in drilled(report, passed) {
            let is_last = judged.insert(system) && (system.is_some() || at == 0);
            if is_last && !passed {
                failed.push((system, at));
            }
        }
    }
    failed
}

/// The clusters that a drill was of, where it says that, and whether it passed for each.
fn drilled(report: &str, passed: bool) -> Vec<(Option<u64>, bool)> {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    let system = |report: &serde_json::Value| report.get("system_identifier")?.as_u64();
    match report.get("drills").and_then(|drills| drills.as_array()) {
        Some(drills) if !drills.is_empty() => {
            let own = |drill: &serde_json::Value| drill.get("passed").and_then(serde_json::Value::as_bool);
            drills.iter().map(|drill| (system(drill), own(drill).unwrap_or(passed))).collect()
        }
        _ => vec![(system(&report), passed)],
    }
}

/// Judges whether the server does its part: that it archives, or keeps its log for whoever receives it.
pub fn judge_server(server: &ServerState, report: &mut HealthReport) {
    let of = |what: &str| format!("{what} of PostgreSQL {}", server.system_identifier);
    if server.archives && server.archiving_fails {
        let message = "the server's last attempt to archive a segment failed; its log says why";
        report.add(of("archiving"), HealthStatus::Critical, message.into());
    }
    let Some((slot, state)) = &server.slot else {
        if !server.archives {
            let message = "the server calls no archive_command, and no replication slot is named";
            report.add(of("archiving"), HealthStatus::Warning, message.into());
        }
        return;
    };
    let left = |state: &SlotState| {
        state.safe_wal_size.map_or_else(String::new, |bytes| {
            format!("; {bytes} bytes more may be written before it is lost")
        })
    };
    let (status, message) = match state {
        None => (
            HealthStatus::Critical,
            "it is not there: the server keeps nothing for whoever receives its log".into(),
        ),
        Some(state) if state.wal_status == WalStatus::Lost => (
            HealthStatus::Critical,
            "the server has removed what was not received: take a full backup".into(),
        ),
        Some(state) if state.wal_status == WalStatus::Unreserved => (
            HealthStatus::Critical,
            format!("the server is about to remove what was not received{}", left(state)),
        ),
        Some(state) if !state.active => {
            (HealthStatus::Warning, format!("nobody receives the log{}", left(state)))
        }
        Some(_) => (HealthStatus::Ok, "the log is being received".into()),
    };
    report.add(format!("slot {slot}"), status, message);
}

/// Whether the newest backup can be recovered to any later moment.
fn judge_gaps(audit: &WalAudit, newest: Option<&BaseBackup>) -> (HealthStatus, String) {
    let Some(newest) = newest else {
        return (
            HealthStatus::Critical,
            "it is archived, but there is no base backup that it could follow".into(),
        );
    };
    let size = newest.segment_size;
    let from = |timeline: &TimelineAudit| (timeline.timeline >= newest.timeline).then_some(newest.start_lsn);
    let (mut since, mut before) = (Vec::new(), 0_u64);
    for timeline in &audit.timelines {
        let matters = |end: Lsn| from(timeline).is_some_and(|start| end > start);
        for gap in &timeline.gaps {
            match matters(gap.last.end(size)) {
                true => since.push(format!("{} to {} are missing", gap.first, gap.last)),
                false => before = before.saturating_add(1),
            }
        }
        for lost in &timeline.lost {
            match matters(lost.saturating_add(1)) {
                true => since.push(format!("what follows {lost} is lost")),
                false => before = before.saturating_add(1),
            }
        }
        since.extend(lacks_beginning(timeline, newest));
        if timeline.lacks_history && timeline.timeline > newest.timeline {
            since.push(format!("{}.history is missing", timeline.timeline));
        }
    }
    let frontier = audit.frontier.map_or_else(|| "nowhere".to_owned(), |frontier| frontier.to_string());
    match (since.first(), before) {
        (Some(first), _) => {
            let more = since.len().saturating_sub(1);
            let more = if more > 0 { format!(", and {more} more gaps") } else { String::new() };
            (HealthStatus::Critical, format!("since the newest backup {first}{more}: take a new backup"))
        }
        (None, 0) => (HealthStatus::Ok, format!("archived without a gap up to {frontier}")),
        (None, gaps) => (
            HealthStatus::Warning,
            format!("archived up to {frontier}; before the newest backup there are {gaps} gaps"),
        ),
    }
}

/// What is missing of a timeline that began after the newest backup, from its beginning on: its gaps are only those after something that is
/// there, as nobody else can tell what is missing from what a retention has freed.
fn lacks_beginning(timeline: &TimelineAudit, newest: &BaseBackup) -> Option<String> {
    let size = newest.segment_size;
    let is_later = |begin: &Lsn| timeline.timeline > newest.timeline && *begin > newest.start_lsn;
    let begin = timeline.begin.filter(is_later)?;
    let first = SegmentName::of(timeline.timeline, begin, size);
    match timeline.first {
        Some(there) if there > first => Some(format!("{first} and all others before {there} are missing")),
        // Left in the segment in which it began, it has none that the next timeline does not have.
        None if timeline.left_at.is_some_and(|left| size.number_of(left) > size.number_of(begin)) => {
            Some(format!("{first} and all that follow on its timeline are missing"))
        }
        _ => None,
    }
}

/// Whether too much is not archived yet.
fn judge_lag(
    audit: &WalAudit,
    server: Option<&ServerState>,
    max: Duration,
    now: Timestamp,
) -> (HealthStatus, String) {
    let Some(newest) = audit.newest else {
        return (HealthStatus::Warning, "the store does not say when anything was archived".into());
    };
    let age = age(newest, now);
    let said = format!("the newest part was archived {} s ago", age.as_secs());
    let Some((server, lag)) = server.zip(audit.lag_bytes) else {
        return (if age > max { HealthStatus::Critical } else { HealthStatus::Ok }, said);
    };
    if lag == 0 {
        return (HealthStatus::Ok, "everything that the server has is archived".into());
    }
    let said = format!("{said}; the server has {lag} bytes more");
    // What a segment begins with, and a server notes by itself while nothing happens, it does not archive by itself either.
    let size = audit.segment_size.unwrap_or_default().bytes();
    let switches = server.archive_timeout.is_some_and(|timeout| timeout <= max);
    let is_idle = server.archives && !server.archiving_fails && switches && lag < size;
    let status = if age <= max || is_idle { HealthStatus::Ok } else { HealthStatus::Critical };
    (status, said)
}

fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(now.seconds().saturating_sub(then.seconds())).unwrap_or_default())
}

#[cfg(test)]
mod tests;
