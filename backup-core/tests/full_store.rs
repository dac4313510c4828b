//! A store that is full: what is stored stays, and room can be made with what there is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::report::CollectionOutcome;
use backup_core::repository::{CollectOptions, ForgetOptions};
use backup_core::{
    Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink, SinkExt, SnapshotId,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{BOTH, SMALL, TestEntry, TestSource, create, random, tree};

/// A file system of so many blocks of 4 KiB, of which each object takes one more for its directory.
#[derive(Debug)]
struct Blocks {
    inner: MemorySink,
    room: Mutex<Room>,
}

#[derive(Debug)]
struct Room {
    free: u64,
    taken: HashMap<ObjectKey, u64>,
}

impl Blocks {
    fn new(bytes: u64) -> Self {
        let room = Room { free: bytes / 4096, taken: HashMap::new() };
        Self { inner: MemorySink::new(), room: Mutex::new(room) }
    }

    fn free(&self) -> u64 {
        self.room.lock().unwrap().free
    }
}

#[async_trait]
impl Sink for Blocks {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let blocks = bytes.len().div_ceil(4096) as u64 + 1;
        if !self.room.lock().unwrap().taken.contains_key(key) {
            let mut room = self.room.lock().unwrap();
            let Some(left) = room.free.checked_sub(blocks) else {
                return Err(Error::new(ErrorKind::NoSpace, "no space left on device"));
            };
            room.free = left;
            room.taken.insert(key.clone(), blocks);
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
        self.inner.delete(key).await?;
        let mut room = self.room.lock().unwrap();
        room.free += room.taken.remove(key).unwrap_or(0);
        Ok(())
    }
}

fn source(number: u64) -> TestSource {
    let mut entries: Vec<_> = tree(number, 20, 3_000).into_iter().map(TestEntry::stamped).collect();
    entries.push(TestEntry::file("long", random(number, 400_000)).stamped());
    TestSource::new(entries)
}

/// Each snapshot here is of something else, which would be an anomaly.
fn whatever_changed() -> CollectOptions {
    CollectOptions { ignore_anomalies: true, ..CollectOptions::default() }
}

#[tokio::test]
async fn forgetting_and_collecting_make_room_in_a_store_that_is_full() {
    for protect in BOTH {
        let sink = Arc::new(Blocks::new(10_000_000));
        let setup = create(sink.clone(), protect, SMALL).await;
        let mut stored: Vec<(SnapshotId, TestSource)> = Vec::new();
        let mut number = 0;
        let full = loop {
            number += 1;
            match setup.backup(&source(number)).await {
                Ok(report) => stored.push((report.snapshot.unwrap(), source(number))),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::NoSpace, "{full}");
        // And to the last block.
        for number in 0.. {
            let key = ObjectKey::new(format!("others/{number}")).unwrap();
            if sink.put(&key, Bytes::from_static(b"x")).await.is_err() {
                break;
            }
        }
        assert!(sink.free() < 2 && stored.len() > 15);
        for (id, source) in &stored {
            setup.assert_restores(*id, source).await;
        }

        let doomed: Vec<SnapshotId> = stored.iter().take(12).map(|(id, _)| *id).collect();
        let options = ForgetOptions::default();
        let error = setup.repository.forget(&doomed, &options, &setup.job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "there must stay room for a collection");
        assert!(error.to_string().contains("8 of these"), "{error}");
        let report = setup.repository.collect(&whatever_changed(), &setup.job).await.unwrap();
        assert_eq!((report.outcome, report.expired.len()), (CollectionOutcome::Swept, 8), "{report:?}");
        assert!(report.bytes_freed > 8 * 400_000, "{report:?}");
        let left: Vec<SnapshotId> = doomed[8..].to_vec();
        assert_eq!(setup.repository.forget(&left, &options, &setup.job).await.unwrap(), left);
        let report = setup.repository.collect(&whatever_changed(), &setup.job).await.unwrap();
        assert!(report.bytes_freed > 4 * 400_000, "{report:?}");

        let there = sink.list_all("control/reserve").await.unwrap();
        assert_eq!(there.len(), 1, "it is kept again");
        for (id, source) in &stored[12..] {
            setup.assert_restores(*id, source).await;
        }
        setup.assert_clean().await;
        let more = setup.backup(&source(1000)).await.unwrap().snapshot.unwrap();
        setup.assert_restores(more, &source(1000)).await;
    }
}

#[tokio::test]
async fn a_reserve_that_somebody_gave_up_is_kept_again_and_one_that_is_there_stays() {
    let sink = Arc::new(Blocks::new(50_000_000));
    let setup = create(sink.clone(), BOTH[0], SMALL).await;
    let key = ObjectKey::new("control/reserve").unwrap();
    let first = sink.get_whole(&key, 1 << 20).await.unwrap();
    let options = CollectOptions::default();
    let collect = || setup.repository.collect(&options, &setup.job);
    collect().await.unwrap();
    assert_eq!(sink.get_whole(&key, 1 << 20).await.unwrap(), first);
    sink.delete(&key).await.unwrap();
    collect().await.unwrap();
    let second = sink.get_whole(&key, 1 << 20).await.unwrap();
    assert!(second.len() == first.len() && second != first);
}
