//! Panics in what the engine is given.

use std::sync::Arc;

use backup_core::report::Outcome;
use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::{Encoded, ErrorKind, FrameContext, Result, Transform, TransformSet, Unprotected};

use crate::bad::{At, BadSource, BadTarget, Does, PanickingObserver, PanickingSink};
use crate::common::{ends, is_valid, job, repository, works};

#[tokio::test]
async fn a_source_that_panics_fails_the_backup_with_its_words() {
    for at in [At::Info, At::Begin, At::Next, At::Open, At::Finish] {
        let (repository, sink) = repository().await;
        let source = BadSource { at, does: Does::Panic, len: 100 };
        let error = ends(repository.backup(&source, &BackupOptions::default(), &job())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{at:?}");
        assert!(error.to_string().contains("boom"), "{at:?}: {error}");
        is_valid(&repository, Arc::new(sink), 0).await;
    }
}

#[tokio::test]
async fn content_whose_reader_panics_is_left_out_by_name_and_the_rest_is_stored() {
    for len in [10, 100_000, 5_000_000] {
        for at in [At::ContentOpen, At::ContentRead, At::ContentFinish, At::ContentRandom, At::ContentAsync] {
            let (repository, sink) = repository().await;
            let source = BadSource { at, does: Does::Panic, len };
            let report = ends(repository.backup(&source, &BackupOptions::default(), &job())).await.unwrap();
            assert_eq!((report.outcome, report.entries), (Outcome::Partial, 2), "{at:?} {len}");
            let [skipped] = report.skipped.named() else { panic!("{at:?} {len}: {:?}", report.skipped) };
            assert_eq!(skipped.name, "b");
            assert!(skipped.reason.contains("boom"), "{at:?} {len}: {}", skipped.reason);
            is_valid(&repository, Arc::new(sink), 1).await;
        }
    }
}

#[tokio::test]
async fn an_observer_that_panics_changes_nothing() {
    let (repository, _) = repository().await;
    let job = job().with_observer(Arc::new(PanickingObserver));
    let source = crate::common::good_source();
    let report = ends(repository.backup(&source, &BackupOptions::default(), &job)).await.unwrap();
    assert_eq!(report.outcome, Outcome::Complete);
    let snapshot = repository.snapshot(report.snapshot.unwrap(), &job).await.unwrap();
    let target = BadTarget { at: At::Info, does: Does::Panic };
    let report = ends(repository.restore(&snapshot, &target, &Default::default(), &job)).await.unwrap();
    assert_eq!((report.entries_written, report.failed.count()), (51, 0));
    assert!(ends(repository.verify(&Default::default(), &job)).await.unwrap().is_clean());
}

#[tokio::test]
async fn a_sink_that_panics_fails_each_call_with_its_words() {
    for below in ["control/", "data/", "meta/", "index/", "snapshots/"] {
        let (repository, sink) = repository().await;
        let bad = Arc::new(PanickingSink { inner: sink.clone(), below });
        let protection = repository.protection().clone();
        let broken = Repository::open(bad, protection, TransformSet::builtin(), &job()).await.unwrap();
        let source = crate::common::good_source();
        let error = ends(broken.backup(&source, &BackupOptions::default(), &job())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{below}");
        assert!(error.to_string().contains("boom"), "{below}: {error}");
        is_valid(&repository, Arc::new(sink.clone()), 0).await;

        // And when reading what is there by now.
        let id = works(&repository).await;
        let target = BadTarget { at: At::Info, does: Does::Panic };
        let restored = ends(async {
            let snapshot = broken.snapshot(id, &job()).await?;
            broken.restore(&snapshot, &target, &Default::default(), &job()).await
        })
        .await;
        let verified = ends(broken.verify(&Default::default(), &job())).await;
        for error in [restored.map(drop), verified.map(drop)].into_iter().filter_map(Result::err) {
            assert!(error.to_string().contains("boom"), "{below}: {error}");
        }
    }
}

#[tokio::test]
async fn a_target_that_panics_fails_the_restore_with_its_words() {
    let (repository, _) = repository().await;
    let id = works(&repository).await;
    let snapshot = repository.snapshot(id, &job()).await.unwrap();
    for at in [At::Begin, At::Entry, At::WriterOpen, At::WriterWrite, At::WriterFinish, At::Finish] {
        let target = BadTarget { at, does: Does::Panic };
        let error =
            ends(repository.restore(&snapshot, &target, &Default::default(), &job())).await.unwrap_err();
        assert!(error.to_string().contains("boom"), "{at:?}: {error}");
    }
}

#[derive(Debug)]
struct PanickingTransform;

impl Transform for PanickingTransform {
    fn name(&self) -> &str {
        "x-panics"
    }

    fn encode(&self, _: &FrameContext<'_>, _: &[u8], _: &mut Vec<u8>) -> Result<Encoded> {
        panic!("boom")
    }

    fn decode(&self, _: &FrameContext<'_>, _: &[u8], _: &mut Vec<u8>, _: usize) -> Result<()> {
        panic!("boom")
    }
}

#[tokio::test]
async fn a_transform_that_panics_fails_the_backup_with_its_words() {
    let (repository, sink) = repository().await;
    let known = TransformSet::builtin().with(Arc::new(PanickingTransform));
    let protection = repository.protection().clone();
    let open = Repository::open(Arc::new(sink.clone()), protection, known, &job()).await.unwrap();
    let options =
        BackupOptions { transforms: Some(vec![Arc::new(PanickingTransform)]), ..BackupOptions::default() };
    let error = ends(open.backup(&crate::common::good_source(), &options, &job())).await.unwrap_err();
    assert!(error.to_string().contains("boom"), "{error}");
    is_valid(&repository, Arc::new(sink), 0).await;
}

#[test]
fn a_runtime_without_a_timer_is_an_error_and_not_a_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let sink = Arc::new(backup_sinks::MemorySink::new());
        let protection = Arc::new(Unprotected::new(backup_core::RepositoryId([7; 16])));
        let created = Repository::create(sink, protection, CreateOptions::default(), &job()).await;
        let repository = created.unwrap();
        let source = crate::common::good_source();
        let error = repository.backup(&source, &BackupOptions::default(), &job()).await.unwrap_err();
        assert!(error.to_string().contains("time"), "{error}");
    });
}
