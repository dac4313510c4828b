//! A store that lies, and a writer that holds the key and lies: reading ends with an error, within limits, without panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use backup_core::format::chunks::{ChunkRef, StoredContent};
use backup_core::format::codec::{put_bytes, put_varint};
use backup_core::format::directory::{ChunkRecord, Directory};
use backup_core::format::document::{self, SnapshotDocument};
use backup_core::format::entries::{EntryPageWriter, StoredEntry};
use backup_core::format::object::{ObjectHeader, ObjectWriter, Trailer};
use backup_core::format::page::{ChunkBranchRow, EntryBranchRow, PageKind, PageRef, TreeRoot, finish_page};
use backup_core::format::segment::{IndexRow, PackRecord, SegmentHead, decode_rows, encode_rows};
use backup_core::report::Outcome;
use backup_core::repository::VerifyLevel;
use backup_core::{
    ChunkId, Entry, EntryName, Error, ErrorKind, ObjectKey, ObjectType, Protection, ShortId, Sink,
    SnapshotId, SnapshotInfo, SystemRandom, Timestamp, Transform, Zstd,
};
use backup_sinks::MemorySink;
use common::{Protect, Rng, SMALL, Setup, TestEntry, TestSource, in_memory, objects, text, tree};

/// Someone who holds the key and writes what no honest writer would.
struct Forger {
    setup: Setup,
    sink: MemorySink,
    pages: Vec<Vec<u8>>,
}

impl Forger {
    async fn new() -> Self {
        let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
        Self { setup, sink, pages: Vec::new() }
    }

    fn page(&mut self, page: Vec<u8>) -> PageRef {
        let id = self.setup.protection.chunk_id(&page);
        let len = page.len() as u32;
        self.pages.push(page);
        PageRef { id, len }
    }

    fn leaf(&mut self, names: &[&str]) -> PageRef {
        let mut writer = EntryPageWriter::default();
        for name in names {
            let content = StoredContent::Inline((*b"forged").into());
            writer.push(&StoredEntry { entry: Entry::file(name).unwrap(), content });
        }
        self.page(writer.cut().unwrap().1)
    }

    fn branch(&mut self, rows: &[(&str, PageRef, u64)]) -> PageRef {
        let mut bytes = Vec::new();
        for (first, page, rows) in rows {
            EntryBranchRow { first: EntryName::new(first).unwrap(), page: *page, rows: *rows }
                .encode(&mut bytes);
        }
        self.page(finish_page(PageKind::EntryBranch, rows.len(), &bytes))
    }

    /// A snapshot of one file whose content is this.
    fn file(&mut self, content: StoredContent) -> TreeRoot {
        let mut writer = EntryPageWriter::default();
        writer.push(&StoredEntry { entry: Entry::file("file").unwrap(), content });
        let page = self.page(writer.cut().unwrap().1);
        TreeRoot { page, levels: 0, rows: 1 }
    }

    fn salt() -> [u8; 32] {
        let mut salt = [0; 32];
        backup_core::Random::fill(&SystemRandom, &mut salt).unwrap();
        salt
    }

    async fn pack(&self, object_type: ObjectType, prefix: &str, chunks: &[Vec<u8>]) {
        let transforms = [Arc::new(Zstd::default()) as Arc<dyn Transform>];
        let protection: &dyn Protection = &*self.setup.protection;
        let mut writer =
            ObjectWriter::new(protection, object_type, &transforms, Self::salt(), Vec::new()).unwrap();
        for chunk in chunks {
            let record = ChunkRecord { id: protection.chunk_id(chunk).short(), len: chunk.len() as u32 };
            writer.push_frame(chunk, &[record]).unwrap();
        }
        let sealed = writer.finish().unwrap();
        let name = hex::encode(sealed.digest);
        let key = ObjectKey::new(format!("{prefix}/{}/{name}", &name[..2])).unwrap();
        self.sink.put(&key, sealed.bytes).await.unwrap();
    }

    async fn commit(&mut self, root: TreeRoot, chunks: &[Vec<u8>]) -> SnapshotId {
        self.pack(ObjectType::Meta, "meta", &self.pages).await;
        if !chunks.is_empty() {
            self.pack(ObjectType::Data, "data", chunks).await;
        }
        let id = SnapshotId::random(&SystemRandom).unwrap();
        let document = SnapshotDocument {
            info: SnapshotInfo {
                id,
                time: Timestamp::new(0, 0),
                stored: None,
                source: "forged".into(),
                identity: Vec::new(),
                host: String::new(),
                label: None,
                tenant: None,
                description: None,
                tags: Default::default(),
                position: Default::default(),
                parent: None,
                outcome: Outcome::Complete,
                entries: 1,
                bytes_logical: 1,
                bytes_added: 1,
                skipped: Vec::new(),
                skipped_count: 0,
                origin: None,
                change: None,
                anomaly: None,
                workload: None,
            },
            tree: Some(root),
            trailing: None,
            owners: backup_core::OwnerNames::default(),
            repository: self.setup.protection.repository(),
        };
        let bytes =
            document::seal(&*self.setup.protection, ObjectType::Snapshot, Self::salt(), &document).unwrap();
        self.sink.put(&ObjectKey::new(format!("snapshots/{id}")).unwrap(), bytes).await.unwrap();
        id
    }

    /// Reads the snapshot in every way: each must end soon, and say what is wrong.
    async fn judge(self, what: &str, id: SnapshotId) {
        let Self { setup, sink, .. } = self;
        let setup = setup.reopen(Arc::new(sink)).await.unwrap();
        let reading = async {
            let restored = setup.restore(id).await;
            match &restored {
                Ok((found, report)) => {
                    assert!(!report.failed.is_empty(), "{what}: restored without a word");
                    assert!(found.len() < 10, "{what}");
                }
                Err(error) => assert_kind(what, error),
            }
            let report = setup.verify(VerifyLevel::Content).await.unwrap();
            assert!(!report.damaged_entries.is_empty(), "{what}: not found by verify");
            assert!(report.damaged_entries.len() < 100, "{what}: named {}", report.damaged_entries.len());
            let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
            let mut entries = snapshot.entries(None, &setup.job).await.unwrap();
            let mut errors = 0;
            loop {
                match entries.next().await {
                    Ok(Some(stored)) => {
                        let mut file = snapshot.open(&stored, &setup.job).await.unwrap();
                        let read = tokio::io::copy(&mut file, &mut tokio::io::sink()).await;
                        errors += usize::from(read.is_err());
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert_kind(what, &error);
                        errors += 1;
                    }
                }
            }
            assert!(errors > 0, "{what}: read without a word");
        };
        tokio::time::timeout(Duration::from_secs(60), reading)
            .await
            .unwrap_or_else(|_| panic!("{what} never ends"));
    }
}

fn assert_kind(what: &str, error: &Error) {
    let fits = matches!(error.kind(), ErrorKind::Corruption | ErrorKind::LimitExceeded);
    assert!(fits, "{what}: {error:?}");
}

#[tokio::test]
async fn trees_of_pages_that_are_none_end_with_an_error() {
    let mut forger = Forger::new().await;
    let leaf = forger.leaf(&["a", "b"]);
    let root = TreeRoot { page: leaf, levels: 1, rows: 2 };
    let id = forger.commit(root, &[]).await;
    forger.judge("a leaf where a branch belongs", id).await;

    let mut forger = Forger::new().await;
    let leaf = forger.leaf(&["a", "b"]);
    let branch = forger.branch(&[("a", leaf, 2)]);
    let id = forger.commit(TreeRoot { page: branch, levels: 0, rows: 2 }, &[]).await;
    forger.judge("a branch where a leaf belongs", id).await;

    let mut forger = Forger::new().await;
    let leaf = forger.leaf(&["a", "b"]);
    let id = forger.commit(TreeRoot { page: leaf, levels: 200, rows: 2 }, &[]).await;
    forger.judge("two hundred levels", id).await;

    let mut forger = Forger::new().await;
    let missing = PageRef { id: ChunkId([7; 32]), len: 77 };
    let id = forger.commit(TreeRoot { page: missing, levels: 0, rows: 2 }, &[]).await;
    forger.judge("a root that is nowhere", id).await;

    let mut forger = Forger::new().await;
    let (one, two) = (forger.leaf(&["b", "c"]), forger.leaf(&["a"]));
    let branch = forger.branch(&[("b", one, 2), ("c", two, 1)]);
    let id = forger.commit(TreeRoot { page: branch, levels: 1, rows: 3 }, &[]).await;
    forger.judge("leaves out of order", id).await;

    let mut forger = Forger::new().await;
    let empty = forger.page(finish_page(PageKind::Entries, 0, &[]));
    let id = forger.commit(TreeRoot { page: empty, levels: 0, rows: 0 }, &[]).await;
    forger.judge("an empty leaf", id).await;
}

#[tokio::test]
async fn a_tree_that_repeats_itself_is_not_walked_for_ever() {
    for leaf in ["full", "empty"] {
        let mut forger = Forger::new().await;
        let mut page = match leaf {
            "full" => forger.leaf(&["n000"]),
            _ => forger.page(finish_page(PageKind::Entries, 0, &[])),
        };
        // 300 to the eighth power leaves.
        for _ in 0..8 {
            let names: Vec<_> = (0..300).map(|n| format!("n{n:03}")).collect();
            let rows: Vec<_> = names.iter().map(|name| (name.as_str(), page, u64::MAX)).collect();
            page = forger.branch(&rows);
        }
        let id = forger.commit(TreeRoot { page, levels: 8, rows: u64::MAX }, &[]).await;
        forger.judge(&format!("a tree of one {leaf} leaf"), id).await;
    }
}

#[tokio::test]
async fn chunk_lists_that_lie_end_with_an_error() {
    let chunk = text(1, 5000);
    let chunk_page = |forger: &mut Forger, chunks: &[ChunkRef]| {
        let mut rows = Vec::new();
        chunks.iter().for_each(|chunk| chunk.encode(&mut rows));
        forger.page(finish_page(PageKind::Chunks, chunks.len(), &rows))
    };
    for what in
        ["too long", "too short", "levels", "empty chunks", "empty pages", "a branch that lies", "bomb"]
    {
        let mut forger = Forger::new().await;
        let real = ChunkRef { id: forger.setup.protection.chunk_id(&chunk), len: 5000 };
        let none = ChunkRef { id: forger.setup.protection.chunk_id(&[]), len: 0 };
        let leaf = chunk_page(&mut forger, &[real, real]);
        let nested = |forger: &mut Forger, mut page: PageRef, bytes: u64, width: usize| {
            for _ in 0..8 {
                let mut rows = Vec::new();
                (0..width).for_each(|_| ChunkBranchRow { page, rows: 2, bytes }.encode(&mut rows));
                page = forger.page(finish_page(PageKind::ChunkBranch, width, &rows));
            }
            TreeRoot { page, levels: 8, rows: 2 }
        };
        let at = |page, levels| TreeRoot { page, levels, rows: 2 };
        let (root, bytes) = match what {
            "too long" => (at(leaf, 0), 20_000),
            "too short" => (at(leaf, 0), 5000),
            "levels" => (at(leaf, 3), 10_000),
            "empty chunks" => {
                let page = chunk_page(&mut forger, &[none, real, none]);
                (nested(&mut forger, page, 0, 300), 10_000)
            }
            "empty pages" => {
                let page = chunk_page(&mut forger, &[]);
                (nested(&mut forger, page, 0, 300), 10_000)
            }
            "a branch that lies" => {
                let mut rows = Vec::new();
                for bytes in [3000, 17_000] {
                    ChunkBranchRow { page: leaf, rows: 2, bytes }.encode(&mut rows);
                }
                (at(forger.page(finish_page(PageKind::ChunkBranch, 2, &rows)), 1), 20_000)
            }
            _ => (nested(&mut forger, leaf, 10_000, 300), 10_000),
        };
        let root = forger.file(StoredContent::Paged { root, bytes });
        let id = forger.commit(root, &[chunk.clone(), Vec::new()]).await;
        forger.judge(&format!("a chunk list: {what}"), id).await;
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_cannot_be_read() {
    for name in ["../etc/passwd", "/etc/passwd", "a/../../b", "a//b", "a/", ".", "a\0b", ""] {
        let mut rows = Vec::new();
        put_varint(&mut rows, 0);
        put_bytes(&mut rows, name.as_bytes());
        rows.push(1);
        let page = finish_page(PageKind::Entries, 1, &rows);
        assert!(StoredEntry::decode_page(&page).unwrap_err().is_corruption(), "{name:?}");
        // As the target of a hard link.
        let mut rows = Vec::new();
        put_varint(&mut rows, 0);
        put_bytes(&mut rows, b"good");
        rows.push(3);
        put_bytes(&mut rows, name.as_bytes());
        let page = finish_page(PageKind::Entries, 1, &rows);
        assert!(StoredEntry::decode_page(&page).unwrap_err().is_corruption(), "{name:?}");
        let mut forger = Forger::new().await;
        let page = forger.page(page);
        let id = forger.commit(TreeRoot { page, levels: 0, rows: 1 }, &[]).await;
        forger.judge(name, id).await;
    }
}

#[test]
fn claims_cost_no_memory() {
    let huge = u64::MAX / 2;
    // Counts beyond what follows.
    for kind in [PageKind::Entries, PageKind::EntryBranch, PageKind::Chunks, PageKind::ChunkBranch] {
        for count in [1, 1 << 20, huge] {
            let mut page = vec![kind as u8];
            put_varint(&mut page, count);
            assert!(StoredEntry::decode_page(&page).is_err());
            assert!(EntryBranchRow::decode_page(&page).is_err());
            assert!(ChunkRef::decode_page(&page).is_err());
            assert!(ChunkBranchRow::decode_page(&page).is_err());
        }
    }
    let mut claims = Vec::new();
    put_varint(&mut claims, huge);
    assert!(Directory::decode(&claims).is_err());
    assert!(decode_rows(&claims, &mut Vec::new()).is_err());
    let mut frames = Vec::new();
    put_varint(&mut frames, 65_536);
    for _ in 0..65_536 {
        frames.extend_from_slice(&[1, 1, 0, 15]);
    }
    assert!(Directory::decode(&frames).is_err());
    // Few bytes that name long names: shared with the name before.
    let mut rows = Vec::new();
    let count = 1_000_000_u64;
    put_varint(&mut rows, 0);
    put_bytes(&mut rows, "x".repeat(60_000).as_bytes());
    rows.push(1);
    for number in 1..count {
        put_varint(&mut rows, 60_000);
        put_bytes(&mut rows, format!("{number:07}").as_bytes());
        rows.push(1);
    }
    let page = finish_page(PageKind::Entries, count as usize, &rows);
    let before = resident_bytes();
    assert!(StoredEntry::decode_page(&page).is_err());
    assert!(resident_bytes() < before + (256 << 20), "{} bytes more", resident_bytes() - before);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[tokio::test]
async fn compression_bombs_stay_within_what_was_claimed() {
    let zstd = Zstd::default();
    let mut bomb = Vec::new();
    let context = backup_core::FrameContext {
        chunks: 1,
        repository: &[0; 16],
        object_type: ObjectType::Data,
        salt: &[0; 32],
        ordinal: 0,
        plain_len: 0,
        associated_data: &[],
    };
    zstd.encode(&context, &vec![0; 200 << 20], &mut bomb).unwrap();
    assert!(bomb.len() < 1 << 20);
    for max in [0, 1, 4096, 16 << 20] {
        let mut out = Vec::new();
        assert!(zstd.decode(&context, &bomb, &mut out, max).is_err());
        assert!(out.is_empty() && out.capacity() <= max + 64 * 1024, "{}", out.capacity());
    }
    // And by someone who holds the key: a frame is never longer than it claims, whatever was sealed into it.
    let forger = Forger::new().await;
    let protection = &*forger.setup.protection;
    let transforms = [Arc::new(Nested) as Arc<dyn Transform>];
    let writer = ObjectWriter::new(protection, ObjectType::Data, &transforms, Forger::salt(), Vec::new());
    let mut writer = writer.unwrap();
    writer.push_frame(&[7; 100], &[ChunkRecord { id: ShortId(1), len: 100 }]).unwrap();
    let sealed = writer.finish().unwrap();
    let set = backup_core::TransformSet::builtin();
    let opener =
        backup_core::format::object::ObjectOpener::new(protection, &set, ObjectType::Data, &sealed.bytes)
            .unwrap();
    let record = sealed.directory.frames[0];
    let start = sealed.header.len();
    let stored = &sealed.bytes[start..start + record.stored_len as usize];
    let mut out = Vec::new();
    let result = opener.open_frame(0, &record, stored, &mut Default::default(), &mut out);
    assert!(result.unwrap_err().is_corruption());
    assert!(out.is_empty() && out.capacity() < 1 << 20);
}

/// Calls itself zstd and makes of everything a bomb.
#[derive(Debug)]
struct Nested;

impl Transform for Nested {
    fn name(&self) -> &str {
        Zstd::NAME
    }

    fn encode(
        &self,
        frame: &backup_core::FrameContext<'_>,
        _: &[u8],
        output: &mut Vec<u8>,
    ) -> backup_core::Result<backup_core::Encoded> {
        Zstd::default().encode(frame, &vec![0; 100 << 20], output)
    }

    fn decode(
        &self,
        _: &backup_core::FrameContext<'_>,
        _: &[u8],
        _: &mut Vec<u8>,
        _: usize,
    ) -> backup_core::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn mutated_structures_never_panic() {
    // Real ones: pages of a tree, a directory, an index, a header, a trailer, documents.
    let mut writer = EntryPageWriter::default();
    for test in tree(1, 60, 5000) {
        let content = if test.entry.kind.has_content() {
            let chunk = ChunkRef { id: ChunkId([9; 32]), len: 900 };
            StoredContent::Chunks(vec![chunk; test.content.len() % 33])
        } else {
            StoredContent::None
        };
        writer.push(&StoredEntry { entry: test.entry, content });
    }
    let page = writer.cut().unwrap().1;
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    setup.store(&TestSource::new(vec![TestEntry::file("a", text(1, 50_000))])).await;
    let objects = objects(&sink).await;
    let transforms = [Arc::new(Zstd::default()) as Arc<dyn Transform>];
    let mut object =
        ObjectWriter::new(&*setup.protection, ObjectType::Data, &transforms, Forger::salt(), Vec::new())
            .unwrap();
    for number in 0..20 {
        let records: Vec<_> = (0..number).map(|n| ChunkRecord { id: ShortId(n as u128), len: 10 }).collect();
        object.push_frame(&vec![1; 10 * records.len()], &records).unwrap();
    }
    let sealed = object.finish().unwrap();
    let rows: Vec<_> = (0..50)
        .map(|n| IndexRow { id: ShortId(n << 100), pack: 1, frame: n as u32, offset: 1 << 20, len: 77 })
        .collect();
    let head = SegmentHead {
        session: SnapshotId::from_bytes([1; 16]),
        supersedes: vec![[3; 32]; 4],
        pack_frames: 1,
        pages: (0..10).map(|n| (ShortId(n << 99), 10)).collect(),
    };
    let pack = PackRecord {
        digest: [1; 32],
        object_type: ObjectType::Data,
        object_len: 1000,
        header: sealed.header.clone(),
        frames: sealed.directory.frames.clone(),
    };
    let mut packs = Vec::new();
    pack.encode(&mut packs);
    let mut branch = Vec::new();
    for number in 0..40 {
        let page = PageRef { id: ChunkId([number; 32]), len: 9000 };
        EntryBranchRow { first: EntryName::new(format!("n{number:03}")).unwrap(), page, rows: 70 }
            .encode(&mut branch);
    }
    let branch = finish_page(PageKind::EntryBranch, 40, &branch);
    let mut seeds = vec![page, branch, sealed.directory.encode(), head.encode(), packs, encode_rows(&rows)];
    seeds.push(sealed.header.clone());
    seeds.extend(objects.values().map(|bytes| bytes.to_vec()));
    let rounds = if common::long() { 200_000 } else { 4000 };
    let mut rng = Rng::new(1);
    for seed in &seeds {
        for _ in 0..rounds {
            let mut bytes = seed.clone();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(5) {
                    0 => bytes[at] = rng.next() as u8,
                    1 => bytes[at] ^= 1 << rng.below(8),
                    2 => bytes.truncate(at + 1),
                    3 => bytes.insert(at, [0, 0xff, 0x80, 0x7f][rng.below(4) as usize]),
                    _ => {
                        let from = rng.below(bytes.len() as u64) as usize;
                        let len = rng.below(9).min((bytes.len() - from.max(at)) as u64) as usize;
                        bytes.copy_within(from..from + len, at);
                    }
                }
            }
            decode_everything(&bytes, &*setup.protection);
        }
    }
}

fn decode_everything(bytes: &[u8], protection: &dyn Protection) {
    let _ = StoredEntry::decode_page(bytes);
    let _ = EntryBranchRow::decode_page(bytes);
    let _ = ChunkRef::decode_page(bytes);
    let _ = ChunkBranchRow::decode_page(bytes);
    let _ = SegmentHead::decode(bytes);
    let _ = PackRecord::decode_all(bytes);
    let _ = decode_rows(bytes, &mut Vec::new());
    let _ = ObjectHeader::decode(bytes);
    let _ = Trailer::decode(bytes);
    let _ = document::peek(bytes);
    let _ = document::open::<SnapshotDocument>(protection, ObjectType::Snapshot, bytes);
    if let Ok(directory) = Directory::decode(bytes) {
        assert!(directory.iter(0).count() == directory.frames.len());
    }
}
