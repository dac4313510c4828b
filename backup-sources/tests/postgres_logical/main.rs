//! Dumps of real servers: what is restored has the same rows, and nothing broken off passes for a dump.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "../postgres_server/mod.rs"]
mod postgres_server;

mod broken;
mod hostile;
mod little;
mod refused;
mod round_trip;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::report::{BackupReport, Outcome};
use backup_core::repository::{BackupOptions, CreateOptions, Repository, Snapshot};
use backup_core::{EntryName, JobContext, RepositoryId, Result, Source, SystemRandom, Unprotected};
use backup_sinks::MemorySink;
use backup_sources::postgres::Connect;
use backup_sources::postgres::logical::restore::LogicalRestore;
use backup_sources::postgres::logical::{LogicalSource, LogicalSourceBuilder};
use postgres_server::Cluster;

/// A repository in memory.
pub struct Setup {
    pub repository: Repository,
    pub job: JobContext,
}

impl Setup {
    pub async fn new() -> Self {
        let job = JobContext::new();
        let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom).unwrap()));
        let sink = Arc::new(MemorySink::new());
        let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await.unwrap();
        Self { repository, job }
    }

    pub async fn try_backup(&self, source: &dyn Source) -> Result<BackupReport> {
        self.repository.backup(source, &BackupOptions::default(), &self.job).await
    }

    /// A backup of which nothing is missing.
    pub async fn backup(&self, source: &dyn Source) -> BackupReport {
        let report = self.try_backup(source).await.unwrap();
        assert_eq!(report.outcome, Outcome::Complete, "{:?}", report.skipped);
        report
    }

    pub async fn snapshot(&self, report: &BackupReport) -> Snapshot {
        self.repository.snapshot(report.snapshot.unwrap(), &self.job).await.unwrap()
    }

    /// A backup that fails, and leaves no snapshot.
    pub async fn failure(&self, source: &dyn Source) -> String {
        let error = self.try_backup(source).await.expect_err("it is no backup").to_string();
        assert_eq!(self.repository.snapshots(&self.job).await.unwrap().len(), 0, "{error}");
        error
    }

    /// Plans and does a restore.
    pub async fn restore(&self, restore: &LogicalRestore, report: &BackupReport) -> Result<()> {
        let snapshot = self.snapshot(report).await;
        let plan = restore.plan(&snapshot, &self.job).await?;
        restore.apply(&plan, &snapshot, &self.job).await.map(|_| ())
    }

    /// The names of a snapshot's entries.
    pub async fn names(&self, report: &BackupReport) -> Vec<EntryName> {
        let mut entries = self.snapshot(report).await.entries(None, &self.job).await.unwrap();
        let mut names = Vec::new();
        while let Some(stored) = entries.next().await.unwrap() {
            names.push(stored.entry.name);
        }
        names
    }
}

pub fn connect(cluster: &Cluster) -> Connect {
    Connect::parse_with(&cluster.conninfo("postgres"), |_| None).unwrap()
}

/// A source with the programs of the cluster's version.
pub fn source(cluster: &Cluster) -> LogicalSourceBuilder {
    LogicalSource::builder(connect(cluster)).programs(cluster.version().bin())
}

pub fn restore(cluster: &Cluster) -> LogicalRestore {
    LogicalRestore::new(connect(cluster)).programs(cluster.version().bin())
}

/// A name in a statement.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A directory of programs, in which these stand as scripts and the others as they are. In a script, `REAL` is the program itself.
pub fn programs(cluster: &Cluster, directory: &Path, scripts: &[(&str, &str)]) -> PathBuf {
    let bin = cluster.version().bin();
    let place = directory.join("bin");
    fs::create_dir(&place).unwrap();
    for name in ["pg_dump", "pg_dumpall", "pg_restore"] {
        match scripts.iter().find(|(script, _)| *script == name) {
            Some((_, "")) => {}
            Some((_, script)) => {
                let script = script.replace("REAL", &bin.join(name).display().to_string());
                fs::write(place.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
                fs::set_permissions(place.join(name), fs::Permissions::from_mode(0o755)).unwrap();
            }
            None => std::os::unix::fs::symlink(bin.join(name), place.join(name)).unwrap(),
        }
    }
    place
}

/// All that a database has, as SQL that differs only where the database does.
pub fn script(cluster: &Cluster, database: &str, token: &str) -> String {
    let mut dump = cluster.program("pg_dump");
    dump.args(["--no-owner", "--no-privileges", "-d", &cluster.conninfo(database)]);
    dump.arg(format!("--restrict-key={token}"));
    postgres_server::run(&mut dump)
}
