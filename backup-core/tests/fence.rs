//! A session that was shut out: its fence is no snapshot and no damage, and nobody builds upon what it left behind
//! without naming it again.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::format::document::{self, FenceDocument};
use backup_core::repository::{BackupOptions, CreateOptions, Repository, VerifyOptions};
use backup_core::{
    Content, Entry, EntryName, ErrorKind, Item, JobContext, ObjectKey, ObjectType, Protection, RepositoryId,
    Result, Sink, SinkExt, SnapshotId, Source, SourceInfo, SourceRun, TransformSet, Unprotected,
};
use backup_sinks::MemorySink;

/// A source of one file that is filled with this byte.
#[derive(Debug)]
struct OneFile(u8);

#[async_trait]
impl Source for OneFile {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("one-file", ["x"])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(Run(vec![Entry::file("file")?.into()], self.0)))
    }
}

struct Run(Vec<Item>, u8);

#[async_trait]
impl SourceRun for Run {
    async fn next(&mut self, _: usize) -> Result<Vec<Item>> {
        Ok(std::mem::take(&mut self.0))
    }

    async fn open(&self, _: &Entry) -> Result<Content> {
        Ok(Content::from_bytes(vec![self.1; 10_000]))
    }
}

fn protection() -> Arc<dyn Protection> {
    Arc::new(Unprotected::new(RepositoryId([9; 16])))
}

fn fence(session: SnapshotId, job: &JobContext) -> bytes::Bytes {
    let repository = protection().repository();
    let fence = FenceDocument { fence: true, session, repository, time: job.now() };
    document::seal(&*protection(), ObjectType::Snapshot, [3; 32], &fence).unwrap()
}

/// A store as a stopped writer leaves it when it was fenced just before its last put.
async fn fenced_store(job: &JobContext) -> (Arc<dyn Sink>, SnapshotId) {
    let before: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let repository =
        Repository::create(before.clone(), protection(), CreateOptions::default(), job).await.unwrap();
    let report = repository.backup(&OneFile(7), &BackupOptions::default(), job).await.unwrap();
    let session = report.snapshot.unwrap();
    let after: Arc<dyn Sink> = Arc::new(MemorySink::new());
    for object in before.list_all("").await.unwrap() {
        let fenced = object.key.as_str().starts_with("snapshots/");
        let bytes = before.get_whole(&object.key, 1 << 20).await.unwrap();
        after.put(&object.key, if fenced { fence(session, job) } else { bytes }).await.unwrap();
    }
    (after, session)
}

#[tokio::test]
async fn a_fence_is_neither_a_snapshot_nor_damage() {
    let job = JobContext::new();
    let (sink, session) = fenced_store(&job).await;
    let repository = Repository::open(sink, protection(), TransformSet::builtin(), &job).await.unwrap();
    assert!(repository.snapshots(&job).await.unwrap().is_empty());
    for _ in 0..2 {
        let error = repository.snapshot(session, &job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let report = repository.verify(&VerifyOptions::default(), &job).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn what_a_fenced_session_stored_is_reused_only_by_naming_it_again() {
    let job = JobContext::new();
    let (sink, _) = fenced_store(&job).await;
    let repository =
        Repository::open(sink.clone(), protection(), TransformSet::builtin(), &job).await.unwrap();
    let report = repository.backup(&OneFile(7), &BackupOptions::default(), &job).await.unwrap();
    assert_eq!(report.bytes_added, 0);
    let segments = sink.list_all("index/").await.unwrap();
    assert_eq!(segments.len(), 2, "the new session names what it uses in a segment of its own");
}

#[tokio::test]
async fn a_writer_that_meets_a_fence_forgets_the_index_it_read_before() {
    let job = JobContext::new();
    let (sink, _) = fenced_store(&job).await;
    let other = Repository::open(sink.clone(), protection(), TransformSet::builtin(), &job).await.unwrap();
    let sound = other.backup(&OneFile(8), &BackupOptions::default(), &job).await.unwrap().snapshot.unwrap();

    // Reading one snapshot tells nothing of the others: by its name the fence may be one, too.
    let repository =
        Repository::open(sink.clone(), protection(), TransformSet::builtin(), &job).await.unwrap();
    let snapshot = repository.snapshot(sound, &job).await.unwrap();
    let entry = snapshot.entry(&EntryName::new("file").unwrap(), &job).await.unwrap().unwrap();
    snapshot.open(&entry, &job).await.unwrap();
    let before = sink.list_all("index/").await.unwrap().len();
    let report = repository.backup(&OneFile(7), &BackupOptions::default(), &job).await.unwrap();
    assert_eq!(report.bytes_added, 0);
    let segments = sink.list_all("index/").await.unwrap().len();
    assert_eq!(segments, before + 1, "what the fenced session stored is named again");
}

#[tokio::test]
async fn the_fence_of_another_session_is_damage() {
    let job = JobContext::new();
    let (sink, _) = fenced_store(&job).await;
    let repository =
        Repository::open(sink.clone(), protection(), TransformSet::builtin(), &job).await.unwrap();
    let key = ObjectKey::new("snapshots/01010101010101010101010101010101").unwrap();
    sink.put(&key, fence(SnapshotId::from_bytes([2; 16]), &job)).await.unwrap();
    assert_eq!(repository.snapshots(&job).await.unwrap_err().kind(), ErrorKind::Corruption);
    let report = repository.verify(&VerifyOptions::default(), &job).await.unwrap();
    assert_eq!(report.damaged_objects[0].object, key.as_str());
}
