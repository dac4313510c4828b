//! What lists of snapshots say: in which order, when the store had them, and which cannot be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use backup_core::repository::BackupOptions;
use backup_core::testing::{Operation, RecordingSink};
use backup_core::time::ManualClock;
use backup_core::{ObjectKey, Sink, Timestamp};
use backup_sinks::MemorySink;
use common::{Protect, SMALL, TestEntry, TestSource, create, random};

fn source(seed: u64) -> TestSource {
    TestSource::new(vec![TestEntry::file("f", random(seed, 5_000))])
}

#[tokio::test]
async fn snapshots_are_listed_by_the_times_they_claim_with_the_times_the_store_had_them() {
    let clock = Arc::new(ManualClock::new(Timestamp::new(1_000, 0)));
    let setup = create(Arc::new(MemorySink::with_clock(clock.clone())), Protect::Plain, SMALL).await;
    // The second claims to be older than the first, whatever the store saw.
    for (seed, stored, claimed) in [(1, 2_000, 500), (2, 3_000, 400), (3, 4_000, 9_000)] {
        clock.set(Timestamp::new(stored, 0));
        let options = BackupOptions { time: Some(Timestamp::new(claimed, 0)), ..BackupOptions::default() };
        setup.repository.backup(&source(seed), &options, &setup.job).await.unwrap();
    }
    clock.set(Timestamp::new(5_000, 0));
    let opened = setup.reopen(setup.repository.sink().clone()).await.unwrap();
    for repository in [&setup.repository, &opened.repository] {
        let listed = repository.snapshots(&setup.job).await.unwrap();
        let times: Vec<_> =
            listed.iter().map(|info| (info.time.seconds(), info.stored.unwrap().seconds())).collect();
        assert_eq!(times, [(400, 3_000), (500, 2_000), (9_000, 4_000)]);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_listed_by_name_and_keeps_nobody_from_the_rest() {
    let memory = MemorySink::new();
    let setup = create(Arc::new(memory.clone()), Protect::Plain, SMALL).await;
    let mut ids = Vec::new();
    for seed in 0..8 {
        ids.push(setup.store(&source(seed)).await);
    }
    let mut broken: Vec<_> =
        ids[2..7].iter().map(|id| ObjectKey::new(format!("snapshots/{id}")).unwrap()).collect();
    for key in &broken {
        memory.delete(key).await.unwrap();
        memory.put(key, "no document".into()).await.unwrap();
    }
    broken.sort();
    let opened = setup.reopen(Arc::new(memory)).await.unwrap();
    let (sound, failed) = opened.repository.snapshots_and_damage(&setup.job).await.unwrap();
    assert_eq!(sound.iter().map(|info| info.id).collect::<Vec<_>>(), [ids[0], ids[1], ids[7]]);
    assert_eq!(failed.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), broken);
    let error = opened.repository.snapshots(&setup.job).await.unwrap_err();
    assert_eq!(error.object(), Some(broken[0].as_str()));
}

#[tokio::test]
async fn documents_that_were_read_are_not_read_again() {
    let sink = RecordingSink::new(MemorySink::new());
    let setup = create(Arc::new(sink.clone()), Protect::Plain, SMALL).await;
    for seed in 0..3 {
        setup.store(&source(seed)).await;
    }
    let opened = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    let reads = || {
        let calls = sink.calls();
        calls.iter().filter(|c| c.operation == Operation::Get && c.key.starts_with("snapshots/")).count()
    };
    let before = reads();
    opened.repository.snapshots(&setup.job).await.unwrap();
    assert_eq!(reads(), before + 3);
    opened.repository.snapshots(&setup.job).await.unwrap();
    assert_eq!(reads(), before + 3);
}
