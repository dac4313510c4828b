//! Places of one repository: what belongs to snapshots comes along, and what stands for a snapshot is no other one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::format::document::{self, FenceDocument, SetComponent, SnapshotSet};
use backup_core::report::Outcome;
use backup_core::repository::{BackupOptions, CollectOptions, ForgetOptions, Place, PlaceOptions, Places};
use backup_core::{
    Fetched, GetRange, ObjectKey, ObjectMeta, ObjectType, PutOutcome, Result, Sink, SinkExt, SnapshotId,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{BOTH, Protect, SMALL, Setup, TestEntry, TestSource, in_memory, random, tree};
use tokio::sync::Notify;

fn version(number: u64) -> TestSource {
    let mut entries: Vec<_> = tree(5, 20, 3_000).into_iter().map(TestEntry::stamped).collect();
    entries.push(TestEntry::file("own", random(number, 200_000)).stamped());
    TestSource::new(entries)
}

fn places(all: &[&Setup]) -> Places {
    let place = |(number, setup): (usize, &&Setup)| Place {
        options: PlaceOptions { name: number.to_string(), required: true, ..PlaceOptions::default() },
        repository: Ok(setup.repository.clone()),
    };
    Places::new(all.iter().enumerate().map(place).collect()).unwrap()
}

async fn another(setup: &Setup) -> (Setup, MemorySink) {
    let sink = MemorySink::new();
    let repository = setup.repository.create_place(Arc::new(sink.clone()), &setup.job).await.unwrap();
    (Setup { repository, ..setup.clone() }, sink)
}

/// How many snapshots come to each place.
async fn catch_up(all: &[&Setup]) -> Vec<usize> {
    let caught_up = places(all).catch_up(&Default::default(), &all[0].job).await.unwrap();
    caught_up.into_iter().map(|place| place.result.unwrap().snapshots.len()).collect()
}

async fn make_set(setup: &Setup, number: u8, snapshot: SnapshotId) -> SnapshotSet {
    let component = SetComponent {
        name: "files".into(),
        snapshot: Some(snapshot),
        outcome: Some(Outcome::Complete),
        reason: None,
        restore_order: 0,
    };
    let set = SnapshotSet {
        id: SnapshotId::from_bytes([number; 16]),
        name: "all".into(),
        time: setup.job.now(),
        outcome: Outcome::Complete,
        components: vec![component],
        tags: BTreeMap::new(),
    };
    setup.repository.create_set(&set, &setup.job).await.unwrap();
    set
}

async fn sets(setup: &Setup) -> Vec<SnapshotId> {
    setup.repository.sets(&setup.job).await.unwrap().into_iter().map(|set| set.id).collect()
}

#[tokio::test]
async fn a_set_that_is_stored_after_its_snapshots_were_brought_comes_along() {
    for protect in BOTH {
        let (first, sink) = in_memory(protect, SMALL).await;
        let (second, _) = another(&first).await;
        let (third, _) = another(&first).await;
        let id = first.store(&version(0)).await;
        assert_eq!(catch_up(&[&first, &second]).await, [0, 1]);
        let one = make_set(&first, 1, id).await;
        // Nothing is missing but the set.
        let carried = places(&[&first, &second]).carry_sets(&first.job).await.unwrap();
        assert!(carried.iter().all(|place| place.required && place.result.is_ok()), "{carried:?}");
        assert_eq!(sets(&second).await, [one.id]);
        let two = make_set(&second, 2, id).await;
        assert_eq!(catch_up(&[&first, &second]).await, [0, 0]);
        assert_eq!(sets(&first).await, [one.id, two.id]);

        // What is damaged in one place comes from the other, and not as it is.
        let key = format!("sets/{}", one.id);
        let whole = sink.get_whole(&ObjectKey::new(key.clone()).unwrap(), 1 << 20).await.unwrap();
        let mut bytes = whole.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        common::replace(&sink, &key, Some(bytes.into())).await;
        assert_eq!(catch_up(&[&first, &second, &third]).await, [0, 0, 1]);
        assert_eq!(sets(&third).await, [one.id, two.id]);

        // Where its snapshot is not, and may never come, it would name what nobody finds; one place's rubbish is no other's fault.
        let (archive, _) = another(&first).await;
        let rubbish = ObjectKey::new(format!("sets/{}", SnapshotId::from_bytes([8; 16]))).unwrap();
        sink.put(&rubbish, vec![7; (1 << 24) + 1].into()).await.unwrap();
        let newer = first.store(&version(1)).await;
        let three = make_set(&first, 3, newer).await;
        let all = places(&[&first, &second, &third, &archive]);
        let carried = all.carry_sets(&first.job).await.unwrap();
        assert!(carried.iter().all(|place| place.result.is_ok()), "{carried:?}");
        assert_eq!(sets(&archive).await, []);
        archive.assert_clean().await;
        assert_eq!(catch_up(&[&second, &third, &first]).await, [1, 1, 0]);
        assert_eq!(sets(&third).await, [one.id, two.id, three.id]);
    }
}

#[tokio::test]
async fn what_stands_for_a_snapshot_does_not_come_where_that_is_or_was() {
    for protect in BOTH {
        let (first, _) = in_memory(protect, SMALL).await;
        let old = first.store(&version(0)).await;
        let new = first.store(&version(1)).await;
        let (second, sink) = another(&first).await;
        // Somebody who was bringing it there was shut out.
        let (session, repository) = (old, first.repository.id());
        let fence = FenceDocument { fence: true, session, repository, time: first.job.now() };
        let fence = document::seal(&*first.protection, ObjectType::Snapshot, [3; 32], &fence).unwrap();
        sink.put(&ObjectKey::new(format!("snapshots/{old}")).unwrap(), fence).await.unwrap();
        assert_eq!(catch_up(&[&first, &second]).await, [0, 2]);
        let there = second.repository.snapshots(&second.job).await.unwrap();
        let replica = there.iter().find(|info| info.id != new).unwrap();
        assert_eq!(replica.origin.unwrap().snapshot, old);

        let missing = second.repository.missing_in(&first.repository, &first.job).await.unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(catch_up(&[&first, &second]).await, [0, 0]);
        // Forgotten in one place, it does not come back under the name that it has in the other.
        first.repository.forget(&[old], &ForgetOptions::default(), &first.job).await.unwrap();
        assert_eq!(catch_up(&[&first, &second]).await, [0, 0]);
        first.repository.collect(&CollectOptions::default(), &first.job).await.unwrap();
        assert_eq!(catch_up(&[&first, &second]).await, [0, 0]);
        assert_eq!(first.repository.snapshots(&first.job).await.unwrap().len(), 1);
        second.assert_restores(replica.id, &version(0)).await;
    }
}

#[tokio::test]
async fn what_pretends_to_stand_for_a_snapshot_does_not_keep_it_out() {
    let (first, _) = in_memory(Protect::Plain, SMALL).await;
    let id = first.store(&version(0)).await;
    let (second, _) = another(&first).await;
    let listed = first.repository.snapshots(&first.job).await.unwrap();
    let options = BackupOptions::copy_of(first.repository.id(), &listed[0]);
    let empty = TestSource::new(vec![TestEntry::file("own", random(9, 10)).stamped()]);
    second.repository.backup(&empty, &options, &second.job).await.unwrap();
    assert_eq!(catch_up(&[&first, &second]).await, [0, 1]);
    second.assert_restores(id, &version(0)).await;
}

/// A store that holds the first pack that is put until it is let go.
#[derive(Debug)]
struct Holding {
    inner: MemorySink,
    held: AtomicBool,
    reached: Notify,
    go: Notify,
}

#[async_trait]
impl Sink for Holding {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        if key.as_str().starts_with("data/") && !self.held.swap(true, Ordering::SeqCst) {
            self.reached.notify_one();
            self.go.notified().await;
        }
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn two_jobs_of_a_process_do_not_bring_a_snapshot_in_one_session() {
    let (first, here) = in_memory(Protect::Plain, SMALL).await;
    let id = first.store(&version(0)).await;
    let listed = first.repository.snapshots(&first.job).await.unwrap();
    let (second, sink) = another(&first).await;
    let holding =
        Holding { inner: sink.clone(), held: false.into(), reached: Notify::new(), go: Notify::new() };
    let holding = Arc::new(holding);
    let slow = second.reopen(holding.clone()).await.unwrap();
    // With resources of its own: it is not memory that it waits for.
    let other = Setup { job: common::job(), ..first.reopen(Arc::new(here)).await.unwrap() };
    let options = Default::default();
    let one = first.repository.replicate_to(&slow.repository, &listed, &options, &first.job);
    let two = async {
        holding.reached.notified().await;
        let report = other.repository.replicate_to(&second.repository, &listed, &options, &other.job).await;
        holding.go.notify_one();
        report
    };
    let (one, two) = tokio::join!(one, two);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(two.busy, [id], "{two:?}");
    assert_eq!((one.snapshots.len(), two.snapshots.len()), (1, 0), "{one:?} {two:?}");
    second.reopen(Arc::new(sink)).await.unwrap().assert_restores(id, &version(0)).await;
}
