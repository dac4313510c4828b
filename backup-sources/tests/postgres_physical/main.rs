//! Physical backups of real servers: what is copied starts again and has the same rows, and nothing wrong passes for right.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../postgres_server/mod.rs"]
mod postgres_server;

mod changes;
mod exact;
mod pages;
mod restored;
mod sources;
mod standby;
mod summaries;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::report::{BackupReport, Outcome};
use backup_core::repository::{BackupOptions, CreateOptions, Repository, Snapshot};
use backup_core::{
    EntryKind, JobContext, RepositoryId, Resources, Result, SnapshotId, Source, SystemRandom, Unprotected,
};
use backup_sinks::MemorySink;
use backup_sources::postgres::{Connect, PostgresSource, PostgresSourceBuilder};
use postgres_server::{Cluster, Load, Stop, eventually};
use restored::PlacedTarget;

/// A repository in memory.
pub struct Setup {
    pub repository: Repository,
    pub sink: MemorySink,
    pub job: JobContext,
}

impl Setup {
    pub async fn new() -> Self {
        let sink = MemorySink::new();
        let job = JobContext::new().with_resources(Resources::new().with_workers(2));
        let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom).unwrap()));
        let shared = Arc::new(sink.clone());
        let repository =
            Repository::create(shared, protection, CreateOptions::default(), &job).await.unwrap();
        Self { repository, sink, job }
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

    pub async fn snapshot(&self, id: Option<SnapshotId>) -> Snapshot {
        self.repository.snapshot(id.unwrap(), &self.job).await.unwrap()
    }

    pub async fn position(&self, report: &BackupReport) -> BTreeMap<String, String> {
        self.snapshot(report.snapshot).await.info().position.clone()
    }

    /// The names of a snapshot's entries, in its order, with their kinds.
    pub async fn entries(&self, report: &BackupReport) -> Vec<(String, EntryKind)> {
        let snapshot = self.snapshot(report.snapshot).await;
        let mut stream = snapshot.entries(None, &self.job).await.unwrap();
        let mut entries = Vec::new();
        while let Some(stored) = stream.next().await.unwrap() {
            entries.push((stored.entry.name.to_string(), stored.entry.kind));
        }
        entries
    }

    /// Restores into a directory of its own, tablespaces beside it.
    pub async fn restore(&self, report: &BackupReport) -> Restored {
        let snapshot = self.snapshot(report.snapshot).await;
        let root = tempfile::Builder::new().prefix("pgr").tempdir().unwrap();
        let target = PlacedTarget::new(root.path());
        let done = self.repository.restore(&snapshot, &target, &Default::default(), &self.job).await.unwrap();
        assert!(done.failed.is_empty(), "{:?}", done.failed);
        let moved = target.moved();
        Restored { data: root.path().join("data"), root, moved }
    }
}

/// A data directory that was restored and not started.
pub struct Restored {
    pub root: tempfile::TempDir,
    pub data: PathBuf,
    /// Where tablespaces were, and where they are.
    pub moved: Vec<(String, PathBuf)>,
}

impl Restored {
    /// Asks the server's own judge, who must not look for the log.
    pub fn verify(&self, cluster: &Cluster) {
        cluster.account().own(self.root.path());
        let mut verify = cluster.version().judging().program("pg_verifybackup", &cluster.account());
        let said = postgres_server::run(verify.args(["--no-parse-wal", "--exit-on-error"]).arg(&self.data));
        assert!(said.contains("backup successfully verified"), "{said}");
    }

    /// Gives it the log that `cluster` has, and starts it.
    pub fn start(self, cluster: &Cluster) -> (Cluster, Self) {
        for entry in fs::read_dir(cluster.data().join("pg_wal")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_owned();
            if path.is_file() {
                fs::copy(&path, self.data.join("pg_wal").join(name)).unwrap();
            }
        }
        self.start_with_own_log(cluster)
    }

    /// Starts it with whatever log it has.
    pub fn start_with_own_log(self, cluster: &Cluster) -> (Cluster, Self) {
        let map = self.data.join("tablespace_map");
        if let Ok(mut text) = fs::read_to_string(&map) {
            for (from, to) in &self.moved {
                text = text.replace(from.as_str(), to.to_str().unwrap());
            }
            fs::write(&map, text).unwrap();
        }
        cluster.account().own(self.root.path());
        let restored = Cluster::adopt(cluster.version(), &self.data);
        restored.start();
        (restored, self)
    }
}

pub fn connect(cluster: &Cluster) -> Connect {
    Connect::parse_with(&cluster.conninfo("postgres"), |_| None).unwrap()
}

pub fn over_sql(cluster: &Cluster) -> PostgresSourceBuilder {
    PostgresSource::builder(connect(cluster)).fast_checkpoint(true).named("cluster")
}

pub fn local(cluster: &Cluster) -> PostgresSourceBuilder {
    over_sql(cluster).data_directory(cluster.data())
}

pub fn both(cluster: &Cluster) -> [PostgresSource; 2] {
    [local(cluster).build().unwrap(), over_sql(cluster).connections(3).build().unwrap()]
}

/// A cluster that keeps its log, so that a test can copy it by hand.
pub fn keeping() -> postgres_server::Builder {
    Cluster::builder().config("wal_keep_size = '4GB'\nautovacuum = off")
}

/// Ends a load, and waits until what it had asked for last is done or given up: its connections outlive it by a moment.
pub fn end(load: Load, cluster: &Cluster) {
    drop(load);
    eventually("the end of the load", || {
        let others = "backend_type = 'client backend' and pid <> pg_backend_pid()";
        (cluster.sql(&format!("select count(*) from pg_stat_activity where {others}")) == "0").then_some(())
    });
}

/// The sums of pgbench's tables.
pub fn sums(cluster: &Cluster) -> Vec<String> {
    let tables = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];
    tables.map(|table| cluster.checksum("postgres", table)).into()
}

pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// What the server's own check of all its pages says, once it is stopped.
pub fn check_pages(cluster: &Cluster) {
    cluster.stop(Stop::Fast);
    postgres_server::run(cluster.program("pg_checksums").args(["--check", "-D"]).arg(cluster.data()));
}
