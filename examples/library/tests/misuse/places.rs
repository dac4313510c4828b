//! Places that change or are the wrong ones.

use std::path::Path;
use std::sync::Arc;

use backup_core::repository::{BackupOptions, Repository};
use backup_core::{ErrorKind, Observer, Sink, TransformSet};
use backup_sinks::LocalSink;
use backup_sources::{DirectoryTarget, FilesSource};

use crate::common::{ends, good_source, is_valid, job, repository_on, works};

async fn local(path: &Path) -> (Repository, Arc<dyn Sink>) {
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::create(path).unwrap());
    (repository_on(sink.clone()).await, sink)
}

/// Deletes a directory when the first pack is stored.
#[derive(Debug)]
struct Deleter(std::path::PathBuf);

impl Observer for Deleter {
    fn on_event(&self, event: &backup_core::Event) {
        if matches!(event, backup_core::Event::ObjectStored { .. }) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[tokio::test]
async fn a_repository_that_is_deleted_underneath_is_an_error_in_every_call() {
    let work = tempfile::tempdir().unwrap();
    let place = work.path().join("repository");
    let (repository, _) = local(&place).await;
    let id = works(&repository).await;
    let snapshot = repository.snapshot(id, &job()).await.unwrap();
    let observing = job().with_observer(Arc::new(Deleter(place.clone())));
    let backup = ends(repository.backup(&good_source(), &BackupOptions::default(), &observing)).await;
    assert!(backup.is_err(), "an acknowledged snapshot is stored");
    assert!(!place.exists(), "a store that was deleted is not made anew in part");

    let error = ends(repository.backup(&good_source(), &BackupOptions::default(), &job())).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Io), "{error:?}");
    let target = DirectoryTarget::new(work.path().join("restored"));
    match ends(repository.restore(&snapshot, &target, &Default::default(), &job())).await {
        Ok(report) => assert!(!report.failed.is_empty(), "nothing is there to be restored"),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Io), "{error:?}"),
    }
    match ends(repository.verify(&Default::default(), &job())).await {
        Ok(report) => assert!(!report.is_clean(), "what is gone is not clean"),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Io), "{error:?}"),
    }
    let context = job();
    let opened = Repository::open(
        Arc::new(LocalSink::create(&place).unwrap()),
        repository.protection().clone(),
        TransformSet::builtin(),
        &context,
    );
    let error = ends(opened).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no repository"), "{error}");
}

#[tokio::test]
async fn a_repository_that_is_in_what_it_backs_up_does_not_grow_without_end() {
    let work = tempfile::tempdir().unwrap();
    let place = work.path().join("repository");
    let (repository, sink) = local(&place).await;
    works(&repository).await;
    std::fs::write(work.path().join("zebra"), "after the repository").unwrap();
    let source = FilesSource::new(work.path()).unwrap();
    for _ in 0..2 {
        let before = size(&place);
        ends(repository.backup(&source, &BackupOptions::default(), &job())).await.unwrap();
        // What was written while the walk went by may be read again, but not again and again.
        assert!(size(&place) < before * 4, "{before} bytes grew to {}", size(&place));
    }
    is_valid(&repository, sink, 3).await;
}

fn size(path: &Path) -> u64 {
    let children = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    children.map(|path| if path.is_dir() { size(&path) } else { path.metadata().unwrap().len() }).sum()
}

#[tokio::test]
async fn a_restore_into_the_repository_itself_leaves_it_valid() {
    let work = tempfile::tempdir().unwrap();
    let (repository, sink) = local(work.path()).await;
    let id = works(&repository).await;
    let snapshot = repository.snapshot(id, &job()).await.unwrap();
    let target = DirectoryTarget::new(work.path());
    let report = ends(repository.restore(&snapshot, &target, &Default::default(), &job())).await.unwrap();
    assert!(report.failed.is_empty());
    is_valid(&repository, sink, 1).await;
}

#[tokio::test]
async fn a_source_whose_path_is_missing_or_vanishes_is_an_error_that_names_it() {
    let work = tempfile::tempdir().unwrap();
    let (repository, sink) = local(&work.path().join("repository")).await;
    let missing = work.path().join("no such thing");
    let named = |text: String| assert!(text.contains("no such thing"), "{text}");
    match FilesSource::new(&missing) {
        Err(error) => named(error.to_string()),
        Ok(source) => match ends(repository.backup(&source, &BackupOptions::default(), &job())).await {
            Err(error) => named(error.to_string()),
            Ok(report) => named(report.skipped.named()[0].name.clone()),
        },
    }
    let listed = repository.snapshots(&job()).await.unwrap().len();
    is_valid(&repository, sink, listed).await;
}
