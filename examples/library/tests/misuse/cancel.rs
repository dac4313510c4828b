//! What hangs, cancelled; what is under way, dropped.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use backup_core::repository::{BackupOptions, CreateOptions, Repository, RestoreOptions};
use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{CancellationToken, ErrorKind, JobContext, Sink, TransformSet, Unprotected};
use backup_sinks::MemorySink;
use backup_sources::DirectoryTarget;

use crate::bad::{At, BadSource, BadTarget, Does};
use crate::common::{
    ends, good_source, is_valid, job, job_cancelled_once, job_cancelled_soon, repository, repository_on,
    works,
};

#[tokio::test]
async fn a_source_that_hangs_is_left_when_the_job_is_cancelled() {
    for len in [100, 5_000_000] {
        for at in [
            At::Begin,
            At::Next,
            At::Open,
            At::ContentOpen,
            At::ContentRead,
            At::ContentFinish,
            At::ContentRandom,
            At::ContentAsync,
            At::Finish,
        ] {
            let (repository, sink) = repository().await;
            let source = BadSource { at, does: Does::Hang, len };
            let job = job_cancelled_soon();
            let error = ends(repository.backup(&source, &BackupOptions::default(), &job)).await.unwrap_err();
            assert!(error.is_cancelled(), "{at:?} {len}: {error}");
            is_valid(&repository, Arc::new(sink), 0).await;
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_ends_a_backup_whose_source_hangs() {
    for at in [At::Next, At::Finish, At::ContentRead, At::ContentAsync] {
        let memory = MemorySink::new();
        let repository = repository_on(Arc::new(memory.clone())).await;
        // Enough content before the source hangs that a pack is put.
        let source = BadSource { at, does: Does::Hang, len: 40_000_000 };
        let full =
            Fault::at(1).of(Operation::Put).below("data/").with_kind(ErrorKind::NoSpace).from_then_on();
        let sink = Arc::new(FailingSink::new(memory.clone(), [full]));
        let known = TransformSet::builtin();
        let open =
            Repository::open(sink.clone(), repository.protection().clone(), known, &job()).await.unwrap();
        let error = ends(open.backup(&source, &BackupOptions::default(), &job())).await.unwrap_err();
        assert!(sink.struck() > 0, "{at:?}");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{at:?}: {error}");
        is_valid(&repository, Arc::new(memory), 0).await;
    }
}

#[tokio::test]
async fn a_store_that_hangs_at_any_call_is_left_when_the_job_is_cancelled() {
    let mut hangs = 0;
    for operation in [Operation::Put, Operation::Get, Operation::List] {
        for nth in 1.. {
            let memory = MemorySink::new();
            let repository = repository_on(Arc::new(memory.clone())).await;
            let first = works(&repository).await;
            let sink = Arc::new(FailingSink::new(memory.clone(), [Fault::at(nth).of(operation).hanging()]));
            let job = job_cancelled_once({
                let sink = sink.clone();
                move || sink.struck() > 0
            });
            let protection = repository.protection().clone();
            let everything = async {
                let open = Repository::open(sink.clone(), protection, TransformSet::builtin(), &job).await?;
                let source = BadSource { at: At::Complete, does: Does::Panic, len: 100 };
                open.backup(&source, &BackupOptions::default(), &job).await?;
                open.snapshots(&job).await?;
                open.stats(&job).await?;
                open.repair_index(true, &job).await?;
                open.verify(&Default::default(), &job).await?;
                let snapshot = open.snapshot(first, &job).await?;
                let target = BadTarget { at: At::Info, does: Does::Panic };
                open.restore(&snapshot, &target, &RestoreOptions::default(), &job).await
            };
            let ended = ends(everything).await;
            if sink.struck() == 0 {
                break;
            }
            hangs += 1;
            let error = ended.unwrap_err();
            assert!(error.is_cancelled(), "{operation:?} {nth}: {error}");
            let report = repository.verify(&Default::default(), &JobContext::new()).await.unwrap();
            assert!(report.is_clean(), "{operation:?} {nth}: {report:?}");
        }
    }
    assert!(hangs > 20, "{hangs}");
}

#[tokio::test]
async fn creating_a_repository_on_a_store_that_hangs_can_be_cancelled() {
    let sink = Arc::new(FailingSink::new(MemorySink::new(), [Fault::at(1).of(Operation::Put).hanging()]));
    let protection = Arc::new(Unprotected::new(backup_core::RepositoryId([7; 16])));
    let job = job_cancelled_soon();
    let created = ends(Repository::create(sink, protection, CreateOptions::default(), &job)).await;
    assert!(created.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_target_that_hangs_is_left_when_the_job_is_cancelled() {
    let (repository, _) = repository().await;
    let id = works(&repository).await;
    let snapshot = repository.snapshot(id, &job()).await.unwrap();
    for at in [At::Begin, At::Entry, At::WriterOpen, At::WriterWrite, At::WriterFinish, At::Finish] {
        let target = BadTarget { at, does: Does::Hang };
        let job = job_cancelled_soon();
        let error =
            ends(repository.restore(&snapshot, &target, &Default::default(), &job)).await.unwrap_err();
        assert!(error.is_cancelled(), "{at:?}: {error}");
    }
}

#[tokio::test]
async fn a_job_that_was_cancelled_before_it_began_does_nothing() {
    let (repository, sink) = repository().await;
    let id = works(&repository).await;
    let before = sink.len();
    let token = CancellationToken::new();
    token.cancel();
    let job = job().with_cancellation(token);
    let error = ends(repository.backup(&good_source(), &BackupOptions::default(), &job)).await.unwrap_err();
    assert!(error.is_cancelled());
    let snapshot = repository.snapshot(id, &JobContext::new()).await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let target = DirectoryTarget::new(work.path().join("restored"));
    let error = ends(repository.restore(&snapshot, &target, &Default::default(), &job)).await.unwrap_err();
    assert!(error.is_cancelled());
    assert!(ends(repository.verify(&Default::default(), &job)).await.unwrap_err().is_cancelled());
    assert_eq!(sink.len(), before);
}

/// Polls `call` at most `polls` times; none if it had not ended by then.
async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        call.as_mut().poll(cx).map(Some)
    })
    .await
}

async fn drop_backups_everywhere() {
    let (repository, sink) = repository().await;
    let mut done = 0;
    let mut polls = 0;
    // Each run begins where the one before was dropped; the chunks that it stored are found again.
    while done < 3 {
        let (source, options, context) = (good_source(), BackupOptions::default(), job());
        let backup = repository.backup(&source, &options, &context);
        if let Some(report) = ends(dropped_after(polls, backup)).await {
            report.unwrap();
            done += 1;
        }
        polls += 1;
        let listed = repository.snapshots(&job()).await.unwrap().len();
        assert!(listed >= done, "an acknowledged snapshot is listed");
        let report = ends(repository.verify(&Default::default(), &job())).await.unwrap();
        assert!(report.is_clean(), "after {polls} polls: {report:?}");
    }
    assert!(polls > 3, "{polls}");
    let listed = repository.snapshots(&job()).await.unwrap().len();
    is_valid(&repository, Arc::new(sink), listed).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_backup_dropped_at_any_await_point_leaves_a_valid_repository_on_one_thread() {
    drop_backups_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_dropped_at_any_await_point_leaves_a_valid_repository_on_many_threads() {
    drop_backups_everywhere().await;
}

#[tokio::test]
async fn a_restore_dropped_at_any_await_point_leaves_no_file_that_is_not_whole() {
    let (repository, _) = repository().await;
    let id = works(&repository).await;
    let snapshot = repository.snapshot(id, &job()).await.unwrap();
    let mut polls = 0;
    loop {
        let work = tempfile::tempdir().unwrap();
        let target = DirectoryTarget::new(work.path());
        let (options, context) = (RestoreOptions::default(), job());
        let restore = repository.restore(&snapshot, &target, &options, &context);
        let ended = ends(dropped_after(polls, restore)).await;
        polls += 1;
        if let Some(report) = ended {
            assert_eq!(report.unwrap().failed.count(), 0);
            assert_eq!(std::fs::read(work.path().join("long")).unwrap(), crate::common::noise(1, 5_000_000));
            break;
        }
    }
    assert!(polls > 1);
}

#[tokio::test]
async fn an_opened_file_outlives_the_handles_that_it_came_from() {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let (repository, _) = repository().await;
    let id = works(&repository).await;
    let mut file = {
        let snapshot = repository.snapshot(id, &job()).await.unwrap();
        let name = backup_core::EntryName::new("long").unwrap();
        let stored = snapshot.entry(&name, &job()).await.unwrap().unwrap();
        snapshot.open(&stored, &job()).await.unwrap()
    };
    drop(repository);
    let expected = crate::common::noise(1, 5_000_000);
    let mut part = [0; 10];
    file.seek(std::io::SeekFrom::Start(3_000_000)).await.unwrap();
    // A read that is dropped loses nothing.
    let _ = dropped_after(1, file.read_exact(&mut part)).await;
    file.seek(std::io::SeekFrom::Start(3_000_000)).await.unwrap();
    file.read_exact(&mut part).await.unwrap();
    assert_eq!(part[..], expected[3_000_000..3_000_010]);
    assert!(file.seek(std::io::SeekFrom::Current(-4_000_000)).await.is_err(), "before the beginning");
    file.seek(std::io::SeekFrom::Start(u64::MAX)).await.unwrap();
    assert_eq!(file.read(&mut part).await.unwrap(), 0, "behind the end");
}

#[tokio::test]
async fn a_file_being_read_when_its_job_is_cancelled_says_so() {
    use tokio::io::AsyncReadExt;
    let memory = MemorySink::new();
    let repository = repository_on(Arc::new(memory.clone())).await;
    let id = works(&repository).await;
    let hang = Fault::at(1).of(Operation::Get).below("data/").hanging().from_then_on();
    let sink: Arc<dyn Sink> = Arc::new(FailingSink::new(memory, [hang]));
    let known = TransformSet::builtin();
    let open = Repository::open(sink, repository.protection().clone(), known, &job()).await.unwrap();
    let snapshot = open.snapshot(id, &job()).await.unwrap();
    let name = backup_core::EntryName::new("long").unwrap();
    let stored = snapshot.entry(&name, &job()).await.unwrap().unwrap();
    let mut file = snapshot.open(&stored, &job_cancelled_soon()).await.unwrap();
    let error = ends(file.read_u8()).await.unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
}
