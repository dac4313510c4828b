//! Several at once: jobs on one handle, handles on one store, readers beside writers.

use std::sync::Arc;

use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::{ErrorKind, RepositoryId, Sink, TransformSet, Unprotected};
use backup_sinks::{LocalSink, MemorySink};
use backup_sources::MemorySource;

use crate::common::{ends, good_source, is_valid, job, noise, read, repository, works};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_on_one_handle_do_not_disturb_each_other() {
    let (repository, sink) = repository().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4_u64 {
        let repository = repository.clone();
        tasks.spawn(async move {
            // Half of it is what the others have, too.
            let source = MemorySource::new(format!("{n}"))
                .with_file("own", noise(100 + n, 3_000_000))
                .unwrap()
                .with_file("shared", noise(99, 3_000_000))
                .unwrap();
            let report = repository.backup(&source, &BackupOptions::default(), &job()).await.unwrap();
            let snapshot = repository.snapshot(report.snapshot.unwrap(), &job()).await.unwrap();
            assert_eq!(read(&snapshot, "own").await, noise(100 + n, 3_000_000));
            assert_eq!(read(&snapshot, "shared").await, noise(99, 3_000_000));
        });
    }
    while let Some(ended) = ends(tasks.join_next()).await {
        ended.unwrap();
    }
    is_valid(&repository, Arc::new(sink), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_stores_opened_on_one_directory_are_one() {
    let work = tempfile::tempdir().unwrap();
    let protection = Arc::new(Unprotected::new(RepositoryId([7; 16])));
    let first: Arc<dyn Sink> = Arc::new(LocalSink::create(work.path()).unwrap());
    let created = Repository::create(first.clone(), protection.clone(), CreateOptions::default(), &job())
        .await
        .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let sink = Arc::new(LocalSink::open(work.path()).unwrap());
        let known = TransformSet::builtin();
        let repository = Repository::open(sink, protection.clone(), known, &job()).await.unwrap();
        tasks.spawn(async move {
            works(&repository).await;
        });
    }
    while let Some(ended) = ends(tasks.join_next()).await {
        ended.unwrap();
    }
    is_valid(&created, first, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_that_create_a_repository_in_one_place_one_succeeds() {
    let sink = MemorySink::new();
    let creations = (0..8_u8).map(|n| {
        let (sink, id) = (Arc::new(sink.clone()), RepositoryId([n; 16]));
        tokio::spawn(async move {
            Repository::create(sink, Arc::new(Unprotected::new(id)), CreateOptions::default(), &job()).await
        })
    });
    let mut created = Vec::new();
    for creation in creations.collect::<Vec<_>>() {
        match ends(creation).await.unwrap() {
            Ok(repository) => created.push(repository),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    }
    let [repository] = &created[..] else { panic!("{} were created", created.len()) };
    is_valid(repository, Arc::new(sink), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_not_disturbed_by_writers() {
    let (repository, _) = repository().await;
    let id = works(&repository).await;
    let writer = {
        let repository = repository.clone();
        tokio::spawn(async move {
            for n in 0..5 {
                let source = MemorySource::new("more").with_file("more", noise(500 + n, 4_000_000)).unwrap();
                repository.backup(&source, &BackupOptions::default(), &job()).await.unwrap();
            }
        })
    };
    let mut rounds = 0;
    while !writer.is_finished() || rounds == 0 {
        rounds += 1;
        let snapshot = repository.snapshot(id, &job()).await.unwrap();
        assert_eq!(read(&snapshot, "long").await, noise(1, 5_000_000));
        let report = ends(repository.verify(&Default::default(), &job())).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(!repository.snapshots(&job()).await.unwrap().is_empty());
    }
    ends(writer).await.unwrap();
    assert_eq!(repository.snapshots(&job()).await.unwrap().len(), 6);
}

#[test]
fn a_repository_opened_in_one_runtime_can_be_used_in_the_next() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = tempfile::tempdir().unwrap();
    let repository = runtime().block_on(async {
        let sink = Arc::new(LocalSink::create(work.path()).unwrap());
        let repository = crate::common::repository_on(sink).await;
        works(&repository).await;
        repository
    });
    runtime().block_on(async {
        works(&repository).await;
        let report = repository.backup(&good_source(), &BackupOptions::default(), &job()).await.unwrap();
        assert_eq!(report.bytes_added, 0);
    });
}
