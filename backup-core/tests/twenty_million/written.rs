//! The repository written, by the formats and not by a backup, which would have to read and store ten terabytes.
//!
//! Pages, index segments and snapshots are what a backup writes. Packs of content are files without blocks, of the names
//! and lengths that the index says: a collection reads nothing else of them.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use backup_core::format::chunks::{ChunkRef, StoredContent};
use backup_core::format::directory::{ChunkRecord, FrameRecord};
use backup_core::format::document::{self, SnapshotDocument};
use backup_core::format::entries::{EntryPageWriter, StoredEntry};
use backup_core::format::object::{ObjectHeader, ObjectWriter, SealedObject};
use backup_core::format::page::{ChunkBranchRow, EntryBranchRow, PageKind, PageRef, TreeRoot, finish_page};
use backup_core::format::segment::{IndexRow, PackRecord, SegmentHead, encode_rows};
use backup_core::{
    Entry, JobContext, ObjectKey, ObjectType, Outcome, OwnerNames, Protection, Sink, SnapshotId,
    SnapshotInfo, Timestamp, Zstd, limits,
};
use backup_sinks::LocalSink;

use super::numbers::{Needed, Numbers, RUN_CHUNKS, SNAPSHOTS, chunk, digest, needed};

/// Chunks of a file, of which one run in two consists.
const FILE_CHUNKS: u64 = 5;
/// Files in one page of entries, about as many as a backup puts there.
const PAGE_FILES: usize = 18;
/// Chunks in one page of a long file's list, and pages in one branch of a tree.
const LIST_CHUNKS: usize = 198;
const BRANCH_PAGES: usize = 128;
/// Plaintext in one frame of pages.
const FRAME_BYTES: usize = 512 * 1024;
/// Rows of a segment: a backup that stores little writes small ones, and these are to be merged.
const SEGMENT_ROWS: usize = limits::SEGMENT_ROWS_TARGET / 8;

/// A snapshot of the repository, by its number.
pub(super) fn snapshot_id(number: u64) -> SnapshotId {
    let mut id = [0xa5; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    SnapshotId::from_bytes(id)
}

/// Writes all of it to a repository that was just made.
pub(super) async fn write(numbers: Numbers, sink: &LocalSink, protection: &dyn Protection, job: &JobContext) {
    for byte in 0..=u8::MAX {
        fs::create_dir_all(sink.path().join(format!("data/{byte:02x}"))).unwrap();
    }
    let mut writing = Writing::new(sink, protection, job);
    let (mut pack, mut run) = (0, 0);
    let mut before: Vec<Subtree> = Vec::new();
    for number in 0..SNAPSHOTS {
        writing.session = snapshot_id(number);
        while pack < numbers.packs() && numbers.snapshot_of_pack(pack) == number {
            writing.put_content(numbers, pack).await;
            pack += 1;
        }
        let mut leaves = Vec::new();
        while run < numbers.runs() && numbers.snapshot_of(run) == number {
            if needed(run) != Needed::Never {
                let pages = writing.put_run(run).await;
                leaves.push((needed(run), pages));
            }
            run += 1;
        }
        before.push(Subtree {
            all: writing.put_branches(leaves.iter().flat_map(|(_, pages)| pages)).await,
            lasting: writing
                .put_branches(
                    leaves.iter().filter(|leaf| leaf.0 == Needed::Always).flat_map(|(_, pages)| pages),
                )
                .await,
        });
        let newest = before.len().saturating_sub(2);
        let rows = before
            .iter()
            .enumerate()
            .map(|(at, subtree)| if at >= newest { subtree.all.clone() } else { subtree.lasting.clone() });
        let root = writing.put_branch(&rows.collect::<Vec<_>>()).await;
        writing.finish_pack().await;
        writing.finish_segment().await;
        // What a session stored stands before what says that it committed.
        writing.put_snapshot(number, &root).await;
    }
}

/// What came with one snapshot: the whole of it, and what stays.
struct Subtree {
    all: EntryBranchRow,
    lasting: EntryBranchRow,
}

struct Writing<'a> {
    sink: &'a LocalSink,
    protection: &'a dyn Protection,
    job: &'a JobContext,
    session: SnapshotId,
    /// The pack of pages that is being written, the frame in it, and the chunks of all its frames.
    pack: Option<ObjectWriter>,
    frame: Vec<u8>,
    in_frame: Vec<ChunkRecord>,
    /// The segment that is being written.
    records: Vec<PackRecord>,
    rows: Vec<IndexRow>,
}

impl<'a> Writing<'a> {
    fn new(sink: &'a LocalSink, protection: &'a dyn Protection, job: &'a JobContext) -> Self {
        Self {
            sink,
            protection,
            job,
            session: snapshot_id(0),
            pack: None,
            frame: Vec::new(),
            in_frame: Vec::new(),
            records: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn salt(&self) -> [u8; 32] {
        let mut salt = [0; 32];
        self.job.random().fill(&mut salt).unwrap();
        salt
    }

    fn writer(&self, object_type: ObjectType) -> ObjectWriter {
        let transforms = [Arc::new(Zstd::default()) as _];
        ObjectWriter::new(self.protection, object_type, &transforms, self.salt(), Vec::new()).unwrap()
    }

    async fn put(&self, key: String, bytes: bytes::Bytes) {
        self.sink.put(&ObjectKey::new(key).unwrap(), bytes).await.unwrap();
    }

    /// A pack of content, two chunks a frame.
    async fn put_content(&mut self, numbers: Numbers, pack: u64) {
        let chunks: Vec<_> = numbers.chunks_of(pack).map(chunk).collect();
        let frame = |chunks: &[ChunkRef]| {
            let plain_len = chunks.iter().map(|chunk| chunk.len).sum();
            FrameRecord { stored_len: plain_len + 16, plain_len, mask: 0 }
        };
        let frames: Vec<_> = chunks.chunks(2).map(frame).collect();
        let header = ObjectHeader {
            object_type: ObjectType::Data,
            repository: self.protection.repository(),
            protection: self.protection.seal(ObjectType::Data, self.salt()).unwrap().header,
            chain: vec!["zstd".into(), self.protection.seal_name().into()],
        };
        let header = header.encode().unwrap();
        let stored: u64 = frames.iter().map(|frame| u64::from(frame.stored_len)).sum();
        let object_len = header.len() as u64 + stored + 1024;
        let rows = (0_u32..).zip(&chunks).map(|(at, chunk)| IndexRow {
            id: chunk.id.short(),
            pack: 0,
            frame: at / 2,
            offset: if at % 2 == 0 { 0 } else { chunks[at as usize - 1].len },
            len: chunk.len,
        });
        let rows = rows.collect();
        let digest = digest(pack);
        File::create(place(self.sink.path(), &digest)).unwrap().set_len(object_len).unwrap();
        let object_type = ObjectType::Data;
        self.index(PackRecord { digest, object_type, object_len, header, frames }, rows).await;
    }

    /// A run of chunks as files: in turn many short ones and a long one. Returns the pages of entries.
    async fn put_run(&mut self, run: u64) -> Vec<EntryBranchRow> {
        let first = run * RUN_CHUNKS;
        if run % 2 == 1 {
            let chunks: Vec<_> = (first..first + RUN_CHUNKS).map(chunk).collect();
            let content = self.put_list(&chunks).await;
            return vec![self.put_entries(&[file(run, 0, content)]).await];
        }
        let files: Vec<_> = (0..RUN_CHUNKS / FILE_CHUNKS)
            .map(|number| {
                let first = first + number * FILE_CHUNKS;
                let chunks = (first..first + FILE_CHUNKS).map(chunk).collect();
                file(run, number, StoredContent::Chunks(chunks))
            })
            .collect();
        let mut pages = Vec::new();
        for files in files.chunks(PAGE_FILES) {
            pages.push(self.put_entries(files).await);
        }
        pages
    }

    /// The chunks of a long file in pages below one branch.
    async fn put_list(&mut self, chunks: &[ChunkRef]) -> StoredContent {
        let bytes = |chunks: &[ChunkRef]| chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let (mut branch, mut count) = (Vec::new(), 0);
        for part in chunks.chunks(LIST_CHUNKS) {
            let mut rows = Vec::new();
            part.iter().for_each(|chunk| chunk.encode(&mut rows));
            let page = self.put_page(&finish_page(PageKind::Chunks, part.len(), &rows)).await;
            ChunkBranchRow { page, rows: part.len() as u64, bytes: bytes(part) }.encode(&mut branch);
            count += 1;
        }
        let page = self.put_page(&finish_page(PageKind::ChunkBranch, count, &branch)).await;
        let root = TreeRoot { page, levels: 1, rows: chunks.len() as u64 };
        StoredContent::Paged { root, bytes: bytes(chunks) }
    }

    async fn put_entries(&mut self, files: &[StoredEntry]) -> EntryBranchRow {
        let mut writer = EntryPageWriter::default();
        files.iter().for_each(|file| writer.push(file));
        let (first, page) = writer.cut().unwrap();
        EntryBranchRow { first, page: self.put_page(&page).await, rows: files.len() as u64 }
    }

    /// Two levels of branches above these pages.
    async fn put_branches(&mut self, pages: impl Iterator<Item = &EntryBranchRow>) -> EntryBranchRow {
        let pages: Vec<_> = pages.cloned().collect();
        let mut below = Vec::new();
        for pages in pages.chunks(BRANCH_PAGES) {
            below.push(self.put_branch(pages).await);
        }
        self.put_branch(&below).await
    }

    async fn put_branch(&mut self, below: &[EntryBranchRow]) -> EntryBranchRow {
        let mut rows = Vec::new();
        below.iter().for_each(|row| row.encode(&mut rows));
        let page = self.put_page(&finish_page(PageKind::EntryBranch, below.len(), &rows)).await;
        EntryBranchRow { first: below[0].first.clone(), page, rows: below.iter().map(|row| row.rows).sum() }
    }

    async fn put_page(&mut self, page: &[u8]) -> PageRef {
        let id = self.protection.chunk_id(page);
        let len = page.len() as u32;
        self.frame.extend_from_slice(page);
        self.in_frame.push(ChunkRecord { id: id.short(), len });
        if self.frame.len() >= FRAME_BYTES {
            self.finish_frame();
            if self.pack.as_ref().is_some_and(|pack| pack.len() >= limits::PACK_TARGET_BYTES) {
                self.finish_pack().await;
            }
        }
        PageRef { id, len }
    }

    fn finish_frame(&mut self) {
        let mut pack = self.pack.take().unwrap_or_else(|| self.writer(ObjectType::Meta));
        pack.push_frame(&self.frame, &self.in_frame).unwrap();
        self.frame.clear();
        self.in_frame.clear();
        self.pack = Some(pack);
    }

    async fn finish_pack(&mut self) {
        if !self.frame.is_empty() {
            self.finish_frame();
        }
        let Some(pack) = self.pack.take() else { return };
        let SealedObject { bytes, digest, header, directory } = pack.finish().unwrap();
        let mut rows = Vec::new();
        for frame in directory.iter(header.len() as u64) {
            let mut offset = 0;
            for chunk in frame.chunks {
                rows.push(IndexRow { id: chunk.id, pack: 0, frame: frame.ordinal, offset, len: chunk.len });
                offset += chunk.len;
            }
        }
        let object_len = bytes.len() as u64;
        let name = hex(&digest);
        self.put(format!("meta/{}/{name}", &name[..2]), bytes).await;
        let object_type = ObjectType::Meta;
        let frames = directory.frames;
        self.index(PackRecord { digest, object_type, object_len, header, frames }, rows).await;
    }

    async fn index(&mut self, record: PackRecord, rows: Vec<IndexRow>) {
        let pack = self.records.len() as u32;
        self.records.push(record);
        self.rows.extend(rows.into_iter().map(|row| IndexRow { pack, ..row }));
        if self.rows.len() >= SEGMENT_ROWS {
            self.finish_segment().await;
        }
    }

    async fn finish_segment(&mut self) {
        let (records, mut rows) = (std::mem::take(&mut self.records), std::mem::take(&mut self.rows));
        if records.is_empty() {
            return;
        }
        rows.sort_unstable();
        let pages: Vec<_> = rows.chunks(limits::SEGMENT_PAGE_ROWS).collect();
        let head = SegmentHead {
            session: self.session,
            supersedes: Vec::new(),
            pack_frames: 1,
            pages: pages.iter().map(|page| (page[0].id, page.len() as u32)).collect(),
        };
        let mut packs = Vec::new();
        records.iter().for_each(|record| record.encode(&mut packs));
        let mut writer = self.writer(ObjectType::Index);
        for frame in [head.encode(), packs].into_iter().chain(pages.iter().map(|page| encode_rows(page))) {
            writer.push_frame(&frame, &[]).unwrap();
        }
        let sealed = writer.finish().unwrap();
        self.put(format!("index/{}", hex(&sealed.digest)), sealed.bytes).await;
    }

    async fn put_snapshot(&self, number: u64, root: &EntryBranchRow) {
        let id = snapshot_id(number);
        let info = SnapshotInfo {
            id,
            time: Timestamp::new(1_700_000_000 + number as i64 * 86_400, 0),
            stored: None,
            source: "files".into(),
            identity: vec!["/".into()],
            host: "host".into(),
            label: None,
            tenant: None,
            description: None,
            tags: Default::default(),
            position: Default::default(),
            parent: None,
            outcome: Outcome::Complete,
            entries: root.rows,
            bytes_logical: 0,
            bytes_added: 0,
            skipped: Vec::new(),
            skipped_count: 0,
            origin: None,
            change: None,
            anomaly: None,
            workload: None,
        };
        let document = SnapshotDocument {
            info,
            tree: Some(TreeRoot { page: root.page, levels: 3, rows: root.rows }),
            trailing: None,
            owners: OwnerNames::default(),
            repository: self.protection.repository(),
        };
        let bytes = document::seal(self.protection, ObjectType::Snapshot, self.salt(), &document).unwrap();
        self.put(format!("snapshots/{id}"), bytes).await;
    }
}

fn file(run: u64, number: u64, content: StoredContent) -> StoredEntry {
    let entry = Entry::file(format!("{run:06}/{number:04}")).unwrap().with_size(content.len());
    StoredEntry { entry, content }
}

/// Where a pack of content stands.
pub(super) fn place(root: &Path, digest: &[u8; 32]) -> std::path::PathBuf {
    let name = hex(digest);
    root.join(format!("data/{}/{name}", &name[..2]))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
