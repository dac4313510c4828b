//! Drills over real clusters: what they show, what makes them fail, and what they must not do.
#![cfg(feature = "postgres")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod postgres_archive;
mod postgres_server;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    BackupOptions, CancellationToken, CreateOptions, JobContext, Repository, RepositoryId, RestoreReport,
    Result, Target, Unprotected,
};
use backup_sinks::MemorySink;
use backup_sources::postgres::drill::{
    Check, Drill, DrillReport, DrillSource, Examination, Expect, RecordedTable, StoredCluster,
};
use backup_sources::postgres::recovery::{
    BaseBackup, LogInventory, Programs, Recovered, RecoveryState, RecoveryTarget, Refusal, Server,
};
use backup_sources::postgres::{Connect, PostgresSource};
use postgres_archive::{Archive, Base, restore_tree};
use postgres_server::{Account, Cluster, Version, eventually};

/// The packaged 18 has no `pg_verifybackup` that works.
fn can_verify() -> bool {
    Version::wanted() <= Version(16)
}

fn assert_verified(report: &DrillReport) {
    match can_verify() {
        true => assert_eq!(report.verified, Examination::Passed),
        false => assert!(matches!(report.verified, Examination::NotDone { .. }), "{:?}", report.verified),
    }
}

/// A base backup and an archive of these tests.
#[derive(Debug)]
struct Given {
    backup: BaseBackup,
    files: PathBuf,
    inventory: LogInventory,
    restore_command: String,
}

#[async_trait]
impl DrillSource for Given {
    async fn bases(&self, _: &JobContext) -> Result<Vec<BaseBackup>> {
        Ok(vec![self.backup.clone()])
    }

    async fn inventory(&self, _: &JobContext) -> Result<LogInventory> {
        Ok(self.inventory.clone())
    }

    async fn restore(&self, _: &BaseBackup, target: &dyn Target, job: &JobContext) -> Result<RestoreReport> {
        restore_tree(&self.files, target, job).await
    }

    fn restore_command(&self) -> String {
        self.restore_command.clone()
    }
}

/// A cluster, what is there of it, and what its tables had at a named moment.
struct Scene {
    archive: Archive,
    primary: Cluster,
    base: Base,
    given: Given,
    recorded: Vec<RecordedTable>,
    scratch: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with("", |_| {}).await
    }

    async fn with(config: &str, prepare: impl FnOnce(&Cluster)) -> Self {
        let archive = Archive::new();
        let config = archive.settings() + config;
        let primary = Cluster::builder().initdb("--wal-segsize=1").config(&config).start();
        primary.tablespace("elsewhere");
        primary.bench_init_with(1, &["--tablespace=elsewhere"]);
        primary.sql("create database \"Shop of 'things'\"");
        primary.sql_in("Shop of 'things'", "create table \"Orders\" as select n, now() as at, 1.5::float8 as price from generate_series(1, 1000) n");
        // Or reading it would write its pages, and replay would write them again over a damaged one.
        primary.sql_in("Shop of 'things'", "vacuum (freeze) \"Orders\"");
        prepare(&primary);
        let base = Base::take(&primary, "base");
        primary.bench(2, 100);
        let mut recorded = Vec::new();
        let server = asked(&primary).await;
        for table in ["pgbench_accounts", "pgbench_history", "pgbench_tellers"] {
            recorded.push(RecordedTable::of(&server, "postgres", "public", table).await.unwrap());
        }
        recorded.push(RecordedTable::of(&server, "Shop of 'things'", "public", "Orders").await.unwrap());
        primary.sql("select pg_create_restore_point('recorded')");
        primary.bench(2, 50);
        archive.flush(&primary);
        let given = Given {
            backup: base.backup.clone(),
            files: base.files(),
            inventory: archive.inventory(&primary),
            restore_command: archive.restore_command(),
        };
        let scratch = tempfile::Builder::new().prefix("drills").tempdir().unwrap();
        primary.account().own(scratch.path());
        Self { archive, primary, base, given, recorded, scratch }
    }

    fn drill(&self, target: RecoveryTarget) -> Drill {
        let drill = Drill::new(self.scratch.path(), target).programs(Version::wanted().bin());
        let drill = drill.recovery_limit(Duration::from_secs(120)).check_limit(Duration::from_secs(60));
        match Account::unprivileged().other() {
            Some((user, group)) => drill.run_as(user, group),
            None => drill,
        }
    }

    async fn run(&self, drill: Drill) -> DrillReport {
        let report = drill.run(&self.given, &JobContext::new()).await.unwrap();
        let text = serde_json::to_string_pretty(&report).unwrap();
        assert_eq!(serde_json::from_str::<DrillReport>(&text).unwrap(), report);
        for failure in &report.failures {
            println!("{}: {}", failure.part, failure.why);
        }
        assert!(report.removed);
        self.nothing_is_left();
        report
    }

    fn nothing_is_left(&self) {
        assert_eq!(fs::read_dir(self.scratch.path()).unwrap().count(), 0);
        let ps = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
        let place = self.scratch.path().display().to_string();
        assert!(!String::from_utf8_lossy(&ps.stdout).contains(&place));
    }
}

/// The primary, as the drill's own questions are asked.
async fn asked(primary: &Cluster) -> Server {
    let programs = Programs::at(Version::wanted().bin()).await.unwrap();
    let recovered = Recovered { data: primary.data().to_owned(), owner: (0, 0), removed: 0 };
    Server::new(programs, &recovered, primary.socket(), primary.port())
}

fn parts(report: &DrillReport) -> Vec<&str> {
    let mut parts: Vec<&str> = report.failures.iter().map(|failure| failure.part.as_str()).collect();
    parts.dedup();
    parts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_shows_that_what_was_recorded_comes_back_and_how_long_it_takes() {
    let scene = Scene::new().await;
    let question = Check::new(
        "a question",
        "Shop of 'things'",
        "select max(n) from public.\"Orders\"",
        Expect::value("1000"),
    );
    let drill = scene.drill(RecoveryTarget::name("recorded")).tables(&scene.recorded).check(question);
    let report = scene.run(drill).await;
    assert!(report.passed, "{:?}", report.failures);
    assert_eq!(report.checks.len(), 5);
    assert!(matches!(report.state, Some(RecoveryState::Paused { .. })), "{:?}", report.state);
    assert_verified(&report);
    println!("RTO {:?}, recovered until {:?}", report.rto.unwrap(), report.recovered_until.unwrap());
    assert_eq!(report.rpo, None, "a moment that was chosen says nothing of what would be lost");

    // Everything there is: the rows that came since are no more what was recorded, and the database can be written to.
    let report = scene.run(scene.drill(RecoveryTarget::latest())).await;
    assert!(report.passed, "{:?}", report.failures);
    assert!(matches!(report.state, Some(RecoveryState::Promoted { .. })), "{:?}", report.state);
    println!("RTO {:?}, RPO {:?}; phases {:?}", report.rto.unwrap(), report.rpo.unwrap(), report.phases);
    assert!(report.rpo.unwrap() < Duration::from_secs(300));
    match Version::wanted().has_extension("amcheck") {
        true => assert_eq!(report.amcheck, Examination::Passed),
        false => assert!(matches!(report.amcheck, Examination::NotDone { .. }), "{:?}", report.amcheck),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_planted_faults_make_it_fail() {
    let mut scene = Scene::new().await;
    let drill = scene.drill(RecoveryTarget::name("recorded")).tables(&scene.recorded);

    // A wrong count.
    let mut wrong = scene.recorded[0].clone();
    wrong.rows += 1;
    let report = scene.run(scene.drill(RecoveryTarget::name("recorded")).check(Check::table(&wrong))).await;
    assert_eq!((report.passed, parts(&report)), (false, vec!["check"]));
    assert!(report.failures[0].why.contains("expected `100001|"), "{:?}", report.failures);
    assert!(report.rto.is_some());

    // A damaged page, which its own checksum and the manifest both tell. It changes nothing that the log writes again.
    let table = scene.primary.sql_in("Shop of 'things'", "select pg_relation_filepath('\"Orders\"')");
    let file = fs::File::options().read(true).write(true).open(scene.given.files.join(&table)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 8192 + 4000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 8192 + 4000).unwrap();
    let report = scene.run(drill.clone()).await;
    assert!(!report.passed);
    assert!(
        !can_verify() || matches!(&report.verified, Examination::Failed { why } if why.contains(&table)),
        "{:?}",
        report.verified
    );
    let check = report.checks.iter().find(|check| check.database == "Shop of 'things'").unwrap();
    assert!(check.why.as_ref().is_some_and(|why| why.contains("invalid page")), "{check:?}");
    // Without a manifest the checksum of the page is enough.
    let manifest = fs::read(scene.given.files.join("backup_manifest")).unwrap();
    fs::remove_file(scene.given.files.join("backup_manifest")).unwrap();
    let report = scene.run(drill.clone().without_amcheck()).await;
    assert_eq!(parts(&report), ["check"]);
    assert!(matches!(report.verified, Examination::NotDone { .. }));
    fs::write(scene.given.files.join("backup_manifest"), manifest).unwrap();
    file.write_all_at(&byte, 8192 + 4000).unwrap();

    // A missing segment: known to the inventory, and gone since.
    let segment = scene.archive.names().into_iter().filter(|name| name.len() == 24).nth_back(1).unwrap();
    let needed = scene.base.backup.last_segment().to_string();
    let kept = fs::read(scene.archive.file(&needed)).unwrap();
    scene.archive.remove(&needed);
    let report = scene.run(drill.clone()).await;
    assert_eq!(parts(&report), ["recover"], "{segment}");
    let inventory = std::mem::replace(&mut scene.given.inventory, scene.archive.inventory(&scene.primary));
    let report = scene.run(drill.clone()).await;
    assert_eq!(parts(&report), ["plan"]);
    assert_eq!(report.system_identifier, Some(scene.primary.system_identifier()), "it says what it was of");
    assert!(
        matches!(report.failures[0].refusals[0], Refusal::MissingSegments { .. }),
        "{:?}",
        report.failures
    );
    assert!(report.failures[0].why.contains(&needed));
    scene.given.inventory = inventory;
    fs::write(scene.archive.file(&needed), kept).unwrap();
    scene.primary.account().own(&scene.archive.file(&needed));

    // A server that does not start: a library that it is told to load is not there.
    let report = scene.run(drill.clone().preload("no_such_library")).await;
    assert_eq!(parts(&report), ["recover"]);
    assert!(report.failures[0].why.contains("no_such_library"), "{:?}", report.failures);

    // And without faults it passes.
    let report = scene.run(drill).await;
    assert!(report.passed, "{:?}", report.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_45_a_rehearsed_cluster_keeps_to_itself() {
    let publisher = Cluster::builder().config("wal_level = logical").start();
    publisher.sql("create table queue (n int primary key)");
    publisher.sql("create publication everything for all tables");
    let connection = publisher.conninfo("postgres").replace('\'', "''");
    let config = "listen_addresses = '*'\nsession_preload_libraries = ''\nmax_connections = 77\nsynchronous_standby_names = ''\n";
    let scene = Scene::with(config, |primary| {
        primary.sql("create table queue (n int primary key)");
        primary.sql(&format!("create subscription taking connection '{connection}' publication everything"));
        primary.sql("alter system set shared_preload_libraries = 'no_such_scheduler'");
        primary.sql("alter system set archive_mode = 'always'");
        primary.sql("alter system set synchronous_standby_names = 'nobody'");
        primary.sql("alter system set shared_buffers = '4TB'");
    })
    .await;
    let taken = "select count(*) from pg_stat_replication";
    eventually("the subscription", || (publisher.sql(taken) == "1").then_some(()));
    // Only the real cluster takes from the publisher; now it does not, and what comes waits for it.
    scene.primary.stop(postgres_server::Stop::Immediate);
    eventually("the end of the subscription", || (publisher.sql(taken) == "0").then_some(()));
    publisher.sql("insert into queue values (1)");
    let before = scene.archive.names();
    let setting = |name: &str, value: &str| {
        Check::new(name, "postgres", format!("select current_setting('{name}')"), Expect::value(value))
    };
    let mut drill = scene.drill(RecoveryTarget::latest());
    for (name, value) in [
        ("listen_addresses", ""),
        ("archive_mode", "off"),
        ("shared_preload_libraries", ""),
        ("synchronous_standby_names", ""),
        ("max_logical_replication_workers", "0"),
        ("default_transaction_read_only", "on"),
        ("max_connections", "77"),
        ("unix_socket_permissions", "0700"),
    ] {
        drill = drill.check(setting(name, value));
    }
    if Version::wanted() >= Version(18) {
        drill = drill.check(setting("event_triggers", "off"));
    }
    let nobody = "select * from pg_stat_subscription where pid is not null";
    drill = drill.check(Check::new(
        "a pause, in which it could take",
        "postgres",
        "select pg_sleep(3)",
        Expect::Some,
    ));
    drill = drill.check(Check::new("nothing takes", "postgres", nobody, Expect::Nothing));
    drill = drill.check(Check::new(
        "nothing was taken",
        "postgres",
        "select * from public.queue",
        Expect::Nothing,
    ));
    let workers = "select backend_type from pg_stat_activity where backend_type not in ('client backend', 'checkpointer', \
                   'background writer', 'walwriter', 'startup', 'logger', 'io worker', 'archiver', 'walreceiver')";
    drill = drill.check(Check::new("nothing works by itself", "postgres", workers, Expect::Nothing));
    let writes =
        Check::new("nothing is written", "postgres", "insert into public.queue values (2)", Expect::Anything);
    let report = scene.run(drill.clone()).await;
    assert!(report.passed, "{:?}", report.failures);
    assert!(matches!(report.state, Some(RecoveryState::Promoted { .. })));
    assert_eq!(scene.archive.names(), before);
    assert_eq!(publisher.sql(taken), "0");
    let report = scene.run(scene.drill(RecoveryTarget::latest()).check(writes)).await;
    assert!(report.failures[0].why.contains("read-only"), "{:?}", report.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_45_a_rehearsal_never_replays_into_a_tablespace_of_the_real_cluster() {
    let mut scene = Scene::new().await;
    let place = scene.primary.tablespace("later");
    scene.primary.sql("create table later tablespace later as select n from generate_series(1, 1000) n");
    scene.archive.flush(&scene.primary);
    scene.given.inventory = scene.archive.inventory(&scene.primary);
    // Replay of what made it would have it at the same place, whose files the real cluster has in use.
    let refused = |report: &DrillReport| {
        assert_eq!(parts(report), ["plan"]);
        let refusals = &report.failures[0].refusals;
        assert!(
            matches!(&refusals[..], [Refusal::TablespaceMade { directory, .. }] if *directory == place),
            "{refusals:?}"
        );
    };
    refused(&scene.run(scene.drill(RecoveryTarget::latest())).await);
    assert_eq!(scene.primary.sql("select count(*) from later"), "1000");
    // And where nothing is any more, nothing is to be left.
    scene.primary.sql("drop table later");
    scene.primary.sql("drop tablespace later");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    refused(&scene.run(scene.drill(RecoveryTarget::latest())).await);
    // The moments before it was made can be rehearsed.
    let report = scene.run(scene.drill(RecoveryTarget::name("recorded")).tables(&scene.recorded)).await;
    assert!(report.passed, "{:?}", report.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_is_cancelled_or_dropped_leaves_nothing() {
    let scene = Scene::new().await;
    let slow = Check::new("slow", "postgres", "select pg_sleep(600)", Expect::Anything);
    let drill = scene.drill(RecoveryTarget::immediate()).check(slow);
    let runs = || {
        let ps = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
        String::from_utf8_lossy(&ps.stdout).contains("pg_sleep")
            || fs::read_dir(scene.scratch.path())
                .unwrap()
                .any(|entry| entry.unwrap().path().join("data/postmaster.pid").exists())
    };
    let token = CancellationToken::new();
    let job = JobContext::new().with_cancellation(token.clone());
    let work = drill.run(&scene.given, &job);
    let cancel = async {
        while !runs() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        token.cancel();
    };
    let (outcome, ()) = tokio::join!(work, cancel);
    assert!(outcome.unwrap_err().is_cancelled());
    scene.nothing_is_left();
    {
        let job = JobContext::new();
        let work = drill.run(&scene.given, &job);
        tokio::select! {
            _ = work => panic!("it cannot have ended"),
            () = async { while !runs() { tokio::time::sleep(Duration::from_millis(20)).await; } } => {}
        }
    }
    eventually("the end of everything", || {
        (fs::read_dir(scene.scratch.path()).unwrap().count() == 0).then_some(())
    });
    scene.nothing_is_left();
}

/// A base backup as it really is made, in a repository, restored by the engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_in_a_repository_is_rehearsed() {
    let scene = Scene::new().await;
    let connect = Connect::parse(&scene.primary.conninfo("postgres")).unwrap();
    let source = PostgresSource::builder(connect).data_directory(scene.primary.data()).fast_checkpoint(true);
    let source = source.build().unwrap();
    let job = JobContext::new();
    let protection = Arc::new(Unprotected::new(RepositoryId([7; 16])));
    let sink = Arc::new(MemorySink::new());
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await.unwrap();
    let load = scene.primary.load(2);
    let report = repository.backup(&source, &BackupOptions::default(), &job).await.unwrap();
    drop(load);
    scene.archive.flush(&scene.primary);
    let server = asked(&scene.primary).await;
    let recorded = RecordedTable::of(&server, "postgres", "public", "pgbench_accounts").await.unwrap();
    let snapshot = repository.snapshot(report.snapshot.unwrap(), &job).await.unwrap();
    let inventory = scene.archive.inventory(&scene.primary);
    let stored =
        StoredCluster::new(repository, snapshot, inventory, scene.archive.restore_command()).unwrap();
    let drill = scene.drill(RecoveryTarget::latest()).check(Check::table(&recorded));
    let report = drill.run(&stored, &job).await.unwrap();
    assert!(report.passed, "{:?}", report.failures);
    assert_verified(&report);
    println!("RTO {:?} with phases {:?}", report.rto, report.phases);
    scene.nothing_is_left();
}
