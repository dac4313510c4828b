//! Writing packs anew: what is needed of them stays readable wherever it breaks off, the rest is freed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::report::{CollectReport, CollectionOutcome};
use backup_core::repository::{CollectOptions, ForgetOptions, RepackOptions};
use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{
    Entry, ErrorKind, JobContext, ObjectKey, Resources, RestoreOptions, Result, SinkExt, Skipped, SnapshotId,
    Target, WriteOrder, Writer,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{
    BOTH, CollectingTarget, Protect, SMALL, Setup, TestEntry, TestSource, assert_same, in_memory, objects,
    random, sink_of, tree,
};

/// Long enough that the list of its chunks has pages.
const LONG: usize = 2_500_000;
/// Where much is tried.
const SHORT: usize = 300_000;

/// Small files, which share frames, and long ones, the lists of whose chunks have pages of their own.
fn all(long_bytes: usize) -> TestSource {
    let mut entries: Vec<_> = tree(5, 60, 4_000).into_iter().map(TestEntry::stamped).collect();
    let long = |number: usize| TestEntry::file(&format!("long-{number}"), random(number as u64, long_bytes));
    entries.extend((0..6).map(|number| long(number).stamped()));
    TestSource::new(entries)
}

/// Every third of the small files, and the second of the long ones.
fn some(long_bytes: usize) -> TestSource {
    let mut entries: Vec<_> = tree(5, 60, 4_000).into_iter().step_by(3).map(TestEntry::stamped).collect();
    entries.push(TestEntry::file("long-1", random(1, long_bytes)).stamped());
    TestSource::new(entries)
}

/// A repository in which little is needed of the packs of the first snapshot, which is forgotten.
async fn wasteful(protect: Protect, long_bytes: usize) -> (Setup, MemorySink, SnapshotId) {
    let (setup, sink) = in_memory(protect, SMALL).await;
    let job = JobContext::new().with_resources(Resources::new().with_workers(1));
    let setup = Setup { job, ..setup };
    let first = setup.store(&all(long_bytes)).await;
    let second = setup.store(&some(long_bytes)).await;
    let forgotten = setup.repository.forget(&[first], &ForgetOptions::default(), &setup.job).await.unwrap();
    assert_eq!(forgotten, [first]);
    (setup, sink, second)
}

/// Most of the tree goes, which would be an anomaly.
fn whatever_changed() -> CollectOptions {
    CollectOptions { ignore_anomalies: true, ..CollectOptions::default() }
}

async fn collect(setup: &Setup, repack: RepackOptions) -> CollectReport {
    let options = CollectOptions { repack, ..whatever_changed() };
    setup.repository.collect(&options, &setup.job).await.unwrap()
}

async fn bytes_of(sink: &MemorySink, prefix: &str) -> u64 {
    sink.list_all(prefix).await.unwrap().iter().map(|meta| meta.len).sum()
}

#[tokio::test]
async fn of_packs_of_which_little_is_needed_the_rest_is_freed() {
    for protect in BOTH {
        let (setup, sink, second) = wasteful(protect, LONG).await;
        let before = bytes_of(&sink, "data/").await;
        let report = collect(&setup, RepackOptions::NEVER).await;
        assert_eq!((report.packs_repacked, bytes_of(&sink, "data/").await), (0, before), "{report:?}");
        assert!(report.bytes_unused > 12_000_000, "{report:?}");

        let dry = CollectOptions { dry_run: true, ..whatever_changed() };
        let planned = setup.repository.collect(&dry, &setup.job).await.unwrap();
        let report = collect(&setup, RepackOptions::default()).await;
        assert_eq!(report.outcome, CollectionOutcome::Swept, "{report:?}");
        assert_eq!(report.packs_repacked, planned.packs_repacked, "{report:?}\n{planned:?}");
        assert!(report.packs_repacked > 0 && !report.more_to_repack && report.damaged_objects.is_empty());
        let after = bytes_of(&sink, "data/").await;
        assert!((2_500_000..2_700_000).contains(&after), "{after} of {before} are left");
        assert!(report.bytes_freed > before - after, "{report:?}");
        assert!(report.bytes_unused < after / 20, "{report:?}");

        for setup in [setup.clone(), setup.reopen(Arc::new(sink.clone())).await.unwrap()] {
            setup.assert_restores(second, &some(LONG)).await;
            setup.assert_clean().await;
        }
        // There is nothing more to be gained.
        let names = objects(&sink).await.into_keys().filter(|key| key.starts_with("data/"));
        let names: Vec<String> = names.collect();
        let report = collect(&setup, RepackOptions::default()).await;
        assert_eq!((report.packs_repacked, report.bytes_freed), (0, 0), "{report:?}");
        assert!(
            sink.list_all("data/").await.unwrap().iter().all(|meta| names.contains(&meta.key.to_string()))
        );
        // What was freed is not taken for stored, and what was written anew is.
        let again = setup.backup(&all(LONG)).await.unwrap();
        assert!((12_000_000..12_900_000).contains(&again.bytes_added), "{again:?}");
        setup.assert_restores(again.snapshot.unwrap(), &all(LONG)).await;
        setup.assert_clean().await;
    }
}

#[tokio::test]
async fn no_more_is_read_than_was_permitted() {
    let (setup, sink, second) = wasteful(Protect::Plain, SHORT).await;
    let largest = sink.list_all("data/").await.unwrap().iter().map(|meta| meta.len).max().unwrap();
    let report = collect(&setup, RepackOptions { max_bytes: largest - 1, ..RepackOptions::default() }).await;
    assert!(report.more_to_repack && report.bytes_repacked < largest, "{report:?}");
    setup.assert_restores(second, &some(SHORT)).await;
    let report = collect(&setup, RepackOptions { max_bytes: 2 * largest, ..RepackOptions::default() }).await;
    assert!(report.bytes_freed >= largest, "{report:?}");
    setup.assert_restores(second, &some(SHORT)).await;
    setup.assert_clean().await;
}

#[tokio::test]
async fn many_small_packs_become_few() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let mut stored = Vec::new();
    for number in 0..40 {
        let source = TestSource::new(vec![TestEntry::file("a", random(number, 40_000)).stamped()]);
        stored.push((setup.store(&source).await, source));
    }
    let report = collect(&setup, RepackOptions::default()).await;
    let count = |prefix| {
        let sink = &sink;
        async move { sink.list_all(prefix).await.unwrap().len() }
    };
    // Each worker makes packs of its own.
    let most = setup.job.resources().workers();
    assert!(count("data/").await <= most, "{report:?}");
    assert_eq!((count("meta/").await, report.packs_repacked), (1, 80), "{report:?}");
    let fresh = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    for (id, source) in &stored {
        fresh.assert_restores(*id, source).await;
    }
    fresh.assert_clean().await;
    assert_eq!(collect(&setup, RepackOptions::default()).await.packs_repacked, 0);
}

#[tokio::test]
async fn what_is_damaged_stays_where_it_is_and_is_named_and_the_rest_is_freed() {
    let (setup, sink, second) = wasteful(Protect::Plain, SHORT).await;
    let base = objects(&sink).await;
    let (_, whole) = setup.restore(second).await.unwrap();
    assert!(whole.failed.is_empty());
    let mut harmed = 0;
    for key in base.keys().filter(|key| key.starts_with("data/")) {
        for part in (1..16).step_by(2) {
            let mut objects = base.clone();
            let mut bytes = objects[key].to_vec();
            let at = bytes.len() * part / 16;
            bytes[at] ^= 0x10;
            objects.insert(key.clone(), Bytes::from(bytes));
            let sink = sink_of(&objects).await;
            let setup = setup.reopen(Arc::new(sink.clone())).await.unwrap();
            let failed = setup.restore(second).await.unwrap().1.failed.count();
            let report = collect(&setup, RepackOptions::default()).await;
            assert_eq!(report.damaged_objects.is_empty(), failed == 0, "{key} at {at}: {report:?}");
            if failed > 0 {
                harmed += 1;
                assert!(report.damaged_objects.iter().all(|damaged| damaged.object == *key), "{report:?}");
                assert!(sink.list_all(key).await.unwrap().len() == 1, "what is damaged may yet be mended");
            }
            assert!(report.bytes_freed > 0 || failed > 0);
            assert_eq!(setup.restore(second).await.unwrap().1.failed.count(), failed, "{key} at {at}");
        }
    }
    assert!(harmed >= 2, "{harmed}");
}

#[tokio::test]
async fn wherever_it_breaks_off_nothing_is_lost_and_the_next_one_ends_it() {
    let (setup, sink, second) = wasteful(Protect::Plain, SHORT).await;
    let base = objects(&sink).await;
    let mut struck = 0;
    for (operation, after_effect) in [
        (Operation::Put, false),
        (Operation::Put, true),
        (Operation::Delete, false),
        (Operation::Get, false),
        (Operation::List, false),
    ] {
        // Of the many that are alike every third.
        for nth in (1..).step_by(if operation == Operation::Get { 3 } else { 1 }) {
            let sink = sink_of(&base).await;
            let failing = FailingSink::new(sink.clone(), []);
            let opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
            let mut fault = Fault::at(nth).of(operation).with_kind(ErrorKind::Transient);
            if after_effect {
                fault = fault.after_effect();
            }
            failing.set_faults([fault]);
            let done = opened.repository.collect(&whatever_changed(), &opened.job).await;
            let what = format!("{operation:?} {nth}, after effect: {after_effect}");
            let came = failing.struck() > 0;
            failing.set_faults([]);
            let again = setup.reopen(Arc::new(sink.clone())).await.unwrap();
            again.assert_restores(second, &some(SHORT)).await;
            if !came {
                done.unwrap();
                break;
            }
            struck += 1;
            if let Err(error) = done {
                assert_eq!(error.kind(), ErrorKind::Transient, "{what}: {error}");
            }
            for _ in 0..3 {
                collect(&again, RepackOptions::default()).await;
            }
            again.assert_restores(second, &some(SHORT)).await;
            again.assert_clean().await;
            let left = bytes_of(&sink, "data/").await;
            // What a session that broke off has stored goes when its signs of life have stopped.
            let open = sink.list_all("control/sessions/").await.unwrap().len();
            assert!(left < SHORT as u64 + 200_000 || open > 0, "{what}: {left} bytes are left");
        }
    }
    println!("{struck} failures survived");
    assert!(struck > 60, "{struck}");
}

#[tokio::test]
async fn a_writer_beside_it_relies_upon_nothing_that_goes() {
    for round in 0..4 {
        let (setup, sink, second) = wasteful(Protect::Plain, SHORT).await;
        let writer = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        let writer = Setup { job: common::job(), ..writer };
        let collecting = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            collect(&setup, RepackOptions::default()).await
        };
        let source = all(SHORT);
        let (report, stored) = tokio::join!(collecting, writer.store(&source));
        assert!(report.damaged_objects.is_empty(), "{report:?}");
        collect(&setup, RepackOptions::default()).await;
        let fresh = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        fresh.assert_restores(stored, &all(SHORT)).await;
        fresh.assert_restores(second, &some(SHORT)).await;
        fresh.assert_clean().await;
        let reserve = ObjectKey::new("control/reserve").unwrap();
        assert_eq!(sink.get_whole(&reserve, 1 << 20).await.unwrap().len(), 256 * 1024);
    }
}

/// Takes what is restored; before the first entry comes, when the restore has read the index, everything is written anew.
#[derive(Debug)]
struct Meanwhile {
    inner: CollectingTarget,
    elsewhere: Setup,
}

#[async_trait]
impl Target for Meanwhile {
    fn order(&self) -> WriteOrder {
        self.inner.order()
    }

    async fn begin(&self, job: &JobContext) -> Result<()> {
        let report = collect(&self.elsewhere, RepackOptions::default()).await;
        assert!(report.packs_repacked > 0 && report.objects_deleted > 0, "{report:?}");
        self.inner.begin(job).await
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        self.inner.entry(entry).await
    }

    async fn complete(&self, entries: Vec<Entry>) -> Result<Vec<Skipped>> {
        self.inner.complete(entries).await
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        self.inner.finish().await
    }
}

#[tokio::test]
async fn a_restore_finds_what_is_written_anew_after_it_began() {
    let (setup, sink, second) = wasteful(Protect::Encrypted, LONG).await;
    let elsewhere = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    // Another process has memory of its own; here the restore holds what there is.
    let elsewhere = Setup { job: common::job(), ..elsewhere };
    let snapshot = setup.repository.snapshot(second, &setup.job).await.unwrap();
    let target = Meanwhile { inner: CollectingTarget::default(), elsewhere };
    let options = RestoreOptions::default();
    let report = setup.repository.restore(&snapshot, &target, &options, &setup.job).await.unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    assert_same(&target.inner.take(), &some(LONG).expected());
}
