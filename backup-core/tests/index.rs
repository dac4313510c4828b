//! The index beyond memory: with the least memory for it everything works as with plenty, and what keeps scratch files
//! from being written or read is an error, never a chunk said to be missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use backup_core::repository::{BackupOptions, ParentChoice, VerifyLevel};
use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{ErrorKind, JobContext, Result};
use common::{BOTH, Protect, Setup, TINY, delete_all, in_memory, many_chunks, objects, sink_of};

fn without_scratch(setup: &Setup) -> Setup {
    let setup = setup.spilled();
    let resources = setup.job.resources().clone().with_scratch_directory("/nonexistent/scratch");
    Setup { job: JobContext::new().with_resources(resources), ..setup }
}

#[track_caller]
fn assert_names_the_scratch_directory<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("/nonexistent/scratch"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_beyond_memory_serves_backup_restore_verify_and_repair_as_one_in_memory_does() {
    for protect in BOTH {
        let (plenty, sink) = in_memory(protect, TINY).await;
        let little = plenty.spilled().reopen(Arc::new(sink.clone())).await.unwrap();
        let (first, second) = (many_chunks(100), many_chunks(200));
        let first_id = little.store(&first).await;
        // What is in the index is neither read nor stored again, whichever form it has.
        for setup in [&plenty, &little] {
            let again = setup.backup(&first).await.unwrap();
            assert_eq!((again.bytes_read, again.bytes_added), (0, 0));
            let options = BackupOptions { parent: ParentChoice::None, ..BackupOptions::default() };
            let again = setup.repository.backup(&first, &options, &setup.job).await.unwrap();
            assert!(again.bytes_read > 0);
            assert_eq!(again.bytes_added, 0);
        }
        let report = little.backup(&second).await.unwrap();
        assert!(report.bytes_added > 0 && report.bytes_added < report.bytes_logical / 2, "{report:?}");
        let second_id = report.snapshot.unwrap();
        for setup in [&plenty, &little] {
            setup.assert_restores(first_id, &first).await;
            setup.assert_restores(second_id, &second).await;
            setup.assert_clean().await;
        }
        let stats = |setup: Setup| async move { setup.repository.stats(&setup.job).await.unwrap() };
        assert_eq!(stats(plenty.clone()).await, stats(little.clone()).await);

        // Only the packs are left: they are found, indexed in scratch files, named again by a repair.
        assert!(delete_all(&sink, "index/").await > 1);
        for setup in [&plenty, &little] {
            setup.assert_restores(first_id, &first).await;
            let report = setup.verify(VerifyLevel::Content).await.unwrap();
            assert!(report.damaged_entries.is_empty(), "{:?}", report.damaged_entries);
            assert_eq!(report.damaged_objects.len(), 1, "{:?}", report.damaged_objects);
        }
        let repaired = little.repository.repair_index(false, &little.job).await.unwrap();
        assert!(repaired.rebuilt > 0 && repaired.lost.is_empty());
        for setup in [&plenty, &little] {
            setup.assert_clean().await;
            setup.assert_restores(second_id, &second).await;
        }
    }
}

#[tokio::test]
async fn trap_18_with_any_one_index_object_deleted_every_snapshot_restores() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, TINY).await;
        let sources = [many_chunks(1), many_chunks(2)];
        // Both share most content, which stands in the first one's segments only.
        let ids = [setup.store(&sources[0]).await, setup.store(&sources[1]).await];
        let whole = objects(&sink).await;
        let segments: Vec<_> = whole.keys().filter(|key| key.starts_with("index/")).collect();
        assert!(segments.len() > 1);
        for segment in segments {
            let mut objects = whole.clone();
            objects.remove(segment);
            for (id, source) in ids.iter().zip(&sources) {
                // A handle that has not looked at the packs for somebody else.
                let setup = setup.reopen(Arc::new(sink_of(&objects).await)).await.unwrap();
                setup.assert_restores(*id, source).await;
            }
        }
    }
}

#[tokio::test]
async fn an_interrupted_run_is_reused_by_one_whose_index_is_beyond_memory() {
    let (setup, sink) = in_memory(Protect::Encrypted, TINY).await;
    let source = many_chunks(1);
    let failing = FailingSink::new(sink.clone(), []);
    let opened = setup.spilled().reopen(Arc::new(failing.clone())).await.unwrap();
    // Everything is stored but what names it.
    let fault = Fault::at(1).of(Operation::Put).below("index/").with_kind(ErrorKind::Io);
    failing.set_faults([fault]);
    assert_eq!(opened.backup(&source).await.unwrap_err().kind(), ErrorKind::Io);
    failing.set_faults([]);
    let report = opened.backup(&source).await.unwrap();
    assert_eq!(report.bytes_added, 0);
    // A reader that asks the segments only finds all of it: the packs were named again.
    let again = setup.reopen(Arc::new(sink)).await.unwrap();
    again.assert_clean().await;
    again.assert_restores(report.snapshot.unwrap(), &source).await;
}

#[tokio::test]
async fn a_scratch_directory_that_is_not_there_is_an_error_and_no_missing_chunk() {
    let (setup, sink) = in_memory(Protect::Plain, TINY).await;
    let source = many_chunks(1);
    let id = setup.store(&source).await;
    let before = objects(&sink).await;
    let broken = without_scratch(&setup).reopen(Arc::new(sink.clone())).await.unwrap();
    assert_names_the_scratch_directory(broken.backup(&source).await);
    assert_names_the_scratch_directory(broken.restore(id).await);
    assert_names_the_scratch_directory(broken.verify(VerifyLevel::Structure).await);
    assert_names_the_scratch_directory(broken.repository.repair_index(false, &broken.job).await);
    assert_names_the_scratch_directory(broken.repository.stats(&broken.job).await);
    let after = objects(&sink).await;
    assert!(before.keys().all(|key| after.contains_key(key)), "nothing was taken for damaged and removed");
    // And with one that is there the same handle works.
    let healed = Setup { repository: broken.repository, ..setup.spilled() };
    healed.assert_restores(id, &source).await;
}
