//! Drills: recoveries that are rehearsed, in a cluster that is thrown away.
//!
//! A [`Drill`] recovers a base backup to any moment, starts a server on it that keeps to itself, asks it what it should know, and removes
//! it, whatever happens. The [`DrillReport`] is the evidence: whether all was as it should be, how long the recovery took and how much
//! was lost.
//!
//! ```no_run
//! # async fn example(source: &dyn backup_sources::postgres::drill::DrillSource) -> backup_core::Result<()> {
//! use backup_core::JobContext;
//! use backup_sources::postgres::drill::{Check, Drill, Expect};
//! use backup_sources::postgres::recovery::RecoveryTarget;
//!
//! let drill = Drill::new("/var/lib/drills", RecoveryTarget::latest()).check(Check::new(
//!     "orders are there",
//!     "shop",
//!     "select count(*) > 1000 from public.orders",
//!     Expect::value("t"),
//! ));
//! let report = drill.run(source, &JobContext::new()).await?;
//! println!("passed: {}, recovered in {:?}", report.passed, report.rto);
//! # Ok(())
//! # }
//! ```
//!
//! The server listens on a socket in a directory that only its own user can enter; it does not archive, has no logical replication, so
//! that no subscription takes what the real cluster waits for, loads no libraries, so that no scheduler starts its jobs, and waits for no
//! synchronous standby. A log that makes a tablespace is not rehearsed: replay would write into the directory of the real one (take a base backup
//! after making a tablespace). Its cluster's configuration is not read. What a query calls it does run, but in read-only transactions: a
//! check must not ask views that reach out to foreign servers.

mod check;
mod common;
mod configured;
mod examine;
mod recorded;
mod report;
mod safe;
mod scratch;
mod source;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use backup_core::{Error, JobContext, Result, Timestamp};

use crate::postgres::recovery::{
    Place, PlanRequest, Programs, RecoveryPlan, RecoverySettings, RecoveryState, RecoveryTarget, Refusal,
    Refused, Server, Speed, StopAt, TargetAction, WatchUntil, finish, prepare, watch,
};
pub use check::{Check, CheckResult, Expect, RecordedTable};
pub use common::{CommonReport, common_moment};
pub use configured::{ClusterSettings, DrillSettings};
pub use recorded::{RecordedMoment, TableName};
pub use report::{DrillFailure, DrillPhase, DrillReport, Examination};
use scratch::Scratch;
pub use source::{DrillSource, StoredCluster};

/// The number in the name of the socket, which is alone in its directory.
const PORT: u16 = 5432;

/// A rehearsal of a recovery.
#[derive(Debug, Clone)]
pub struct Drill {
    scratch: PathBuf,
    target: RecoveryTarget,
    programs: Option<PathBuf>,
    owner: Option<(u32, u32)>,
    role: String,
    preload: String,
    checks: Vec<Check>,
    verify: bool,
    amcheck: bool,
    allow_unproven: bool,
    recovery_limit: Duration,
    check_limit: Duration,
}

impl Drill {
    /// A drill that recovers to `target`, in a directory of its own below `scratch`.
    pub fn new(scratch: impl Into<PathBuf>, target: RecoveryTarget) -> Self {
        Self {
            scratch: scratch.into(),
            target,
            programs: None,
            owner: None,
            role: "postgres".to_owned(),
            preload: String::new(),
            checks: Vec::new(),
            verify: true,
            amcheck: true,
            allow_unproven: false,
            recovery_limit: Duration::from_secs(24 * 3600),
            check_limit: Duration::from_secs(3600),
        }
    }

    /// The same with a question.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// The same with the tables that were recorded when the target was made.
    #[must_use]
    pub fn tables<'a>(self, recorded: impl IntoIterator<Item = &'a RecordedTable>) -> Self {
        recorded.into_iter().fold(self, |drill, table| drill.check(Check::table(table)))
    }

    /// The same with the server's programs in a directory. Otherwise those of the cluster's version are looked for.
    #[must_use]
    pub fn programs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.programs = Some(directory.into());
        self
    }

    /// The same with the user and group as whom the server runs, for a process of root, as whom no server does.
    #[must_use]
    pub fn run_as(mut self, user: u32, group: u32) -> Self {
        self.owner = Some((user, group));
        self
    }

    /// The same, asking as another role than `postgres`. It must be a superuser, for `pg_amcheck` at least.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = role.into();
        self
    }

    /// The same with libraries that the server loads (`shared_preload_libraries`), where the cluster's tables or functions need them. One
    /// that starts jobs by itself starts them.
    #[must_use]
    pub fn preload(mut self, libraries: impl Into<String>) -> Self {
        self.preload = libraries.into();
        self
    }

    /// The same without asking `pg_verifybackup`, which reads all files once more.
    #[must_use]
    pub fn without_verifying(mut self) -> Self {
        self.verify = false;
        self
    }

    /// The same without asking `pg_amcheck`, which reads all tables and indexes.
    #[must_use]
    pub fn without_amcheck(mut self) -> Self {
        self.amcheck = false;
        self
    }

    /// The same, taking the target on trust where nobody has looked into the segments that would prove it.
    #[must_use]
    pub fn allow_unproven(mut self) -> Self {
        self.allow_unproven = true;
        self
    }

    /// The same with a limit on how long the server may take to recover; it is a day otherwise.
    #[must_use]
    pub fn recovery_limit(mut self, limit: Duration) -> Self {
        self.recovery_limit = limit;
        self
    }

    /// The same with a limit on how long each question may take; it is an hour otherwise.
    #[must_use]
    pub fn check_limit(mut self, limit: Duration) -> Self {
        self.check_limit = limit;
        self
    }

    /// Rehearses. What goes wrong is in the report, which then says that the drill has not passed.
    ///
    /// # Errors
    ///
    /// The job was cancelled. The cluster is removed all the same.
    ///
    /// Cancellation: the future may be dropped. The server is then ended and everything removed in the background, also at the end of
    /// this process.
    pub async fn run(&self, source: &dyn DrillSource, job: &JobContext) -> Result<DrillReport> {
        let mut report = DrillReport::new(self.target.to_string(), job.now());
        let began = Instant::now();
        let mut scratch = None;
        let mut part = "plan";
        let work = self.rehearse(source, &mut report, &mut scratch, &mut part, began, job);
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = job.cancellation().cancelled() => Err(Error::cancelled()),
        };
        let cancelled = matches!(&outcome, Err(error) if error.is_cancelled());
        if let Err(error) = outcome {
            let refusals = refusals(&error);
            report.failures.push(DrillFailure { part: part.to_owned(), why: error.to_string(), refusals });
        }
        match scratch.take() {
            None => report.removed = true,
            Some(scratch) => match tokio::task::spawn_blocking(move || scratch.remove()).await {
                Ok(Ok(())) => report.removed = true,
                Ok(Err(error)) => report.fail("remove", error.to_string()),
                Err(error) => report.fail("remove", error.to_string()),
            },
        }
        if cancelled {
            return Err(Error::cancelled());
        }
        report.passed = report.failures.is_empty();
        tracing::info!(passed = report.passed, rto = ?report.rto, rpo = ?report.rpo, "a drill has ended");
        Ok(report)
    }

    async fn rehearse(
        &self,
        source: &dyn DrillSource,
        report: &mut DrillReport,
        scratch: &mut Option<Scratch>,
        part: &mut &'static str,
        began: Instant,
        job: &JobContext,
    ) -> Result<()> {
        let mut clock = Clock { at: began };
        let bases = source.bases(job).await?;
        // Also where there is no plan: whoever reads the evidence must know whose drill failed.
        report.system_identifier = bases.last().map(|base| base.system_identifier);
        let inventory = source.inventory(job).await?;
        let (parent, owner) = (self.scratch.clone(), self.owner);
        let made = tokio::task::spawn_blocking(move || Scratch::new(&parent, owner)).await;
        let scratch =
            scratch.insert(made.map_err(|error| Error::internal("a drill broke off").with_source(error))??);
        let plan = self.plan(&bases, &inventory, scratch).await?;
        report.base = Some(plan.base.id.clone());
        report.system_identifier = Some(plan.base.system_identifier);
        report.reached = Some(plan.reached.clone());
        (report.file_bytes, report.log_bytes) = (plan.file_bytes, plan.log_bytes);
        let programs = match &self.programs {
            Some(directory) => Programs::at(directory).await?,
            None => Programs::find(plan.base.major_version()).await?,
        };
        clock.stop(report, part);

        *part = "restore";
        let target = prepare(&plan).await?;
        let restored = source.restore(&plan.base, &target, job).await?;
        let mut settings = RecoverySettings::new(source.restore_command()).action(TargetAction::Pause);
        settings.owner = self.owner;
        let recovered = finish(&plan, &target, &restored, &settings).await?;
        clock.stop(report, part);

        // Judging the files is no part of a recovery, and its time is taken off.
        *part = "verify";
        let before = Instant::now();
        report.verified = match self.verify {
            true => examine::files(&programs, &recovered, !plan.base.tablespaces.is_empty()).await,
            false => Examination::not_done("it was not asked for"),
        };
        if let Examination::Failed { why } = &report.verified {
            let why = why.clone();
            report.fail("verify", why);
        }
        let verifying = before.elapsed();
        clock.stop(report, part);

        *part = "start";
        let configuration = safe::configuration(&programs, recovered.owner, &recovered.data).await?;
        safe::write(scratch, &configuration, self.owner)?;
        let server = Server::new(programs, &recovered, scratch.socket(), PORT).user(&self.role);
        let server = safe::keep_to_itself(server, scratch, &self.preload);
        server.start().await?;
        clock.stop(report, part);

        *part = "recover";
        let state = watch(&server, &plan, WatchUntil::Done, self.recovery_limit, job).await?;
        report.rto = Some(began.elapsed().saturating_sub(verifying));
        clock.stop(report, part);
        self.measure(&server, &state, report).await?;
        let writable = matches!(state, RecoveryState::Promoted { .. });
        report.state = Some(state);

        *part = "check";
        for check in &self.checks {
            let result = check.ask(&server, self.check_limit).await;
            if let Some(why) = &result.why {
                report.fail("check", format!("{}: {why}", result.name));
            }
            report.checks.push(result);
        }
        clock.stop(report, part);

        *part = "amcheck";
        report.amcheck = match self.amcheck {
            true => examine::relations(&server, writable).await,
            false => Examination::not_done("it was not asked for"),
        };
        if let Examination::Failed { why } = &report.amcheck {
            let why = why.clone();
            report.fail("amcheck", why);
        }
        clock.stop(report, part);

        *part = "remove";
        server.stop().await?;
        clock.stop(report, part);
        Ok(())
    }

    async fn plan(
        &self,
        bases: &[crate::postgres::recovery::BaseBackup],
        inventory: &crate::postgres::recovery::LogInventory,
        scratch: &Scratch,
    ) -> Result<RecoveryPlan> {
        let mut place = Place::new(scratch.data());
        for (oid, _) in
            bases.iter().flat_map(|base| &base.tablespaces).filter(|(_, place)| place.is_absolute())
        {
            place = place.tablespace(*oid, scratch.tablespaces().join(oid.to_string()));
        }
        let (surveyed, all) = (place.clone(), bases.to_vec());
        let survey = tokio::task::spawn_blocking(move || surveyed.survey(&all)).await;
        let survey = survey.map_err(|error| Error::internal("a drill broke off").with_source(error))??;
        let request = PlanRequest {
            bases,
            inventory,
            target: &self.target,
            place: Some(&survey),
            programs: None,
            standby: false,
            allow_unproven: self.allow_unproven,
            speed: Speed::default(),
        };
        let plan = RecoveryPlan::make(&request)?;
        // An empty directory is no reason for a rehearsal to write there: nothing outside of its own is removed afterwards.
        let outside = plan.made_tablespaces.iter().map(|made| Refusal::TablespaceMade {
            oid: made.oid,
            directory: PathBuf::from(&made.directory),
            at: made.lsn,
            why: "no rehearsal writes outside of its own directory".to_owned(),
        });
        let reasons: Vec<Refusal> = outside.collect();
        if !reasons.is_empty() {
            return Err(Refused { base: Some(plan.base.id), reasons }.into());
        }
        Ok(plan)
    }

    /// How far it got, and what was lost.
    async fn measure(&self, server: &Server, state: &RecoveryState, report: &mut DrillReport) -> Result<()> {
        report.replayed = match state {
            RecoveryState::Consistent { replayed }
            | RecoveryState::Paused { replayed }
            | RecoveryState::Following { replayed } => Some(*replayed),
            RecoveryState::Promoted { at, .. } => Some(*at),
            RecoveryState::Stopped => None,
        };
        let ask = "select (extract(epoch from pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint";
        let micros = server.value("postgres", ask).await?.and_then(|micros| micros.parse::<i64>().ok());
        let Some(micros) = micros else { return Ok(()) };
        let nanos = u32::try_from(micros.rem_euclid(1_000_000)).unwrap_or_default().saturating_mul(1000);
        let until = Timestamp::new(micros.div_euclid(1_000_000), nanos);
        report.recovered_until = Some(until);
        if self.target.stop == StopAt::Latest {
            report.rpo = Some(between(until, report.started));
        }
        Ok(())
    }
}

/// Measures parts that follow each other.
struct Clock {
    at: Instant,
}

impl Clock {
    fn stop(&mut self, report: &mut DrillReport, part: &str) {
        let duration = self.at.elapsed();
        report.phases.push(DrillPhase { part: part.to_owned(), duration });
        self.at = Instant::now();
    }
}

/// The time from one moment to a later one; none where clocks say that it is not later.
fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    let nanos = |time: Timestamp| i128::from(time.seconds()) * 1_000_000_000 + i128::from(time.nanoseconds());
    let nanos = nanos(later).saturating_sub(nanos(earlier)).max(0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Why a recovery was refused, if it was.
fn refusals(error: &Error) -> Vec<crate::postgres::recovery::Refusal> {
    let source = std::error::Error::source(error);
    let refused = source.and_then(|source| source.downcast_ref::<crate::postgres::recovery::Refused>());
    refused.map(|refused| refused.reasons.clone()).unwrap_or_default()
}
