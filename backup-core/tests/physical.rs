//! A source shaped like the physical backup of a database proves that the contract is not file-shaped: hooks at start and
//! stop, random access, fixed chunks, no order, and entries that exist only at the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::chunker::ChunkerParameters;
use backup_core::repository::{BackupOptions, RestoreOptions};
use backup_core::source::ReadAt;
use backup_core::{
    CancellationToken, Content, Entry, EntryName, Error, ErrorKind, Finished, Item, JobContext, Result,
    Source, SourceInfo, SourceRun,
};
use common::{BOTH, CollectingTarget, Protect, Rng, in_memory, text};

const PAGE: usize = 8192;

/// A cluster of relation files of pages, with a log position that moves.
#[derive(Debug)]
struct Cluster {
    relations: Mutex<Vec<(String, Arc<Vec<u8>>)>>,
    position: AtomicU64,
    log: Mutex<Vec<String>>,
    fail_stop: bool,
}

impl Cluster {
    fn new(relations: usize, pages: usize) -> Self {
        let relations = (0..relations).map(|number| {
            let mut bytes = text(number as u64, pages * PAGE);
            // Each page has a header of its own.
            for (page, bytes) in bytes.chunks_mut(PAGE).enumerate() {
                Rng::new((number * 1_000_000 + page) as u64).fill(&mut bytes[..4096]);
            }
            (format!("base/{}/{}", number % 3, 16384 + number), Arc::new(bytes))
        });
        Self {
            relations: Mutex::new(relations.collect()),
            position: AtomicU64::new(0x1000),
            log: Mutex::default(),
            fail_stop: false,
        }
    }

    /// Changes about `percent` of all pages; returns how many bytes those are.
    fn update(&self, percent: u64, seed: u64) -> u64 {
        let mut rng = Rng::new(seed);
        let mut changed = 0;
        for (_, bytes) in self.relations.lock().unwrap().iter_mut() {
            let mut new = bytes.to_vec();
            for page in new.chunks_mut(PAGE) {
                if rng.below(100) >= percent {
                    continue;
                }
                rng.fill(&mut page[100..164]);
                changed += PAGE as u64;
            }
            *bytes = Arc::new(new);
        }
        self.position.fetch_add(0x1000, Ordering::Relaxed);
        changed
    }

    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }
}

#[derive(Debug, Clone)]
struct ClusterSource(Arc<Cluster>);

struct Relation {
    cluster: Arc<Cluster>,
    bytes: Arc<Vec<u8>>,
}

impl ReadAt for Relation {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = offset as usize;
        let part = self.bytes.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        self.cluster.note("read");
        Ok(())
    }
}

#[async_trait]
impl Source for ClusterSource {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("cluster", ["system 7412"]).unsorted()
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        tokio::task::yield_now().await;
        self.0.note("start");
        let start = self.0.position.load(Ordering::Relaxed);
        // Newest first: no order that the engine could rely on.
        let relations = self.0.relations.lock().unwrap().clone();
        Ok(Box::new(ClusterRun { cluster: self.0.clone(), relations, next: 0, start, stopped: false }))
    }
}

struct ClusterRun {
    cluster: Arc<Cluster>,
    relations: Vec<(String, Arc<Vec<u8>>)>,
    next: usize,
    start: u64,
    stopped: bool,
}

#[async_trait]
impl SourceRun for ClusterRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        tokio::task::yield_now().await;
        let mut items = Vec::new();
        while items.len() < max.min(5) && self.next < self.relations.len() {
            let (name, bytes) = &self.relations[self.relations.len() - 1 - self.next];
            items.push(Entry::file(name)?.with_size(bytes.len() as u64).into());
            self.next += 1;
        }
        Ok(items)
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        assert!(!self.stopped);
        let name = entry.name.to_string();
        let bytes = self.relations.iter().find(|(relation, _)| *relation == name).unwrap().1.clone();
        let relation = Relation { cluster: self.cluster.clone(), bytes };
        Ok(Content::from_random(Arc::new(relation)).fixed(PAGE as u32))
    }

    async fn finish(&mut self) -> Result<Finished> {
        tokio::task::yield_now().await;
        self.stopped = true;
        self.cluster.note("stop");
        if self.cluster.fail_stop {
            return Err(Error::new(ErrorKind::Io, "the server went away before the backup was stopped"));
        }
        let stop = self.cluster.position.fetch_add(0x100, Ordering::Relaxed) + 0x100;
        let label = format!("START WAL LOCATION: {:X}\n", self.start);
        // Not in order either.
        let trailing = vec![
            (Entry::file("tablespace_map")?, Content::from_bytes(Vec::new())),
            (Entry::file("backup_label")?, Content::from_bytes(label.into_bytes())),
            (Entry::file("global/pg_control")?, Content::from_bytes(text(stop, PAGE))),
        ];
        let position = [("start", self.start), ("stop", stop)];
        let position = position.map(|(name, at)| (name.to_owned(), format!("{at:X}"))).into();
        Ok(Finished { trailing, position, ..Finished::default() })
    }
}

impl Drop for ClusterRun {
    fn drop(&mut self) {
        if !self.stopped {
            self.cluster.note("abandoned");
        }
    }
}

#[tokio::test]
async fn a_physical_backup_runs_its_hooks_in_order_and_restores_byte_for_byte() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, ChunkerParameters::default()).await;
        let cluster = Arc::new(Cluster::new(12, 400));
        let source = ClusterSource(cluster.clone());
        let options = BackupOptions::default();
        let first = setup.repository.backup(&source, &options, &setup.job).await.unwrap();
        let log = std::mem::take(&mut *cluster.log.lock().unwrap());
        assert_eq!(log.first().unwrap(), "start");
        assert_eq!(log.last().unwrap(), "stop");
        assert_eq!(log.iter().filter(|what| *what != "read").count(), 2, "{log:?}");
        assert!(log.len() > 12);

        let snapshot = setup.repository.snapshot(first.snapshot.unwrap(), &setup.job).await.unwrap();
        assert_eq!(snapshot.info().position["start"], "1000");
        assert_eq!(snapshot.info().position["stop"], "1100");
        assert_eq!(snapshot.info().entries, 15);
        // Sorted entries first, then what was known only at the end, each part in order.
        let mut stream = snapshot.entries(None, &setup.job).await.unwrap();
        let mut names = Vec::new();
        while let Some(stored) = stream.next().await.unwrap() {
            names.push(stored.entry.name);
        }
        assert_eq!(names.len(), 15);
        assert!(names[..12].is_sorted() && names[12..].is_sorted());
        assert_eq!(names[12], EntryName::new("backup_label").unwrap());

        let target = CollectingTarget::default();
        let restore = RestoreOptions::default();
        let report = setup.repository.restore(&snapshot, &target, &restore, &setup.job).await.unwrap();
        assert!(report.failed.is_empty());
        let found = target.take();
        for (name, bytes) in cluster.relations.lock().unwrap().iter() {
            assert!(found[&EntryName::new(name).unwrap()].content == **bytes, "{name}");
        }
        let label = EntryName::new("backup_label").unwrap();
        assert_eq!(found[&label].content, b"START WAL LOCATION: 1000\n");

        // 5% of the pages changed: about as much is stored.
        let before = sink.total_bytes();
        let changed = cluster.update(5, 1);
        let second = setup.repository.backup(&source, &options, &setup.job).await.unwrap();
        let stored = sink.total_bytes() - before;
        println!(
            "{protect:?}: {changed} bytes of pages changed, {stored} stored, {} added",
            second.bytes_added
        );
        assert!(second.bytes_added >= changed && second.bytes_added < changed + 3 * PAGE as u64);
        assert!(stored < changed * 12 / 10, "{stored} bytes for {changed}");
        let snapshot = setup.repository.snapshot(second.snapshot.unwrap(), &setup.job).await.unwrap();
        setup.repository.restore(&snapshot, &target, &restore, &setup.job).await.unwrap();
        let found = target.take();
        for (name, bytes) in cluster.relations.lock().unwrap().iter() {
            assert!(found[&EntryName::new(name).unwrap()].content == **bytes, "{name}");
        }
        setup.assert_clean().await;
    }
}

#[tokio::test]
async fn a_backup_whose_stop_fails_makes_no_snapshot_and_a_cancelled_one_abandons_the_run() {
    let (setup, _) = in_memory(Protect::Encrypted, ChunkerParameters::default()).await;
    let failing = Cluster { fail_stop: true, ..Cluster::new(3, 100) };
    let options = BackupOptions::default();
    let error =
        setup.repository.backup(&ClusterSource(Arc::new(failing)), &options, &setup.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());

    let cluster = Arc::new(Cluster::new(3, 100));
    let token = CancellationToken::new();
    let job = setup.job.clone().with_cancellation(token.clone());
    let source = ClusterSource(cluster.clone());
    let backup = setup.repository.backup(&source, &options, &job);
    let (done, ()) = tokio::join!(backup, async {
        while cluster.log.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        token.cancel();
    });
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(cluster.log.lock().unwrap().iter().any(|what| what == "abandoned"));
    assert!(!cluster.log.lock().unwrap().iter().any(|what| what == "stop"));
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
}
