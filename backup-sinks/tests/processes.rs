//! Several processes share one local store, and some of them are killed.
//!
//! The other processes are this test binary, started again for one of the tests that are ignored otherwise.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backup_core::{GetRange, ObjectKey, PutOutcome, Sink, SinkExt};
use backup_sinks::LocalSink;

/// Where a child finds its store.
const STORE: &str = "BACKUP_SINKS_TEST_STORE";
/// What distinguishes the children.
const NUMBER: &str = "BACKUP_SINKS_TEST_NUMBER";

const OBJECTS: usize = 60;

#[tokio::test]
async fn of_several_processes_one_creates_each_object() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let racers: Vec<_> = (0..6).map(|number| start("child_that_races", &store, number)).collect();
    std::fs::create_dir(&store).unwrap();
    let mut winners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, racer) in racers.into_iter().enumerate() {
        for key in words_after("created ", racer) {
            winners.entry(key).or_default().push(number);
        }
    }
    assert_eq!(winners.len(), OBJECTS);
    let sink = LocalSink::open(&store).unwrap();
    for (key, winners) in winners {
        let there = sink.get(&ObjectKey::new(&key).unwrap(), GetRange::Full).await.unwrap();
        assert_eq!(winners.len(), 1, "{key} was created by {winners:?}");
        assert_eq!(there.bytes, winners[0].to_string().repeat(1000), "{key}");
    }
}

#[tokio::test]
#[ignore = "runs as another process of the test above"]
async fn child_that_races() {
    let Some((store, number)) = of_child() else { return };
    while !store.exists() {
        std::thread::yield_now();
    }
    let sink = LocalSink::open(&store).unwrap();
    for object in 0..OBJECTS {
        let key = ObjectKey::new(format!("data/{:02x}/{object}", object % 20)).unwrap();
        if sink.put(&key, number.repeat(1000).into()).await.unwrap() == PutOutcome::Created {
            println!("created {key}");
        }
    }
}

/// Kills a writer a hundred times, at moments spread over the whole course of a put.
#[tokio::test]
async fn a_killed_process_leaves_whole_objects_and_what_else_it_left_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    LocalSink::create(&store).unwrap();
    let mut abandoned = 0;
    let mut acknowledged = Vec::new();
    for round in 0..100_u64 {
        let mut child = start("child_that_is_killed", &store, round);
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        // Startup takes longer than a put: begin to wait only when the first one is done.
        acknowledged.extend(lines.by_ref().find_map(|line| line.strip_prefix("put ").map(str::to_owned)));
        std::thread::sleep(Duration::from_micros(round * 97 % 5000));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.filter_map(|line| line.strip_prefix("put ").map(str::to_owned)));
        abandoned += temporaries(&store);
        if round % 10 == 9 {
            // A partly written last line would not be a whole key.
            acknowledged.retain(|key| key.ends_with('.'));
            check_store(&store, &acknowledged).await;
        }
    }
    assert!(abandoned > 0, "no process was killed while it wrote: this test shows nothing");
    LocalSink::open(&store).unwrap();
    assert_eq!(temporaries(&store), 0, "temporary files of killed processes stay");
}

async fn check_store(store: &Path, acknowledged: &[String]) {
    let sink = LocalSink::open(store).unwrap();
    let listed = sink.list_all("").await.unwrap();
    for meta in &listed {
        let there = sink.get(&meta.key, GetRange::Full).await.unwrap();
        assert_eq!(there.bytes, content(meta.key.as_str()), "{} is not whole", meta.key);
    }
    for key in acknowledged {
        assert!(listed.iter().any(|meta| meta.key.as_str() == key), "{key} was acknowledged and is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as another process of the test above"]
async fn child_that_is_killed() {
    let Some((store, number)) = of_child() else { return };
    let sink = Arc::new(LocalSink::open(&store).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..3 {
        let (sink, number) = (Arc::clone(&sink), number.clone());
        tasks.spawn(async move {
            for object in 0..10_000 {
                let key = ObjectKey::new(format!("data/{task:02}/{number}-{object}.")).unwrap();
                sink.put(&key, content(key.as_str()).into()).await.unwrap();
                println!("put {key}");
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn opening_a_store_takes_nothing_from_a_process_that_writes() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    LocalSink::create(&store).unwrap();
    let mut writers: Vec<_> = (0..2).map(|number| start("child_that_writes", &store, number)).collect();
    let mut seen = 0;
    while writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
        LocalSink::open(&store).unwrap();
        seen += temporaries(&store);
    }
    assert!(seen > 0, "no temporary file was ever there: this test shows nothing");
    for writer in writers {
        assert_eq!(words_after("written ", writer), ["all"]);
    }
}

#[tokio::test]
#[ignore = "runs as another process of the test above"]
async fn child_that_writes() {
    let Some((store, number)) = of_child() else { return };
    let sink = LocalSink::open(&store).unwrap();
    for object in 0..150 {
        let key = ObjectKey::new(format!("data/{number}/{object}")).unwrap();
        assert_eq!(sink.put(&key, content(key.as_str()).into()).await.unwrap(), PutOutcome::Created);
    }
    println!("written all");
}

/// What an object must hold, from its key: enough that writing it takes a while.
fn content(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(300_000).collect()
}

fn temporaries(store: &Path) -> usize {
    std::fs::read_dir(store.join(".tmp")).map_or(0, Iterator::count)
}

/// Starts this binary again, for one test.
fn start(test: &str, store: &Path, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(STORE, store)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the child was given; nothing if somebody runs the ignored tests by hand.
fn of_child() -> Option<(PathBuf, String)> {
    Some((std::env::var_os(STORE)?.into(), std::env::var(NUMBER).ok()?))
}

/// The rest of the lines that start so, of a child that ends well.
fn words_after(start: &str, mut child: Child) -> Vec<String> {
    let output = BufReader::new(child.stdout.take().unwrap());
    // The harness writes `test name ... ` before the child's first line.
    let lines = output.lines().map_while(Result::ok);
    let words = lines
        .filter_map(|line| line.find(start).and_then(|at| line.get(at + start.len()..).map(str::to_owned)));
    let words = words.collect();
    assert!(child.wait().unwrap().success());
    words
}
