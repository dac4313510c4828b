//! Pages: cut where they begin, judged, and read again before they are called damaged.

use std::fs;
use std::os::unix::fs::FileExt;

use backup_core::report::Outcome;
use backup_core::{Chunking, Item, JobContext, Source};
use backup_sources::postgres::physical::BackupMode;

use crate::exact::Meddling;
use crate::postgres_server::Cluster;
use crate::{Setup, both, keeping};

/// Overwrites a part of a page of a table's file, behind the server's back.
fn damage(cluster: &Cluster, table: &str, block: u64) -> (String, Vec<u8>) {
    cluster.checkpoint();
    let name = cluster.sql(&format!("select pg_relation_filepath('{table}')"));
    let path = cluster.data().join(&name);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"this is not what the server wrote", block * 8192 + 4000).unwrap();
    (name, fs::read(path).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_29_relations_are_cut_into_their_pages_and_other_files_by_content() {
    let cluster = Cluster::new();
    cluster.sql("create table t as select g from generate_series(1, 10000) g");
    cluster.sql("vacuum t");
    let name = cluster.sql("select pg_relation_filepath('t')");
    for source in both(&cluster) {
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        let mut seen = 0;
        loop {
            let items = run.next(500).await.unwrap();
            if items.is_empty() {
                break;
            }
            for item in items {
                let Item::Entry(entry) = item else { panic!("{item:?}") };
                if !entry.kind.has_content() {
                    continue;
                }
                let chunking = run.open(&entry).await.unwrap().chunking;
                let path = entry.name.to_string();
                let file = path.rsplit('/').next().unwrap();
                let is_relation = file.starts_with(|c: char| c.is_ascii_digit())
                    && (path.starts_with("base/") || path.starts_with("global/"));
                let expected =
                    if is_relation { Chunking::Fixed { bytes: 8192 } } else { Chunking::ContentDefined };
                assert_eq!(chunking, expected, "{path}");
                seen +=
                    usize::from([name.clone(), format!("{name}_vm"), format!("{name}_fsm")].contains(&path));
            }
        }
        assert_eq!(seen, 3, "the table and its maps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_30_a_damaged_page_is_named_by_relation_and_block_and_stored() {
    let cluster = keeping().start();
    cluster.sql("create table hurt as select g, md5(g::text) from generate_series(1, 20000) g");
    cluster.sql("create table sound as select g, md5(g::text) from generate_series(1, 20000) g");
    let (name, bytes) = damage(&cluster, "hurt", 7);
    damage(&cluster, "hurt", 11);
    let bytes = [&bytes[..11 * 8192], &fs::read(cluster.data().join(&name)).unwrap()[11 * 8192..]].concat();
    for source in both(&cluster) {
        let setup = Setup::new().await;
        let report = setup.try_backup(&source).await.unwrap();
        assert_eq!(report.outcome, Outcome::Partial);
        let skipped = report.skipped.named();
        assert_eq!(skipped.len(), 1, "{skipped:?}");
        assert_eq!(skipped[0].name, name);
        let relation = name.rsplit('/').next().unwrap();
        let reason = &skipped[0].reason;
        assert!(reason.contains(&format!("relation {relation} ")), "{reason}");
        assert!(reason.contains("block 7, 11 of its main fork"), "{reason}");
        let position = setup.position(&report).await;
        assert_eq!((&*position["damaged_pages"], &*position["missing_files"]), ("2", "0"));
        let restored = setup.restore(&report).await;
        assert!(fs::read(restored.data.join(&name)).unwrap() == bytes, "it is not stored as it is");
        // The manifest describes what was copied, damage and all.
        restored.verify(&cluster);
        let (server, _files) = restored.start(&cluster);
        assert_eq!(server.checksum("postgres", "sound"), cluster.checksum("postgres", "sound"));
        assert!(server.try_sql("select count(*) from hurt").unwrap_err().contains("invalid page"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_30_a_damaged_page_stays_named_where_times_are_trusted() {
    let cluster = keeping().start();
    cluster.sql("create table hurt as select g, md5(g::text) from generate_series(1, 20000) g");
    let (name, _) = damage(&cluster, "hurt", 7);
    // Long before any of these backups.
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(600);
    fs::File::options().write(true).open(cluster.data().join(&name)).unwrap().set_modified(past).unwrap();
    for builder in [crate::local, crate::over_sql] {
        let source = builder(&cluster).trust_times(true).build().unwrap();
        let setup = Setup::new().await;
        for number in 0..3 {
            let report = setup.try_backup(&source).await.unwrap();
            assert_eq!(report.outcome, Outcome::Partial, "backup {number}");
            assert_eq!(report.skipped.named()[0].name, name);
            assert_eq!(&*setup.position(&report).await["damaged_pages"], "1", "backup {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_over_from_a_backup_that_verified_nothing_is_not_called_verified() {
    let cluster = keeping().start();
    cluster.sql("create table old as select g, md5(g::text) from generate_series(1, 20000) g");
    cluster.checkpoint();
    let name = cluster.sql("select pg_relation_filepath('old')");
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(600);
    fs::File::options().write(true).open(cluster.data().join(&name)).unwrap().set_modified(past).unwrap();
    let setup = Setup::new().await;
    let trusting = || crate::local(&cluster).trust_times(true);
    let full = || trusting().mode(BackupMode::Full);
    let sources = [
        (trusting().verify_checksums(false), "false"),
        (trusting(), "false"),
        (full(), "true"),
        (trusting(), "true"),
        (full().verify_checksums(false), "false"),
    ];
    for (number, (source, expected)) in sources.into_iter().enumerate() {
        let report = setup.backup(&source.build().unwrap()).await;
        assert_eq!(&*setup.position(&report).await["pages_verified"], expected, "backup {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_30_pages_that_are_being_written_are_not_called_damaged() {
    // So little memory that pages are written all the time.
    let cluster = keeping()
        .config("shared_buffers = '1MB'\nbgwriter_delay = '10ms'\ncheckpoint_timeout = '30s'")
        .start();
    cluster.bench_init(4);
    let setup = Setup::new().await;
    let load = cluster.load(6);
    let mut written = 0;
    for _ in 0..4 {
        for source in both(&cluster) {
            written = setup.backup(&source).await.bytes_added;
        }
    }
    drop(load);
    assert!(written > 1 << 20, "only {written} bytes changed: the load was none");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_verification_a_damaged_page_is_stored_and_not_named() {
    let cluster = Cluster::new();
    cluster.sql("create table hurt as select g, md5(g::text) from generate_series(1, 20000) g");
    damage(&cluster, "hurt", 7);
    let setup = Setup::new().await;
    setup.backup(&crate::local(&cluster).verify_checksums(false).build().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_named_and_counted_as_missing() {
    let cluster = std::sync::Arc::new(keeping().start());
    for source in both(&cluster) {
        let path = cluster.data().join("notes");
        fs::write(&path, "of whoever runs this").unwrap();
        cluster.account().own(&path);
        let replaced = path.clone();
        let meddle = std::sync::Arc::new(move || {
            fs::remove_file(&replaced).unwrap();
            fs::create_dir(&replaced).unwrap();
        });
        let setup = Setup::new().await;
        let report = setup.try_backup(&Meddling { source, meddle }).await.unwrap();
        assert_eq!(report.outcome, Outcome::Partial);
        let skipped = report.skipped.named();
        assert_eq!(skipped.len(), 1, "{skipped:?}");
        assert_eq!(skipped[0].name, "notes");
        let position = setup.position(&report).await;
        assert_eq!((&*position["damaged_pages"], &*position["missing_files"]), ("0", "1"));
        fs::remove_dir(&path).unwrap();
    }
}
