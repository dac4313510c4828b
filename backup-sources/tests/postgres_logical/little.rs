//! What a dump costs after another one.

use backup_sources::postgres::logical::DumpFormat;

use super::{Cluster, Setup, source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_dump_of_a_slightly_changed_database_adds_little() {
    let cluster = Cluster::new();
    cluster.bench_init(4);
    cluster.sql("create table big as select n, md5(n::text) as said from generate_series(1, 300000) n");
    let scratch = tempfile::tempdir().unwrap();
    let custom = source(&cluster).build().unwrap();
    let directory =
        source(&cluster).format(DumpFormat::Directory).scratch(scratch.path()).jobs(2).build().unwrap();
    let (one, other) = (Setup::new().await, Setup::new().await);
    let mut before = 0;
    for (what, change) in [
        ("first", ""),
        ("unchanged", ""),
        (
            "1,000 adjacent rows of 700,000 changed",
            "update big set said = 'x' || said where n between 50000 and 51000",
        ),
        ("500 scattered transactions of pgbench", "pgbench"),
        (
            "a new table, a new column, a dropped table",
            "create table a as select 1 as n; alter table big add column c int; drop table pgbench_history",
        ),
    ] {
        match change {
            "pgbench" => cluster.bench(1, 500),
            "" => {}
            sql => drop(cluster.sql(sql)),
        }
        let (custom, directory) = (one.backup(&custom).await, other.backup(&directory).await);
        println!(
            "{what}: custom adds {} of {} bytes and stores {}, directory {} of {} and {}",
            custom.bytes_added,
            custom.bytes_read,
            custom.bytes_stored,
            directory.bytes_added,
            directory.bytes_read,
            directory.bytes_stored
        );
        if what == "first" {
            before = custom.bytes_added;
            assert!(before > 40_000_000);
        }
        if what.contains("adjacent") || what == "unchanged" {
            for report in [&custom, &directory] {
                assert!(report.bytes_added < before / 10, "{what}: {}", report.bytes_added);
            }
        }
    }
}
