//! Someone who holds the key, or only the store, and writes what no honest writer would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use backup_core::format::chunks::{ChunkRef, StoredContent};
use backup_core::format::codec::{put_bytes, put_varint};
use backup_core::format::directory::ChunkRecord;
use backup_core::format::document::{self, SnapshotDocument};
use backup_core::format::entries::{EntryPageWriter, StoredEntry};
use backup_core::format::object::ObjectWriter;
use backup_core::format::page::{EntryBranchRow, PageKind, PageRef, TreeRoot, finish_page};
use backup_core::format::segment::{IndexRow, PackRecord, SegmentHead, encode_rows};
use backup_core::report::Outcome;
use backup_core::{
    Encoded, Entry, EntryKind, EntryName, FrameContext, JobContext, ObjectType, Protection, Random, Result,
    ShortId, Sink, SinkExt, SnapshotId, SnapshotInfo, SystemRandom, Timestamp, Transform, Zstd, limits,
};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::MemorySink;
use backup_sources::MemorySource;
use serde::Serialize;
use serde_json::{Value, json};

use crate::scene::KEY;

/// The snapshot that is forged.
pub const FORGED: SnapshotId = SnapshotId::from_bytes([0xee; 16]);

/// A repository with one honest snapshot, as bytes; every case begins with a copy.
struct Honest {
    objects: BTreeMap<String, Vec<u8>>,
    protection: Arc<dyn Protection>,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| make_honest(HONEST_CONTENT.clone()));
/// Another repository of the same key file.
static OTHER: LazyLock<Honest> = LazyLock::new(|| make_honest(b"of another repository".repeat(1000)));

/// The content of the honest snapshot's one file, `honest/file`.
pub static HONEST_CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..3000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..17].to_vec()).collect()
});

fn make_honest(content: Vec<u8>) -> Honest {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = MemorySink::new();
        let sink: Arc<dyn Sink> = Arc::new(memory.clone());
        let job = JobContext::new();
        let recipient = Recipient::key_file(KEY.as_bytes()).unwrap();
        let protection = Keyring::create(&sink, &[recipient], &job).await.unwrap();
        let repository = backup_core::Repository::create(
            sink,
            protection.clone(),
            backup_core::CreateOptions::default(),
            &job,
        )
        .await
        .unwrap();
        let source = MemorySource::new("honest").with_file("honest/file", content).unwrap();
        repository.backup(&source, &backup_core::BackupOptions::default(), &job).await.unwrap();
        let mut objects = BTreeMap::new();
        for meta in memory.list_all("").await.unwrap() {
            let bytes = memory.get_whole(&meta.key, limits::OBJECT_BYTES_MAX).await.unwrap();
            objects.insert(meta.key.to_string(), bytes.to_vec());
        }
        Honest { objects, protection }
    })
}

/// A repository being forged.
pub struct Forge {
    /// What a case wants to change, by its absolute path.
    pub outside: PathBuf,
    pub objects: BTreeMap<String, Vec<u8>>,
    pub protection: Arc<dyn Protection>,
    pages: Vec<Vec<u8>>,
    chunks: Vec<Vec<u8>>,
    /// Packs that an honest writer would name in an index; none are named unless `indexed`.
    packs: Vec<(PackRecord, Vec<IndexRow>)>,
    pub indexed: bool,
    /// What the snapshot's document says, before it is sealed.
    pub edit: Option<fn(&mut Value)>,
}

impl Forge {
    pub fn new(outside: &Path) -> Self {
        Self {
            outside: outside.to_owned(),
            objects: HONEST.objects.clone(),
            protection: HONEST.protection.clone(),
            pages: Vec::new(),
            chunks: Vec::new(),
            packs: Vec::new(),
            indexed: true,
            edit: None,
        }
    }

    /// The objects of another repository of the same key file.
    pub fn other() -> &'static BTreeMap<String, Vec<u8>> {
        &OTHER.objects
    }

    /// Names the packs in an index segment of the forged session.
    fn index(&mut self) {
        let (records, rows): (Vec<_>, Vec<_>) = std::mem::take(&mut self.packs).into_iter().unzip();
        let mut rows = rows.concat();
        rows.sort();
        if self.indexed && !records.is_empty() && rows.len() <= limits::SEGMENT_PAGE_ROWS {
            let first = rows.first().unwrap().id;
            self.segment(&[], &records, &rows, &[(first, rows.len() as u32)]);
        }
    }

    /// A segment of the forged session with these parts.
    pub fn segment(
        &mut self,
        supersedes: &[[u8; 32]],
        records: &[PackRecord],
        rows: &[IndexRow],
        pages: &[(ShortId, u32)],
    ) {
        let head = SegmentHead {
            session: FORGED,
            supersedes: supersedes.to_vec(),
            pack_frames: 1,
            pages: pages.to_vec(),
        };
        let mut packs = Vec::new();
        records.iter().for_each(|record| record.encode(&mut packs));
        self.frames(&[head.encode(), packs, encode_rows(rows)]);
    }

    /// A segment of these frames.
    pub fn frames(&mut self, frames: &[Vec<u8>]) {
        let mut writer = self.writer(ObjectType::Index, vec![Arc::new(Zstd::default())]);
        frames.iter().for_each(|frame| {
            writer.push_frame(frame, &[]).unwrap();
        });
        self.finish(ObjectType::Index, writer);
    }

    /// Writes all objects below `root`, as the local store has them.
    pub fn write_to(&mut self, root: &Path) {
        self.index();
        for (key, bytes) in &self.objects {
            let path = root.join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::create_dir_all(root.join(".tmp")).unwrap();
    }

    /// The key of the honest object that begins with `prefix`.
    pub fn key(&self, prefix: &str) -> String {
        HONEST.objects.keys().find(|key| key.starts_with(prefix)).unwrap().clone()
    }

    /// What an index says of the packs that were forged.
    pub fn records(&self) -> Vec<PackRecord> {
        self.packs.iter().map(|(record, _)| record.clone()).collect()
    }

    pub fn page(&mut self, page: Vec<u8>) -> PageRef {
        let id = self.protection.chunk_id(&page);
        let len = page.len() as u32;
        if !self.pages.contains(&page) {
            self.pages.push(page);
        }
        PageRef { id, len }
    }

    pub fn chunk(&mut self, bytes: &[u8]) -> ChunkRef {
        let id = self.protection.chunk_id(bytes);
        self.chunks.push(bytes.to_vec());
        ChunkRef { id, len: bytes.len() as u32 }
    }

    /// A page of these entries, in this order.
    pub fn leaf(&mut self, entries: Vec<StoredEntry>) -> PageRef {
        let mut writer = EntryPageWriter::default();
        entries.iter().for_each(|entry| writer.push(entry));
        let page = writer.cut().unwrap().1;
        self.page(page)
    }

    pub fn branch(&mut self, rows: &[(&str, PageRef)]) -> PageRef {
        let mut bytes = Vec::new();
        for (first, page) in rows {
            EntryBranchRow { first: EntryName::new(first).unwrap(), page: *page, rows: 1 }.encode(&mut bytes);
        }
        self.page(finish_page(PageKind::EntryBranch, rows.len(), &bytes))
    }

    /// A snapshot of these entries, which must be in order.
    pub fn entries(&mut self, entries: Vec<StoredEntry>) {
        let page = self.leaf(entries);
        self.commit(TreeRoot { page, levels: 0, rows: 1 });
    }

    /// A snapshot with a tree and a trailing tree.
    pub fn both(&mut self, tree: Vec<StoredEntry>, trailing: Vec<StoredEntry>) {
        let (tree, trailing) = (self.leaf(tree), self.leaf(trailing));
        let at = |page| TreeRoot { page, levels: 0, rows: 1 };
        self.commit_both(at(tree), Some(at(trailing)));
    }

    /// A snapshot of one page with these rows, byte for byte.
    pub fn rows(&mut self, rows: &[Vec<u8>]) {
        let page = self.page(finish_page(PageKind::Entries, rows.len(), &rows.concat()));
        self.commit(TreeRoot { page, levels: 0, rows: 1 });
    }

    /// A snapshot of one file, `file`, with this content.
    pub fn file(&mut self, content: StoredContent) {
        self.entries(vec![stored("file", EntryKind::File, content)]);
    }

    pub fn commit(&mut self, root: TreeRoot) {
        self.commit_both(root, None);
    }

    fn commit_both(&mut self, tree: TreeRoot, trailing: Option<TreeRoot>) {
        let pages = std::mem::take(&mut self.pages);
        if !pages.is_empty() {
            self.pack(ObjectType::Meta, &pages);
        }
        let chunks = std::mem::take(&mut self.chunks);
        if !chunks.is_empty() {
            self.pack(ObjectType::Data, &chunks);
        }
        let mut document = serde_json::to_value(self.document(tree, trailing)).unwrap();
        if let Some(edit) = self.edit {
            edit(&mut document);
        }
        self.seal(&format!("snapshots/{FORGED}"), ObjectType::Snapshot, &document);
    }

    pub fn document(&self, tree: TreeRoot, trailing: Option<TreeRoot>) -> SnapshotDocument {
        let info = json!({
            "id": FORGED, "time": "2026-11-20T08:00:00Z", "stored": null, "source": "forged", "identity": [],
            "host": "", "label": null, "tenant": null, "description": null, "tags": {}, "position": {},
            "parent": null, "outcome": Outcome::Complete, "entries": 1, "bytes_logical": 1, "bytes_added": 1,
            "skipped": [], "skipped_count": 0,
        });
        let info: SnapshotInfo = serde_json::from_value(info).unwrap();
        let owners = backup_core::OwnerNames::default();
        SnapshotDocument {
            info,
            tree: Some(tree),
            trailing,
            owners,
            repository: self.protection.repository(),
        }
    }

    /// Seals a document under a key.
    pub fn seal(&mut self, key: &str, object_type: ObjectType, document: &impl Serialize) {
        let bytes = document::seal(&*self.protection, object_type, salt(), document).unwrap();
        self.objects.insert(key.to_owned(), bytes.to_vec());
    }

    /// A pack of one chunk to a frame; its key.
    pub fn pack(&mut self, object_type: ObjectType, chunks: &[Vec<u8>]) -> String {
        let protection = self.protection.clone();
        let mut writer = self.writer(object_type, vec![Arc::new(Zstd::default())]);
        for chunk in chunks {
            let record = ChunkRecord { id: protection.chunk_id(chunk).short(), len: chunk.len() as u32 };
            writer.push_frame(chunk, &[record]).unwrap();
        }
        self.finish(object_type, writer)
    }

    /// A writer of a sealed object.
    pub fn writer(&self, object_type: ObjectType, transforms: Vec<Arc<dyn Transform>>) -> ObjectWriter {
        ObjectWriter::new(&*self.protection, object_type, &transforms, salt(), Vec::new()).unwrap()
    }

    /// Puts a pack or a segment under its hash; its key.
    pub fn finish(&mut self, object_type: ObjectType, writer: ObjectWriter) -> String {
        let kind = match object_type {
            ObjectType::Data => "data",
            ObjectType::Meta => "meta",
            _ => "index",
        };
        let sealed = writer.finish().unwrap();
        let bytes = sealed.bytes.to_vec();
        let key = named(kind, &bytes);
        if object_type != ObjectType::Index {
            let number = self.packs.len() as u32;
            let rows = sealed.directory.iter(0).flat_map(|frame| {
                let mut offset = 0;
                frame.chunks.iter().map(move |chunk| {
                    let start = offset;
                    offset += chunk.len;
                    IndexRow {
                        id: chunk.id,
                        pack: number,
                        frame: frame.ordinal,
                        offset: start,
                        len: chunk.len,
                    }
                })
            });
            let rows = rows.collect();
            let record = PackRecord {
                digest: sealed.digest,
                object_type,
                object_len: bytes.len() as u64,
                header: sealed.header.clone(),
                frames: sealed.directory.frames.clone(),
            };
            self.packs.push((record, rows));
        }
        self.objects.insert(key.clone(), bytes);
        key
    }
}

/// The key of a pack or segment of these bytes.
pub fn named(kind: &str, bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let name = hex::encode(Sha256::digest(bytes));
    if kind == "index" { format!("index/{name}") } else { format!("{kind}/{}/{name}", &name[..2]) }
}

pub fn salt() -> [u8; 32] {
    let mut salt = [0; 32];
    SystemRandom.fill(&mut salt).unwrap();
    salt
}

pub fn stored(name: &str, kind: EntryKind, content: StoredContent) -> StoredEntry {
    StoredEntry { entry: Entry::new(name, kind).unwrap(), content }
}

/// A file with a little content.
pub fn file(name: &str) -> StoredEntry {
    stored(name, EntryKind::File, StoredContent::Inline((*b"forged").into()))
}

pub fn directory(name: &str) -> StoredEntry {
    stored(name, EntryKind::Directory, StoredContent::None)
}

pub fn symlink(name: &str, target: impl AsRef<[u8]>) -> StoredEntry {
    stored(name, EntryKind::Symlink { target: target.as_ref().into() }, StoredContent::None)
}

pub fn hard_link(name: &str, to: &str) -> StoredEntry {
    stored(name, EntryKind::HardLink { to: EntryName::new(to).unwrap() }, StoredContent::None)
}

/// The entry with these bits, of this owner.
pub fn posix(mut entry: StoredEntry, mode: u32, owner: u32) -> StoredEntry {
    let modified = Timestamp::new(1_000_000_000, 0);
    entry.entry.posix = Some(backup_core::PosixMetadata { mode, uid: owner, gid: owner, modified });
    entry
}

/// The entry with an extended attribute more.
pub fn with_attribute(mut entry: StoredEntry, name: &str, value: &[u8]) -> StoredEntry {
    let name = format!("xattr:{name}").into_bytes().into();
    entry.entry.attributes.push(backup_core::Attribute { name, value: value.into() });
    entry
}

/// A row of a page of entries: bytes shared with the name before, the rest of the name, flags, and what follows.
pub fn row(shared: u64, name: &[u8], flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut row = Vec::new();
    put_varint(&mut row, shared);
    put_bytes(&mut row, name);
    row.push(flags);
    row.extend_from_slice(rest);
    row
}

/// A transform that calls itself what it is told to and makes of every frame what it was given.
#[derive(Debug)]
pub struct Lies {
    pub name: &'static str,
    pub output: Vec<u8>,
}

impl Transform for Lies {
    fn name(&self) -> &str {
        self.name
    }

    fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        // Directories are told the truth.
        if input.len() < 64 {
            return Ok(Encoded::Skipped);
        }
        output.extend_from_slice(&self.output);
        Ok(Encoded::Applied)
    }

    fn decode(&self, _: &FrameContext<'_>, _: &[u8], _: &mut Vec<u8>, _: usize) -> Result<()> {
        Ok(())
    }
}

/// What zstd makes of it.
pub fn zstd(input: &[u8]) -> Vec<u8> {
    let context = FrameContext {
        chunks: 1,
        repository: &[0; 16],
        object_type: ObjectType::Data,
        salt: &[0; 32],
        ordinal: 0,
        plain_len: input.len(),
        associated_data: &[],
    };
    let mut output = Vec::new();
    Zstd::default().encode(&context, input, &mut output).unwrap();
    output
}

/// Puts a document of any text, which need not be JSON that anybody would write.
pub fn lying_document(forge: &mut Forge, key: &str, object_type: ObjectType, text: Vec<u8>) {
    let mut writer = forge.writer(object_type, vec![Arc::new(Zstd::default())]);
    writer.push_frame(&text, &[]).unwrap();
    forge.objects.insert(key.to_owned(), writer.finish().unwrap().bytes.to_vec());
}
