//! Dumps that break off, and programs that are not what they should be.

use std::fs;
use std::time::Duration;

use backup_sources::postgres::logical::DumpFormat;

use super::postgres_server::{PASSWORD, eventually};
use super::{Cluster, Setup, connect, programs, source};

const VERSION: &str = "[ \"$1\" = --version ] && exec REAL --version\n";

fn cluster() -> Cluster {
    let cluster = Cluster::new();
    cluster.sql("create table t as select n, md5(n::text) from generate_series(1, 100000) n");
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_breaks_off_makes_no_snapshot() {
    let (cluster, setup) = (cluster(), Setup::new().await);
    let cases = [
        (
            "killed in the middle",
            "pg_dump",
            "REAL \"$@\" | head -c 1000000; kill -9 $$",
            "killed by signal 9",
        ),
        (
            "failed at the end",
            "pg_dump",
            "REAL \"$@\"; echo 'the end is missing' >&2; exit 1",
            "the end is missing",
        ),
        ("roles fail", "pg_dumpall", "REAL \"$@\"; exit 3", "globals.sql: the command"),
        ("roles killed", "pg_dumpall", "kill -9 $$", "killed by signal 9"),
    ];
    for (what, program, script, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let bin = programs(&cluster, directory.path(), &[(program, &(VERSION.to_owned() + script))]);
        let error = setup.failure(&source(&cluster).programs(bin).build().unwrap()).await;
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_breaks_off_makes_no_snapshot_and_is_removed() {
    let (cluster, setup) = (cluster(), Setup::new().await);
    for script in ["REAL \"$@\"; exit 1", "REAL \"$@\"; kill -9 $$", "REAL \"$@\"; sleep 1000"] {
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let bin = programs(&cluster, directory.path(), &[("pg_dump", &(VERSION.to_owned() + script))]);
        let source = source(&cluster).format(DumpFormat::Directory).scratch(&scratch).programs(bin);
        let error = setup.failure(&source.timeout(Duration::from_secs(5)).build().unwrap()).await;
        assert!(error.contains("the database `postgres` was not dumped"), "{error}");
        eventually("an empty directory", || (fs::read_dir(&scratch).unwrap().count() == 0).then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_are_missing_or_too_old_are_refused_by_name() {
    let (cluster, setup) = (cluster(), Setup::new().await);
    let cases = [
        ("pg_dump", "", vec!["bin/pg_dump` cannot be run"]),
        ("pg_dumpall", "", vec!["bin/pg_dumpall` cannot be run"]),
        (
            "pg_dump",
            "echo 'pg_dump (PostgreSQL) 14.9'",
            vec!["bin/pg_dump` is of version 14.9", "at least as new"],
        ),
        ("pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'", vec!["bin/pg_dump` is of version 9.6"]),
        ("pg_dump", "echo what", vec!["does not tell its version"]),
    ];
    for (program, script, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let bin = programs(&cluster, directory.path(), &[(program, script)]);
        let error = setup.failure(&source(&cluster).programs(bin).build().unwrap()).await;
        for expected in expected {
            assert!(error.contains(expected), "{error}");
        }
    }
    let version = cluster.version().0;
    let directory = tempfile::tempdir().unwrap();
    let old = programs(&cluster, directory.path(), &[("pg_dump", "echo 'pg_dump (PostgreSQL) 14.9'")]);
    let error = setup.failure(&source(&cluster).programs(old).build().unwrap()).await;
    assert!(error.contains(&format!("version {version}.")), "both are named: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_does_not_wait_for_a_lock_or_its_end_for_ever() {
    let (cluster, setup) = (cluster(), Setup::new().await);
    let client = connect(&cluster).connect_sql().await.unwrap();
    client.batch_execute("begin; lock table t in access exclusive mode").await.unwrap();
    let locked = source(&cluster).lock_timeout(Duration::from_millis(300)).build().unwrap();
    let error = setup.failure(&locked).await;
    assert!(error.contains("LOCK TABLE public.t IN ACCESS SHARE MODE"), "{error}");
    let late = source(&cluster).timeout(Duration::from_secs(1)).build().unwrap();
    let error = setup.failure(&late).await;
    assert!(error.contains("did not end within 1s"), "{error}");
    client.batch_execute("rollback").await.unwrap();
    let count = "select count(*) from pg_stat_activity where query ilike '%lock table%' and application_name = 'backup' and state = 'active'";
    eventually("no dump", || (cluster.sql(count) == "0").then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_in_no_arguments_and_no_files() {
    let (cluster, setup) = (cluster(), Setup::new().await);
    let directory = tempfile::tempdir().unwrap();
    let seen = directory.path().join("seen");
    let script = format!(
        "{VERSION}echo \"$@\" >>'{0}'; env >>'{0}.env'; find /tmp -maxdepth 1 -newer \"$0\" -name '*pass*' >>'{0}.files'; exec REAL \"$@\"",
        seen.display()
    );
    let bin = programs(&cluster, directory.path(), &[("pg_dump", &script), ("pg_dumpall", &script)]);
    let text = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", cluster.port());
    let over_tcp =
        backup_sources::postgres::Connect::parse_with(&text, |_| None).unwrap().with_password(PASSWORD);
    let source = backup_sources::postgres::LogicalSource::builder(over_tcp).programs(bin).build().unwrap();
    assert!(!format!("{source:?}").contains(PASSWORD));
    setup.backup(&source).await;
    let read = |ending: &str| fs::read_to_string(format!("{}{ending}", seen.display())).unwrap();
    assert_eq!(read("").lines().count(), 2, "both were called");
    assert!(!read("").contains(PASSWORD), "{}", read(""));
    assert!(read(".env").contains(&format!("PGPASSWORD={PASSWORD}")));
    assert_eq!(read(".files"), "");
    // A wrong one is told by the program, and nothing of it is.
    let wrong =
        backup_sources::postgres::Connect::parse_with(&text, |_| None).unwrap().with_password("sesame");
    let source = backup_sources::postgres::LogicalSource::builder(wrong).programs(cluster.version().bin());
    let error = setup.try_backup(&source.build().unwrap()).await.unwrap_err().to_string();
    assert!(!error.contains("sesame"), "{error}");
}
