//! Looking on while a server recovers, until it is where it should be, or says why not.

use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, JobContext, Result};
use serde::{Deserialize, Serialize};

use super::{RecoveryPlan, Server, StopAt};
use crate::postgres::wal::TimelineHistory;
use crate::postgres::{Lsn, Timeline};

/// How often the server is asked.
const TICK: Duration = Duration::from_millis(100);
/// How long a standby may replay nothing while segments that are archived are still missing to it.
const FROZEN: Duration = Duration::from_secs(60);

/// Until when a recovery is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchUntil {
    /// The files are consistent and the server answers; it goes on replaying.
    Consistent,
    /// It has met its target, and paused there or become a primary; a standby has replayed what the plan counted on.
    Done,
}

/// Where a recovery has got to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum RecoveryState {
    /// It answers questions and goes on replaying.
    Consistent {
        /// How far it has replayed.
        replayed: Lsn,
    },
    /// It is paused at its target and answers questions.
    Paused {
        /// How far it has replayed.
        replayed: Lsn,
    },
    /// It is a primary, on a timeline of its own.
    Promoted {
        /// The timeline.
        timeline: Timeline,
        /// Where it left the one that it was recovered on.
        at: Lsn,
    },
    /// It is a standby that has replayed all that the plan counted on.
    Following {
        /// How far it has replayed.
        replayed: Lsn,
    },
    /// It has met its target and stopped, as it was told.
    Stopped,
}

/// Watches a server that was started on a recovered directory.
///
/// That it answers is not enough: a server that was told that there is no more log promotes early, and a standby in front of a gap
/// looks healthy. So it must have replayed what `plan` counted on.
///
/// # Errors
///
/// The server stops, with the reason that its log gives; it does not let the role in that asks; it promoted before it had replayed what it should; it replays nothing any more;
/// or `limit` has passed. It is not stopped by this.
///
/// Cancellation: the job's cancellation, or dropping the future, ends the watching and nothing else.
pub async fn watch(
    server: &Server,
    plan: &RecoveryPlan,
    until: WatchUntil,
    limit: Duration,
    job: &JobContext,
) -> Result<RecoveryState> {
    let started = Instant::now();
    let mut progress = (Lsn::INVALID, started);
    let mut began = false;
    loop {
        let state = look(server, plan, &mut began).await?;
        let done = match &state {
            Some(RecoveryState::Consistent { replayed }) if plan.standby => {
                if *replayed > progress.0 {
                    progress = (*replayed, Instant::now());
                }
                let there = *replayed >= plan.reached.at_least && plan.target.stop == StopAt::Latest;
                if there {
                    return Ok(RecoveryState::Following { replayed: *replayed });
                }
                if progress.1.elapsed() > FROZEN && until == WatchUntil::Done {
                    let message = format!(
                        "the standby has replayed up to {replayed} and gets no further, although the archive has the log up to {}: \
                         {}",
                        plan.reached.at_least,
                        server.complaint()
                    );
                    return Err(Error::new(ErrorKind::Io, message));
                }
                until == WatchUntil::Consistent
            }
            Some(RecoveryState::Consistent { .. }) => until == WatchUntil::Consistent,
            Some(_) => true,
            None => false,
        };
        if let Some(state) = state.filter(|_| done) {
            return Ok(state);
        }
        if started.elapsed() > limit {
            let message = format!("the server has not recovered within {limit:?}; {}", server.complaint());
            return Err(Error::new(ErrorKind::Transient, message));
        }
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = job.cancellation().cancelled() => return Err(Error::cancelled()),
        }
    }
}

/// What the server says of itself; none as long as it says nothing.
async fn look(server: &Server, plan: &RecoveryPlan, began: &mut bool) -> Result<Option<RecoveryState>> {
    // A server that begins writes its number before it takes connections, and one that ends removes it.
    let running = server.is_running().unwrap_or(true);
    *began |= running;
    let pause = if plan.base.major_version() >= 14 {
        "pg_catalog.pg_get_wal_replay_pause_state()"
    } else {
        "case when pg_catalog.pg_is_wal_replay_paused() then 'paused' else '' end"
    };
    let ask = format!(
        "select pg_catalog.pg_is_in_recovery(), \
         case when pg_catalog.pg_is_in_recovery() then {pause} end, \
         coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')"
    );
    let asked = server.query("postgres", &[], &ask).await;
    let row = match asked {
        Ok(rows) => rows.into_iter().next().unwrap_or_default(),
        // Who is not let in now will not be later, and sees nothing however long it takes.
        Err(error) if running && error.kind() == ErrorKind::Denied => {
            let message = "the server runs, and how far it has recovered cannot be watched: have its pg_hba.conf let the role in, or \
                           ask it pg_is_in_recovery() and pg_last_wal_replay_lsn() yourself";
            return Err(Error::new(ErrorKind::Denied, format!("{message}; {error}")));
        }
        Err(_) if running => return Ok(None),
        Err(_) => return ended(server, *began),
    };
    let column = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
    let replayed: Lsn = column(2).parse()?;
    if column(0) == "t" {
        let paused = column(1) == "paused";
        // It also pauses where its settings are too small to let anybody in before it is consistent.
        let at_target = paused && plan.target.stop != StopAt::Latest;
        if at_target && !server.log().contains("pausing at the end of recovery") {
            return Ok(Some(RecoveryState::Consistent { replayed }));
        }
        return Ok(Some(if at_target {
            check_reached(plan, replayed, "paused")?;
            RecoveryState::Paused { replayed }
        } else {
            RecoveryState::Consistent { replayed }
        }));
    }
    let (timeline, at) = branch(server).await?;
    check_reached(plan, at, "became a primary")?;
    Ok(Some(RecoveryState::Promoted { timeline, at }))
}

/// The timeline of a primary that has just become one, and where it branched off.
async fn branch(server: &Server) -> Result<(Timeline, Lsn)> {
    // The last line of the history that it wrote.
    let ask = "select pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())";
    let file = server.value("postgres", ask).await?.unwrap_or_default();
    let number = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(1);
    let timeline = Timeline::new(number);
    let path = server.data().join("pg_wal").join(format!("{timeline}.history"));
    let history = tokio::fs::read_to_string(&path).await;
    let history = history.map_err(|error| {
        Error::io(
            format!("`{}`, which says where the server became a primary, cannot be read", path.display()),
            error,
        )
    })?;
    let history = TimelineHistory::parse(timeline, history.as_bytes())?;
    let parent = history.parent().ok_or_else(|| Error::corruption("a timeline's history is empty"))?;
    Ok((timeline, parent.switched_at))
}

fn check_reached(plan: &RecoveryPlan, replayed: Lsn, what: &str) -> Result<()> {
    if replayed >= plan.reached.at_least {
        return Ok(());
    }
    let message = format!(
        "the server {what} at {replayed}, too early: the plan goes to {} at least; its restore_command has told it that there is no \
         more log, and it must not be used",
        plan.reached.at_least
    );
    Err(Error::new(ErrorKind::Corruption, message))
}

fn ended(server: &Server, began: bool) -> Result<Option<RecoveryState>> {
    let log = server.log();
    if log.contains("shutdown at recovery target") && log.contains("database system is shut down") {
        return Ok(Some(RecoveryState::Stopped));
    }
    let gave_up = ["FATAL:", "PANIC:", "database system is shut down"].iter().any(|word| log.contains(word));
    if !began && !gave_up {
        // It has not yet begun.
        return Ok(None);
    }
    Err(Error::new(ErrorKind::Io, format!("the server has stopped: {}", server.complaint())))
}
