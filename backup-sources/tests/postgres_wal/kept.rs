//! Receivers that run beside a test, and archives in memory that they fill.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::{
    Archived, CreateOptions, Event, JobContext, Observer, Repository, RepositoryId, Result, Unprotected,
};
use backup_sinks::MemorySink;
use backup_sources::postgres::receive::{ReceiveOptions, ReceiveStatus, ReceivedLog, Standing};
use backup_sources::postgres::wal::{SegmentName, SegmentSize, Summary, TimelineHistory};
use backup_sources::postgres::{Connect, Lsn, Receiver, Timeline, WalArchive};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::postgres_server::Cluster;

/// The size of the segments of all clusters here.
pub fn small() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// An archive in two places.
pub async fn archive() -> WalArchive {
    let mut places = Vec::new();
    for _ in 0..2 {
        let protection = Arc::new(Unprotected::new(RepositoryId([7; 16])));
        let sink = Arc::new(MemorySink::new());
        let job = JobContext::new();
        let repository = Repository::create(sink, protection, CreateOptions::default(), &job);
        places.push(repository.await.unwrap());
    }
    WalArchive::new(places).unwrap()
}

pub fn connect(cluster: &Cluster) -> Connect {
    Connect::parse_with(&cluster.conninfo("postgres"), |_| None).unwrap()
}

pub fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

impl Cluster {
    /// Where the log stands, after the segment that was being written.
    pub fn switch_wal_and_lsn(&self) -> String {
        self.switch_wal();
        self.lsn()
    }
}

/// A receiver at work.
#[derive(Debug)]
pub struct Running {
    job: JobContext,
    status: watch::Receiver<ReceiveStatus>,
    task: JoinHandle<Result<ReceiveStatus>>,
}

impl Running {
    pub fn start(connect: &Connect, archive: &WalArchive, options: ReceiveOptions, job: JobContext) -> Self {
        Self::start_with(connect, Arc::new(archive.clone()), options, job)
    }

    pub fn start_with(
        connect: &Connect,
        log: Arc<dyn ReceivedLog>,
        options: ReceiveOptions,
        job: JobContext,
    ) -> Self {
        let receiver = Receiver::new(connect.clone(), log, options).unwrap();
        let (status, its_job) = (receiver.status(), job.clone());
        let task = tokio::spawn(async move { receiver.run(&its_job).await });
        Self { job, status, task }
    }

    pub fn status(&self) -> ReceiveStatus {
        self.status.borrow().clone()
    }

    /// Waits for something, at most a minute.
    pub fn until(&self, what: &str, holds: impl Fn(&ReceiveStatus) -> bool) {
        let started = Instant::now();
        while !holds(&self.status()) {
            assert!(started.elapsed() < Duration::from_secs(60), "{what} did not come: {:?}", self.status());
            assert!(!self.task.is_finished(), "the receiver ended before {what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub async fn stop(self) {
        self.job.cancellation().cancel();
        let error = self.task.await.unwrap().unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Result<ReceiveStatus> {
        self.task.await.unwrap()
    }

    /// Drops its future wherever it is.
    pub async fn abort(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Collects what somebody must see to.
#[derive(Debug, Default)]
pub struct Alerts(Mutex<Vec<String>>);

impl Alerts {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Alerts {
    fn on_event(&self, event: &Event) {
        if let Event::Alert { message, .. } = event {
            self.0.lock().unwrap().push(message.clone());
        }
    }
}

/// A store that stands still when it is told to.
#[derive(Debug)]
pub struct Blocked {
    archive: WalArchive,
    blocked: watch::Sender<bool>,
}

impl Blocked {
    pub fn over(archive: WalArchive) -> Self {
        Self { archive, blocked: watch::Sender::new(false) }
    }

    pub fn block(&self) {
        self.blocked.send_replace(true);
    }

    pub fn release(&self) {
        self.blocked.send_replace(false);
    }

    async fn wait(&self) {
        self.blocked.subscribe().wait_for(|blocked| !blocked).await.unwrap();
    }
}

#[async_trait]
impl ReceivedLog for Blocked {
    async fn standing(
        &self,
        system_identifier: u64,
        history: &TimelineHistory,
        size: SegmentSize,
        job: &JobContext,
    ) -> Result<Option<Standing>> {
        self.archive.standing(system_identifier, history, size, job).await
    }

    async fn has_segment(&self, segment: SegmentName, job: &JobContext) -> Result<bool> {
        self.archive.has_segment(segment, job).await
    }

    async fn put_segment(&self, segment: SegmentName, content: Bytes, job: &JobContext) -> Result<Archived> {
        self.wait().await;
        self.archive.put_segment(segment, content, job).await
    }

    async fn put_piece(
        &self,
        segment: SegmentName,
        offset: u64,
        content: Bytes,
        summary: &Summary,
        job: &JobContext,
    ) -> Result<Archived> {
        self.wait().await;
        self.archive.put_piece(segment, offset, content, summary, job).await
    }

    async fn put_history(&self, timeline: Timeline, content: Bytes, job: &JobContext) -> Result<Archived> {
        self.archive.put_history(timeline, content, job).await
    }

    async fn put_gap(&self, timeline: Timeline, from: Lsn, reason: &str, job: &JobContext) -> Result<()> {
        self.archive.put_gap(timeline, from, reason, job).await
    }
}

/// A store that takes long for whole segments, and notes what comes before those in front of it are there.
#[derive(Debug)]
pub struct Ordered {
    archive: WalArchive,
    on_their_way: Mutex<Vec<SegmentName>>,
    early: Mutex<Vec<SegmentName>>,
}

impl Ordered {
    pub fn over(archive: WalArchive) -> Self {
        Self { archive, on_their_way: Mutex::default(), early: Mutex::default() }
    }

    /// Segments of which a piece came too early.
    pub fn early(&self) -> Vec<SegmentName> {
        self.early.lock().unwrap().clone()
    }
}

#[async_trait]
impl ReceivedLog for Ordered {
    async fn standing(
        &self,
        system_identifier: u64,
        history: &TimelineHistory,
        size: SegmentSize,
        job: &JobContext,
    ) -> Result<Option<Standing>> {
        self.archive.standing(system_identifier, history, size, job).await
    }

    async fn has_segment(&self, segment: SegmentName, job: &JobContext) -> Result<bool> {
        self.archive.has_segment(segment, job).await
    }

    async fn put_segment(&self, segment: SegmentName, content: Bytes, job: &JobContext) -> Result<Archived> {
        self.on_their_way.lock().unwrap().push(segment);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let archived = self.archive.put_segment(segment, content, job).await;
        self.on_their_way.lock().unwrap().retain(|other| *other != segment);
        archived
    }

    async fn put_piece(
        &self,
        segment: SegmentName,
        offset: u64,
        content: Bytes,
        summary: &Summary,
        job: &JobContext,
    ) -> Result<Archived> {
        if self.on_their_way.lock().unwrap().iter().any(|other| *other < segment) {
            self.early.lock().unwrap().push(segment);
        }
        self.archive.put_piece(segment, offset, content, summary, job).await
    }

    async fn put_history(&self, timeline: Timeline, content: Bytes, job: &JobContext) -> Result<Archived> {
        self.archive.put_history(timeline, content, job).await
    }

    async fn put_gap(&self, timeline: Timeline, from: Lsn, reason: &str, job: &JobContext) -> Result<()> {
        self.archive.put_gap(timeline, from, reason, job).await
    }
}
