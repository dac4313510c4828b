//! Stores and sources that fail: the job says so with the right error, nothing old is harmed, what was done is reused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use backup_core::chunker::ChunkerParameters;
use backup_core::report::Outcome;
use backup_core::testing::{FailingSink, Fault, Operation, RecordingSink};
use backup_core::{ErrorKind, Sink, SnapshotId};
use common::{
    BOTH, Body, Protect, SMALL, Setup, TestEntry, TestSource, assert_same, in_memory, objects, random,
    sink_of, text, tree,
};

fn source(changed: u64) -> TestSource {
    let mut entries: Vec<_> = tree(6, 40, 20_000).into_iter().map(TestEntry::stamped).collect();
    entries.push(TestEntry::file("m-long", random(changed, 3_000_000)).stamped());
    entries.push(TestEntry::file("n-pumped", text(changed, 300_000)).body(Body::Async).stamped());
    TestSource::new(entries)
}

#[tokio::test]
async fn trap_2_a_store_that_fails_at_any_call_fails_the_job_with_its_error_and_harms_nothing() {
    for protect in BOTH {
        let (setup, base) = in_memory(protect, SMALL).await;
        let first = source(1);
        let id = setup.store(&first).await;
        let base = objects(&base).await;
        let second = source(2);
        let (mut struck, mut reused) = (0, 0);
        for (operation, after_effect) in [
            (Operation::Put, false),
            (Operation::Put, true),
            (Operation::Get, false),
            (Operation::List, false),
        ] {
            for kind in [ErrorKind::NoSpace, ErrorKind::Transient, ErrorKind::Io] {
                for nth in 1.. {
                    let sink = sink_of(&base).await;
                    let failing = FailingSink::new(sink.clone(), []);
                    let opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
                    let mut fault = Fault::at(nth).of(operation).with_kind(kind);
                    if after_effect {
                        fault = fault.after_effect();
                    } else if kind == ErrorKind::NoSpace {
                        fault = fault.from_then_on();
                    }
                    failing.set_faults([fault]);
                    let what =
                        format!("{protect:?} {operation:?} {nth} {kind:?} after effect: {after_effect}");
                    let done = opened.backup(&second).await;
                    if failing.struck() == 0 {
                        assert!(done.is_ok(), "{what}: {done:?}");
                        assert!(nth > 1, "{what}");
                        break;
                    }
                    struck += 1;
                    let error = done.expect_err(&what);
                    assert_eq!(error.kind(), kind, "{what}: {error}");
                    // A full store is full for the rest of the job; then someone makes room.
                    failing.set_faults([]);
                    let again = setup.reopen(Arc::new(sink)).await.unwrap();
                    again.assert_clean().await;
                    again.assert_restores(id, &first).await;
                    let count = again.repository.snapshots(&again.job).await.unwrap().len();
                    assert!(count == 1 || (count == 2 && after_effect), "{what}: {count} snapshots");
                    for handle in [opened, again] {
                        let report = handle.backup(&second).await.unwrap_or_else(|e| panic!("{what}: {e}"));
                        handle.assert_restores(report.snapshot.unwrap(), &second).await;
                        reused += usize::from(report.bytes_added < 1_000_000);
                        handle.assert_clean().await;
                    }
                }
            }
        }
        println!("{protect:?}: {struck} failures survived, {reused} later runs had little left to do");
        assert!(reused > struck / 2);
    }
}

#[tokio::test]
async fn a_run_that_fails_before_it_stored_anything_leaves_nothing_behind() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    setup.store(&source(1)).await;
    let before = objects(&sink).await;
    for (nth, kind) in [(1, ErrorKind::NoSpace), (2, ErrorKind::NoSpace), (2, ErrorKind::Transient)] {
        let failing = FailingSink::new(sink.clone(), []);
        let opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
        failing.set_faults([Fault::at(nth).of(Operation::Put).with_kind(kind).from_then_on()]);
        assert_eq!(opened.backup(&source(2)).await.unwrap_err().kind(), kind);
        assert_eq!(objects(&sink).await.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    }
    // A commit whose answer was lost may have happened: then the session stays registered.
    let failing = FailingSink::new(sink.clone(), []);
    let opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
    failing.set_faults([Fault::at(2).of(Operation::Put).after_effect()]);
    opened.backup(&source(1)).await.unwrap_err();
    let names = objects(&sink).await.into_keys().filter(|key| !before.contains_key(key));
    assert_eq!(names.count(), 2, "the session and its snapshot");
    setup.assert_clean().await;
}

#[tokio::test]
async fn work_is_reused_however_often_a_run_is_interrupted() {
    for same_handle in [true, false] {
        let (setup, sink) = in_memory(Protect::Plain, ChunkerParameters::default()).await;
        let bytes = 120_000_000;
        let source = TestSource::new(
            (0..12).map(|n| TestEntry::file(&format!("f{n:02}"), random(n, bytes / 12))).collect(),
        );
        let recording = RecordingSink::new(sink.clone());
        let failing = FailingSink::new(recording.clone(), []);
        let mut opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
        let mut interruptions = 0;
        let report = loop {
            let full = Fault::at(3).of(Operation::Put).below("data/").with_kind(ErrorKind::NoSpace);
            failing.set_faults([full.from_then_on()]);
            match opened.backup(&source).await {
                Ok(report) => break report,
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
            }
            interruptions += 1;
            assert!(interruptions < 12, "no progress");
            if !same_handle {
                opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
            }
        };
        failing.set_faults([]);
        let stored = recording.bytes_created();
        println!(
            "{interruptions} interruptions, {stored} bytes stored for {bytes}; same handle: {same_handle}"
        );
        assert!(interruptions >= 2);
        assert!(stored < bytes as u64 * 11 / 10, "{stored} bytes were stored for {bytes}");
        let again = setup.reopen(Arc::new(sink)).await.unwrap();
        again.assert_restores(report.snapshot.unwrap(), &source).await;
        again.assert_clean().await;
    }
}

#[tokio::test]
async fn trap_3_what_cannot_be_read_is_named_and_never_stored_as_whole() {
    for (len, unsorted) in [(50, false), (50_000, false), (5_000_000, false), (50_000, true)] {
        let (setup, _) = in_memory(Protect::Encrypted, SMALL).await;
        let mut good = vec![
            TestEntry::file("a-good", text(1, 30_000)).stamped(),
            TestEntry::file("m-good", random(2, 3_000_000)).stamped(),
            TestEntry::file("z-good", text(3, 50)).stamped(),
        ];
        let noticed = TestEntry::file("n-noticed", random(9, len)).body(Body::Noticed);
        good.push(noticed);
        let bad = vec![
            TestEntry::file("b-fails", random(4, len)).body(Body::FailsAfter(len / 2)),
            TestEntry::file("c-fails-at-once", random(5, len)).body(Body::FailsAfter(0)),
            TestEntry::file("d-fails-at-the-end", random(6, len)).body(Body::FailsAfter(len)),
            TestEntry::file("p-async", random(7, len)).body(Body::AsyncFailsAfter(len / 2)),
            TestEntry::file("q-closed", random(8, len)).body(Body::Unopenable),
        ];
        let mut source = TestSource::new([good.clone(), bad.clone()].concat());
        source.skipped.push(backup_core::Skipped::new("x-gone", "permission denied"));
        if unsorted {
            source = source.shuffled(1);
        }
        let report = setup.backup(&source).await.unwrap();
        assert_eq!(report.outcome, Outcome::Partial);
        let mut named: Vec<_> = report.skipped.named().iter().map(|item| item.name.as_str()).collect();
        named.sort_unstable();
        let expected = [
            "b-fails",
            "c-fails-at-once",
            "d-fails-at-the-end",
            "n-noticed",
            "p-async",
            "q-closed",
            "x-gone",
        ];
        assert_eq!(named, expected, "{len}");
        let id = report.snapshot.unwrap();
        let only_good = TestSource::new(good.clone());
        setup.assert_restores(id, &only_good).await;
        let info = setup.repository.snapshot(id, &setup.job).await.unwrap().info().clone();
        assert_eq!((info.outcome, info.skipped_count), (Outcome::Partial, 7));
        assert_eq!(info.skipped.len(), 7);
        assert_eq!(info.entries, good.len() as u64);
        let logical: u64 = good.iter().map(|test| test.content.len() as u64).sum();
        assert_eq!(info.bytes_logical, logical, "what was skipped does not count");
        // When the disk is whole again, the next run has everything.
        let healed = bad.into_iter().map(|test| test.body(Body::Blocking));
        let mut healed: Vec<_> = good.iter().cloned().chain(healed).collect();
        healed.iter_mut().for_each(|test| test.body = Body::Blocking);
        let healed = TestSource::new(healed);
        let report = setup.backup(&healed).await.unwrap();
        assert_eq!(report.outcome, Outcome::Complete);
        setup.assert_restores(report.snapshot.unwrap(), &healed).await;
        setup.assert_clean().await;
    }
}

#[tokio::test]
async fn content_longer_than_its_size_said_is_stored_in_full_with_the_largest_chunks_too() {
    let largest = ChunkerParameters { min_bytes: 1 << 20, avg_bytes: 4 << 20, max_bytes: 8 << 20 };
    for chunker in [largest, SMALL] {
        let (setup, _) = in_memory(Protect::Plain, chunker).await;
        for fixed in [None, Some(4 << 20), Some(512), Some(3 << 20)] {
            let mut grown = TestEntry::file("grown", random(1, 9_000_000)).sized(Some(10));
            let mut shrunk = TestEntry::file("shrunk", random(2, 10)).sized(Some(9_000_000));
            let mut proc = TestEntry::file("proc", random(3, 5_000_000)).sized(Some(0)).body(Body::Random);
            if let Some(bytes) = fixed {
                (grown, shrunk, proc) = (grown.fixed(bytes), shrunk.fixed(bytes), proc.fixed(bytes));
            }
            let source = TestSource::new(vec![grown, shrunk, proc]);
            let id = tokio::time::timeout(std::time::Duration::from_secs(60), setup.store(&source)).await;
            setup.assert_restores(id.expect("the backup ends"), &source).await;
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_while_restoring_or_verifying_fails_the_job_with_its_error() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let first = source(1);
    let id = setup.store(&first).await;
    for operation in [Operation::Get, Operation::List] {
        for nth in 1.. {
            let failing = FailingSink::new(sink.clone(), []);
            let opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
            failing.set_faults([Fault::at(nth).of(operation)]);
            match opened.restore(id).await {
                Ok((found, report)) => {
                    assert_eq!(failing.struck(), 0, "{operation:?} {nth} went unnoticed");
                    assert!(report.failed.is_empty());
                    assert_same(&found, &first.expected());
                    break;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Transient, "{error}"),
            }
            failing.set_faults([Fault::at(nth).of(operation)]);
            match opened.verify(backup_core::repository::VerifyLevel::Content).await {
                Ok(report) => assert!(report.is_clean() && failing.struck() == 0, "{operation:?} {nth}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Transient, "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_second_writer_at_the_same_time_disturbs_nobody() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let other = setup.reopen(Arc::new(sink.clone()) as Arc<dyn Sink>).await.unwrap();
    let (a, b) = (source(1), source(2));
    let ids: (SnapshotId, SnapshotId) = tokio::join!(setup.store(&a), other.store(&b));
    let fresh: Setup = setup.reopen(Arc::new(sink)).await.unwrap();
    fresh.assert_restores(ids.0, &a).await;
    fresh.assert_restores(ids.1, &b).await;
    fresh.assert_clean().await;
}
