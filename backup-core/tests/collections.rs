//! Forgetting and collecting: what nobody needs goes, what anybody needs stays, whoever else is at work and wherever it breaks off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::format::document::{self, FenceDocument};
use backup_core::report::{CollectReport, CollectionOutcome};
use backup_core::repository::{BackupOptions, CollectOptions, ForgetOptions, RepackOptions};
use backup_core::testing::{FailingSink, Fault, Operation, RecordingSink};
use backup_core::time::ManualClock;
use backup_core::{
    Clock, ErrorKind, JobContext, ObjectKey, ObjectType, Resources, Result, Sink, SinkExt, SnapshotId,
    Source, SourceInfo, SourceRun, Timestamp,
};
use backup_sinks::MemorySink;
use common::{
    BOTH, Protect, SMALL, Setup, TestEntry, TestSource, create, in_memory, objects, random, sink_of, tree,
};
use futures_util::future::BoxFuture;

/// A long file that all have.
fn shared() -> TestEntry {
    TestEntry::file("shared-long", random(7, 400_000)).stamped()
}

/// Files of its own, and the one that all have.
fn source(number: u64) -> TestSource {
    let mut entries: Vec<_> = tree(number, 30, 5_000).into_iter().map(TestEntry::stamped).collect();
    entries.push(TestEntry::file(&format!("own-{number}"), random(100 + number, 300_000)).stamped());
    entries.push(shared());
    TestSource::new(entries)
}

/// A repository with one snapshot, of the file that all have: what others store has packs of its own.
async fn begun(setup: Setup) -> (Setup, SnapshotId) {
    // Each worker has packs of its own, so with one it is known how many there are.
    let job = JobContext::new().with_resources(Resources::new().with_workers(1));
    let setup = Setup { job, ..setup };
    let id = setup.store(&TestSource::new(vec![shared()])).await;
    (setup, id)
}

fn at_once() -> CollectOptions {
    // That packs are written anew has tests of its own.
    CollectOptions { repack: RepackOptions::NEVER, ..CollectOptions::default() }
}

async fn collect(setup: &Setup) -> CollectReport {
    setup.repository.collect(&at_once(), &setup.job).await.unwrap()
}

async fn forget(setup: &Setup, id: SnapshotId) {
    let forgotten = setup.repository.forget(&[id], &ForgetOptions::default(), &setup.job).await.unwrap();
    assert_eq!(forgotten, [id]);
}

async fn listed(setup: &Setup) -> Vec<SnapshotId> {
    setup.repository.snapshots(&setup.job).await.unwrap().iter().map(|info| info.id).collect()
}

/// Bytes of packs.
async fn packs(sink: &dyn Sink) -> u64 {
    let mut bytes = 0;
    for prefix in ["data/", "meta/"] {
        bytes += sink.list_all(prefix).await.unwrap().iter().map(|meta| meta.len).sum::<u64>();
    }
    bytes
}

/// A store's clock under the test's control.
fn clocked() -> (MemorySink, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::new(1_800_000_000, 0)));
    (MemorySink::with_clock(clock.clone()), clock)
}

fn later(clock: &ManualClock, seconds: i64) {
    clock.set(clock.now().saturating_add_seconds(seconds));
}

/// A source that does something else before it begins, once.
struct Meanwhile {
    inner: &'static TestSource,
    act: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Meanwhile {
    fn new(inner: &'static TestSource, act: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { inner, act: Mutex::new(Some(Box::pin(act))) }
    }
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[async_trait]
impl Source for Meanwhile {
    fn info(&self) -> SourceInfo {
        self.inner.info()
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        let act = self.act.lock().unwrap().take();
        if let Some(act) = act {
            act.await;
        }
        self.inner.begin(job).await
    }
}

/// The same repository from another machine.
async fn elsewhere(setup: &Setup, sink: &MemorySink) -> Setup {
    let opened = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    Setup { job: common::job(), ..opened }
}

fn leaked(source: TestSource) -> &'static TestSource {
    Box::leak(Box::new(source))
}

#[tokio::test]
async fn what_only_forgotten_snapshots_need_is_freed_and_the_others_restore() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, SMALL).await;
        let (setup, base) = begun(setup).await;
        let (a, b, c) = (source(1), source(2), source(3));
        let ids = [setup.store(&a).await, setup.store(&b).await, setup.store(&c).await];
        let before = packs(&sink).await;
        forget(&setup, ids[0]).await;
        forget(&setup, ids[1]).await;
        assert_eq!(listed(&setup).await, [base, ids[2]]);
        // Forgotten, it still restores.
        setup.assert_restores(ids[0], &a).await;

        let planned =
            setup.repository.collect(&CollectOptions { dry_run: true, ..at_once() }, &setup.job).await;
        let planned = planned.unwrap();
        assert_eq!(packs(&sink).await, before, "a dry run frees nothing");
        assert_eq!(planned.expired, {
            let mut both = [ids[0], ids[1]];
            both.sort();
            both
        });
        let report = collect(&setup).await;
        assert_eq!(report.outcome, CollectionOutcome::Swept, "{report:?}");
        assert_eq!((report.snapshots, report.packs_unneeded), (2, planned.packs_unneeded));
        assert_eq!(report.bytes_freed, report.bytes_unneeded);
        assert_eq!(packs(&sink).await, before - report.bytes_freed);
        assert!(report.bytes_freed > 300_000, "{report:?}");

        for setup in [setup.clone(), setup.reopen(Arc::new(sink.clone())).await.unwrap()] {
            setup.assert_restores(ids[2], &c).await;
            setup.assert_clean().await;
            let error = setup.restore(ids[0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert_eq!(listed(&setup).await, [base, ids[2]]);
            // What is stored again is not taken for stored.
            let again = setup.store(&a).await;
            setup.assert_restores(again, &a).await;
            forget(&setup, again).await;
        }
        collect(&setup).await;
        let report = collect(&setup).await;
        assert_eq!(report.packs_unneeded, 0);
        setup.assert_restores(ids[2], &c).await;
        setup.assert_clean().await;
    }
}

#[tokio::test]
async fn what_is_forgotten_can_be_undeleted_until_it_expires() {
    let (sink, clock) = clocked();
    let setup = create(Arc::new(sink.clone()), Protect::Plain, SMALL).await;
    let (a, b) = (source(1), source(2));
    let (first, second) = (setup.store(&a).await, setup.store(&b).await);
    let day = ForgetOptions { undelete_seconds: 86_400, reason: "too old".into() };
    setup.repository.forget(&[first, second], &day, &setup.job).await.unwrap();
    assert!(listed(&setup).await.is_empty());
    let forgotten = setup.repository.forgotten(&setup.job).await.unwrap();
    assert_eq!(forgotten.len(), 2);
    assert_eq!((forgotten[0].undelete_seconds, forgotten[0].reason.as_str()), (86_400, "too old"));

    later(&clock, 80_000);
    let report = collect(&setup).await;
    assert!(report.expired.is_empty() && report.bytes_freed == 0, "{report:?}");
    setup.repository.undelete(first, &setup.job).await.unwrap();
    assert_eq!(listed(&setup).await, [first]);
    let error = setup.repository.undelete(first, &setup.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    later(&clock, 7_000);
    let report = collect(&setup).await;
    assert_eq!(report.expired, [second]);
    assert!(report.bytes_freed > 0);
    let error = setup.repository.undelete(second, &setup.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    setup.assert_restores(first, &a).await;
    // It can be forgotten again, by a further tombstone.
    forget(&setup, first).await;
    assert_eq!(collect(&setup).await.expired, [first]);
    assert_eq!(packs(&sink).await, 0);
    setup.assert_clean().await;
}

#[tokio::test]
async fn what_is_held_is_neither_forgotten_nor_lost() {
    let (sink, clock) = clocked();
    let setup = create(Arc::new(sink.clone()), Protect::Plain, SMALL).await;
    let (a, b) = (source(1), source(2));
    let (first, second) = (setup.store(&a).await, setup.store(&b).await);
    let until = Some(clock.now().saturating_add_seconds(3600));
    setup.repository.hold(first, until, "a lawsuit", &setup.job).await.unwrap();
    let error = setup.repository.forget(&[second, first], &ForgetOptions::default(), &setup.job).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(listed(&setup).await.len(), 2, "nothing is forgotten where one is held");

    // Held although it was forgotten a moment before.
    forget(&setup, second).await;
    let hold = setup.repository.hold(second, None, "", &setup.job).await.unwrap();
    assert!(collect(&setup).await.expired.is_empty());
    setup.assert_restores(second, &b).await;
    setup.repository.release(second, hold.hold, &setup.job).await.unwrap();
    assert_eq!(collect(&setup).await.expired, [second]);
    assert_eq!(
        setup.repository.hold(second, None, "", &setup.job).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );

    // By the store's clock the hold is over one day.
    later(&clock, 3601);
    let holds = setup.repository.holds(&setup.job).await.unwrap();
    assert_eq!((holds.len(), holds[0].reason.as_str()), (1, "a lawsuit"));
    setup.assert_restores(first, &a).await;
    setup.assert_clean().await;
}

#[tokio::test]
async fn a_writer_that_is_shut_out_begins_anew_without_reading_again() {
    for protect in BOTH {
        let (sink, clock) = clocked();
        let (setup, base) = begun(create(Arc::new(sink.clone()), protect, SMALL).await).await;
        let first = source(1);
        let id = setup.store(&first).await;
        let other = elsewhere(&setup, &sink).await;
        let second = leaked(source(2));
        let act = {
            let (other, clock) = (other.clone(), clock.clone());
            async move {
                // The writer sleeps for two hours, and the old snapshot is forgotten.
                later(&clock, 7200);
                forget(&other, id).await;
                let report = collect(&other).await;
                assert_eq!(report.outcome, CollectionOutcome::Swept, "{report:?}");
                assert!(report.sessions_waiting.is_empty());
            }
        };
        let slow = Meanwhile::new(second, act);
        let report = setup.repository.backup(&slow, &BackupOptions::default(), &setup.job).await.unwrap();
        let new = report.snapshot.unwrap();
        // What the first session relied upon was swept: the source is read again, and what is missing is stored.
        setup.assert_restores(new, second).await;
        setup.assert_clean().await;
        assert_eq!(listed(&setup).await, [base, new]);
        let outcomes = sink.list_all("snapshots/").await.unwrap().len();
        assert_eq!(outcomes, 3, "the fence of the first session stays");

        // Where nothing that it relied upon is gone, the source is not asked again.
        let third = leaked(source(3));
        let act = {
            let (other, clock) = (other.clone(), clock.clone());
            async move {
                later(&clock, 7200);
                collect_with_garbage(&other).await;
            }
        };
        let slow = Meanwhile::new(third, act);
        let report = setup.repository.backup(&slow, &BackupOptions::default(), &setup.job).await.unwrap();
        setup.assert_restores(report.snapshot.unwrap(), third).await;
        let contents = third.entries.iter().filter(|test| test.entry.kind.has_content()).count();
        assert_eq!(third.opened(), contents as u64 - 1, "all but what all have was read, and once");
        for _ in 0..2 {
            collect(&other).await;
        }
        setup.assert_restores(new, second).await;
        setup.assert_restores(report.snapshot.unwrap(), third).await;
        setup.assert_clean().await;
    }
}

/// A collection that has something to sweep: the packs of a snapshot that is made and forgotten.
async fn collect_with_garbage(setup: &Setup) {
    let garbage = TestSource::new(vec![TestEntry::file("garbage", random(999, 100_000))]);
    let id = setup.store(&garbage).await;
    forget(setup, id).await;
    let report = collect(setup).await;
    assert_eq!(report.outcome, CollectionOutcome::Swept, "{report:?}");
}

#[tokio::test]
async fn what_a_writer_uses_that_did_not_know_is_rescued() {
    let (sink, _) = clocked();
    let (setup, _) = begun(create(Arc::new(sink.clone()), Protect::Encrypted, SMALL).await).await;
    let first = source(1);
    let id = setup.store(&first).await;
    let other = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    // It has seen the old content, and uses it, while that is forgotten and condemned.
    let again = leaked(source(1));
    let act = {
        let other = other.clone();
        async move {
            forget(&other, id).await;
            let report = collect(&other).await;
            assert_eq!((report.outcome, report.sessions_waiting.len()), (CollectionOutcome::Waiting, 1));
        }
    };
    let report =
        setup.repository.backup(&Meanwhile::new(again, act), &BackupOptions::default(), &setup.job).await;
    let report = report.unwrap();
    assert_eq!(report.bytes_added, 0);
    let new = report.snapshot.unwrap();
    let collected = collect(&other).await;
    assert_eq!(collected.collection, Some(0), "the collection was continued");
    assert!(collected.packs_rescued > 0 && collected.bytes_freed == 0, "{collected:?}");
    setup.assert_restores(new, again).await;
    for _ in 0..2 {
        collect(&setup).await;
        setup.assert_restores(new, again).await;
    }
    setup.assert_clean().await;
    let packs = sink.list_all("data/").await.unwrap().len();
    assert_eq!(packs, 2);
}

#[tokio::test]
async fn a_writer_that_comes_later_does_not_use_what_is_condemned() {
    let (sink, clock) = clocked();
    let (setup, _) = begun(create(Arc::new(sink.clone()), Protect::Plain, SMALL).await).await;
    let first = source(1);
    let id = setup.store(&first).await;
    // A session that never ends, so that the collection waits.
    let stuck = ObjectKey::new(format!("control/sessions/{}/open", "ab".repeat(16))).unwrap();
    sink.put(&stuck, "of a writer that has died".into()).await.unwrap();
    forget(&setup, id).await;
    let report = collect(&setup).await;
    assert_eq!((report.outcome, report.sessions_waiting.len()), (CollectionOutcome::Waiting, 1));
    let other = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    // Nor does it write where it cannot know what is condemned.
    let part = ObjectKey::new("control/collections/0/parts/0").unwrap();
    let bytes = sink.get_whole(&part, 1 << 20).await.unwrap();
    sink.delete(&part).await.unwrap();
    let error = other.backup(&first).await.unwrap_err();
    assert!(error.is_corruption() && error.object() == Some(part.as_str()), "{error}");
    sink.put(&part, bytes).await.unwrap();
    let stored = other.backup(&first).await.unwrap();
    assert!(stored.bytes_added > 300_000, "what is condemned is stored again: {stored:?}");
    later(&clock, 3600);
    let report = collect(&setup).await;
    assert_eq!((report.outcome, report.packs_rescued), (CollectionOutcome::Swept, 0));
    other.assert_restores(stored.snapshot.unwrap(), &first).await;
    other.assert_clean().await;
    // The dead session went with it.
    collect(&setup).await;
    assert!(!sink.list_all("control/sessions/").await.unwrap().iter().any(|meta| meta.key == stuck));
}

#[tokio::test]
async fn a_collection_that_breaks_off_anywhere_is_taken_up_by_the_next() {
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    let (setup, _) = begun(setup).await;
    let (a, b) = (source(1), source(2));
    let (first, second) = (setup.store(&a).await, setup.store(&b).await);
    let base = objects(&sink).await;
    let mut struck = 0;
    for (operation, after_effect) in [
        (Operation::Put, false),
        (Operation::Put, true),
        (Operation::Delete, false),
        (Operation::Get, false),
        (Operation::List, false),
    ] {
        for nth in 1.. {
            let sink = sink_of(&base).await;
            let failing = FailingSink::new(sink.clone(), []);
            let opened = setup.reopen(Arc::new(failing.clone())).await.unwrap();
            forget(&opened, first).await;
            let mut fault = Fault::at(nth).of(operation).with_kind(ErrorKind::Transient);
            if after_effect {
                fault = fault.after_effect();
            }
            failing.set_faults([fault]);
            let done = opened.repository.collect(&at_once(), &opened.job).await;
            let what = format!("{operation:?} {nth}, after effect: {after_effect}");
            let came = failing.struck() > 0;
            failing.set_faults([]);
            let again = setup.reopen(Arc::new(sink.clone())).await.unwrap();
            again.assert_restores(second, &b).await;
            again.assert_clean().await;
            if !came {
                done.unwrap();
                break;
            }
            struck += 1;
            // A failed delete of what is nobody's loses nothing.
            if let Err(error) = done {
                assert_eq!(error.kind(), ErrorKind::Transient, "{what}: {error}");
            }
            for _ in 0..2 {
                collect(&again).await;
            }
            again.assert_restores(second, &b).await;
            again.assert_clean().await;
            assert_nothing_left(&sink, &what).await;
            // And it goes on.
            let stored = again.store(&a).await;
            again.assert_restores(stored, &a).await;
        }
    }
    println!("{struck} failures survived");
    assert!(struck > 60);
}

/// Of three snapshots, one of which is gone, a repository is left with what the others need.
async fn assert_nothing_left(sink: &MemorySink, what: &str) {
    let mut by_prefix: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for meta in sink.list_all("").await.unwrap() {
        let key = meta.key.as_str();
        let prefix = match key.strip_prefix("control/") {
            Some(rest) => format!("control/{}", rest.split('/').next().unwrap()),
            None => key.split('/').next().unwrap().to_owned(),
        };
        by_prefix.entry(prefix).or_default().push(key.to_owned());
    }
    let count = |prefix: &str| by_prefix.get(prefix).map_or(0, Vec::len);
    assert_eq!(count("snapshots"), 2, "{what}: {by_prefix:#?}");
    assert_eq!(count("control/forgotten"), 0, "{what}: {by_prefix:#?}");
    assert_eq!(count("control/collections"), 0, "{what}: {by_prefix:#?}");
    assert_eq!((count("data"), count("index")), (2, 2), "{what}: {by_prefix:#?}");
}

#[tokio::test]
async fn nothing_is_condemned_while_anything_that_is_needed_cannot_be_read() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let (setup, _) = begun(setup).await;
    let (a, b) = (source(1), source(2));
    let (first, second) = (setup.store(&a).await, setup.store(&b).await);
    forget(&setup, first).await;
    let base = objects(&sink).await;
    let mut stopped = 0;
    for key in base.keys().filter(|key| key.starts_with("data/") || key.starts_with("meta/")) {
        let sink = sink_of(&base).await;
        let damaged = ObjectKey::new(key).unwrap();
        sink.delete(&damaged).await.unwrap();
        let setup = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        let before = sink.list_all("data/").await.unwrap().len();
        let report = collect(&setup).await;
        let needed = setup.restore(second).await.is_ok_and(|(_, report)| report.failed.is_empty());
        if needed {
            assert!(report.damaged_objects.is_empty(), "{key} is not needed: {report:?}");
        } else {
            stopped += 1;
            assert_eq!(report.outcome, CollectionOutcome::Abandoned, "{key}: {report:?}");
            assert!(!report.damaged_objects.is_empty());
            assert_eq!((report.bytes_freed, sink.list_all("data/").await.unwrap().len()), (0, before));
            // Put back, it is whole again, and the collection is done.
            sink.put(&damaged, base[key].clone()).await.unwrap();
            let setup = setup.reopen(Arc::new(sink)).await.unwrap();
            setup.assert_restores(second, &b).await;
            assert_eq!(collect(&setup).await.outcome, CollectionOutcome::Swept);
            setup.assert_restores(second, &b).await;
        }
    }
    assert!(stopped >= 2, "{stopped}");
}

#[tokio::test]
async fn two_collections_at_once_disturb_neither_each_other_nor_writers() {
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    let mut kept = Vec::new();
    for round in 0..6 {
        let id = setup.store(&source(round)).await;
        let others = [
            setup.reopen(Arc::new(sink.clone())).await.unwrap(),
            setup.reopen(Arc::new(sink.clone())).await.unwrap(),
            setup.reopen(Arc::new(sink.clone())).await.unwrap(),
        ];
        if round % 2 == 0 {
            forget(&setup, id).await;
        } else {
            kept.push((id, source(round)));
        }
        let waiting = CollectOptions { wait: Duration::from_secs(20), ..at_once() };
        let new = source(100 + round);
        let (one, two, stored) = tokio::join!(
            others[0].repository.collect(&waiting, &setup.job),
            others[1].repository.collect(&waiting, &setup.job),
            others[2].backup(&new),
        );
        for report in [one, two] {
            let report = report.unwrap();
            assert!(report.damaged_objects.is_empty(), "{report:?}");
        }
        kept.push((stored.unwrap().snapshot.unwrap(), new));
        let fresh = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        for (id, source) in &kept {
            fresh.assert_restores(*id, source).await;
        }
        fresh.assert_clean().await;
    }
}

#[tokio::test]
async fn the_fence_of_a_session_that_makes_no_snapshot_stays() {
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    let (setup, _) = begun(setup).await;
    let session = SnapshotId::from_bytes([0xab; 16]);
    let repository = setup.repository.id();
    let fence = FenceDocument { fence: true, session, repository, time: setup.job.now() };
    let fence = document::seal(&*setup.protection, ObjectType::Session, [3; 32], &fence).unwrap();
    let key = ObjectKey::new(format!("control/sessions/{session}/decision")).unwrap();
    sink.put(&key, fence).await.unwrap();
    // Without it the session, a merge that slept, say, could still decide, and delete what it believes to have replaced.
    for round in 0..2 {
        let id = setup.store(&source(round)).await;
        forget(&setup, id).await;
        collect(&setup).await;
        setup.repository.compact_index(&setup.job).await.unwrap();
    }
    assert_eq!(sink.list_all(key.as_str()).await.unwrap().len(), 1);
    setup.assert_clean().await;
}

#[tokio::test]
async fn looking_at_what_stands_under_control_costs_an_unchanged_backup_one_list() {
    let sink = Arc::new(RecordingSink::new(MemorySink::new()));
    let setup = create(sink.clone(), Protect::Plain, SMALL).await;
    let source = TestSource::new(tree(1, 50, 2000).into_iter().map(common::TestEntry::stamped).collect());
    setup.store(&source).await;
    setup.store(&source).await;
    let before = sink.calls().len();
    setup.store(&source).await;
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    for call in sink.calls().iter().skip(before).filter(|call| call.operation == Operation::List) {
        *lists.entry(call.key.clone()).or_default() += 1;
    }
    println!("{lists:?}");
    assert_eq!(lists.get("control/"), Some(&1));
    // What the sessions before left behind went in passing: it does not grow.
    let sessions = sink.inner().list_all("control/sessions/").await.unwrap().len();
    assert_eq!(sessions, 1);
}
