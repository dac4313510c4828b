//! Recoveries as a program would do them, from a base backup and an archive of these tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{JobContext, Result};
use backup_sources::postgres::recovery::{
    LogInventory, Place, PlanRequest, Programs, Recovered, RecoveryPlan, RecoverySettings, RecoveryState,
    RecoveryTarget, Refused, Server, Speed, WatchUntil, finish, prepare, watch,
};

use super::{Archive, Base, restore_tree};
use crate::postgres_server::{Account, Cluster, Guard, Version, free_port};

/// Where a recovery goes to: a directory for the data, and beside it whatever else.
#[derive(Debug)]
pub struct Site {
    pub root: tempfile::TempDir,
    pub account: Account,
}

impl Site {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("site").tempdir().unwrap();
        let account = Account::unprivileged();
        std::fs::create_dir(root.path().join("s")).unwrap();
        account.own(root.path());
        Self { root, account }
    }

    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The data directory, and tablespaces beside it.
    pub fn place(&self, base: &Base) -> Place {
        let oids = base.backup.tablespaces.keys();
        oids.fold(Place::new(self.data()), |place, oid| {
            place.tablespace(*oid, self.root.path().join(format!("space-{oid}")))
        })
    }

    pub fn plan(
        &self,
        bases: &[&Base],
        inventory: &LogInventory,
        target: &RecoveryTarget,
    ) -> std::result::Result<RecoveryPlan, Refused> {
        self.plan_with(bases, inventory, target, |place| place, |request| request)
    }

    pub fn plan_with(
        &self,
        bases: &[&Base],
        inventory: &LogInventory,
        target: &RecoveryTarget,
        place: impl FnOnce(Place) -> Place,
        change: impl for<'a> FnOnce(PlanRequest<'a>) -> PlanRequest<'a>,
    ) -> std::result::Result<RecoveryPlan, Refused> {
        let backups: Vec<_> = bases.iter().map(|base| base.backup.clone()).collect();
        let survey = place(self.place(bases[0])).survey(&backups).unwrap();
        RecoveryPlan::make(&change(PlanRequest {
            bases: &backups,
            inventory,
            target,
            place: Some(&survey),
            programs: Some(Version::wanted().0),
            standby: false,
            allow_unproven: false,
            speed: Speed::default(),
        }))
    }

    pub fn settings(&self, archive: &Archive) -> RecoverySettings {
        let mut settings = RecoverySettings::new(archive.restore_command());
        settings.owner = self.account.other();
        settings
    }

    /// Prepares, restores and finishes.
    pub async fn put(
        &self,
        plan: &RecoveryPlan,
        base: &Base,
        settings: &RecoverySettings,
    ) -> Result<Recovered> {
        put(plan, &base.files(), settings).await
    }

    /// A server on what was put in place.
    pub async fn server(&self, recovered: &Recovered) -> Server {
        let programs = Programs::at(Version::wanted().bin()).await.unwrap();
        Server::new(programs, recovered, self.root.path().join("s"), free_port()).with("listen_addresses", "")
    }

    /// All of it: the server, and where it got to.
    pub async fn recover(
        &self,
        plan: &RecoveryPlan,
        base: &Base,
        settings: &RecoverySettings,
    ) -> Result<(Running, RecoveryState)> {
        let recovered = self.put(plan, base, settings).await?;
        let server = self.server(&recovered).await;
        let running = Running::new(server);
        running.0.start().await?;
        let limit = Duration::from_secs(120);
        let state = watch(&running.0, plan, WatchUntil::Done, limit, &JobContext::new()).await?;
        Ok((running, state))
    }
}

pub async fn put(plan: &RecoveryPlan, files: &Path, settings: &RecoverySettings) -> Result<Recovered> {
    let target = prepare(plan).await?;
    let report = restore_tree(files, &target, &JobContext::new()).await?;
    finish(plan, &target, &report, settings).await
}

/// A server that ends with this.
#[derive(Debug)]
pub struct Running(pub Server, Guard);

impl Running {
    pub fn new(server: Server) -> Self {
        let guard = Guard::new(server.data(), None);
        Self(server, guard)
    }

    pub async fn sql(&self, statement: &str) -> String {
        let rows = self.0.query("postgres", &[], statement).await.unwrap();
        let text = |row: Vec<Option<String>>| {
            row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|")
        };
        rows.into_iter().map(text).collect::<Vec<_>>().join("\n")
    }

    /// The same server as the harness has it, for what that can do.
    pub async fn stop(self) {
        self.0.stop().await.unwrap();
    }
}

/// Whether a server starts in a directory. It must not be one that recovers for long.
pub fn starts(data: &Path) -> std::result::Result<(), String> {
    let cluster = Cluster::adopt(Version::wanted(), data);
    cluster.try_start()
}
