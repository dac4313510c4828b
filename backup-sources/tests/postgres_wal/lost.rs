//! What a server does not keep: a slot in danger is said, a lost one is a gap that is recorded, and what only comes later is none.

use backup_sources::postgres::archive::LogLook;
use backup_sources::postgres::recovery::{BaseBackup, PlanRequest, RecoveryPlan, RecoveryTarget, Speed};

use super::kept::Blocked;
use super::postgres_server::eventually;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn trap_28_a_slot_in_danger_is_an_alert_and_a_lost_one_a_gap() {
    let cluster = Cluster::builder()
        .initdb("--wal-segsize=1")
        .config(
            "max_slot_wal_keep_size = 4MB\nmin_wal_size = 2MB\nmax_wal_size = 512MB\ncheckpoint_timeout = 1h",
        )
        .start();
    cluster.bench_init(1);
    let (archive, alerts) = (archive().await, Arc::new(Alerts::default()));
    let blocked = Arc::new(Blocked::over(archive.clone()));
    let mut options = ReceiveOptions::with_slot("received");
    options.status_interval = Duration::from_millis(200);
    let job = JobContext::new().with_observer(alerts.clone());
    let running = Running::start_with(&connect(&cluster), blocked.clone(), options.clone(), job.clone());
    running
        .until("a beginning", |status| status.flushed.is_valid() && status.slot == Some(WalStatus::Reserved));
    running.until("something archived", |status| status.pieces > 0 || status.segments > 0);
    blocked.block();
    // The store stands still, and the server goes on: beyond what it is to keep.
    let in_the_view = "select wal_status from pg_replication_slots";
    eventually("the danger", || {
        cluster.bench(1, 20);
        cluster.switch_wal();
        (cluster.sql(in_the_view) == "unreserved").then_some(())
    });
    running.until("that it is seen", |status| status.slot == Some(WalStatus::Unreserved));
    let said = |what: &str| alerts.all().iter().any(|alert| alert.contains(what));
    eventually("an alert", || said("(unreserved)").then_some(()));
    // What nobody takes must not hold up the server: its checkpoint ends the walsender, and removes what it may.
    running.until("the connection's end", |status| !status.connected);
    eventually("the loss", || {
        cluster.bench(1, 20);
        cluster.switch_wal();
        cluster.checkpoint();
        (cluster.sql(in_the_view) == "lost").then_some(())
    });
    running.until("that it is seen, too", |status| status.slot == Some(WalStatus::Lost));
    eventually("an alert of that", || said("has lost a part").then_some(()));
    blocked.release();
    let error = running.ended().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("full backup"), "{error}");
    let audit = archive.audit(None, &job).await.unwrap();
    let lost = audit.timelines[0].lost.clone();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(audit.frontier, Some(lost[0]), "what was received is stored, and what follows is lost");
    let beyond = SegmentName::of(Timeline::FIRST, lost[0], small()).next(small()).unwrap();
    let error = archive.get(WalFile::Segment(beyond), &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    options.accept_gap = true;
    options.until = Some(lsn(&cluster.lsn()));
    let receiver = Receiver::new(connect(&cluster), blocked, options.clone()).unwrap();
    let status = receiver.run(&job).await.unwrap();
    assert!(status.flushed >= options.until.unwrap());
    let audit = archive.audit(None, &job).await.unwrap();
    assert!(!audit.is_sound() && !audit.timelines[0].gaps.is_empty(), "{audit:?}");
    assert_eq!(cluster.sql(in_the_view), "reserved");
    // It was accepted once, and is not asked for again.
    options.accept_gap = false;
    cluster.bench(1, 20);
    options.until = Some(lsn(&cluster.lsn()));
    let receiver = Receiver::new(connect(&cluster), Arc::new(archive.clone()), options.clone()).unwrap();
    receiver.run(&job).await.unwrap();
    let audit = archive.audit(None, &job).await.unwrap();
    assert_eq!(audit.timelines[0].lost, lost);
    // Whoever begins after it finds the end of the log.
    let last = audit.timelines[0].last.unwrap();
    let after = last.next(small()).unwrap();
    assert_eq!(archive.get(WalFile::Segment(after), &job).await.unwrap(), Fetched::NeverArchived);
    // A plan that would have to cross it is refused, and says why.
    let refused = plan_across(&archive, &cluster, lost[0]).await;
    assert!(refused.contains("not in the archive") && refused.contains("was lost"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_28_what_a_server_does_not_send_and_then_archives_is_not_lost() {
    let config = "archive_mode = on\narchive_command = 'false'";
    let cluster = Cluster::builder().initdb("--wal-segsize=1").config(config).start();
    cluster.bench_init(1);
    let archive = archive().await;
    let mut options = ReceiveOptions::with_slot("received");
    options.until = Some(lsn(&cluster.lsn()));
    let receiver = |options: &ReceiveOptions| {
        Receiver::new(connect(&cluster), Arc::new(archive.clone()), options.clone()).unwrap()
    };
    let reached = receiver(&options).run(&JobContext::new()).await.unwrap().flushed;
    cluster.bench(1, 200);
    // More than a receiver looks back when it begins.
    for _ in 0..70 {
        cluster.switch_wal();
        cluster.bench(1, 1);
    }
    // It is there, and not where the server looks for it.
    let segment = SegmentName::of(Timeline::FIRST, reached, small());
    let path = cluster.data().join("pg_wal").join(segment.to_string());
    let content = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();

    let alerts = Arc::new(Alerts::default());
    options.until = Some(lsn(&cluster.lsn()));
    let job = JobContext::new().with_observer(alerts.clone());
    let running = Running::start(&connect(&cluster), &archive, options.clone(), job);
    eventually("a wait for the other way", || {
        alerts.all().iter().any(|said| said.contains("archive_command")).then_some(())
    });
    // What was archived beyond it does not stand for it.
    let put = async |segment: SegmentName, content: Vec<u8>| {
        archive.put(WalFile::Segment(segment), content.into(), None, &JobContext::new()).await.unwrap();
    };
    let mut later = segment.next(small()).unwrap();
    while later.end(small()) <= options.until.unwrap() {
        put(later, std::fs::read(cluster.data().join("pg_wal").join(later.to_string())).unwrap()).await;
        later = later.next(small()).unwrap();
    }
    assert!(later.number(small()) > segment.number(small()) + 66, "{segment} to {later}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.status().reconnects, 0, "{:?}", running.status());
    put(segment, content).await;
    let status = running.ended().await.unwrap();
    assert!(status.flushed >= options.until.unwrap(), "{status:?}");
    let audit = archive.audit(options.until, &JobContext::new()).await.unwrap();
    assert!(audit.is_sound() && audit.timelines[0].lost.is_empty(), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_28_a_slot_that_nobody_can_see_is_an_alert() {
    let cluster = Cluster::builder().initdb("--wal-segsize=1").hba("local all replicator reject").start();
    cluster.sql("create role replicator login replication");
    let conninfo = cluster.conninfo("postgres").replace("user=postgres", "user=replicator");
    let (archive, alerts) = (archive().await, Arc::new(Alerts::default()));
    let mut options = ReceiveOptions::with_slot("unseen");
    options.status_interval = Duration::from_millis(50);
    let job = JobContext::new().with_observer(alerts.clone());
    let running =
        Running::start(&Connect::parse_with(&conninfo, |_| None).unwrap(), &archive, options, job.clone());
    running.until("a beginning", |status| status.flushed.is_valid());
    let end = lsn(&cluster.switch_wal_and_lsn());
    running.until("the log", |status| status.flushed >= end);
    // Checks come again and again; what they cannot see is said once.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(running.status().slot, Some(WalStatus::Unknown));
    let said = alerts.all();
    assert!(said.len() == 1 && said[0].contains("`unseen` cannot be seen"), "{said:?}");
    running.stop().await;
}

/// What a plan says that begins before a gap and goes to the end of what is archived.
async fn plan_across(archive: &WalArchive, cluster: &Cluster, gap: Lsn) -> String {
    let start = SegmentName::of(Timeline::FIRST, gap, small()).previous(small()).unwrap().start(small());
    let setting = |name: &str| cluster.sql(&format!("select setting from pg_settings where name = '{name}'"));
    let segment = SegmentName::of(Timeline::FIRST, start, small()).to_string();
    let positions = [
        ("system_identifier", cluster.system_identifier().to_string()),
        ("timeline", "1".to_owned()),
        ("start_lsn", start.saturating_add(40).to_string()),
        ("stop_lsn", start.saturating_add(400).to_string()),
        ("start_segment", segment.clone()),
        ("stop_segment", segment),
        ("start_time", "2026-11-20T07:00:00Z".to_owned()),
        ("stop_time", "2026-11-20T07:00:01Z".to_owned()),
        ("server_version", setting("server_version_num")),
        ("block_bytes", setting("block_size")),
        ("wal_segment_bytes", setting("wal_segment_size")),
        ("data_checksums", setting("data_checksums")),
        ("from", "primary".to_owned()),
        ("tablespaces", "{}".to_owned()),
    ];
    let positions = positions.map(|(name, value)| (name.to_owned(), value)).into();
    let base = BaseBackup::from_positions("before the gap", &positions).unwrap();
    let inventory = archive.inventory(start, LogLook::Contents, &JobContext::new()).await.unwrap();
    let target = RecoveryTarget::latest();
    let request = PlanRequest {
        bases: &[base],
        inventory: &inventory,
        target: &target,
        place: None,
        programs: None,
        standby: false,
        allow_unproven: true,
        speed: Speed::default(),
    };
    RecoveryPlan::make(&request).unwrap_err().to_string()
}
