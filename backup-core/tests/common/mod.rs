//! What the engine's tests share: repositories, data, a source and a target of their own.

// Every test is a program of its own and uses a part of this.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs)]

mod data;
mod source;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::chunker::ChunkerParameters;
use backup_core::report::{BackupReport, RestoreReport, VerifyReport};
use backup_core::repository::{
    BackupOptions, CreateOptions, Repository, RestoreOptions, VerifyLevel, VerifyOptions,
};
use backup_core::{
    EntryName, JobContext, ObjectKey, Protection, Random, RepositoryId, Resources, Result, Sink, SinkExt,
    SnapshotId, SystemRandom, TransformSet, Unprotected, limits,
};
use backup_crypto::{Keyring, PassphraseCost, Recipient};
use backup_sinks::MemorySink;
use bytes::Bytes;

pub use data::{Rng, mixed, random, text};
pub use source::{Body, Run, TestEntry, TestSource, many_chunks, tree};
pub use target::{Collected, CollectingTarget, SequentialTarget};

/// How a test's repository is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protect {
    Plain,
    Encrypted,
}

pub const BOTH: [Protect; 2] = [Protect::Plain, Protect::Encrypted];

/// Chunks so small that little content makes many of them.
pub const TINY: ChunkerParameters = ChunkerParameters { min_bytes: 64, avg_bytes: 128, max_bytes: 256 };

/// Chunks of a few KiB.
pub const SMALL: ChunkerParameters = ChunkerParameters { min_bytes: 1024, avg_bytes: 4096, max_bytes: 16384 };

/// A repository with what is needed to open it again.
#[derive(Debug, Clone)]
pub struct Setup {
    pub repository: Repository,
    pub protection: Arc<dyn Protection>,
    pub job: JobContext,
}

/// A job with two workers.
pub fn job() -> JobContext {
    JobContext::new().with_resources(Resources::new().with_workers(2))
}

pub async fn create(sink: Arc<dyn Sink>, protect: Protect, chunker: ChunkerParameters) -> Setup {
    let job = job();
    let protection: Arc<dyn Protection> = match protect {
        Protect::Plain => Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom).unwrap())),
        Protect::Encrypted => {
            let cost = PassphraseCost::new(8, 1, 1).unwrap();
            let recipient = Recipient::passphrase("correct horse".to_owned()).unwrap().with_cost(cost);
            Keyring::create(&sink, &[recipient], &job).await.unwrap()
        }
    };
    let options = CreateOptions { chunker, ..CreateOptions::default() };
    let repository = Repository::create(sink, protection.clone(), options, &job).await.unwrap();
    Setup { repository, protection, job }
}

pub async fn in_memory(protect: Protect, chunker: ChunkerParameters) -> (Setup, MemorySink) {
    let sink = MemorySink::new();
    (create(Arc::new(sink.clone()), protect, chunker).await, sink)
}

impl Setup {
    /// The same with the least memory for an index: it is beyond memory whenever there are more than few chunks.
    pub fn spilled(&self) -> Setup {
        let resources = Resources::new().with_workers(2).with_index_bytes(0);
        assert_eq!(resources.index_bytes(), Resources::INDEX_BYTES_MIN);
        Setup { job: JobContext::new().with_resources(resources), ..self.clone() }
    }

    /// The repository opened anew, on the same or another sink: nothing is left in memory.
    pub async fn reopen(&self, sink: Arc<dyn Sink>) -> Result<Setup> {
        let opened =
            Repository::open(sink, self.protection.clone(), TransformSet::builtin(), &self.job).await?;
        Ok(Setup { repository: opened, ..self.clone() })
    }

    pub async fn backup(&self, source: &TestSource) -> Result<BackupReport> {
        self.repository.backup(source, &BackupOptions::default(), &self.job).await
    }

    /// Backs up and returns the snapshot's identity.
    pub async fn store(&self, source: &TestSource) -> SnapshotId {
        let report = self.backup(source).await.unwrap();
        assert!(report.skipped.is_empty(), "{:?}", report.skipped);
        report.snapshot.unwrap()
    }

    /// Restores a whole snapshot into memory.
    pub async fn restore(&self, id: SnapshotId) -> Result<(BTreeMap<EntryName, Collected>, RestoreReport)> {
        let snapshot = self.repository.snapshot(id, &self.job).await?;
        let target = CollectingTarget::default();
        let report =
            self.repository.restore(&snapshot, &target, &RestoreOptions::default(), &self.job).await?;
        Ok((target.take(), report))
    }

    /// Restores a whole snapshot and compares it with what the source had.
    pub async fn assert_restores(&self, id: SnapshotId, source: &TestSource) {
        let (found, report) = self.restore(id).await.unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        assert_same(&found, &source.expected());
    }

    pub async fn verify(&self, level: VerifyLevel) -> Result<VerifyReport> {
        self.repository.verify(&VerifyOptions { level, ..VerifyOptions::default() }, &self.job).await
    }

    pub async fn assert_clean(&self) {
        let report = self.verify(VerifyLevel::Content).await.unwrap();
        assert!(report.is_clean(), "{:?} {:?}", report.damaged_objects, report.damaged_entries);
    }
}

/// Says what differs without printing contents.
pub fn assert_same(found: &BTreeMap<EntryName, Collected>, expected: &BTreeMap<EntryName, Collected>) {
    for (name, expected) in expected {
        let found = found.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(found.entry, expected.entry);
        assert!(found.whole, "{name} was not finished");
        assert!(found.content == expected.content, "{name} has other content");
    }
    for name in found.keys() {
        assert!(expected.contains_key(name), "{name} was not backed up");
    }
}

/// Every object of a sink, by key.
pub async fn objects(sink: &dyn Sink) -> BTreeMap<String, Bytes> {
    let mut all = BTreeMap::new();
    for meta in sink.list_all("").await.unwrap() {
        let bytes = sink.get_whole(&meta.key, limits::OBJECT_BYTES_MAX).await.unwrap();
        all.insert(meta.key.to_string(), bytes);
    }
    all
}

/// A sink with these objects.
pub async fn sink_of(objects: &BTreeMap<String, Bytes>) -> MemorySink {
    let sink = MemorySink::new();
    for (key, bytes) in objects {
        sink.put(&ObjectKey::new(key).unwrap(), bytes.clone()).await.unwrap();
    }
    sink
}

/// Puts other bytes in an object's place, or removes it.
pub async fn replace(sink: &MemorySink, key: &str, bytes: Option<Bytes>) {
    let key = ObjectKey::new(key).unwrap();
    sink.delete(&key).await.unwrap();
    if let Some(bytes) = bytes {
        sink.put(&key, bytes).await.unwrap();
    }
}

/// Deletes everything below a prefix.
pub async fn delete_all(sink: &dyn Sink, prefix: &str) -> usize {
    let listed = sink.list_all(prefix).await.unwrap();
    for meta in &listed {
        sink.delete(&meta.key).await.unwrap();
    }
    listed.len()
}

/// Whether the long form of the tests was asked for.
pub fn long() -> bool {
    std::env::var_os("BACKUP_LONG").is_some()
}
