//! Sinks around sinks: each keeps the contract of sinks and does what it is for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use backup_core::resources::RateLimit;
use backup_core::testing::sink::conformance;
use backup_core::testing::{FailingSink, Fault, Manner, Operation, RecordingSink};
use backup_core::{ErrorKind, GetRange, ObjectKey, PutOutcome, Sink, SinkExt};
use backup_sinks::{Cached, MemorySink, Opening, Prefixed, RateLimited, ReadOnly, Retry, RetryPolicy};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn limited(upload: Option<u64>, download: Option<u64>) -> (RateLimit, RateLimit) {
    let (up, down) = (RateLimit::default(), RateLimit::default());
    up.set_bytes_per_second(upload);
    down.set_bytes_per_second(download);
    (up, down)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_them_keeps_the_contract() {
    let memory = || Arc::new(MemorySink::new());
    let directory = tempfile::tempdir().unwrap();
    conformance(Arc::new(Retry::over(memory()))).await.unwrap();
    conformance(Arc::new(Opening::over(memory(), [key("keys/1/expected")]))).await.unwrap();
    let (up, down) = limited(None, None);
    conformance(Arc::new(RateLimited::over(memory(), up, down))).await.unwrap();
    let shared = memory();
    conformance(Arc::new(Prefixed::over(Arc::clone(&shared), &key("some/prefix")))).await.unwrap();
    assert!(shared.list("", None, 1).await.unwrap().is_empty());
    conformance(Arc::new(Cached::open(memory(), directory.path(), 1 << 20).unwrap())).await.unwrap();
    // All of them at once, without knowing each other.
    let retried: Arc<dyn Sink> = Arc::new(Retry::over(memory()));
    let (up, down) = limited(None, None);
    let limited: Arc<dyn Sink> = Arc::new(RateLimited::over(retried, up, down));
    let below: Arc<dyn Sink> = Arc::new(Prefixed::over(limited, &key("a")));
    let directory = tempfile::tempdir().unwrap();
    conformance(Arc::new(Cached::open(below, directory.path(), 1 << 20).unwrap())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_may_succeed_later_is_tried_again() {
    let faults = [Fault::at(1), Fault::at(2), Fault::at(3)].map(|fault| fault.of(Operation::Put));
    let sink = Retry::new(FailingSink::new(MemorySink::new(), faults));
    assert_eq!(sink.put(&key("a"), "bytes".into()).await.unwrap(), PutOutcome::Created);
    for operation in [Operation::Get, Operation::List, Operation::Delete] {
        let sink = FailingSink::new(MemorySink::new(), [Fault::at(1).of(operation)]);
        let again = Retry::new(sink.clone());
        again.put(&key("a"), "bytes".into()).await.unwrap();
        assert_eq!(again.get(&key("a"), GetRange::Full).await.unwrap().bytes, "bytes");
        assert_eq!(again.list("", None, 9).await.unwrap().len(), 1);
        again.delete(&key("a")).await.unwrap();
        assert_eq!(sink.struck(), 1, "{operation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_object_of_a_lost_answer_is_found_by_comparing() {
    let lost = Fault::at(1).of(Operation::Put).after_effect();
    let sink = Retry::new(FailingSink::new(MemorySink::new(), [lost.clone()]));
    assert_eq!(sink.put(&key("a"), "bytes".into()).await.unwrap(), PutOutcome::AlreadyExists);
    let sink = Retry::new(FailingSink::new(MemorySink::new(), [lost]));
    sink.put_or_same(&key("a"), "bytes".into()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_will_not_succeed_later_is_not_tried_again() {
    for kind in [ErrorKind::NoSpace, ErrorKind::Denied, ErrorKind::Io, ErrorKind::Corruption] {
        let sink = RecordingSink::new(FailingSink::new(MemorySink::new(), [Fault::at(1).with_kind(kind)]));
        let error = Retry::new(sink.clone()).put(&key("a"), "bytes".into()).await.unwrap_err();
        assert_eq!((error.kind(), sink.calls().len()), (kind, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_and_time_are_bounded_and_pauses_are_of_random_length() {
    let down = || RecordingSink::new(FailingSink::new(MemorySink::new(), [Fault::at(1).from_then_on()]));
    let policy = RetryPolicy { attempts_max: 5, ..RetryPolicy::default() };
    let mut times = Vec::new();
    for _ in 0..8 {
        let (sink, started) = (down(), Instant::now());
        let again = Retry::new(sink.clone()).with_policy(policy.clone());
        assert_eq!(again.list("", None, 1).await.unwrap_err().kind(), ErrorKind::Transient);
        assert_eq!(sink.count(Operation::List), 5);
        // 0.2 + 0.4 + 0.8 + 1.6 s at the most.
        assert!(started.elapsed() <= Duration::from_millis(3010), "{:?}", started.elapsed());
        times.push(started.elapsed());
    }
    times.dedup();
    assert!(times.len() > 1, "no jitter: {times:?}");

    let policy =
        RetryPolicy { attempts_max: u32::MAX, deadline: Duration::from_secs(60), ..RetryPolicy::default() };
    let (sink, started) = (down(), Instant::now());
    Retry::new(sink.clone()).with_policy(policy).list("", None, 1).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(61), "{:?}", started.elapsed());
    assert!(sink.count(Operation::List) > 5, "{}", sink.count(Operation::List));
}

#[tokio::test]
async fn transfers_are_no_faster_than_allowed() {
    let bytes = vec![7_u8; 50_000];
    let (up, down) = limited(Some(500_000), Some(1_000_000));
    let sink = RateLimited::over(Arc::new(MemorySink::new()), up.clone(), down);
    let name = |number| key(&format!("object-{number}"));
    // Each object waits until those before it would have been transferred: the first goes at once.
    let started = Instant::now();
    for number in 0..5 {
        sink.put(&name(number), bytes.clone().into()).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(395), "{:?}", started.elapsed());
    let started = Instant::now();
    for number in 0..5 {
        sink.get(&name(number), GetRange::Full).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(195), "{:?}", started.elapsed());
    // The limit can be changed while it is used, and listings are not transfers.
    up.set_bytes_per_second(None);
    let started = Instant::now();
    for number in 5..50 {
        sink.put(&name(number), bytes.clone().into()).await.unwrap();
    }
    assert_eq!(sink.list("", None, 99).await.unwrap().len(), 50);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_read_only_sink_reads_and_changes_nothing() {
    let memory = Arc::new(MemorySink::new());
    memory.put(&key("a"), "bytes".into()).await.unwrap();
    let sink = ReadOnly::over(Arc::clone(&memory));
    assert_eq!(sink.put(&key("b"), "bytes".into()).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(sink.delete(&key("a")).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(sink.get(&key("a"), GetRange::Suffix(2)).await.unwrap().bytes, "es");
    assert_eq!(sink.list("", None, 9).await.unwrap().len(), 1);
    assert_eq!(memory.list("", None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_prefixes_of_one_sink_do_not_see_each_other() {
    let memory = Arc::new(MemorySink::new());
    let (one, other) =
        (Prefixed::over(Arc::clone(&memory), &key("a")), Prefixed::over(Arc::clone(&memory), &key("a-b")));
    one.put(&key("x/1"), "one".into()).await.unwrap();
    other.put(&key("x/1"), "other".into()).await.unwrap();
    assert_eq!(one.get(&key("x/1"), GetRange::Full).await.unwrap().bytes, "one");
    let keys = |listed: Vec<backup_core::ObjectMeta>| {
        listed.into_iter().map(|meta| meta.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(one.list("", None, 9).await.unwrap()), ["x/1"]);
    assert_eq!(keys(memory.list("", None, 9).await.unwrap()), ["a-b/x/1", "a/x/1"]);
    other.delete(&key("x/1")).await.unwrap();
    assert_eq!(keys(memory.list("", None, 9).await.unwrap()), ["a/x/1"]);
    let long = key(&"k".repeat(backup_core::limits::KEY_BYTES_MAX));
    assert_eq!(one.put(&long, "x".into()).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// An object as the engine names it: by the digest of its content.
fn named(prefix: &str, content: &[u8]) -> ObjectKey {
    key(&format!("{prefix}/{}", hex::encode(Sha256::digest(content))))
}

#[tokio::test]
async fn what_is_kept_is_asked_of_the_store_once_by_this_and_by_other_processes() {
    let directory = tempfile::tempdir().unwrap();
    let memory = MemorySink::new();
    let (index, data) = (named("index", b"rows of an index"), named("data", b"content"));
    memory.put(&index, "rows of an index".into()).await.unwrap();
    memory.put(&data, "content".into()).await.unwrap();
    memory.put(&key("config"), "parameters".into()).await.unwrap();
    let sink = RecordingSink::new(memory);
    for _ in 0..2 {
        let cached = Cached::open(Arc::new(sink.clone()), directory.path(), 1 << 20).unwrap();
        for _ in 0..3 {
            assert_eq!(cached.get(&index, GetRange::Suffix(5)).await.unwrap().bytes, "index");
            let part = cached.get(&index, GetRange::Bounded(0..4)).await.unwrap();
            assert_eq!((&part.bytes[..], part.object_len), (&b"rows"[..], 16));
            let beyond = cached.get(&index, GetRange::Bounded(0..99)).await.unwrap_err();
            assert_eq!(beyond.kind(), ErrorKind::Corruption);
            cached.get(&data, GetRange::Full).await.unwrap();
            cached.get(&key("config"), GetRange::Full).await.unwrap();
        }
    }
    let asked = |wanted: &str| sink.calls().iter().filter(|call| call.key == wanted).count();
    assert_eq!(asked(index.as_str()), 1, "a copy is asked for once");
    assert_eq!(asked(data.as_str()), 6, "content is not kept");
    assert_eq!(asked("config"), 6, "neither is what could be replaced by another repository");
}

#[tokio::test]
async fn many_readers_at_once_fetch_an_object_once() {
    let directory = tempfile::tempdir().unwrap();
    let memory = MemorySink::new();
    let name = named("index", b"rows");
    memory.put(&name, "rows".into()).await.unwrap();
    let sink = RecordingSink::new(memory);
    let cached = Arc::new(Cached::open(Arc::new(sink.clone()), directory.path(), 1 << 20).unwrap());
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (cached, name) = (Arc::clone(&cached), name.clone());
        readers.spawn(async move { cached.get(&name, GetRange::Full).await.unwrap().bytes });
    }
    while let Some(read) = readers.join_next().await {
        assert_eq!(read.unwrap(), "rows");
    }
    assert_eq!(sink.count(Operation::Get), 1);
}

#[tokio::test]
async fn what_was_read_in_part_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let memory = MemorySink::new();
    // The name of a snapshot is no digest that could tell.
    let name = key("snapshots/drawn-at-random");
    memory.put(&name, "a snapshot".into()).await.unwrap();
    let cut_short = Fault::at(1).of(Operation::Get).in_manner(Manner::CutShort);
    let sink = FailingSink::new(memory, [cut_short.from_then_on()]);
    let cached = Cached::open(Arc::new(sink.clone()), directory.path(), 1 << 20).unwrap();
    assert_ne!(cached.get(&name, GetRange::Full).await.unwrap().bytes, "a snapshot");
    sink.set_faults([]);
    assert_eq!(cached.get(&name, GetRange::Full).await.unwrap().bytes, "a snapshot");
}

#[tokio::test]
async fn a_damaged_copy_is_never_returned() {
    let directory = tempfile::tempdir().unwrap();
    let name = named("snapshots", b"a snapshot");
    for damage in 0..4 {
        let memory = Arc::new(MemorySink::new());
        memory.put(&name, "a snapshot".into()).await.unwrap();
        Cached::open(Arc::clone(&memory), directory.path(), 1 << 20)
            .unwrap()
            .get(&name, GetRange::Full)
            .await
            .unwrap();
        let copy = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&copy).unwrap();
        match damage {
            0 => *bytes.last_mut().unwrap() ^= 1,
            1 => bytes.truncate(40),
            2 => bytes.clear(),
            // A copy of something else, whole in itself, in the place of this one.
            _ => bytes = [&Sha256::digest(b"another")[..], b"another"].concat(),
        }
        std::fs::write(&copy, bytes).unwrap();
        let cached = Cached::open(memory, directory.path(), 1 << 20).unwrap();
        assert_eq!(cached.get(&name, GetRange::Full).await.unwrap().bytes, "a snapshot", "damage {damage}");
        assert_eq!(cached.get(&name, GetRange::Full).await.unwrap().bytes, "a snapshot", "damage {damage}");
    }
}

#[tokio::test]
async fn damage_in_the_store_is_not_kept_and_reaches_who_checks_it() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemorySink::new());
    let name = named("index", b"rows");
    memory.put(&name, "something else".into()).await.unwrap();
    let cached = Cached::open(Arc::clone(&memory), directory.path(), 1 << 20).unwrap();
    assert_eq!(cached.get(&name, GetRange::Full).await.unwrap().bytes, "something else");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn copies_take_no_more_room_than_allowed_and_those_unused_for_longest_go_first() {
    let directory = tempfile::tempdir().unwrap();
    let sink = RecordingSink::new(MemorySink::new());
    let cached = Cached::open(Arc::new(sink.clone()), directory.path(), 50_000).unwrap();
    let size = || -> u64 {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let objects: Vec<_> = (0..20_u8).map(|number| vec![number; 10_000]).collect();
    for object in &objects {
        cached.put(&named("meta", object), object.clone().into()).await.unwrap();
        assert!(size() <= 50_000, "{}", size());
        // Times of files have steps.
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    for object in objects.iter().rev() {
        let there = cached.get(&named("meta", object), GetRange::Full).await.unwrap().bytes;
        assert_eq!(there, object[..]);
        if std::ptr::eq(object, &objects[18]) {
            assert_eq!(sink.count(Operation::Get), 0, "the newest were evicted");
        }
    }
    assert!(sink.count(Operation::Get) >= 15);
    assert!(size() <= 50_000, "{}", size());
}

#[tokio::test]
async fn what_is_deleted_is_deleted_from_the_copies_too() {
    let directory = tempfile::tempdir().unwrap();
    let cached = Cached::open(Arc::new(MemorySink::new()), directory.path(), 1 << 20).unwrap();
    let name = named("meta", b"page");
    cached.put(&name, "page".into()).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    cached.delete(&name).await.unwrap();
    assert_eq!(cached.get(&name, GetRange::Full).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_that_went_away_makes_it_slower_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let cached = Cached::open(Arc::new(MemorySink::new()), directory.path(), 1 << 20).unwrap();
    directory.close().unwrap();
    let name = named("meta", b"page");
    assert_eq!(cached.put(&name, "page".into()).await.unwrap(), PutOutcome::Created);
    assert_eq!(cached.get(&name, GetRange::Full).await.unwrap().bytes, "page");
}

#[tokio::test]
async fn an_opening_is_answered_from_one_round_of_requests_until_something_else_is_asked() {
    let memory = MemorySink::new();
    let (config, slot, new) = (key("config"), key("keys/1/old"), key("keys/1/new"));
    for (name, bytes) in [(&config, "parameters"), (&slot, "sealed"), (&new, "sealed, too")] {
        memory.put(name, bytes.into()).await.unwrap();
    }
    let sink = RecordingSink::new(memory);
    let gone = key("keys/1/gone");
    let opening = Opening::over(Arc::new(sink.clone()), [slot.clone(), gone.clone(), key("data/x")]);
    assert_eq!(opening.slots(), []);
    for _ in 0..2 {
        assert_eq!(opening.get_whole(&config, 100).await.unwrap(), "parameters");
        let listed: Vec<_> =
            opening.list_all("keys/").await.unwrap().into_iter().map(|meta| meta.key).collect();
        assert_eq!(listed, [new.clone(), slot.clone()]);
        assert_eq!(opening.list("keys/", Some(&new), 1).await.unwrap()[0].key, slot);
        assert_eq!(opening.get_whole(&slot, 100).await.unwrap(), "sealed");
        assert_eq!(opening.get(&slot, GetRange::Suffix(2)).await.unwrap().bytes, "ed");
    }
    // What was not expected is asked for when it is wanted, and so is what failed: its error is the store's.
    assert_eq!(opening.get_whole(&new, 100).await.unwrap(), "sealed, too");
    assert_eq!(opening.get_whole(&gone, 100).await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut calls: Vec<_> = sink.take().into_iter().map(|call| call.key.to_string()).collect();
    calls.sort();
    assert_eq!(calls, ["config", "keys/", "keys/1/gone", "keys/1/gone", "keys/1/new", "keys/1/old"]);
    assert_eq!(opening.slots(), [new.clone(), slot.clone()]);

    // The opening is over with the first other call, and with every change.
    opening.list("snapshots/", None, 10).await.unwrap();
    opening.get_whole(&config, 100).await.unwrap();
    opening.list_all("keys/").await.unwrap();
    opening.get_whole(&slot, 100).await.unwrap();
    let calls: Vec<_> = sink.take().into_iter().map(|call| call.key.to_string()).collect();
    assert_eq!(calls, ["snapshots/", "keys/", "keys/1/old"], "`config` never changes");

    let opening = Opening::over(Arc::new(sink.clone()), [slot.clone()]);
    opening.get_whole(&slot, 100).await.unwrap();
    opening.delete(&slot).await.unwrap();
    assert_eq!(opening.get_whole(&slot, 100).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(opening.list_all("keys/").await.unwrap().len(), 1);
    let opening = Opening::over(Arc::new(sink), [slot.clone()]);
    assert_eq!(opening.list_all("keys/").await.unwrap().len(), 1);
    opening.put(&slot, "sealed anew".into()).await.unwrap();
    assert_eq!(opening.list_all("keys/").await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_opening_never_takes_a_part_for_the_whole() {
    let memory = MemorySink::new();
    let slot = key("keys/1/slot");
    memory.put(&slot, "sealed".into()).await.unwrap();
    let cut_short = Fault::at(2).of(Operation::Get).in_manner(Manner::CutShort);
    let sink = FailingSink::new(memory, [cut_short]);
    let opening = Opening::over(Arc::new(sink.clone()), [slot.clone()]);
    assert_eq!(opening.get_whole(&slot, 100).await.unwrap(), "sealed");
    assert_eq!(sink.struck(), 1);
}
