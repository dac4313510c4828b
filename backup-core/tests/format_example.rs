//! The examples of `docs/FORMAT.md` are what the code writes, so the document cannot rot.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::Arc;

use backup_core::chunker::ChunkerParameters;
use backup_core::format::chunks::StoredContent;
use backup_core::format::control;
use backup_core::format::directory::ChunkRecord;
use backup_core::format::document;
use backup_core::format::entries::{EntryPageWriter, StoredEntry};
use backup_core::format::log::{self, LogHead};
use backup_core::format::object::ObjectWriter;
use backup_core::format::segment::{IndexRow, PackRecord, SegmentHead, encode_rows};
use backup_core::random::{Random, SeededRandom};
use backup_core::repository::RepositoryParameters;
use backup_core::time::ManualClock;
use backup_core::{
    Entry, EntryKind, JobContext, ObjectType, PosixMetadata, Protection, RepositoryId, ShortId, Sink,
    SinkExt, SnapshotId, Timestamp, TransformSet, Unprotected, Zstd,
};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::MemorySink;

const FORMAT: &str = include_str!("../docs/FORMAT.md");

/// The bytes of the example called `name`: what stands left of `|` in the block behind its mark.
fn example(name: &str) -> Vec<u8> {
    let digits: String = text(name)
        .lines()
        .filter_map(|line| line.split('|').next())
        .flat_map(str::chars)
        .filter(char::is_ascii_hexdigit)
        .collect();
    hex::decode(digits).unwrap()
}

/// The text of the block behind the mark of the example called `name`.
fn text(name: &str) -> &'static str {
    let mark = format!("<!-- example: {name} -->");
    let behind = FORMAT.split_once(&mark).unwrap_or_else(|| panic!("no example `{name}`")).1;
    behind.split("```").nth(1).unwrap().split_once('\n').unwrap().1
}

#[track_caller]
fn assert_example(name: &str, bytes: &[u8]) {
    let lines: Vec<_> = bytes.chunks(24).map(hex::encode).collect();
    assert!(example(name) == bytes, "the example `{name}` should be\n{}", lines.join("\n"));
}

fn plain() -> Unprotected {
    Unprotected::new(RepositoryId([0x11; 16]))
}

fn salt(seed: u64) -> [u8; 32] {
    let mut salt = [0; 32];
    SeededRandom::new(seed).fill(&mut salt).unwrap();
    salt
}

/// A page of three entries: a directory, a file with inline content, a symbolic link.
fn page() -> Vec<u8> {
    let posix =
        |mode, seconds| PosixMetadata { mode, uid: 1000, gid: 100, modified: Timestamp::new(seconds, 5) };
    let directory = Entry::directory("etc").unwrap().with_posix(posix(0o755, 1_795_161_600));
    let file = Entry::file("etc/motd").unwrap().with_posix(posix(0o644, 1_795_161_599)).with_stamp([1, 2]);
    let link = Entry::new("etc/mtab", EntryKind::Symlink { target: (*b"/proc/mounts").into() }).unwrap();
    let mut writer = EntryPageWriter::default();
    for (entry, content) in [
        (directory, StoredContent::None),
        (file, StoredContent::Inline((*b"hello\n").into())),
        (link, StoredContent::None),
    ] {
        writer.push(&StoredEntry { entry, content });
    }
    writer.cut().unwrap().1
}

#[test]
fn the_pack_of_an_unencrypted_repository_is_as_written_here() {
    let (protection, page) = (plain(), page());
    assert_example("page", &page);
    let mut writer = ObjectWriter::new(&protection, ObjectType::Meta, &[], salt(1), Vec::new()).unwrap();
    let id = protection.chunk_id(&page);
    writer.push_frame(&page, &[ChunkRecord { id: id.short(), len: page.len() as u32 }]).unwrap();
    let sealed = writer.finish().unwrap();
    assert_example("pack", &sealed.bytes);
    assert!(
        FORMAT.contains(&hex::encode(sealed.digest)),
        "the pack's name is {}",
        hex::encode(sealed.digest)
    );
    assert!(FORMAT.contains(&id.to_string()), "the page's id is {id}");
}

#[test]
fn the_index_segment_is_as_written_here() {
    let pack = PackRecord {
        digest: [0xd1; 32],
        object_type: ObjectType::Data,
        object_len: 1000,
        header: vec![0xee; 3],
        frames: vec![backup_core::format::directory::FrameRecord {
            stored_len: 300,
            plain_len: 268,
            mask: 0,
        }],
    };
    let mut packs = Vec::new();
    pack.encode(&mut packs);
    let row = |id: u128, offset, len| IndexRow { id: ShortId(id), pack: 0, frame: 0, offset, len };
    let rows = [row(0x0a << 120, 200, 68), row(0x0b << 120, 0, 200)];
    let head = SegmentHead {
        session: SnapshotId::from_bytes([0x22; 16]),
        supersedes: Vec::new(),
        pack_frames: 1,
        pages: vec![(rows[0].id, 2)],
    };
    assert_example("segment-head", &head.encode());
    assert_example("segment-packs", &packs);
    assert_example("segment-rows", &encode_rows(&rows));
}

#[tokio::test]
async fn key_slot_and_encrypted_pack_are_as_written_here() {
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let job = JobContext::new()
        .with_random(Arc::new(SeededRandom::new(2)))
        .with_clock(Arc::new(ManualClock::new(Timestamp::new(1_795_161_600, 0))));
    let key_file = text("key-file");
    let recipient = Recipient::key_file(key_file.as_bytes()).unwrap().with_label("example").unwrap();
    let keyring = Keyring::create(&sink, &[recipient], &job).await.unwrap();
    let slots = sink.list_all("keys/").await.unwrap();
    let slot = sink.get_whole(&slots[0].key, 16_384).await.unwrap();
    let slot = std::str::from_utf8(&slot).unwrap();
    assert!(FORMAT.contains(slots[0].key.as_str()), "the slot's key is {}", slots[0].key);
    assert!(text("key-slot") == slot, "the slot should be\n{slot}");

    let chunks: [&[u8]; 2] = [b"hello, ", b"world\n"];
    let records =
        chunks.map(|chunk| ChunkRecord { id: keyring.chunk_id(chunk).short(), len: chunk.len() as u32 });
    let mut writer = ObjectWriter::new(&*keyring, ObjectType::Data, &[], salt(3), Vec::new()).unwrap();
    writer.push_frame(&chunks.concat(), &records).unwrap();
    assert_example("encrypted-pack", &writer.finish().unwrap().bytes);
    let id = keyring.chunk_id(chunks[0]);
    assert!(FORMAT.contains(&id.to_string()), "the first chunk's id is {id}");
}

#[test]
fn documents_have_the_members_that_are_listed() {
    let parameters = RepositoryParameters {
        repository: RepositoryId([0x11; 16]),
        created: Timestamp::new(1_795_161_600, 0),
        required_features: Vec::new(),
        chunker: ChunkerParameters::default(),
    };
    assert_eq!(text("config").trim(), serde_json::to_string(&parameters).unwrap());
    let sealed = document::seal(&plain(), ObjectType::Config, salt(4), &parameters).unwrap();
    let opened: RepositoryParameters = document::open(&plain(), ObjectType::Config, &sealed).unwrap();
    assert_eq!(opened, parameters);

    // Every text of a document in the specification is one that the code reads, and writes back with the same members.
    fn same_members<T: serde::de::DeserializeOwned + serde::Serialize>(name: &str) {
        let there: serde_json::Value = serde_json::from_str(text(name)).unwrap();
        let read: T = serde_json::from_str(text(name)).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), there, "{name}");
    }
    same_members::<document::SnapshotDocument>("snapshot");
    same_members::<document::FenceDocument>("fence");
    same_members::<document::SnapshotSet>("set");
    same_members::<document::SessionDocument>("session");
    same_members::<control::BeatDocument>("beat");
    same_members::<control::CollectionDocument>("collection");
    same_members::<control::CondemnedPart>("condemned-part");
    same_members::<control::CondemnedDocument>("condemned");
    same_members::<control::DecisionDocument>("decision");
    same_members::<control::DigestDocument>("digest");
    same_members::<control::TombstoneDocument>("tombstone");
    same_members::<control::FateDocument>("fate");
    same_members::<control::HoldDocument>("hold");
    same_members::<control::ConfirmedDocument>("confirmed");
    same_members::<control::ObservedDocument>("observed");
    same_members::<backup_core::format::evidence::EvidenceDocument>("evidence");
    same_members::<LogHead>("log-head");
}

#[test]
fn the_log_segment_opens_as_described() {
    let head = LogHead::new("postgres", "7412", "00000001", "000000010000000000000002", Timestamp::new(0, 0));
    let transforms = [Arc::new(Zstd::default()) as _];
    let (head, sealed) = log::seal(&plain(), &transforms, salt(5), head, b"tail").unwrap();
    let key = head.key(0).unwrap();
    assert!(FORMAT.contains(key.as_str()), "{key}");
    assert_eq!(log::open(&plain(), &TransformSet::builtin(), &sealed.bytes).unwrap().1, b"tail");
}

#[test]
fn limits_are_those_of_the_code() {
    use backup_core::limits;
    let table: HashMap<&str, usize> = FORMAT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split(" | ").next()?.replace(',', "").parse().ok()?)))
        .collect();
    for (name, value) in [
        ("OBJECT_BYTES_MAX", limits::OBJECT_BYTES_MAX),
        ("HEADER_BYTES_MAX", backup_core::format::object::HEADER_BYTES_MAX),
        ("CHAIN_TRANSFORMS_MAX", limits::CHAIN_TRANSFORMS_MAX),
        ("FRAME_PLAIN_BYTES_MAX", limits::FRAME_PLAIN_BYTES_MAX),
        ("FRAME_STORED_BYTES_MAX", limits::FRAME_STORED_BYTES_MAX),
        ("PACK_FRAMES_MAX", limits::PACK_FRAMES_MAX),
        ("PACK_CHUNKS_MAX", limits::PACK_CHUNKS_MAX),
        ("CHUNK_BYTES_MAX", limits::CHUNK_BYTES_MAX),
        ("IDENTITY_PARTS_MAX", limits::IDENTITY_PARTS_MAX),
        ("REPORT_SKIPPED_MAX", limits::REPORT_SKIPPED_MAX),
        ("WORKLOAD_KINDS_MAX", limits::WORKLOAD_KINDS_MAX),
        ("CONTROL_BYTES_MAX", limits::CONTROL_BYTES_MAX),
        ("SNAPSHOT_BYTES_MAX", limits::SNAPSHOT_BYTES_MAX),
        ("LOG_PIECE_BYTES_MAX", limits::LOG_PIECE_BYTES_MAX),
        ("SEGMENT_PAGE_ROWS", limits::SEGMENT_PAGE_ROWS),
        ("SEGMENT_PACKS_MAX", backup_core::format::segment::SEGMENT_PACKS_MAX),
        ("SEGMENT_BYTES_MAX", limits::SEGMENT_BYTES_MAX),
        ("PAGE_LEVELS_MAX", usize::from(limits::PAGE_LEVELS_MAX)),
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX),
        ("INLINE_BYTES_MAX", limits::INLINE_BYTES_MAX),
        ("INLINE_CHUNKS_MAX", limits::INLINE_CHUNKS_MAX),
        ("ENTRY_ATTRIBUTES_MAX", limits::ENTRY_ATTRIBUTES_MAX),
        ("ATTRIBUTE_BYTES_MAX", limits::ATTRIBUTE_BYTES_MAX),
        ("KEY_BYTES_MAX", limits::KEY_BYTES_MAX),
    ] {
        assert_eq!(table.get(name), Some(&value), "{name}");
    }
}
