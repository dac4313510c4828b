//! Recoveries that are killed at random leave nothing that starts but a whole cluster, and are simply done again.
#![cfg(feature = "postgres")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod postgres_archive;
mod postgres_server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::JobContext;
use backup_sources::postgres::recovery::{
    Place, RecoveryPlan, RecoverySettings, RecoveryState, RecoveryTarget, WatchUntil, finish, prepare, watch,
};
use postgres_archive::{Archive, Base, Running, Site, restore_tree, starts, state_query};
use postgres_server::Cluster;

/// In which directory the child process finds what it is to do.
const WORK: &str = "BACKUP_TEST_RECOVERY";

/// No test of its own: the process that is killed.
#[tokio::test]
async fn child() {
    let Some(work) = std::env::var_os(WORK).map(PathBuf::from) else { return };
    let read = |name: &str| std::fs::read_to_string(work.join(name)).unwrap();
    let plan: RecoveryPlan = serde_json::from_str(&read("plan.json")).unwrap();
    let settings: RecoverySettings = serde_json::from_str(&read("settings.json")).unwrap();
    let target = prepare(&plan).await.unwrap();
    let report = restore_tree(Path::new(&read("files")), &target, &JobContext::new()).await.unwrap();
    finish(&plan, &target, &report, &settings).await.unwrap();
}

/// Numbers that look random and are the same for the same seed.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_leave_nothing_that_starts_but_a_whole_cluster() {
    let kills = if std::env::var_os("BACKUP_LONG").is_some() { 100 } else { 10 };
    let mut seed =
        std::env::var("BACKUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5EED_1234_u64);
    println!("BACKUP_SEED={seed}");
    let archive = Archive::new();
    let primary = Cluster::builder().initdb("--wal-segsize=1").config(&archive.settings()).start();
    primary.bench_init(1);
    let base = Base::take(&primary, "base");
    primary.bench(2, 100);
    archive.flush(&primary);
    let expected = primary.sql(&state_query());
    let inventory = archive.inventory(&primary);

    // What stands there first is another cluster, which starts.
    let site = Site::new();
    let old = Cluster::builder().make();
    std::fs::rename(old.data(), site.data()).unwrap();
    let plan = site
        .plan_with(&[&base], &inventory, &RecoveryTarget::latest(), Place::replacing, |request| request)
        .unwrap();
    let settings = site.settings(&archive);
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("plan.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
    std::fs::write(work.path().join("settings.json"), serde_json::to_vec(&settings).unwrap()).unwrap();
    std::fs::write(work.path().join("files"), base.files().to_str().unwrap()).unwrap();
    let run = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child", "--nocapture"]).env(WORK, work.path());
        child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    assert!(run().wait().unwrap().success());
    // Once more: where everything is there already it is quicker.
    let began = Instant::now();
    assert!(run().wait().unwrap().success());
    let whole = began.elapsed();

    let (mut without, mut with) = (0, 0);
    for kill in 0..kills {
        // Each begins with a cluster that starts, or with what the last kill left.
        let at = Duration::from_micros(random(&mut seed) % u64::try_from(whole.as_micros()).unwrap());
        let mut child = run();
        std::thread::sleep(at);
        child.kill().unwrap();
        child.wait().unwrap();
        let control = site.data().join("global/pg_control");
        if !control.exists() {
            without += 1;
            if kill % 5 == 0 {
                let error = starts(&site.data()).unwrap_err();
                assert!(error.contains("pg_control"), "killed after {at:?}: {error}");
            }
            continue;
        }
        // Not begun, or done: either way one cluster and no other's file.
        with += 1;
        let label = std::fs::read_to_string(site.data().join("backup_label")).unwrap();
        assert!(label.contains(&base.backup.start_lsn.to_string()), "killed after {at:?}");
        assert!(site.data().join("recovery.signal").exists(), "killed after {at:?}");
        // The base is the server's own tool's, with its manifest.
        if primary.version().judging() != primary.version() {
            continue;
        }
        let verified = primary.program("pg_verifybackup").arg("-n").arg(site.data()).output().unwrap();
        let leftovers = ["recovery-in-progress.json", "global/pg_control.before-recovery"];
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let is_leftover =
            |line: &str| leftovers.iter().any(|name| line.contains(name)) || line.contains(".new\"");
        let only_leftovers = !said.is_empty() && said.lines().all(is_leftover);
        assert!(verified.status.success() || only_leftovers, "killed after {at:?}: {said}");
    }
    println!(
        "{without} of {kills} kills left nothing to start, {with} a whole cluster; a recovery takes {whole:?}"
    );
    let last = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(WORK, work.path())
        .output()
        .unwrap();
    assert!(last.status.success(), "{last:?}");
    let recovered = backup_sources::postgres::recovery::Recovered {
        data: site.data(),
        owner: site.account.other().unwrap_or((u32::MAX, u32::MAX)),
        removed: 0,
    };
    let server = site.server(&recovered).await;
    server.start().await.unwrap();
    let server = Running::new(server);
    let state =
        watch(&server.0, &plan, WatchUntil::Done, Duration::from_secs(60), &JobContext::new()).await.unwrap();
    assert!(matches!(state, RecoveryState::Promoted { .. }), "{state:?}");
    assert_eq!(server.sql(&state_query()).await, expected);
}
