//! The log of real servers: received as it is written, pushed as segments fill up, kept through kills and promotions.
#![cfg(feature = "postgres")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kept;
mod lost;
#[path = "../postgres_server/mod.rs"]
mod postgres_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{ErrorKind, JobContext};
use backup_sources::postgres::archive::{Fetched, PushOptions, push};
use backup_sources::postgres::receive::{ReceiveOptions, WalStatus};
use backup_sources::postgres::wal::{
    SegmentName, SegmentSize, TimelineHistory, WalFile, WalReader, WalRecord, check_segment,
};
use backup_sources::postgres::{Connect, Lsn, Receiver, Timeline, WalArchive};
use kept::{Alerts, Ordered, Running, archive, connect, lsn, small};
use postgres_server::{Cluster, Stop};

/// All records of a history from the first archived segment up to `end`, read through the archive as a server would.
async fn replay(archive: &WalArchive, history: &TimelineHistory, first: u64, end: Lsn) -> Vec<WalRecord> {
    let (records, valid_to) = read(archive, history, first, end).await;
    assert!(valid_to >= end, "the log is whole up to {valid_to}, not to {end}");
    records
}

/// The same, and up to where records are whole.
async fn read(
    archive: &WalArchive,
    history: &TimelineHistory,
    first: u64,
    end: Lsn,
) -> (Vec<WalRecord>, Lsn) {
    let mut reader = WalReader::new(Lsn::new(first * small().bytes()), small());
    let (mut events, job) = (Vec::new(), JobContext::new());
    for number in first..=small().number_of(Lsn::new(end.get() - 1)) {
        let name = SegmentName::numbered(history.timeline_of_segment(number, small()), number, small());
        let Fetched::Found(bytes) = archive.get(WalFile::Segment(name), &job).await.unwrap() else {
            panic!("{name} was never archived, it is said")
        };
        check_segment(&bytes, name, Some(small())).unwrap();
        reader.feed(&bytes, &mut events);
    }
    (events.into_iter().map(|event| event.record).collect(), reader.valid_to())
}

fn commits(records: &[WalRecord]) -> usize {
    records.iter().filter(|record| matches!(record, WalRecord::Commit { .. })).count()
}

/// Writes rows one by one, each acknowledged by the server, and says when which was.
fn writer(cluster: &Cluster) -> (std::process::Child, std::path::PathBuf) {
    cluster.sql("create table moments (at timestamptz, lsn pg_lsn)");
    let path = cluster.directory("moments").join("out");
    let script = cluster.directory("moments").join("script.sql");
    let one = "insert into moments values (clock_timestamp(), pg_current_wal_insert_lsn());\n\
               select extract(epoch from clock_timestamp()), pg_current_wal_insert_lsn();\n";
    std::fs::write(&script, one.repeat(20_000)).unwrap();
    let mut psql = cluster.program("psql");
    psql.args(["-XAtq", "-d", &cluster.conninfo("postgres"), "-f"]).arg(script).arg("-o").arg(&path);
    psql.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    (psql.spawn().unwrap(), path)
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_27_a_killed_server_loses_nothing_that_was_acknowledged() {
    let cluster = Cluster::builder().initdb("--wal-segsize=1").start();
    cluster.bench_init(1);
    let archive = archive().await;
    let options = ReceiveOptions::with_slot("received");
    let running = Running::start(&connect(&cluster), &archive, options, JobContext::new());
    running.until("the receiver's beginning", |status| status.flushed.is_valid());
    let first = small().number_of(running.status().flushed);
    let mut load = cluster.load(2);
    let (mut writing, moments) = writer(&cluster);
    load.work(Duration::from_secs(5));
    let acknowledged = lsn(&cluster.sql("select restart_lsn from pg_replication_slots"));
    let killed = Instant::now();
    let died = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    cluster.kill();
    writing.wait().unwrap();
    running.until("the receiver's noticing", |status| !status.connected);
    let audit = archive.audit(None, &JobContext::new()).await.unwrap();
    let frontier = audit.frontier.unwrap();
    assert!(frontier >= acknowledged, "{frontier} is behind {acknowledged}, which was acknowledged");
    assert!(audit.is_sound(), "{audit:?}");
    let history = TimelineHistory::root(Timeline::FIRST);
    // What is flushed may end in the middle of a record: the bytes are those that the server has.
    for number in first..=small().number_of(Lsn::new(frontier.get() - 1)) {
        let name = SegmentName::numbered(Timeline::FIRST, number, small());
        let own = std::fs::read(cluster.data().join("pg_wal").join(name.to_string())).unwrap();
        let Fetched::Found(kept) = archive.get(WalFile::Segment(name), &JobContext::new()).await.unwrap()
        else {
            panic!("{name} is not archived")
        };
        let bytes = frontier.bytes_since(name.start(small())).min(small().bytes()) as usize;
        assert_eq!(kept[..bytes], own[..bytes], "{name}");
    }
    let (records, _) = read(&archive, &history, first, frontier).await;
    assert!(commits(&records) > 100, "{}", commits(&records));
    // What the disaster would have cost: commits that were acknowledged to clients and are not archived.
    let text = std::fs::read_to_string(moments).unwrap();
    let lost: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once('|'))
        .filter(|(_, at)| lsn(at) > frontier)
        .filter_map(|(time, _)| time.parse().ok())
        .collect();
    let window = lost.first().map_or(0.0, |first| died - first);
    let waited = running.status().longest_wait_ms;
    println!("RPO measured: {window:.3} s, {} commits; a byte waited {waited} ms at most", lost.len());
    assert!(window < 3.0, "{window} s were lost");

    cluster.start();
    cluster.bench(1, 100);
    let end = lsn(&cluster.lsn());
    running.until("the rest", |status| status.flushed >= end);
    assert!(running.status().reconnects > 0 && killed.elapsed() < Duration::from_secs(60));
    let more = replay(&archive, &history, first, end).await;
    assert!(commits(&more) >= commits(&records) + 100);
    assert!(archive.audit(Some(end), &JobContext::new()).await.unwrap().is_sound());
    // The same bytes as the server has.
    let acknowledged = SegmentName::of(Timeline::FIRST, end, small()).previous(small()).unwrap();
    let own = std::fs::read(cluster.data().join("pg_wal").join(acknowledged.to_string())).unwrap();
    let got = archive.get(WalFile::Segment(acknowledged), &JobContext::new()).await.unwrap();
    assert_eq!(got, Fetched::Found(own.into()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_ends_at_any_moment_goes_on_where_the_archive_stands() {
    let cluster = Cluster::builder().initdb("--wal-segsize=1").start();
    cluster.bench_init(1);
    let archive = archive().await;
    let load = cluster.load(2);
    let mut first = None;
    for round in 0..8_u64 {
        let job = JobContext::new();
        let running =
            Running::start(&connect(&cluster), &archive, ReceiveOptions::with_slot("received"), job);
        running.until("a beginning", |status| status.flushed.is_valid());
        first.get_or_insert(small().number_of(running.status().flushed));
        tokio::time::sleep(Duration::from_millis(150 * round + 50)).await;
        // As if it were killed: nothing more is done.
        running.abort().await;
    }
    drop(load);
    let end = lsn(&cluster.lsn());
    let mut options = ReceiveOptions::with_slot("received");
    options.until = Some(end);
    let receiver = Receiver::new(connect(&cluster), Arc::new(archive.clone()), options).unwrap();
    let status = receiver.run(&JobContext::new()).await.unwrap();
    assert!(status.flushed >= end);
    replay(&archive, &TimelineHistory::root(Timeline::FIRST), first.unwrap(), end).await;
    let audit = archive.audit(Some(end), &JobContext::new()).await.unwrap();
    assert!(audit.is_sound(), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_27_two_promotions_whose_timelines_jump() {
    let primary = Cluster::builder().initdb("--wal-segsize=1").start();
    primary.bench_init(1);
    let archive = archive().await;
    let one = primary.standby();
    one.catch_up(&primary);
    let running =
        Running::start(&connect(&one), &archive, ReceiveOptions::with_slot("one"), JobContext::new());
    running.until("the first timeline", |status| status.flushed.is_valid());
    let first = small().number_of(running.status().flushed);
    primary.bench(2, 500);
    one.catch_up(&primary);
    // Somebody else has promoted before: the number is taken.
    let taken = |cluster: &Cluster, timeline: u32, text: &str| {
        let path = cluster.data().join(format!("pg_wal/{timeline:08X}.history"));
        std::fs::write(&path, text).unwrap();
        cluster.account().own(&path);
    };
    taken(&one, 2, "1\t0/1000000\telsewhere\n");
    one.promote();
    one.bench(2, 300);
    running.until("the second timeline", |status| status.timeline == Some(Timeline::new(3)));
    let two = one.standby();
    two.catch_up(&one);
    let end = lsn(&one.lsn());
    running.until("its end", |status| status.flushed >= end);
    assert_eq!(running.status().timelines_ended, 1);
    running.stop().await;
    // From the next server on, into the same archive.
    let running =
        Running::start(&connect(&two), &archive, ReceiveOptions::with_slot("two"), JobContext::new());
    one.bench(1, 100);
    two.catch_up(&one);
    for timeline in [4, 5] {
        taken(&two, timeline, "1\t0/1000000\telsewhere\n");
    }
    two.promote();
    two.bench(2, 300);
    let end = lsn(&two.lsn());
    running.until("the third timeline", |status| {
        status.timeline == Some(Timeline::new(6)) && status.flushed >= end
    });
    running.stop().await;

    let job = JobContext::new();
    let audit = archive.audit(Some(end), &job).await.unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    let timelines: Vec<u32> = audit.timelines.iter().map(|timeline| timeline.timeline.get()).collect();
    assert_eq!(timelines, [1, 3, 6]);
    let history = archive.history(Timeline::new(6), &job).await.unwrap();
    assert_eq!(history.ancestors().len(), 2);
    let records = replay(&archive, &history, first, end).await;
    assert!(commits(&records) >= 1000 + 600 + 100 + 600, "{}", commits(&records));
    let began = records.iter().filter(|record| matches!(record, WalRecord::EndOfRecovery { .. })).count();
    assert_eq!(began, 2);
    // The old timeline's last segment is there up to where it was left, though nobody has it as a whole.
    let left = history.end_of(Timeline::FIRST).unwrap();
    replay(&archive, &TimelineHistory::root(Timeline::FIRST), first, left).await;
    for never in ["00000002.history", "00000004.history", "00000007.history"] {
        assert_eq!(
            archive.get(never.parse().unwrap(), &job).await.unwrap(),
            Fetched::NeverArchived,
            "{never}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_27_after_a_promotion_nothing_counts_as_stored_that_only_the_old_timeline_has() {
    let primary = Cluster::builder().initdb("--wal-segsize=1").start();
    primary.sql("create table numbers (n int)");
    let archive = archive().await;
    let standby = primary.standby();
    primary.switch_wal();
    primary.sql("insert into numbers values (1)");
    standby.catch_up(&primary);
    standby.stop(Stop::Fast);
    // The receiver is further than the server that will be promoted, in the same segment.
    primary.sql("insert into numbers select generate_series(2, 1000)");
    let end = lsn(&primary.lsn());
    let running =
        Running::start(&connect(&primary), &archive, ReceiveOptions::with_slot("one"), JobContext::new());
    running.until("the end of the first timeline", |status| status.flushed >= end);
    running.stop().await;
    primary.kill();
    standby.start();
    standby.promote();
    standby.sql("insert into numbers values (-1)");
    let end = lsn(&standby.lsn());
    let running =
        Running::start(&connect(&standby), &archive, ReceiveOptions::with_slot("two"), JobContext::new());
    running.until("the end of the second timeline", |status| {
        status.timeline == Some(Timeline::new(2)) && status.flushed >= end
    });
    // Whatever was acknowledged can be had, though no segment is full yet.
    let history = archive.history(Timeline::new(2), &JobContext::new()).await.unwrap();
    let left = history.end_of(Timeline::FIRST).unwrap();
    replay(&archive, &history, small().number_of(left), end).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_27_no_piece_is_stored_before_the_segment_in_front_of_it() {
    let cluster = Cluster::builder().initdb("--wal-segsize=1").start();
    cluster.bench_init(1);
    let archive = archive().await;
    let log = Arc::new(Ordered::over(archive.clone()));
    let mut options = ReceiveOptions::with_slot("ordered");
    options.flush_interval = Duration::from_millis(5);
    let running = Running::start_with(&connect(&cluster), log.clone(), options, JobContext::new());
    running.until("the log", |status| status.flushed.is_valid());
    cluster.bench(2, 1000);
    cluster.switch_wal();
    cluster.bench(2, 100);
    let end = lsn(&cluster.lsn());
    running.until("the end", |status| status.flushed >= end);
    let status = running.status();
    assert!(status.segments > 0 && status.pieces > 0, "{status:?}");
    assert_eq!(log.early(), []);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_whose_server_has_nothing_to_say_stays_with_it() {
    let cluster = Cluster::builder().start();
    let archive = archive().await;
    let mut options = ReceiveOptions::with_slot("idle");
    options.status_interval = Duration::from_millis(200);
    options.silence_max = Duration::from_secs(1);
    let running = Running::start(&connect(&cluster), &archive, options, JobContext::new());
    running.until("the log", |status| status.flushed.is_valid());
    // A server says by itself that it is there only every half minute: it must be asked.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = running.status();
    assert!(status.connected && status.reconnects == 0 && status.last_error.is_none(), "{status:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_the_one_that_sends_its_log_is_asked_for_the_slot() {
    let primary = Cluster::builder().start();
    let standby = primary.make_standby();
    let text = format!(
        "host={},{} port={},{} user=postgres dbname=postgres",
        standby.socket().display(),
        primary.socket().display(),
        standby.port(),
        primary.port()
    );
    let connect = Connect::parse_with(&text, |_| None).unwrap();
    let (archive, alerts) = (archive().await, Arc::new(Alerts::default()));
    let job = JobContext::new().with_observer(alerts.clone());
    let mut options = ReceiveOptions::with_slot("here");
    options.status_interval = Duration::from_millis(100);
    let running = Running::start(&connect, &archive, options, job);
    running.until("the slot", |status| status.flushed.is_valid() && status.slot == Some(WalStatus::Reserved));
    // The first of them is there now, and has no such slot.
    standby.start();
    assert_eq!(standby.sql("select count(*) from pg_replication_slots"), "0");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = running.status();
    assert!(status.connected && status.slot == Some(WalStatus::Reserved), "{status:?}");
    assert_eq!(alerts.all(), Vec::<String>::new());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_22_both_ways_at_once_into_one_archive() {
    let config = "archive_mode = on\narchive_command = 'false'";
    let cluster = Cluster::builder().initdb("--wal-segsize=1").config(config).start();
    cluster.bench_init(1);
    let archive = archive().await;
    let running =
        Running::start(&connect(&cluster), &archive, ReceiveOptions::with_slot("both"), JobContext::new());
    running.until("a beginning", |status| status.flushed.is_valid());
    let first = small().number_of(running.status().flushed);
    let mut load = cluster.load(2);
    let pg_wal = cluster.data().join("pg_wal");
    let started = Instant::now();
    let (mut pushed, mut beside) = (0, 0);
    // On a slow machine a batch has all that is ready, and little is asked for.
    while started.elapsed() < Duration::from_secs(5)
        || (pushed + beside <= 3 && started.elapsed().as_secs() < 60)
    {
        load.work(Duration::from_millis(20));
        // What a server does that archives: the oldest that is ready, which is marked when the command succeeded.
        let mut ready: Vec<String> = std::fs::read_dir(pg_wal.join("archive_status"))
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".ready")?.to_owned()))
            .collect();
        ready.sort();
        let Some(name) = ready.first() else { continue };
        let report = push(&archive, &pg_wal, name, PushOptions::default(), &JobContext::new()).await.unwrap();
        assert_eq!(report.failed, []);
        let mark = |end: &str| pg_wal.join("archive_status").join(format!("{name}{end}"));
        std::fs::rename(mark(".ready"), mark(".done")).unwrap();
        (pushed, beside) = (pushed + 1, beside + report.others.len());
    }
    drop(load);
    let end = lsn(&cluster.lsn());
    running.until("the end", |status| status.flushed >= end);
    running.stop().await;
    assert!(pushed + beside > 3, "{pushed} and {beside} beside");
    replay(&archive, &TimelineHistory::root(Timeline::FIRST), first, end).await;
    assert!(archive.audit(Some(end), &JobContext::new()).await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_24_the_receiver_of_another_cluster_is_refused() {
    let (one, other) = (
        Cluster::builder().initdb("--wal-segsize=1").start(),
        Cluster::builder().initdb("--wal-segsize=1").start(),
    );
    let archive = archive().await;
    let receive = |cluster: &Cluster| {
        let mut options = ReceiveOptions::with_slot("one");
        options.until = Some(lsn(&cluster.switch_wal_and_lsn()));
        let connect: Connect = connect(cluster);
        let archive = Arc::new(archive.clone());
        async move { Receiver::new(connect, archive, options).unwrap().run(&JobContext::new()).await }
    };
    receive(&one).await.unwrap();
    let error = receive(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains(&other.system_identifier().to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_writes_is_what_the_reader_reads() {
    let cluster = Cluster::builder().config("max_prepared_transactions = 5").start();
    let start = cluster.switch_wal();
    cluster.sql("create table t (x int)");
    cluster.script("postgres", "begin; insert into t values (1); prepare transaction 'p';");
    let prepared: u32 = cluster.sql("select transaction::text from pg_prepared_xacts").parse().unwrap();
    cluster.sql("commit prepared 'p'");
    let aborted: u32 = cluster
        .script(
            "postgres",
            "begin; insert into t values (2); select pg_current_xact_id()::text::bigint; rollback;",
        )
        .trim()
        .parse()
        .unwrap();
    let point = lsn(&cluster.sql("select pg_create_restore_point('a point')"));
    cluster.checkpoint();
    let committed: u32 = cluster.script("postgres", "begin; insert into t select generate_series(1, 20000); select pg_current_xact_id()::text::bigint; commit;").trim().parse().unwrap();
    let end = lsn(&cluster.lsn());
    let first: SegmentName = start.parse::<SegmentName>().unwrap().next(SegmentSize::default()).unwrap();
    let size = SegmentSize::default();
    let mut reader = WalReader::new(first.start(size), size);
    let mut events = Vec::new();
    let mut name = first;
    while name.start(size) < end {
        let bytes = std::fs::read(cluster.data().join("pg_wal").join(name.to_string())).unwrap();
        let header = check_segment(&bytes, name, Some(size)).unwrap();
        assert_eq!(header.version.major(), cluster.version().0);
        assert_eq!(header.system_identifier, cluster.system_identifier());
        reader.feed(&bytes, &mut events);
        name = name.next(size).unwrap();
    }
    assert!(reader.valid_to() >= end);
    let has = |wanted: &dyn Fn(&WalRecord) -> bool| events.iter().any(|event| wanted(&event.record));
    assert!(has(&|record| matches!(record, WalRecord::Commit { xid: Some(xid), .. } if *xid == prepared)));
    assert!(has(&|record| matches!(record, WalRecord::Abort { xid: Some(xid), .. } if *xid == aborted)));
    assert!(has(&|record| matches!(record, WalRecord::Commit { xid: Some(xid), .. } if *xid == committed)));
    assert!(has(&|record| matches!(record, WalRecord::Checkpoint { shutdown: false, .. })));
    let named = events
        .iter()
        .find(|event| matches!(&event.record, WalRecord::RestorePoint { name, .. } if name == "a point"));
    assert_eq!(named.unwrap().end, point);
    let now = std::time::SystemTime::now().into();
    for event in &events {
        if let WalRecord::Commit { time, .. } = &event.record {
            let age = backup_core::Timestamp::seconds(now) - time.seconds();
            assert!((0..120).contains(&age), "{age}");
        }
    }
}
