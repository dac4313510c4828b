//! PostgreSQL from the command line: a server archives by `log push`, a backup is taken, moments are recovered and rehearsed.
//!
//! The server is a real one; see `backup-sources/tests/postgres_server`.

#![cfg(feature = "postgres")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "../../../backup-sources/tests/postgres_server/mod.rs"]
mod postgres_server;

mod postgres_world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::JobContext;
use backup_sources::postgres::receive::ReceivedLog;
use backup_sources::postgres::wal::Summary;
use postgres_server::run;
use postgres_world::World;
use serde_json::Value;

/// Flips a bit of what is archived of a segment; where it is, and what was there.
fn damage(world: &World, segment: &str) -> (PathBuf, Vec<u8>) {
    let objects = world.path("repository/logs");
    let stored =
        run(Command::new("find").arg(&objects).args(["-type", "f", "-path", &format!("*/{segment}/*")]));
    let object = PathBuf::from(stored.lines().next().unwrap());
    let sound = fs::read(&object).unwrap();
    let mut bytes = sound.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    replace(world, &object, &bytes);
    (object, sound)
}

fn replace(world: &World, object: &Path, bytes: &[u8]) {
    fs::remove_file(object).unwrap();
    fs::write(object, bytes).unwrap();
    world.cluster.account().own(object);
}

#[test]
fn a_cluster_is_backed_up_recovered_to_a_moment_and_rehearsed() {
    let world = World::new();
    let cluster = &world.cluster;
    cluster.sql("create table moments (number int primary key, said text)");
    cluster.sql("insert into moments select n, repeat('x', n) from generate_series(1, 500) n");
    let made = world.back_up();
    assert_eq!(made["outcome"], "complete", "{made:#}");
    cluster.sql("insert into moments values (501, 'after the backup')");
    cluster.sql("select pg_create_restore_point('good')");
    cluster.sql("delete from moments");
    world.archived();

    // What is archived, and that nothing is missing.
    let connection = cluster.conninfo("postgres");
    let audit = world.json(0, &["log", "audit", "--connection", &connection]);
    assert_eq!(audit["gaps"], serde_json::json!([]), "{audit:#}");
    assert_eq!(audit["lineages"][0]["system_identifier"], cluster.system_identifier(), "{audit:#}");
    assert!(audit["frontier"].is_string() && audit["lag_bytes"].is_u64(), "{audit:#}");
    assert!(!world.json(0, &["log", "list"])["lineages"][0]["segments"].as_array().unwrap().is_empty());

    // The moment before everything was deleted.
    let to = world.path("restored").display().to_string();
    let (programs, socket) = (world.programs(), cluster.directory("s").display().to_string());
    let planned = ["restore-postgres", "latest", "--to", &to, "--target-name", "good"];
    let plan = world.json(0, &[&planned[..], &["--dry-run"]].concat());
    assert!(plan["plan"]["reached"]["proof"].is_string(), "{plan:#}");
    assert!(!Path::new(&to).exists(), "a dry run changes nothing");
    let unread = world.json(0, &[&planned[..], &["--dry-run", "--unread-log"]].concat());
    assert_eq!(
        unread["plan"]["reached"], plan["plan"]["reached"],
        "what segments say of themselves is the same"
    );
    // What is damaged is seen before anything is touched.
    let target = plan["plan"]["reached"]["segment"].as_str().unwrap();
    let (object, sound) = damage(&world, target);
    let refused = world.run([&planned[..], &["--dry-run"]].concat());
    assert!(refused.code == Some(1) && refused.err.contains(target), "{refused:?}");
    replace(&world, &object, &sound);

    let started = ["--start", "--programs", &programs, "--socket", &socket, "--port", "5433"];
    let restored = world.json(0, &[&planned[..], &started].concat());
    assert_eq!(restored["plan"]["base"]["id"], made["snapshot"], "{restored:#}");
    let mut psql = cluster.program("psql");
    psql.args(["-XAtq", "-h", &socket, "-p", "5433", "-U", "postgres", "-c"]);
    psql.arg("select count(*), max(number), pg_is_in_recovery() from moments");
    assert_eq!(run(&mut psql), "501|501|t");
    run(cluster.program("pg_ctl").args(["stop", "-w", "-m", "immediate", "-D", &to]));

    // What cannot work is refused before anything is touched, by name.
    let nowhere = world.path("nowhere").display().to_string();
    let refused = world.run(["restore-postgres", "latest", "--to", &nowhere, "--target-name", "never made"]);
    assert!(refused.code == Some(1) && refused.err.contains("never made"), "{refused:?}");
    assert!(!Path::new(&nowhere).exists());

    // The same rehearsed, with evidence.
    let scratch = cluster.directory("scratch").display().to_string();
    let drill = ["drill", "latest", "--scratch", &scratch, "--programs", &programs];
    let good = ["--target-name", "good", "--query", "postgres: select count(*) from public.moments = 501"];
    let report = world.json(0, &[&drill[..], &good].concat());
    assert!(report["passed"] == true && report["rto_seconds"].is_f64(), "{report:#}");
    let bad = ["--query", "postgres: select count(*) from public.moments = 501"];
    let report = world.json(1, &[&drill[..], &bad].concat());
    assert!(report["passed"] == false && report["rpo_seconds"].is_f64(), "{report:#}");
    let evidence = world.json(0, &["evidence", "list", "--kind", "drill"]);
    let passed: Vec<&Value> = evidence["evidence"].as_array().unwrap().iter().map(|e| &e["passed"]).collect();
    assert_eq!(passed, [false, true]);
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "the scratch clusters are gone");

    // Nothing expires that the snapshot needs.
    let expired = world.json(0, &["log", "expire", "--within", "1d"]);
    assert_eq!(expired["log_bytes_unneeded"], 0, "{expired:#}");
}

#[test]
fn trap_26_only_what_provably_was_never_archived_is_told_from_failures() {
    let world = World::new();
    world.cluster.sql("create table t as select 1");
    world.archived();
    let listed = world.json(0, &["log", "list"]);
    let names: Vec<&str> = listed["lineages"][0]["segments"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|segment| segment["name"]["segment"].as_str())
        .collect();
    let (first, dest) = (names[0].to_owned(), world.path("fetched").display().to_string());
    let spool = world.path("spool").display().to_string();
    let fetch = |arguments: &[&str]| {
        let ran = world.run([&["log", "fetch"], arguments].concat());
        (ran.code.unwrap(), ran)
    };
    assert_eq!(fetch(&[&first, &dest, "--spool", &spool]).0, 0);
    assert_eq!(fs::read(&dest).unwrap(), fs::read(world.cluster.data().join("pg_wal").join(&first)).unwrap());
    assert_eq!(fetch(&["0000000100000000000000F0", &dest]).0, 1, "beyond the end");
    assert_eq!(fetch(&["00000002.history", &dest]).0, 1, "a timeline that nobody has seen");
    // Everything else must not look like the end of the log.
    let failures: [&[&str]; 6] = [
        &[],
        &["not a name", &dest],
        &[&first, "/nowhere/at/all"],
        &["0000000200000000000000F0", &dest],
        &[&first, &dest, "--ahead", "1000"],
        &[&first, &dest, "--system", "1"],
    ];
    for arguments in failures {
        let (code, ran) = fetch(arguments);
        assert!(code >= 126, "{arguments:?}: {ran:?}");
    }
    let elsewhere = |change: &dyn Fn(&mut Command)| {
        let mut command = world.command(["log", "fetch", &first, &dest]);
        change(&mut command);
        command.output().unwrap().status.code().unwrap()
    };
    assert!(
        elsewhere(&|command| {
            command.args(["--repo", "/nowhere"]);
        }) >= 126
    );
    assert!(
        elsewhere(&|command| {
            command.args(["--key-file", "/nowhere"]);
        }) >= 126
    );
    assert!(
        elsewhere(&|command| {
            command.args(["--config", "/nowhere"]);
        }) >= 126
    );
    fs::write(world.path("wrong"), "HxECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
    let wrong = world.path("wrong");
    assert!(
        elsewhere(&|command| {
            command.arg("--key-file").arg(&wrong);
        }) >= 126
    );
    // A damaged segment, and then a missing one.
    let (object, _) = damage(&world, &first);
    let (code, ran) = fetch(&[&first, &dest]);
    assert!(code >= 126 && ran.err.contains(&first), "{ran:?}");
    fs::remove_file(&object).unwrap();
    world.cluster.sql("insert into t values (2)");
    world.archived();
    let (code, ran) = fetch(&[&first, &dest]);
    assert!(code >= 126 && ran.err.contains(&first), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_26_where_a_place_does_not_answer_the_beginning_of_a_segment_is_not_all_of_it() {
    let world = World::new();
    world.cluster.sql("create table t as select 1");
    world.archived();
    world.cluster.sql("insert into t values (2)");
    let name = world.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    let content = fs::read(world.cluster.data().join("pg_wal").join(&name)).unwrap();
    let (segment, part) = (name.parse().unwrap(), content[..8192].to_vec().into());
    let job = JobContext::new();
    world.archive().await.put_piece(segment, 0, part, &Summary::default(), &job).await.unwrap();
    world.cluster.account().own(&world.path("repository"));
    let dest = world.path("fetched").display().to_string();
    let ran = world.run(["log", "fetch", &name, &dest]);
    assert_eq!(ran.code, Some(0), "all places have answered: {ran:?}");
    assert_eq!(fs::read(&dest).unwrap().len(), content.len());
    fs::remove_file(&dest).unwrap();
    // The place that does not answer may have the whole segment, and more.
    let ran = world.run(["--place", "/nowhere", "log", "fetch", &name, &dest]);
    assert!(ran.code >= Some(126) && ran.err.contains("does not answer"), "{ran:?}");
    assert!(!Path::new(&dest).exists());
}
