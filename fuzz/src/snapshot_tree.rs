//! Snapshots whose pages somebody forged who has the keys.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use backup_core::chunker::ChunkerParameters;
use backup_core::format::chunks::{ChunkRef, StoredContent};
use backup_core::format::directory::ChunkRecord;
use backup_core::format::document::{self, SnapshotDocument};
use backup_core::format::entries::{EntryPageWriter, StoredEntry};
use backup_core::format::object::ObjectWriter;
use backup_core::format::page::{ChunkBranchRow, EntryBranchRow, PageKind, PageRef, TreeRoot, finish_page};
use backup_core::repository::{CreateOptions, Repository, RestoreOptions, VerifyOptions};
use backup_core::{
    ChunkId, Entry, EntryKind, EntryName, JobContext, ObjectKey, ObjectType, Protection, Resources, Sink,
    SnapshotId, TransformSet, Unprotected,
};
use backup_sinks::MemorySink;
use backup_sources::TarTarget;

use super::REPOSITORY;

/// Pages of one input, at most.
const PAGES_MAX: usize = 24;

/// Builds pages as the input says, some of which refer to others, to themselves or to nothing; then lists, compares, verifies
/// and restores the snapshot. All of that ends, with whatever result.
pub fn snapshot_tree(input: &[u8]) {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    RUNTIME.block_on(async {
        let reading = tokio::time::timeout(Duration::from_secs(8), read_all(input));
        reading.await.expect("reading a forged snapshot ends");
    });
}

/// Takes bytes from the input; zeros when there are no more.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &[u8] {
        let count = usize::from(self.byte() % 40).min(self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    /// A small number, now and then a large one.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX - u64::from(self.byte()),
            254 => u64::from(self.byte()) << 32,
            small => u64::from(small),
        }
    }
}

struct Forger<'a> {
    choices: Choices<'a>,
    protection: Unprotected,
    pages: Vec<Vec<u8>>,
}

impl Forger<'_> {
    /// A page that is there, or one that is not, with its length or another.
    fn reference(&mut self) -> PageRef {
        let number = usize::from(self.choices.byte());
        let (id, len) = match self.pages.get(number % (self.pages.len() + 1)) {
            Some(page) => (self.protection.chunk_id(page), page.len() as u32),
            None => (ChunkId([7; 32]), 10),
        };
        let wrong = self.choices.byte();
        PageRef { id, len: if wrong > 250 { len.wrapping_add(u32::from(wrong)) } else { len } }
    }

    fn chunk(&mut self) -> ChunkRef {
        let page = self.reference();
        ChunkRef { id: page.id, len: page.len }
    }

    fn root(&mut self) -> TreeRoot {
        TreeRoot { page: self.reference(), levels: self.choices.byte() % 11, rows: self.choices.number() }
    }

    fn name(&mut self) -> Option<EntryName> {
        EntryName::new(self.choices.bytes()).ok()
    }

    fn content(&mut self) -> StoredContent {
        match self.choices.byte() % 5 {
            0 => StoredContent::None,
            1 => StoredContent::Inline(self.choices.bytes().into()),
            2 => StoredContent::Paged { root: self.root(), bytes: self.choices.number() },
            _ => {
                let count = self.choices.byte() % 5;
                StoredContent::Chunks((0..count).map(|_| self.chunk()).collect())
            }
        }
    }

    fn entry(&mut self) -> Option<StoredEntry> {
        let name = self.name()?;
        let kind = match self.choices.byte() % 12 {
            0 => EntryKind::Directory,
            1 => EntryKind::Symlink { target: self.choices.bytes().into() },
            2 => EntryKind::HardLink { to: self.name()? },
            3 => EntryKind::Fifo,
            4 => EntryKind::Socket,
            5 => EntryKind::CharDevice { device: (u32::from(self.choices.byte()), u32::MAX) },
            _ => EntryKind::File,
        };
        let mut entry = Entry::new(name.as_bytes(), kind).ok()?;
        entry.sparse = self.choices.byte() > 200;
        Some(StoredEntry { entry, content: self.content() })
    }

    /// A page in which anything may be wrong but its encoding.
    fn page(&mut self) -> Vec<u8> {
        let count = usize::from(self.choices.byte() % 6);
        let mut rows = Vec::new();
        match self.choices.byte() % 5 {
            0 => {
                (0..count).for_each(|_| {
                    if let Some(first) = self.name() {
                        EntryBranchRow { first, page: self.reference(), rows: self.choices.number() }
                            .encode(&mut rows);
                    }
                });
                finish_page(PageKind::EntryBranch, count, &rows)
            }
            1 => {
                (0..count).for_each(|_| {
                    let (page, rows_below, bytes) =
                        (self.reference(), self.choices.number(), self.choices.number());
                    ChunkBranchRow { page, rows: rows_below, bytes }.encode(&mut rows);
                });
                finish_page(PageKind::ChunkBranch, count, &rows)
            }
            2 => {
                (0..count).for_each(|_| self.chunk().encode(&mut rows));
                finish_page(PageKind::Chunks, count, &rows)
            }
            3 => self.choices.bytes().to_vec(),
            _ => {
                let mut entries: Vec<StoredEntry> = (0..count).filter_map(|_| self.entry()).collect();
                if self.choices.byte() < 200 {
                    entries.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
                    entries.dedup_by(|a, b| a.entry.name == b.entry.name);
                }
                let mut writer = EntryPageWriter::default();
                entries.iter().for_each(|entry| writer.push(entry));
                writer.cut().map(|(_, page)| page).unwrap_or_default()
            }
        }
    }
}

async fn read_all(input: &[u8]) {
    let protection = Unprotected::new(REPOSITORY);
    let mut forger = Forger { choices: Choices(input), protection: protection.clone(), pages: Vec::new() };
    while !forger.choices.0.is_empty() && forger.pages.len() < PAGES_MAX {
        let page = forger.page();
        forger.pages.push(page);
    }
    let (tree, trailing) = (forger.root(), forger.root());
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let job = JobContext::new().with_resources(Resources::new().with_workers(1));
    let shared: Arc<dyn Protection> = Arc::new(protection.clone());
    let chunker = ChunkerParameters { min_bytes: 64, avg_bytes: 128, max_bytes: 256 };
    let options = CreateOptions { chunker, ..CreateOptions::default() };
    Repository::create(sink.clone(), shared.clone(), options, &job).await.expect("memory takes it");
    for (object_type, prefix) in [(ObjectType::Meta, "meta"), (ObjectType::Data, "data")] {
        // What is a page is content, too.
        let mut writer =
            ObjectWriter::new(&protection, object_type, &[], [1; 32], Vec::new()).expect("a writer");
        for page in forger.pages.iter().filter(|page| !page.is_empty()) {
            let record = ChunkRecord { id: protection.chunk_id(page).short(), len: page.len() as u32 };
            writer.push_frame(page, &[record]).expect("a short frame");
        }
        let sealed = writer.finish().expect("a few frames");
        let name: String = sealed.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = ObjectKey::new(format!("{prefix}/{}/{name}", &name[..2])).expect("a key");
        sink.put(&key, sealed.bytes).await.expect("memory takes it");
    }
    let id = SnapshotId::from_bytes([3; 16]);
    let json = serde_json::json!({
        "id": id, "time": "1970-01-01T00:00:00Z", "stored": null, "source": "forged", "identity": [], "host": "",
        "label": null, "tenant": null, "description": null, "tags": {}, "position": {}, "parent": null,
        "outcome": "complete", "entries": 1, "bytes_logical": 1, "bytes_added": 1, "skipped": [], "skipped_count": 0,
        "tree": tree, "trailing": trailing, "repository": REPOSITORY,
    });
    let forged: SnapshotDocument = serde_json::from_value(json).expect("a document");
    let sealed = document::seal(&protection, ObjectType::Snapshot, [2; 32], &forged).expect("a document");
    sink.put(&ObjectKey::new(format!("snapshots/{id}")).expect("a key"), sealed)
        .await
        .expect("memory takes it");

    let repository =
        Repository::open(sink, shared, TransformSet::builtin(), &job).await.expect("a repository");
    let snapshot = repository.snapshot(id, &job).await.expect("a snapshot");
    let mut entries = snapshot.entries(None, &job).await.expect("pages may be read");
    loop {
        match entries.next().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => assert!(error.is_corruption(), "{error}"),
        }
    }
    let mut changes = repository.diff(&snapshot, &snapshot, &job).await.expect("pages may be read");
    while let Ok(Some(_)) = changes.next().await {}
    repository.verify(&VerifyOptions::default(), &job).await.expect("damage is in the report");
    let target = TarTarget::new(tokio::io::sink());
    let _ = repository.restore(&snapshot, &target, &RestoreOptions::default(), &job).await;
}
