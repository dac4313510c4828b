//! What stands in several objects is merged into fewer, or folded into a digest, which is put before the others go: who has listed the
//! others and comes to read them finds what they said all the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::report::CollectionOutcome;
use backup_core::repository::{CollectOptions, ForgetOptions, RepackOptions};
use backup_core::time::ManualClock;
use backup_core::{
    Clock, Fetched, GetRange, JobContext, ObjectKey, ObjectMeta, PutOutcome, Resources, Result, Sink,
    SinkExt, SnapshotId, Timestamp, limits,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{BOTH, Protect, SMALL, Setup, TestEntry, TestSource, create, in_memory, objects, random, tree};
use tokio::sync::Notify;

/// A store in which somebody merges what stands below a prefix, in the moment in which it is first read.
#[derive(Debug)]
struct Merging {
    inner: MemorySink,
    below: &'static str,
    merged: AtomicBool,
}

impl Merging {
    fn new(inner: &MemorySink, below: &'static str) -> Arc<Self> {
        Arc::new(Self { inner: inner.clone(), below, merged: AtomicBool::new(false) })
    }

    /// New objects that say the same, under other names; then the old ones go.
    async fn merge(&self) {
        for (number, meta) in (1_u8..).zip(self.inner.list_all(self.below).await.unwrap()) {
            let bytes = self.inner.get_whole(&meta.key, limits::SNAPSHOT_BYTES_MAX).await.unwrap();
            let name = SnapshotId::from_bytes([number; 16]);
            let key = ObjectKey::new(format!("{}{name}", self.below)).unwrap();
            assert_eq!(self.inner.put(&key, bytes).await.unwrap(), PutOutcome::Created);
            self.inner.delete(&meta.key).await.unwrap();
        }
    }
}

#[async_trait]
impl Sink for Merging {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        if key.as_str().starts_with(self.below) && !self.merged.swap(true, Ordering::SeqCst) {
            self.merge().await;
        }
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }
}

fn source(number: u64) -> TestSource {
    let mut entries: Vec<_> = tree(number, 30, 5_000).into_iter().map(TestEntry::stamped).collect();
    entries.push(TestEntry::file(&format!("own-{number}"), random(100 + number, 300_000)).stamped());
    TestSource::new(entries)
}

#[tokio::test]
async fn a_writer_relies_on_nothing_that_was_swept_though_digests_are_merged_while_it_reads_them() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, SMALL).await;
        let kept = setup.store(&source(1)).await;
        let gone = setup.store(&source(2)).await;
        // Segments of a session that has committed, and made no snapshot that could expire.
        common::delete_all(&sink, "index/").await;
        let setup = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        assert!(setup.repository.repair_index(false, &setup.job).await.unwrap().rebuilt > 0);
        let before = objects(&sink).await;

        setup.repository.forget(&[gone], &ForgetOptions::default(), &setup.job).await.unwrap();
        let options = CollectOptions { repack: RepackOptions::NEVER, ..CollectOptions::default() };
        let report = setup.repository.collect(&options, &setup.job).await.unwrap();
        assert_eq!(report.outcome, CollectionOutcome::Swept, "{report:?}");
        assert!(sink.list_all("control/collections/").await.unwrap().is_empty(), "only a digest tells");
        assert!(!sink.list_all("control/digests/").await.unwrap().is_empty());
        // As if it had been killed before it wrote the index anew: that still names what was swept.
        common::delete_all(&sink, "index/").await;
        let is_index = |key: &str| key.starts_with("index/") || key.ends_with("/decision");
        for (key, bytes) in before.iter().filter(|(key, _)| is_index(key)) {
            common::replace(&sink, key, Some(bytes.clone())).await;
        }

        let merging = Merging::new(&sink, "control/digests/");
        let writer = setup.reopen(merging.clone()).await.unwrap();
        let again = writer.store(&source(2)).await;
        assert!(merging.merged.load(Ordering::SeqCst), "nothing was merged meanwhile");
        let fresh = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        fresh.assert_restores(again, &source(2)).await;
        fresh.assert_restores(kept, &source(1)).await;
        fresh.assert_clean().await;
    }
}

#[tokio::test]
async fn times_that_are_merged_while_they_are_read_count() {
    let clock = Arc::new(ManualClock::new(Timestamp::new(1_800_000_000, 0)));
    let sink = MemorySink::with_clock(clock.clone());
    let setup = create(Arc::new(sink.clone()), Protect::Plain, SMALL).await;
    let setup = Setup { job: JobContext::with_clock(common::job(), clock.clone()), ..setup };
    setup.store(&source(1)).await;
    setup.repository.record_times(&setup.job).await.unwrap();
    let stored = setup.repository.snapshots(&setup.job).await.unwrap()[0].stored.unwrap();

    // Object by object into another store, some days later.
    clock.set(clock.now().saturating_add_seconds(5 * 86_400));
    let copied = MemorySink::with_clock(clock.clone());
    for (key, bytes) in objects(&sink).await {
        copied.put(&ObjectKey::new(key).unwrap(), bytes).await.unwrap();
    }
    let merging = Merging::new(&copied, "control/observed/");
    let there = setup.reopen(merging.clone()).await.unwrap();
    let listed = there.repository.snapshots(&there.job).await.unwrap();
    assert!(listed[0].stored.unwrap() > stored);
    let facts = there.repository.facts(&listed, &there.job).await.unwrap();
    assert!(merging.merged.load(Ordering::SeqCst), "nothing was merged meanwhile");
    assert_eq!(facts[0].time.seconds(), stored.seconds());
}

/// A store in which the first call of a kind, after packs were listed, waits until it is let go.
#[derive(Debug)]
struct Gate {
    inner: MemorySink,
    call: &'static str,
    part: &'static str,
    listed: AtomicBool,
    waited: AtomicBool,
    reached: Notify,
    go: Notify,
}

impl Gate {
    fn new(inner: &MemorySink, call: &'static str, part: &'static str) -> Arc<Self> {
        let (inner, (listed, waited)) = (inner.clone(), Default::default());
        Arc::new(Self { inner, call, part, listed, waited, reached: Notify::new(), go: Notify::new() })
    }

    async fn pass(&self, call: &str, key: &str) {
        let waits = call == self.call && key.contains(self.part) && self.listed.load(Ordering::SeqCst);
        if waits && !self.waited.swap(true, Ordering::SeqCst) {
            self.reached.notify_one();
            self.go.notified().await;
        }
    }
}

#[async_trait]
impl Sink for Gate {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.pass("get", key.as_str()).await;
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.listed.fetch_or(prefix.starts_with("data/"), Ordering::SeqCst);
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.pass("delete", key.as_str()).await;
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn a_collector_relies_on_nothing_that_another_one_swept_and_folded_while_it_looked() {
    for (protect, part) in BOTH
        .into_iter()
        .flat_map(|protect| ["/parts/", "/condemned", "/decision"].map(|part| (protect, part)))
    {
        let (setup, sink) = in_memory(protect, SMALL).await;
        // With one worker, and so with one pack for each backup.
        let job = JobContext::new().with_resources(Resources::new().with_workers(1));
        let setup = Setup { job, ..setup };
        let shared = || TestEntry::file("shared", random(1, 300_000)).stamped();
        let alone = TestSource::new(vec![shared()]);
        let both = TestSource::new(vec![TestEntry::file("own", random(2, 400_000)).stamped(), shared()]);
        let kept = setup.store(&alone).await;
        // The second writer does not know the first one's pack: what they share stands in two.
        let index: Vec<_> =
            objects(&sink).await.into_iter().filter(|(key, _)| key.starts_with("index/")).collect();
        common::delete_all(&sink, "index/").await;
        let setup = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        let forgotten = setup.store(&both).await;
        for (key, bytes) in index {
            common::replace(&sink, &key, Some(bytes)).await;
        }

        // One collector sweeps the first pack, of which all stands in the second, and is about to delete it.
        let deletes = Gate::new(&sink, "delete", "data/");
        let first = setup.reopen(deletes.clone()).await.unwrap();
        // The other has listed what there is, and reads what the first one sweeps.
        let reads = Gate::new(&sink, "get", part);
        let second = setup.reopen(reads.clone()).await.unwrap();
        let options = CollectOptions { repack: RepackOptions::NEVER, ..CollectOptions::default() };
        let later = async {
            deletes.reached.notified().await;
            setup.repository.forget(&[forgotten], &ForgetOptions::default(), &setup.job).await.unwrap();
            let collecting = second.repository.collect(&options, &second.job);
            let letting_go = async {
                reads.reached.notified().await;
                deletes.go.notify_one();
            };
            tokio::join!(collecting, letting_go).0
        };
        let sooner = async {
            let report = first.repository.collect(&options, &first.job).await;
            reads.go.notify_one();
            report
        };
        let (sooner, later) = tokio::join!(sooner, later);
        let (sooner, later) = (sooner.unwrap(), later.unwrap());
        assert_eq!(sooner.outcome, CollectionOutcome::Swept, "{sooner:?}");
        assert!(reads.waited.load(Ordering::SeqCst) && later.objects_deleted > 0, "{later:?}");
        let fresh = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        fresh.assert_restores(kept, &alone).await;
        fresh.assert_clean().await;
    }
}
