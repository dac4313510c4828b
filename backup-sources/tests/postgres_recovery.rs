//! Recoveries of real clusters, and what they refuse. To many moments of every kind: `examples/backup-cli/tests/postgres_moments.rs`.
#![cfg(feature = "postgres")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod postgres_archive;
mod postgres_server;

use std::fs;
use std::time::Duration;

use backup_core::{ErrorKind, JobContext, RestoreReport};
use backup_sources::postgres::recovery::{
    Place, PlanRequest, Programs, RecoverySettings, RecoveryState, RecoveryTarget, Refusal, Server,
    TargetAction, WatchUntil, finish, prepare, watch,
};
use postgres_archive::{Archive, Base, Site, restore_tree, sh, starts, state_query};
use postgres_server::Cluster;

/// A busy cluster with a tablespace, its archive, a base backup made under load, and what came after.
struct Scene {
    archive: Archive,
    primary: Cluster,
    base: Base,
}

impl Scene {
    fn new() -> Self {
        let archive = Archive::new();
        let primary = Cluster::builder().initdb("--wal-segsize=1").config(&archive.settings()).start();
        primary.tablespace("elsewhere");
        primary.bench_init_with(1, &["--tablespace=elsewhere"]);
        primary.sql("create table moments (number int)");
        let load = primary.load(2);
        let base = Base::take(&primary, "first");
        drop(load);
        primary.bench(2, 200);
        Self { archive, primary, base }
    }

    fn flush(&self) {
        self.primary.bench(1, 10);
        self.archive.flush(&self.primary);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_36_nothing_starts_until_everything_is_there() {
    let scene = Scene::new();
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let site = Site::new();
    // An old cluster stands there: another one, with files that the base backup does not have.
    let old = Cluster::builder().make();
    fs::rename(old.data(), site.data()).unwrap();
    fs::write(site.data().join("base/1/999999"), vec![1; 8192]).unwrap();
    fs::write(site.data().join("pg_wal/000000010000000000000009"), vec![1; 8192]).unwrap();
    fs::write(site.data().join("standby.signal"), "").unwrap();
    let target = RecoveryTarget::immediate();
    let refused = site.plan(&[&scene.base], &inventory, &target).unwrap_err();
    assert!(matches!(refused.reasons[..], [Refusal::ClusterThere { .. }]), "{refused}");
    let plan =
        site.plan_with(&[&scene.base], &inventory, &target, Place::replacing, |request| request).unwrap();
    assert!(site.data().join("global/pg_control").exists(), "a plan changes nothing");

    let files = prepare(&plan).await.unwrap();
    let never = |when: &str| {
        assert!(!site.data().join("global/pg_control").exists(), "{when}");
        let error = starts(&site.data()).unwrap_err();
        assert!(error.contains("global/pg_control"), "{when}: {error}");
    };
    never("prepared");
    assert!(!site.data().join("pg_wal/000000010000000000000009").exists());
    assert!(!site.data().join("standby.signal").exists());
    let settings = site.settings(&scene.archive);
    let error = finish(&plan, &files, &RestoreReport::default(), &settings).await.unwrap_err();
    assert!(error.to_string().contains("no snapshot"), "{error}");
    never("nothing was restored");
    let report = restore_tree(&scene.base.files(), &files, &JobContext::new()).await.unwrap();
    never("restored");

    // A file that could not be restored; a label that is missing, or another backup's; another cluster's pg_control.
    let mut broken = report.clone();
    broken.failed.push(backup_core::Skipped::new("base/1/1259", "its chunk is damaged"));
    let error = finish(&plan, &files, &broken, &settings).await.unwrap_err();
    assert!(error.to_string().contains("base/1/1259"), "{error}");
    let label = site.data().join("backup_label");
    let text = fs::read_to_string(&label).unwrap();
    fs::write(&label, text.replace("START WAL LOCATION: ", "START WAL LOCATION: 7")).unwrap();
    assert!(finish(&plan, &files, &report, &settings).await.unwrap_err().is_corruption());
    fs::remove_file(&label).unwrap();
    let error = finish(&plan, &files, &report, &settings).await.unwrap_err();
    assert!(error.to_string().contains("silently corrupt"), "{error}");
    fs::write(&label, text).unwrap();
    let control = site.data().join("global/pg_control.restored");
    let own = fs::read(&control).unwrap();
    let mut torn = own.clone();
    torn[40] ^= 1;
    fs::write(&control, torn).unwrap();
    assert!(finish(&plan, &files, &report, &settings).await.unwrap_err().is_corruption());
    let stranger = Cluster::builder().make();
    fs::copy(stranger.data().join("global/pg_control"), &control).unwrap();
    assert!(finish(&plan, &files, &report, &settings).await.unwrap_err().is_corruption());
    fs::write(&control, own).unwrap();
    never("refused");

    let recovered = finish(&plan, &files, &report, &settings).await.unwrap();
    assert!(recovered.removed > 0);
    for gone in [
        "base/1/999999",
        "global/pg_control.restored",
        "global/pg_control.before-recovery",
        "recovery-in-progress.json",
    ] {
        assert!(!site.data().join(gone).exists(), "{gone}");
    }
    // A configuration that names the directory of the cluster that was backed up leads nobody there.
    let configuration = site.data().join("postgresql.conf");
    let text = fs::read_to_string(&configuration).unwrap();
    let elsewhere = scene.primary.data().display();
    fs::write(&configuration, format!("{text}\ndata_directory = '{elsewhere}'\n")).unwrap();
    let server = site.server(&recovered).await;
    server.start().await.unwrap();
    let server = postgres_archive::Running::new(server);
    let state =
        watch(&server.0, &plan, WatchUntil::Done, Duration::from_secs(60), &JobContext::new()).await.unwrap();
    assert!(matches!(state, RecoveryState::Paused { .. }), "{state:?}");
    assert_eq!(server.sql("select count(*) from pgbench_accounts").await, "100000");
    // A plan that was right is not any more.
    let error = prepare(&plan).await.unwrap_err();
    assert!(error.to_string().contains("a server runs"), "{error}");
    assert_eq!(server.sql("select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_replaced_in_place_by_what_differs() {
    let scene = Scene::new();
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let site = Site::new();
    let target = RecoveryTarget::latest();
    let plan = site.plan(&[&scene.base], &inventory, &target).unwrap();
    let settings = site.settings(&scene.archive).action(TargetAction::Promote);
    let (server, state) = site.recover(&plan, &scene.base, &settings).await.unwrap();
    assert!(matches!(state, RecoveryState::Promoted { .. }), "{state:?}");
    let expected = server.sql(&state_query()).await;
    server.sql("create table stray as select generate_series(1, 1000) as n").await;
    server.sql("checkpoint").await;
    server.stop().await;
    // Its tablespace is its own, and so may be replaced with it.
    // But for what a cluster of another version has in the same directory, as after an upgrade.
    let oid = *scene.base.backup.tablespaces.keys().next().unwrap();
    let of_another = site.root.path().join(format!("space-{oid}/PG_9.6_201608131/5"));
    fs::create_dir_all(&of_another).unwrap();
    fs::write(of_another.join("16384"), "of another cluster").unwrap();
    let again =
        site.plan_with(&[&scene.base], &inventory, &target, Place::replacing, |request| request).unwrap();
    let files = prepare(&again).await.unwrap();
    let report = restore_tree(&scene.base.files(), &files, &JobContext::new()).await.unwrap();
    println!("{} bytes written, {} were there", report.bytes_written, report.bytes_unchanged);
    assert!(report.bytes_unchanged > report.bytes_written, "only what differs is written");
    let recovered = finish(&again, &files, &report, &settings).await.unwrap();
    assert_eq!(fs::read_to_string(of_another.join("16384")).unwrap(), "of another cluster");
    let server = site.server(&recovered).await;
    server.start().await.unwrap();
    let server = postgres_archive::Running::new(server);
    watch(&server.0, &again, WatchUntil::Done, Duration::from_secs(60), &JobContext::new()).await.unwrap();
    assert_eq!(server.sql(&state_query()).await, expected);
    assert_eq!(server.sql("select count(*) from pg_class where relname = 'stray'").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_cannot_be_are_refused_and_stay_as_they_are() {
    let scene = Scene::new();
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let site = Site::new();
    let target = RecoveryTarget::latest();
    let oid = *scene.base.backup.tablespaces.keys().next().unwrap();
    let refusals = |change: &dyn Fn(Place) -> Place| {
        let refused =
            site.plan_with(&[&scene.base], &inventory, &target, change, |request| request).unwrap_err();
        println!("{refused}");
        refused.reasons
    };
    let running = scene.primary.data().to_owned();
    let found = refusals(&|place| Place { data: running.clone(), replace: true, ..place });
    assert!(found.iter().any(
        |reason| matches!(reason, Refusal::ServerRuns { pid, .. } if Some(*pid) == scene.primary.pid())
    ));
    let found = refusals(&|place| Place { tablespaces: Default::default(), ..place });
    assert!(matches!(found[..], [Refusal::TablespaceNotEmpty { .. }]), "where it was it still is: {found:?}");
    let found = refusals(&|place| place.tablespace(oid, site.data().join("inside")));
    assert!(matches!(found[..], [Refusal::BadDirectory { .. }]), "{found:?}");
    let found = refusals(&|place| place.tablespace(7, "/nowhere"));
    assert!(matches!(found[..], [Refusal::BadDirectory { .. }]), "{found:?}");
    fs::create_dir(site.root.path().join("notes")).unwrap();
    fs::write(site.root.path().join("notes/letter"), "dear").unwrap();
    let found = refusals(&|place| Place { data: site.root.path().join("notes"), replace: true, ..place });
    assert!(matches!(found[..], [Refusal::NotACluster { .. }]), "{found:?}");
    let found = refusals(&|place| Place { data: site.root.path().join("notes/letter"), ..place });
    assert!(matches!(found[..], [Refusal::BadDirectory { .. }]), "{found:?}");
    assert_eq!(fs::read_to_string(site.root.path().join("notes/letter")).unwrap(), "dear");
    // Space is what file systems say.
    let backups = [scene.base.backup.clone()];
    let mut survey = site.place(&scene.base).survey(&backups).unwrap();
    survey.spaces.iter_mut().for_each(|space| space.free = 1 << 20);
    let request = PlanRequest {
        bases: &backups,
        inventory: &inventory,
        target: &target,
        place: Some(&survey),
        programs: None,
        standby: false,
        allow_unproven: false,
        speed: Default::default(),
    };
    let refused = backup_sources::postgres::recovery::RecoveryPlan::make(&request).unwrap_err();
    assert!(matches!(refused.reasons[..], [Refusal::NoSpace { .. }]), "{refused}");
    assert_eq!(backup_core::Error::from(refused).kind(), ErrorKind::NoSpace);
    assert!(!site.data().exists());
    assert_eq!(scene.primary.sql("select 1"), "1");
    let missing = Programs::at("/nowhere").await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/postgres"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_37_an_unreached_target_is_fatal_to_the_server_and_refused_by_the_plan() {
    let scene = Scene::new();
    let before = scene.base.backup.stop_time.saturating_add_seconds(-30);
    let later = scene.base.backup.stop_time.saturating_add_seconds(3600);
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let site = Site::new();
    let refused = site.plan(&[&scene.base], &inventory, &RecoveryTarget::time(before)).unwrap_err();
    assert!(matches!(refused.reasons[..], [Refusal::BeforeBackupEnd { .. }]), "{refused}");
    let unreached = [
        RecoveryTarget::time(later),
        RecoveryTarget::lsn("7/0".parse().unwrap()),
        RecoveryTarget::xid(4_000_000),
        RecoveryTarget::name("nobody made it"),
    ];
    for target in &unreached {
        let refused = site.plan(&[&scene.base], &inventory, target).unwrap_err();
        assert!(matches!(refused.reasons[..], [Refusal::NotReached { .. }]), "{refused}");
    }
    assert!(!site.data().exists());
    // What the refusals save one from, once: the plan of another target, with the settings of this one.
    let mut plan = site.plan(&[&scene.base], &inventory, &RecoveryTarget::immediate()).unwrap();
    plan.target = unreached[3].clone();
    let error = site.recover(&plan, &scene.base, &site.settings(&scene.archive)).await.unwrap_err();
    assert!(
        error.to_string().contains("recovery ended before configured recovery target was reached"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_38_a_hole_is_refused_and_a_standby_in_front_of_one_is_not_taken_for_healthy() {
    let scene = Scene::new();
    scene.flush();
    let last = scene.archive.names().into_iter().rfind(|name| name.len() == 24).unwrap();
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let site = Site::new();
    let target = RecoveryTarget::latest();
    let plan = site.plan_with(
        &[&scene.base],
        &inventory,
        &target,
        |place| place,
        |request| PlanRequest { standby: true, ..request },
    );
    let plan = plan.unwrap();
    let settings = site.settings(&scene.archive);
    let recovered = site.put(&plan, &scene.base, &settings).await.unwrap();
    assert!(site.data().join("standby.signal").exists());
    let server = postgres_archive::Running::new(site.server(&recovered).await);
    // The hole comes after the plan.
    let kept = site.root.path().join("kept");
    fs::rename(scene.archive.file(&last), &kept).unwrap();
    let holed = scene.archive.inventory(&scene.primary);
    let refused =
        site.plan_with(&[&scene.base], &holed, &target, Place::replacing, |request| request).unwrap_err();
    assert!(refused.to_string().contains(&last), "{refused}");
    server.0.start().await.unwrap();
    let job = JobContext::new();
    let state = watch(&server.0, &plan, WatchUntil::Consistent, Duration::from_secs(60), &job).await.unwrap();
    assert!(matches!(state, RecoveryState::Consistent { .. }), "it looks healthy: {state:?}");
    let error = watch(&server.0, &plan, WatchUntil::Done, Duration::from_secs(5), &job).await.unwrap_err();
    assert!(error.to_string().contains("has not recovered within"), "{error}");
    fs::rename(&kept, scene.archive.file(&last)).unwrap();
    let state = watch(&server.0, &plan, WatchUntil::Done, Duration::from_secs(60), &job).await.unwrap();
    assert!(
        matches!(state, RecoveryState::Following { replayed } if replayed >= plan.reached.at_least),
        "{state:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lets_nobody_in_is_not_watched_for_ever() {
    let scene = Scene::new();
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let site = Site::new();
    let plan = site.plan(&[&scene.base], &inventory, &RecoveryTarget::immediate()).unwrap();
    let recovered = site.put(&plan, &scene.base, &site.settings(&scene.archive)).await.unwrap();
    fs::write(site.data().join("pg_hba.conf"), "local all all reject\n").unwrap();
    let server = postgres_archive::Running::new(site.server(&recovered).await);
    server.0.start().await.unwrap();
    let job = JobContext::new();
    let watched = watch(&server.0, &plan, WatchUntil::Done, Duration::from_secs(120), &job);
    let error = watched.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("does not let the role `postgres` in"), "{error}");
    assert!(server.0.is_running().unwrap(), "it is let go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_39_it_pauses_by_default_and_never_archives_into_its_sources_lineage() {
    let scene = Scene::new();
    scene.primary.sql("select pg_create_restore_point('here')");
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let before = scene.archive.names();
    let site = Site::new();
    let plan = site.plan(&[&scene.base], &inventory, &RecoveryTarget::name("here")).unwrap();
    let (server, state) = site.recover(&plan, &scene.base, &site.settings(&scene.archive)).await.unwrap();
    assert!(matches!(state, RecoveryState::Paused { .. }), "{state:?}");
    let of = "select pg_get_wal_replay_pause_state() || ' ' || current_setting('recovery_target_action')";
    assert_eq!(server.sql(of).await, "paused pause");
    server.0.promote().await.unwrap();
    server.sql("create table own (n int)").await;
    server.sql("select pg_switch_wal()").await;
    server.sql("checkpoint").await;
    assert_eq!(server.sql("show archive_mode").await, "off");
    assert_eq!(server.sql("show archive_command").await, "(disabled)");
    let ready = fs::read_dir(site.data().join("pg_wal/archive_status")).unwrap();
    let ready =
        ready.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".ready"));
    assert_eq!(ready.count(), 0);
    assert_eq!(scene.archive.names(), before);
    // It stays so when it is started again.
    server.stop().await;
    let text = fs::read_to_string(site.data().join("postgresql.auto.conf")).unwrap();
    assert!(text.contains("archive_mode = 'off'"), "{text}");
    // Told to stop at the target, it does.
    let site = Site::new();
    let plan = site.plan(&[&scene.base], &inventory, &RecoveryTarget::name("here")).unwrap();
    let settings = site.settings(&scene.archive).action(TargetAction::Shutdown);
    let (_, state) = site.recover(&plan, &scene.base, &settings).await.unwrap();
    assert_eq!(state, RecoveryState::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_26_an_archive_that_fails_stops_the_server_and_one_that_lies_is_found_out() {
    let scene = Scene::new();
    scene.flush();
    scene.flush();
    let inventory = scene.archive.inventory(&scene.primary);
    let target = RecoveryTarget::latest();
    // A segment is gone since the plan was made: the server is told that there never was one, and promotes.
    let site = Site::new();
    let plan = site.plan(&[&scene.base], &inventory, &target).unwrap();
    let name = plan.segments.last().unwrap().last.to_string();
    let kept = site.root.path().join("kept");
    let earlier =
        scene.archive.names().into_iter().rfind(|other| other.len() == 24 && *other < name).unwrap();
    fs::rename(scene.archive.file(&earlier), &kept).unwrap();
    let error = site.recover(&plan, &scene.base, &site.settings(&scene.archive)).await.unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("too early"), "{error}");
    fs::rename(&kept, scene.archive.file(&earlier)).unwrap();
    // The archive cannot be read at all.
    let site = Site::new();
    let plan = site.plan(&[&scene.base], &inventory, &target).unwrap();
    scene.archive.break_down();
    let error = site.recover(&plan, &scene.base, &site.settings(&scene.archive)).await.unwrap_err();
    assert!(error.to_string().contains("the server has stopped"), "{error}");
    assert!(!site.data().join("pg_wal/00000002.history").exists());
    // And so does what is no archive.
    let site = Site::new();
    let plan = site.plan(&[&scene.base], &inventory, &target).unwrap();
    let mut settings = RecoverySettings::new("exit 127");
    settings.owner = site.account.other();
    let error = site.recover(&plan, &scene.base, &settings).await.unwrap_err();
    assert!(error.to_string().contains("the server has stopped"), "{error}");
    assert!(
        Server::is_running(&site.server(&put_again(&site, &plan, &scene).await).await)
            .is_ok_and(|runs| !runs)
    );
}

/// After a failed recovery the same place can be used again, if it is said that it may be replaced.
async fn put_again(
    site: &Site,
    plan: &backup_sources::postgres::recovery::RecoveryPlan,
    scene: &Scene,
) -> backup_sources::postgres::recovery::Recovered {
    let error = prepare(plan).await.unwrap_err();
    assert!(error.to_string().contains("holds a cluster"), "{error}");
    let mut plan = plan.clone();
    plan.place = plan.place.map(Place::replacing);
    site.put(&plan, &scene.base, &site.settings(&scene.archive)).await.unwrap()
}

#[test]
fn the_archive_of_these_tests_keeps_what_it_has() {
    let archive = Archive::new();
    let push = |content: &str| {
        let file = archive.path().join("given");
        fs::write(&file, content).unwrap();
        let root = archive.path().display();
        sh(&format!(
            "sh {root}/push {root} {} 000000010000000000000001 && echo yes || echo no > {root}/refused",
            file.display()
        ));
        !archive.path().join("refused").exists()
    };
    assert!(push("a") && push("a"));
    assert!(!push("b"));
    assert_eq!(fs::read_to_string(archive.file("000000010000000000000001")).unwrap(), "a");
}
