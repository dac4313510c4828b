//! The servers that other tests of PostgreSQL stand on do what those think.
#![cfg(feature = "postgres")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod postgres_server;

use std::time::Duration;

use postgres_server::{Cluster, Stop, eventually};

#[test]
fn clusters_start_stop_survive_kills_and_have_standbys() {
    let primary = Cluster::builder().config("work_mem = 5MB").start();
    assert_eq!(primary.sql("show work_mem"), "5MB");
    assert_eq!(primary.sql("show data_checksums"), "on");
    assert!(primary.sql("show server_version").starts_with(&primary.version().0.to_string()));
    let tablespace = primary.tablespace("elsewhere");
    primary.bench_init_with(1, &["--tablespace=elsewhere"]);
    assert!(tablespace.read_dir().unwrap().next().is_some());
    let mut load = primary.load(2);
    load.work(Duration::from_millis(500));
    let standby = primary.standby();
    primary.kill();
    assert!(!primary.is_running());
    eventually("the end of pgbench", || (!load.is_running()).then_some(()));
    primary.start();
    standby.catch_up(&primary);
    let rows = primary.checksum("postgres", "pgbench_accounts");
    assert!(rows.starts_with("100000:"), "{rows}");
    assert_eq!(standby.checksum("postgres", "pgbench_accounts"), rows);
    standby.promote();
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "f");
    assert_eq!(standby.system_identifier(), primary.system_identifier());
    standby.checkpoint();
    assert_eq!((primary.timeline(), standby.timeline()), (1, 2));
    primary.stop(Stop::Immediate);
    primary.start();
    primary.stop(Stop::Fast);
    assert!(primary.try_sql("select 1").is_err());
    let pid = standby.pid().unwrap();
    let data = standby.data().to_owned();
    drop(standby);
    assert!(!data.exists());
    // One that has ended may wait to be collected; it has no command line any more.
    let ended = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty();
    eventually("the end of the server", || ended().then_some(()));
}
