//! Where the server knows what changed, only that is read; and what is restored has it all the same.
//!
//! Servers know it since 17, so that these tests are of 18, whichever version the others are of.

use std::fs;
use std::path::Path;
use std::process::Command;

use backup_sources::postgres::PostgresSourceBuilder;
use backup_sources::postgres::physical::BackupMode;

use crate::postgres_server::{Builder, Cluster, Stop, Version, eventually, run};
use crate::{Setup, check_pages, end, keeping, local, over_sql, read};

const TABLES: [&str; 7] =
    ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history", "quiet", "cut", "anew"];

/// A cluster that knows what changes in it.
fn knowing() -> Builder {
    keeping().version(Version(18)).config("summarize_wal = on")
}

fn fill(cluster: &Cluster) {
    cluster.bench_init(3);
    for table in ["quiet", "cut", "anew"] {
        let rows = "select g, repeat(md5(g::text), 20) t from generate_series(1, 20000) g";
        cluster.sql(&format!("create table {table} as {rows}"));
    }
    cluster.sql("create database pattern");
    cluster.sql_in("pattern", "create table p as select g from generate_series(1, 200000) g");
    // Whoever reads rows for the first time changes their pages, which the log has then.
    cluster.sql("vacuum freeze");
    cluster.sql_in("pattern", "vacuum freeze");
    cluster.checkpoint();
}

/// Everything that the rows of all tables add up to.
fn sums(cluster: &Cluster) -> Vec<String> {
    let mut sums: Vec<String> = TABLES.map(|table| cluster.checksum("postgres", table)).into();
    let databases = cluster.sql("select datname from pg_database where datname like 'copy%' order by 1");
    sums.extend(databases.lines().map(|database| cluster.checksum(database, "p")));
    sums
}

/// Changes little of much, by everything that changes files: rows, truncation, files made anew and moved, databases whose files are copied.
fn change(cluster: &Cluster, round: usize) {
    cluster.sql(&format!("update pgbench_accounts set abalance = abalance + 1 where aid % 5000 = {round}"));
    cluster.sql("delete from cut where ctid > '(500, 0)'");
    cluster.sql("vacuum cut");
    cluster.sql("insert into cut select g, 'more' from generate_series(1, 3000) g");
    match round % 3 {
        0 => drop(cluster.sql("truncate anew")),
        1 => drop(cluster.sql("vacuum full anew")),
        _ => drop(cluster.sql("alter table anew set tablespace far")),
    }
    cluster.sql("insert into anew select g, repeat('x', 500) from generate_series(1, 10000) g");
    let strategy = if round.is_multiple_of(2) { "file_copy" } else { "wal_log" };
    cluster.sql(&format!("create database copy{round} template pattern strategy {strategy}"));
    cluster.sql_in(&format!("copy{round}"), "update p set g = g + 1 where g % 1000 = 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_that_changed_are_read_and_nothing_is_missing() {
    let cluster = knowing().start();
    cluster.tablespace("far");
    fill(&cluster);
    let builders: [fn(&Cluster) -> PostgresSourceBuilder; 2] =
        [local, |cluster| over_sql(cluster).connections(3)];
    let accounts = cluster.sql("select pg_relation_size('pgbench_accounts')").parse::<u64>().unwrap();
    for (number, builder) in builders.into_iter().enumerate() {
        let setup = Setup::new().await;
        let source = builder(&cluster).wal_summaries(true).build().unwrap();
        let first = setup.backup(&source).await;
        assert!(first.bytes_read > accounts, "{first:?}");
        for round in 0..3 {
            // How much the load of the round before has changed depends on the machine.
            setup.backup(&source).await;
            change(&cluster, 10 * number + round);
            let before = setup.backup(&source).await;
            assert!(before.bytes_read < first.bytes_read / 2, "{} bytes read", before.bytes_read);
            // And while it goes on.
            let load = cluster.load(3);
            let report = setup.backup(&source).await;
            end(load, &cluster);
            assert!(report.bytes_read < first.bytes_read, "{} bytes read", report.bytes_read);
            let expected = sums(&cluster);
            let restored = setup.restore(&report).await;
            restored.verify(&cluster);
            let (server, _files) = restored.start(&cluster);
            assert_eq!(sums(&server), expected);
            check_pages(&server);
        }
        let full = builder(&cluster).wal_summaries(true).mode(BackupMode::Full).build().unwrap();
        assert!(setup.backup(&full).await.bytes_read > first.bytes_read, "a full backup reads everything");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_cannot_tell_what_changed_everything_is_read() {
    let cluster = knowing().start();
    fill(&cluster);
    let setup = Setup::new().await;
    let source = local(&cluster).wal_summaries(true).build().unwrap();
    let first = setup.backup(&source).await.bytes_read;
    let by_summaries = setup.backup(&source).await.bytes_read;
    assert!(by_summaries < first / 2, "{by_summaries} of {first} bytes");

    // A page that is damaged meanwhile is in no summary: this is the price. A full backup finds it; and as long as it is known
    // to be there, nothing is taken over unread.
    let path = cluster.data().join(cluster.sql("select pg_relation_filepath('quiet')"));
    cluster.sql("checkpoint");
    let mut bytes = read(&path);
    bytes[10 * 8192 + 4000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(setup.backup(&source).await.bytes_read < first / 2);
    let full = local(&cluster).wal_summaries(true).mode(BackupMode::Full).build().unwrap();
    let report = setup.try_backup(&full).await.unwrap();
    assert!(format!("{:?}", report.skipped).contains("block 10 "), "{:?}", report.skipped);
    let report = setup.try_backup(&source).await.unwrap();
    assert!(report.bytes_read >= first, "{} of {first} bytes", report.bytes_read);
    bytes[10 * 8192 + 4000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(setup.backup(&source).await.bytes_read >= first, "the snapshot before has a damaged page");
    assert!(setup.backup(&source).await.bytes_read < first / 2);

    // Summaries that were not kept.
    cluster.configure("summarize_wal = off");
    eventually("the end of the summaries", || {
        let on = "select count(*) from pg_stat_activity where backend_type = 'walsummarizer'";
        (cluster.sql(on) == "0").then_some(())
    });
    change_a_row(&cluster);
    assert!(setup.backup(&source).await.bytes_read >= first);
    // A promotion: the log is another's from then on.
    let standby = cluster.standby();
    standby.promote();
    standby.configure("summarize_wal = on");
    let source = local(&standby).wal_summaries(true).build().unwrap();
    assert!(setup.backup(&source).await.bytes_read >= first);
    change_a_row(&standby);
    let report = setup.backup(&source).await;
    assert!(report.bytes_read < first / 2, "{} of {first} bytes", report.bytes_read);
    let expected = standby.checksum("postgres", "pgbench_accounts");
    let (server, _files) = setup.restore(&report).await.start(&standby);
    assert_eq!(server.checksum("postgres", "pgbench_accounts"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_backup_took_over_unverified_is_named_by_the_first_that_verifies() {
    let cluster = knowing().start();
    fill(&cluster);
    let path = cluster.data().join(cluster.sql("select pg_relation_filepath('quiet')"));
    let mut bytes = read(&path);
    bytes[10 * 8192 + 4000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let setup = Setup::new().await;
    let source = |verify| local(&cluster).wal_summaries(true).verify_checksums(verify).build().unwrap();
    let first = setup.backup(&source(false)).await.bytes_read;
    assert!(setup.backup(&source(false)).await.bytes_read < first / 2);
    let report = setup.try_backup(&source(true)).await.unwrap();
    assert!(format!("{:?}", report.skipped).contains("block 10 "), "{:?}", report.skipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_put_back_meanwhile_is_read_in_full() {
    let cluster = knowing().start();
    fill(&cluster);
    let setup = Setup::new().await;
    let source = local(&cluster).wal_summaries(true).build().unwrap();
    let first = setup.backup(&source).await.bytes_read;

    let aside = cluster.directory("aside");
    let copy = |from: &Path, to: &Path| {
        cluster.stop(Stop::Fast);
        run(Command::new("rm").arg("-rf").arg(to));
        run(Command::new("cp").arg("-a").arg(from).arg(to));
        cluster.start();
    };
    let state = aside.join("data");
    copy(cluster.data(), &state);
    cluster.sql("update quiet set t = 'of the other history' where g <= 2000");
    cluster.checkpoint();
    // The parent, and that it would be one as long as the server runs.
    setup.backup(&source).await;
    assert!(setup.backup(&source).await.bytes_read < first / 2);

    // The log goes on from an earlier state, on the same timeline, and comes past the position at which the parent began.
    copy(&state, cluster.data());
    for _ in 0..4 {
        change_a_row(&cluster);
        cluster.switch_wal();
    }
    let report = setup.backup(&source).await;
    assert!(report.bytes_read >= first, "{} of {first} bytes", report.bytes_read);
    let expected = sums(&cluster);
    let (server, _files) = setup.restore(&report).await.start(&cluster);
    assert_eq!(sums(&server), expected);
    change_a_row(&cluster);
    assert!(setup.backup(&source).await.bytes_read < first / 2);
}

fn change_a_row(cluster: &Cluster) {
    cluster.sql("update pgbench_accounts set abalance = abalance + 1 where aid = 77");
    cluster.checkpoint();
}
