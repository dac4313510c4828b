//! What stands in several objects is merged into fewer, which are put before the others go: who has listed the others and comes to
//! read them finds what they said all the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::report::CollectionOutcome;
use backup_core::repository::{CollectOptions, ForgetOptions, RepackOptions};
use backup_core::time::ManualClock;
use backup_core::{
    Clock, Fetched, GetRange, JobContext, ObjectKey, ObjectMeta, PutOutcome, Result, Sink, SinkExt,
    SnapshotId, Timestamp, limits,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{BOTH, Protect, SMALL, Setup, TestEntry, TestSource, create, in_memory, objects, random, tree};

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
