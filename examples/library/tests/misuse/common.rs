//! A repository to misuse, and how to tell that it survived.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backup_core::report::Outcome;
use backup_core::repository::{BackupOptions, CreateOptions, Repository, Snapshot};
use backup_core::{
    CancellationToken, JobContext, RepositoryId, Resources, Sink, SnapshotId, SystemRandom, TransformSet,
    Unprotected,
};
use backup_sinks::MemorySink;
use backup_sources::MemorySource;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

/// Fails the test if `call` takes longer than anything here may.
pub(crate) async fn ends<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), call).await.expect("the call hangs")
}

/// A job with two workers.
pub(crate) fn job() -> JobContext {
    JobContext::new().with_resources(Resources::new().with_workers(2))
}

/// A job that is cancelled after a moment.
pub(crate) fn job_cancelled_soon() -> JobContext {
    job_cancelled_once(|| true)
}

/// A job that is cancelled a moment after something has come about.
pub(crate) fn job_cancelled_once(come_about: impl Fn() -> bool + Send + 'static) -> JobContext {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        while !come_about() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    });
    job().with_cancellation(token)
}

/// An empty repository on `sink`.
pub(crate) async fn repository_on(sink: Arc<dyn Sink>) -> Repository {
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom).unwrap()));
    Repository::create(sink, protection, CreateOptions::default(), &job()).await.unwrap()
}

/// An empty repository in memory.
pub(crate) async fn repository() -> (Repository, MemorySink) {
    let sink = MemorySink::new();
    (repository_on(Arc::new(sink.clone())).await, sink)
}

/// `len` bytes that do not compress and that no other `seed` has.
pub(crate) fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Some small files and a long one.
pub(crate) fn good_source() -> MemorySource {
    let mut source = MemorySource::new("good").with_file("long", noise(1, 5_000_000)).unwrap();
    for n in 0..50 {
        source = source.with_file(format!("small/{n:02}"), noise(n + 2, 1000)).unwrap();
    }
    source
}

/// Backs up the good source and reads it back.
pub(crate) async fn works(repository: &Repository) -> SnapshotId {
    let report = ends(repository.backup(&good_source(), &BackupOptions::default(), &job())).await.unwrap();
    assert_eq!((report.entries, report.outcome), (51, Outcome::Complete));
    let snapshot = repository.snapshot(report.snapshot.unwrap(), &job()).await.unwrap();
    assert_eq!(read(&snapshot, "long").await, noise(1, 5_000_000));
    assert_eq!(read(&snapshot, "small/07").await, noise(9, 1000));
    snapshot.info().id
}

/// The content of a stored file.
pub(crate) async fn read(snapshot: &Snapshot, name: &str) -> Vec<u8> {
    let name = backup_core::EntryName::new(name).unwrap();
    let stored = snapshot.entry(&name, &job()).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    snapshot.open(&stored, &job()).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Whoever opens the repository now finds it whole, with so many snapshots, and can use it.
pub(crate) async fn is_valid(repository: &Repository, sink: Arc<dyn Sink>, snapshots: usize) {
    let protection = repository.protection().clone();
    let fresh = Repository::open(sink, protection, TransformSet::builtin(), &job()).await.unwrap();
    assert_eq!(fresh.snapshots(&job()).await.unwrap().len(), snapshots);
    let report = ends(fresh.verify(&Default::default(), &job())).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    works(&fresh).await;
    let report = ends(fresh.verify(&Default::default(), &job())).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}
