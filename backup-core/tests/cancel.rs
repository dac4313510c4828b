//! Jobs cancelled at every point: the repository stays valid, what was done serves the next run, nothing goes on running.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::repository::{BackupOptions, RestoreOptions, VerifyLevel, VerifyOptions};
use backup_core::{
    CancellationToken, EntryKind, EntryName, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome,
    Resources, Result, Sink,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{
    Body, Collected, CollectingTarget, Protect, SMALL, Setup, TestEntry, TestSource, assert_same, in_memory,
    objects, random, sink_of, text, tree,
};

/// Each test counts the threads of this process, so they run one after the other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A store that makes its caller wait once a call, as every real one does.
#[derive(Debug)]
struct Slow(MemorySink);

#[async_trait]
impl Sink for Slow {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        tokio::task::yield_now().await;
        let done = self.0.put(key, bytes).await;
        // Dropped here, a put has had its effect and nobody has heard of it.
        tokio::task::yield_now().await;
        done
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        tokio::task::yield_now().await;
        self.0.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        tokio::task::yield_now().await;
        self.0.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        tokio::task::yield_now().await;
        self.0.delete(key).await
    }
}

/// Polls a future at most `polls` times, then drops it where it is: at once, or when its threads have gone on for a while.
async fn poll_at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll came to nothing: there will be no further.
            Poll::Pending if left == 0 => {
                std::thread::sleep(Duration::from_millis(polls as u64 % 4));
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn source(changed: u64) -> TestSource {
    let mut entries: Vec<_> = tree(4, 30, 20_000).into_iter().map(TestEntry::stamped).collect();
    entries.push(TestEntry::file("m-long", random(changed, 2_500_000)).stamped());
    entries.push(TestEntry::file("n-pumped", text(changed, 300_000)).body(Body::Async).stamped());
    entries.push(TestEntry::file("o-random", random(changed + 1, 2_200_000)).body(Body::Random).fixed(8192));
    let source = TestSource::new(entries).with_trailing(vec![TestEntry::file("label", text(changed, 500))]);
    TestSource { batch: 7, ..source }
}

/// Waits until the threads of the jobs are gone.
async fn threads_end() {
    let started = Instant::now();
    loop {
        let running = job_threads();
        if running.is_empty() {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "still running: {running:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn job_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("backup-")).collect()
}

async fn start(protect: Protect) -> (Setup, MemorySink, TestSource, backup_core::SnapshotId) {
    let (setup, sink) = in_memory(protect, SMALL).await;
    let first = source(1);
    let id = setup.store(&first).await;
    (setup, sink, first, id)
}

async fn check_after(setup: &Setup, sink: &MemorySink, first: (&TestSource, backup_core::SnapshotId)) {
    let setup = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    setup.assert_clean().await;
    setup.assert_restores(first.1, first.0).await;
}

#[tokio::test]
async fn a_backup_dropped_at_any_await_point_leaves_a_valid_repository() {
    let _alone = ALONE.lock().await;
    let (setup, base, first, id) = start(Protect::Encrypted).await;
    let base = objects(&base).await;
    let second = source(2);
    let whole = {
        let sink = sink_of(&base).await;
        let setup = setup.reopen(Arc::new(sink)).await.unwrap();
        setup.backup(&second).await.unwrap().bytes_stored
    };
    let (mut polls, mut reused, mut committed) = (0, 0, false);
    while !committed {
        polls += 1 + polls / 24;
        let sink = sink_of(&base).await;
        let opened = setup.reopen(Arc::new(Slow(sink.clone()))).await.unwrap();
        let options = BackupOptions::default();
        let done = poll_at_most(polls, opened.repository.backup(&second, &options, &opened.job)).await;
        committed = done.is_some();
        threads_end().await;
        check_after(&setup, &sink, (&first, id)).await;
        let count = opened.repository.snapshots(&opened.job).await.unwrap().len();
        assert!(count == 1 + usize::from(committed) || count == 2, "the last put commits: {count}");
        // The same handle goes on, and a new one, too.
        for handle in [opened, setup.reopen(Arc::new(sink.clone())).await.unwrap()] {
            let again = handle.backup(&second).await.unwrap();
            handle.assert_restores(again.snapshot.unwrap(), &second).await;
            reused += usize::from(again.bytes_stored < whole / 2);
        }
        check_after(&setup, &sink, (&first, id)).await;
    }
    println!("a backup dropped after up to {polls} polls; {reused} later runs reused what it had stored");
    // Both runs after the one that went to its end; how many others depends on how far threads got before.
    assert!(reused >= 2);
}

#[tokio::test]
async fn a_backup_cancelled_by_its_token_at_any_time_says_so_and_leaves_a_valid_repository() {
    let _alone = ALONE.lock().await;
    let (setup, base, first, id) = start(Protect::Plain).await;
    let base = objects(&base).await;
    let second = source(3);
    let mut calls = 1;
    loop {
        let sink = sink_of(&base).await;
        let token = CancellationToken::new();
        let counting = Arc::new(CancelAt { inner: sink.clone(), token: token.clone(), left: calls.into() });
        let mut opened = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        opened = opened.reopen(counting).await.unwrap();
        let job = opened.job.clone().with_cancellation(token.clone());
        let done = opened.repository.backup(&second, &BackupOptions::default(), &job).await;
        threads_end().await;
        check_after(&setup, &sink, (&first, id)).await;
        let handle = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        let again = handle.backup(&second).await.unwrap();
        handle.assert_restores(again.snapshot.unwrap(), &second).await;
        match done {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
        }
        calls += 1;
    }
    println!("a backup cancelled at each of {calls} calls of the store");
    assert!(calls > 8);
}

/// Cancels a job at its n-th call.
#[derive(Debug)]
struct CancelAt {
    inner: MemorySink,
    token: CancellationToken,
    left: AtomicI64,
}

impl CancelAt {
    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.token.cancel();
        }
    }
}

#[async_trait]
impl Sink for CancelAt {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.count();
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.count();
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.count();
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.count();
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn a_restore_dropped_at_any_await_point_leaves_nothing_incomplete_for_whole() {
    let _alone = ALONE.lock().await;
    let (setup, sink, first, id) = start(Protect::Encrypted).await;
    let expected = first.expected();
    let mut polls = 0;
    let mut partial = 0;
    loop {
        polls += 1 + polls / 24;
        let opened = setup.reopen(Arc::new(Slow(sink.clone()))).await.unwrap();
        let target = CollectingTarget::default();
        let done = {
            let snapshot = opened.repository.snapshot(id, &opened.job).await.unwrap();
            let options = RestoreOptions::default();
            poll_at_most(polls, opened.repository.restore(&snapshot, &target, &options, &opened.job)).await
        };
        threads_end().await;
        let found = target.take();
        if let Some(done) = done {
            assert!(done.unwrap().failed.is_empty());
            assert_same(&found, &expected);
            break;
        }
        for (name, found) in &found {
            assert!(found.whole, "{name} was left incomplete after {polls} polls");
            assert_eq!(found.content, expected[name].content, "{name}");
        }
        partial += usize::from(!found.is_empty() && found.len() < expected.len());
        target.put(found);
        assert_completes(&setup, id, &target, &expected).await;
    }
    println!("a restore dropped after up to {polls} polls, {partial} times halfway");
}

/// A second restore into the same place completes it.
async fn assert_completes(
    setup: &Setup,
    id: backup_core::SnapshotId,
    target: &CollectingTarget,
    expected: &BTreeMap<EntryName, Collected>,
) {
    let mut held = target.take();
    held.retain(|name, _| !matches!(expected[name].entry.kind, EntryKind::HardLink { .. }));
    target.put(held);
    let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
    setup.repository.restore(&snapshot, target, &RestoreOptions::default(), &setup.job).await.unwrap();
    assert_same(&target.take(), expected);
}

#[tokio::test]
async fn a_restore_dropped_halfway_leaves_what_is_whole_and_is_completed_by_the_next() {
    let _alone = ALONE.lock().await;
    let (setup, _, first, id) = start(Protect::Encrypted).await;
    let expected = first.expected();
    let target = CollectingTarget::default();
    target.gate.close_at(i64::MAX);
    assert_completes(&setup, id, &target, &expected).await;
    let writes = target.gate.passed();
    let mut whole = Vec::new();
    for tenth in [1, 5, 9] {
        let target = CollectingTarget::default();
        target.gate.close_at(writes * tenth / 10);
        {
            let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
            let options = RestoreOptions::default();
            let halfway = async {
                while target.gate.passed() < writes * tenth / 10 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                done = setup.repository.restore(&snapshot, &target, &options, &setup.job) => {
                    panic!("it cannot end: {done:?}")
                }
                () = halfway => {}
            }
        }
        target.gate.open();
        threads_end().await;
        let found = target.take();
        assert!(found.len() < expected.len());
        for (name, found) in &found {
            assert!(found.whole && found.content == expected[name].content, "{name}");
        }
        whole.push(found.len());
        target.put(found);
        assert_completes(&setup, id, &target, &expected).await;
    }
    println!(
        "of {} entries these were there when a restore of {writes} writes was dropped: {whole:?}",
        expected.len()
    );
    assert!(whole[2] > 0);
}

#[tokio::test]
async fn verify_and_repair_can_be_dropped_at_any_await_point() {
    let _alone = ALONE.lock().await;
    let (setup, base, first, id) = start(Protect::Encrypted).await;
    let base = objects(&base).await;
    for repair in [false, true] {
        let mut polls = 0;
        loop {
            polls += 1 + polls / 24;
            let sink = sink_of(&base).await;
            if repair {
                common::delete_all(&sink, "index/").await;
            }
            let opened = setup.reopen(Arc::new(Slow(sink.clone()))).await.unwrap();
            let done = if repair {
                poll_at_most(polls, opened.repository.repair_index(false, &opened.job))
                    .await
                    .map(|r| r.is_ok())
            } else {
                let options = VerifyOptions { level: VerifyLevel::Content, ..VerifyOptions::default() };
                let verified = poll_at_most(polls, opened.repository.verify(&options, &opened.job)).await;
                verified.map(|report| report.unwrap().is_clean())
            };
            let setup = setup.reopen(Arc::new(sink.clone())).await.unwrap();
            if repair && done.is_none() {
                setup.assert_restores(id, &first).await;
                setup.repository.repair_index(false, &setup.job).await.unwrap();
            }
            check_after(&setup, &sink, (&first, id)).await;
            if let Some(done) = done {
                assert!(done);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_cancelled_job_ends_at_once_also_while_it_waits_for_a_rate_limit() {
    let _alone = ALONE.lock().await;
    let (setup, _, _, _) = start(Protect::Plain).await;
    let resources = Resources::new().with_workers(2);
    resources.upload().set_bytes_per_second(Some(1000));
    let token = CancellationToken::new();
    let job = setup.job.clone().with_resources(resources).with_cancellation(token.clone());
    let source = source(9);
    let options = BackupOptions::default();
    let started = Instant::now();
    let (done, ()) = tokio::join!(setup.repository.backup(&source, &options, &job), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel();
    });
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    threads_end().await;
}

#[test]
fn a_job_whose_runtime_is_gone_ends_its_threads() {
    let _alone = ALONE.blocking_lock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (setup, _, _, _) = runtime.block_on(start(Protect::Plain));
    let source = source(5);
    let options = BackupOptions::default();
    {
        let mut future = Box::pin(setup.repository.backup(&source, &options, &setup.job));
        let waker = Waker::from(Arc::new(Nobody));
        let _entered = runtime.enter();
        for _ in 0..400 {
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                break;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    drop(runtime);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(threads_end());
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}
