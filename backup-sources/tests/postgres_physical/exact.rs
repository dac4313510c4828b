//! What is in a snapshot and what is not, byte for byte.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::log::position;
use backup_core::resources::RateLimit;
use backup_core::{
    Content, Entry, EntryKind, Event, Finished, Item, JobContext, Observer, Result, Source, SourceInfo,
    SourceRun,
};
use backup_sources::postgres::physical::{BackupLabel, BackupMode, ControlFile};

use crate::postgres_server::{Stop, eventually};
use crate::{Setup, both, keeping, local, over_sql, read};

#[tokio::test(flavor = "multi_thread")]
async fn trap_31_what_the_server_makes_anew_is_not_copied_and_its_directories_are() {
    let cluster = keeping().make();
    for directory in ["base/pgsql_tmp", "base/1/pgsql_tmp"] {
        fs::create_dir(cluster.data().join(directory)).unwrap();
    }
    let left_out = [
        "base/pgsql_tmp/pgsql_tmp7.0",
        "base/1/pgsql_tmp/pgsql_tmp7.1",
        "base/1/t3_50000",
        "base/1/t3_50000_fsm",
        "base/1/pg_internal.init.12",
        "global/pg_internal.init",
        "backup_label.old",
        "tablespace_map.old",
        "backup_manifest",
        "pg_notify/x",
        "pg_replslot/x",
        "pg_dynshmem/x",
        "pg_snapshots/x",
        "pg_subtrans/x",
        "pg_serial/x",
        "pg_stat_tmp/x",
        "pg_wal/x",
    ];
    cluster.start();
    for name in left_out {
        let path = cluster.data().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "left out").unwrap();
    }
    cluster.account().own(cluster.data());
    cluster.sql("create unlogged table u as select g from generate_series(1, 5000) g");
    cluster.sql("vacuum u");
    let unlogged = cluster.sql("select pg_relation_filepath('u')");
    let setup = Setup::new().await;
    for source in both(&cluster) {
        let report = setup.backup(&source).await;
        let entries = setup.entries(&report).await;
        let names: BTreeSet<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        for name in left_out {
            assert!(name == "backup_manifest" || !names.contains(name), "{name} was copied");
        }
        for name in ["postmaster.pid", "postmaster.opts", &unlogged, &format!("{unlogged}_fsm")] {
            assert!(!names.contains(name), "{name} was copied");
        }
        assert!(names.contains(&*format!("{unlogged}_init")));
        for directory in [
            "pg_wal",
            "pg_wal/archive_status",
            "pg_replslot",
            "pg_notify",
            "pg_subtrans",
            "pg_stat_tmp",
            "pg_tblspc",
        ] {
            let kind = &entries.iter().find(|(name, _)| name == directory).unwrap().1;
            assert_eq!(*kind, EntryKind::Directory, "{directory}");
        }
        for name in
            ["PG_VERSION", "postgresql.conf", "pg_hba.conf", "global/pg_filenode.map", "base/1/PG_VERSION"]
        {
            assert!(names.contains(name), "{name} is missing");
        }
        let restored = setup.restore(&report).await;
        restored.verify(&cluster);
        let (server, _files) = restored.start(&cluster);
        assert_eq!(server.sql("select count(*) from u"), "0", "an unlogged table is empty after a crash");
        server.stop(Stop::Immediate);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_32_times_count_only_when_told_so_and_never_in_the_last_seconds() {
    let cluster = keeping().start();
    for trusting in [false, true] {
        for builder in [local, over_sql] {
            cluster.sql("drop table if exists t");
            cluster.sql("create table t as select g, 'before' w from generate_series(1, 5000) g");
            cluster.checkpoint();
            let name = cluster.sql("select pg_relation_filepath('t')");
            let setup = Setup::new().await;
            let source = builder(&cluster).trust_times(trusting).build().unwrap();
            // Older than the seconds in which a time says nothing.
            tokio::time::sleep(Duration::from_secs(5)).await;
            setup.backup(&source).await;
            let second = setup.backup(&source).await;
            assert_eq!(second.entries_unchanged > 500, trusting, "{}", second.entries_unchanged);
            let full = builder(&cluster).trust_times(trusting).mode(BackupMode::Full).build().unwrap();
            assert!(setup.backup(&full).await.entries_unchanged < 500, "a full backup reads everything");
            if trusting {
                // The manifest has the checksums of what was not read again.
                setup.restore(&second).await.verify(&cluster);
            }
            cluster.sql("update t set w = 'behind'");
            cluster.checkpoint();
            let third = setup.backup(&source).await;
            let restored = setup.restore(&third).await;
            let there = read(cluster.data().join(&name));
            assert!(read(restored.data.join(&name)) == there, "the new pages are not in the snapshot");
            restored.verify(&cluster);
            // It was written a moment before the third backup, so that its time says nothing to the fourth.
            let fourth = setup.backup(&source).await;
            assert!(fourth.bytes_read >= there.len() as u64, "{} bytes read", fourth.bytes_read);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_reading_is_limited_and_can_be_changed_meanwhile() {
    let cluster = keeping().start();
    for builder in [local, over_sql] {
        let setup = Setup::new().await;
        let limit = RateLimit::default();
        limit.set_bytes_per_second(Some(4 << 20));
        let source = builder(&cluster).read_limit(limit.clone()).build().unwrap();
        let totals = Arc::new(Totals::default());
        let job = setup.job.clone().with_observer(totals.clone());
        let started = Instant::now();
        let options = Default::default();
        let backup = setup.repository.backup(&source, &options, &job);
        let lifted = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let done = totals.0.lock().unwrap().last().unwrap().0;
            limit.set_bytes_per_second(None);
            done
        };
        let (report, done) = tokio::join!(backup, lifted);
        let report = report.unwrap();
        assert!(done < 12 << 20, "{done} bytes in two seconds at 4 MiB a second");
        assert!(report.bytes_logical > 20 << 20, "{report:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_33_labels_are_the_servers_bytes_and_pg_control_is_whole() {
    let cluster = keeping().config("archive_mode = on").make();
    let archive = cluster.directory("archive");
    cluster.append_config(&format!("archive_command = 'cp %p {}/%f'", archive.display()));
    cluster.start();
    cluster.tablespace("elsewhere");
    cluster.bench_init(1);
    let setup = Setup::new().await;
    let source = local(&cluster).label("nightly run").mode(BackupMode::Full).build().unwrap();
    let report = setup.backup(&source).await;
    let position = setup.position(&report).await;
    let restored = setup.restore(&report).await;
    // The server archives the label with its log, and with where the backup ended.
    let label = String::from_utf8(read(restored.data.join("backup_label"))).unwrap();
    let offset = position["start_lsn"].parse::<backup_sources::postgres::Lsn>().unwrap().get() & 0xFF_FFFF;
    let history = archive.join(format!("{}.{offset:08X}.backup", position["start_segment"]));
    let history =
        eventually("the archived label", || fs::read_to_string(&history).ok().filter(|h| !h.is_empty()));
    assert!(label.ends_with("START TIMELINE: 1\n"), "{label:?}");
    for line in label.lines() {
        assert!(history.lines().any(|other| other == line), "{line:?} is not in {history:?}");
    }
    assert!(history.contains(&format!("STOP WAL LOCATION: {} ", position["stop_lsn"])));
    let parsed = BackupLabel::parse(&label).unwrap();
    assert_eq!((parsed.label.as_str(), parsed.from_standby), ("nightly run", false));
    let map = String::from_utf8(read(restored.data.join("tablespace_map"))).unwrap();
    let (oid, place) =
        restored.moved.first().map(|(from, _)| (map.split(' ').next().unwrap(), from)).unwrap();
    assert_eq!(map, format!("{oid} {place}\n"));

    let control = ControlFile::parse(&read(restored.data.join("global/pg_control"))).unwrap();
    let asked = |column: &str, from: &str| cluster.sql(&format!("select {column} from {from}()"));
    assert_eq!(control.system_identifier, cluster.system_identifier());
    assert_eq!(control.catalog_version.to_string(), asked("catalog_version_no", "pg_control_system"));
    assert_eq!(control.checkpoint.to_string(), asked("checkpoint_lsn", "pg_control_checkpoint"));
    assert_eq!(control.checkpoint_redo.to_string(), asked("redo_lsn", "pg_control_checkpoint"));
    assert_eq!(control.segment_blocks.to_string(), asked("blocks_per_segment", "pg_control_init"));
    assert_eq!(
        control.wal_segment_size.bytes().to_string(),
        asked("bytes_per_wal_segment", "pg_control_init")
    );
    assert!(control.data_checksums);
    let entries = setup.entries(&report).await;
    let last: Vec<&str> = entries.iter().rev().take(4).map(|(name, _)| name.as_str()).rev().collect();
    assert_eq!(last, ["backup_label", "backup_manifest", "global/pg_control", "tablespace_map"]);

    let identifier = cluster.system_identifier().to_string();
    let expected = [
        ("mode", "full"),
        ("timeline", "1"),
        ("system_identifier", &identifier),
        ("block_bytes", "8192"),
        ("wal_segment_bytes", "16777216"),
        ("data_checksums", "true"),
        ("pages_verified", "true"),
        ("damaged_pages", "0"),
        ("missing_files", "0"),
        ("from", "primary"),
        ("server_version", &cluster.sql("show server_version_num")),
        ("tablespaces", &format!("{{\"{oid}\":\"{place}\"}}")),
        (position::LINEAGE, &identifier),
        (position::TIMELINE, "00000001"),
        (position::FIRST, &position["start_segment"]),
        (position::LAST, &position["stop_segment"]),
    ];
    for (name, value) in expected {
        assert_eq!(position[name], value, "{name}");
    }
    let times =
        ["start_time", "stop_time"].map(|name| position[name].parse::<backup_core::Timestamp>().unwrap());
    assert!(times[0] < times[1]);
}

#[derive(Debug, Default)]
struct Totals(Mutex<Vec<(u64, Option<u64>)>>);

impl Observer for Totals {
    fn on_event(&self, event: &Event) {
        if let Event::Progress(progress) = event {
            self.0.lock().unwrap().push((progress.bytes_done, progress.bytes_total));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_measured_in_bytes_against_all_that_there_are() {
    let cluster = keeping().start();
    cluster.bench_init(2);
    let setup = Setup::new().await;
    let totals = Arc::new(Totals::default());
    let job = setup.job.clone().with_observer(totals.clone());
    let source = over_sql(&cluster).build().unwrap();
    let report = setup.repository.backup(&source, &Default::default(), &job).await.unwrap();
    let totals = totals.0.lock().unwrap();
    let told: Vec<u64> = totals.iter().filter_map(|(_, total)| *total).collect();
    let total = *told.last().unwrap();
    assert!(total.abs_diff(report.bytes_logical) < 1 << 20, "{total} and {}", report.bytes_logical);
    assert!(totals.iter().filter(|(_, total)| total.is_some()).all(|(done, _)| *done <= total + (1 << 20)));
}

/// Does something between the listing of the files and their reading.
pub(crate) struct Meddling<F> {
    pub(crate) source: backup_sources::postgres::PostgresSource,
    pub(crate) meddle: Arc<F>,
}

struct MeddlingRun<F> {
    run: Box<dyn SourceRun>,
    meddle: Option<Arc<F>>,
}

impl<F> std::fmt::Debug for Meddling<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

#[async_trait]
impl<F: Fn() + Send + Sync + 'static> Source for Meddling<F> {
    fn info(&self) -> SourceInfo {
        self.source.info()
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(MeddlingRun { run: self.source.begin(job).await?, meddle: Some(self.meddle.clone()) }))
    }
}

#[async_trait]
impl<F: Fn() + Send + Sync> SourceRun for MeddlingRun<F> {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        let items = self.run.next(max).await?;
        if let Some(meddle) = self.meddle.take() {
            meddle();
        }
        Ok(items)
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        self.run.open(entry).await
    }

    fn unchanged(&self, entry: &Entry) {
        self.run.unchanged(entry);
    }

    async fn finish(&mut self) -> Result<Finished> {
        self.run.finish().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_dropped_or_truncated_meanwhile_leave_the_snapshot_complete() {
    let cluster = Arc::new(keeping().start());
    cluster.sql("create table stays as select g from generate_series(1, 1000) g");
    for source in both(&cluster) {
        cluster.sql("create table gone as select g, repeat('x', 500) from generate_series(1, 20000) g");
        cluster.sql("create table emptied as select g, repeat('x', 500) from generate_series(1, 20000) g");
        cluster.sql("create table shorter as select g, repeat('x', 500) from generate_series(1, 20000) g");
        cluster.sql("create database gone_too");
        let name = cluster.sql("select pg_relation_filepath('gone')");
        let meddle = Arc::new({
            let cluster = cluster.clone();
            move || {
                cluster.sql("drop table gone");
                cluster.sql("truncate emptied");
                cluster.sql("delete from shorter where g > 100");
                cluster.sql("vacuum shorter");
                cluster.sql("drop database gone_too");
                cluster.sql("create table new as select 1 as one");
                cluster.checkpoint();
            }
        });
        let setup = Setup::new().await;
        let report = setup.backup(&Meddling { source, meddle }).await;
        let entries = setup.entries(&report).await;
        assert!(!entries.iter().any(|(entry, _)| *entry == name));
        assert_eq!(setup.position(&report).await["missing_files"], "0", "what is gone is not missed");
        let restored = setup.restore(&report).await;
        restored.verify(&cluster);
        let (server, _files) = restored.start(&cluster);
        let counts = server.sql(
            "select (select count(*) from stays), (select count(*) from emptied), (select count(*) from shorter), \
             (select one from new), to_regclass('gone') is null, count(*) from pg_database where datname = 'gone_too'",
        );
        assert_eq!(counts, "1000|0|100|1|t|0");
        cluster.sql("drop table emptied, shorter, new");
    }
}
