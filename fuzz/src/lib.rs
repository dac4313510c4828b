//! What the fuzz targets do with their input. Each function panics if a rule is broken, and returns otherwise.
//!
//! The targets in `fuzz_targets/` hand over what the fuzzer makes up; `fuzz/run` builds and runs them all, and
//! `cargo fuzz run NAME` runs one.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use backup_core::chunker::{Chunker, ChunkerParameters, reference};
use backup_core::config::Config;
use backup_core::format::chunks::ChunkRef;
use backup_core::format::directory::Directory;
use backup_core::format::document;
use backup_core::format::entries::{EntryPageWriter, StoredEntry};
use backup_core::format::log::{self, LogHead};
use backup_core::format::object::{ObjectHeader, ObjectOpener, ObjectWriter, Scratch, Trailer};
use backup_core::format::page::{ChunkBranchRow, EntryBranchRow};
use backup_core::format::segment::{PackRecord, SegmentHead, decode_rows, encode_rows};
use backup_core::limits::CONTROL_BYTES_MAX;
use backup_core::{
    FrameContext, JobContext, ObjectKey, ObjectType, RepositoryId, Sink, Timestamp, Transform, TransformSet,
    Unprotected, Zstd,
};
use backup_crypto::{Keyring, Recipient, list_recipients};
use backup_sinks::MemorySink;
use serde::Serialize;
use serde::de::DeserializeOwned;

mod snapshot_tree;

pub use snapshot_tree::snapshot_tree;

const REPOSITORY: RepositoryId = RepositoryId([5; 16]);

/// The chunker cuts as defined, however the content arrives.
pub fn chunker(input: &[u8]) {
    let Some((&[bits, less_low, less_high, more, piece, key], content)) = input.split_first_chunk() else {
        return;
    };
    let avg_bytes = 128_u32 << (bits % 4);
    let less = 1 + u32::from(u16::from_le_bytes([less_low, less_high]));
    let parameters = ChunkerParameters {
        min_bytes: avg_bytes.saturating_sub(less).max(64),
        avg_bytes,
        max_bytes: avg_bytes + 1 + 16 * u32::from(more),
    };
    let key = [key; 32];
    let chunker = Chunker::new(&key, parameters).expect("parameters within the limits");
    let expected = reference::cuts(&key, parameters, content);
    let mut cuts = Vec::new();
    assert_eq!(chunker.cuts(content, true, &mut cuts), content.len());
    assert_eq!(cuts, expected);

    let mut fed = Vec::new();
    let (mut start, mut end) = (0, 0);
    while start < content.len() {
        end = content.len().min(end + 1 + 8 * usize::from(piece));
        let mut found = Vec::new();
        let used = chunker.cuts(&content[start..end], end == content.len(), &mut found);
        fed.extend(found.iter().map(|cut| start + cut));
        start += used;
    }
    assert_eq!(fed, expected);
}

/// Decompression takes what compression made, refuses the rest, and never makes more than it may.
pub fn zstd(input: &[u8]) {
    let Some((&[max_low, max_high, level], input)) = input.split_first_chunk() else { return };
    let max = usize::from(u16::from_le_bytes([max_low, max_high]));
    let frame = FrameContext {
        chunks: 1,
        repository: &REPOSITORY.0,
        object_type: ObjectType::Data,
        salt: &[0; 32],
        ordinal: 0,
        plain_len: max,
        associated_data: &[],
    };
    let zstd = Zstd::new(i32::from(level % 8) - 3).expect("a level that exists");
    let mut output = b"before".to_vec();
    let decoded = zstd.decode(&frame, input, &mut output, max);
    assert!(output.starts_with(b"before") && output.len() <= 6 + max);
    drop(decoded);

    let mut encoded = Vec::new();
    if let Ok(backup_core::Encoded::Applied) = zstd.encode(&frame, input, &mut encoded) {
        assert!(encoded.len() < input.len());
        let mut output = Vec::new();
        zstd.decode(&frame, &encoded, &mut output, input.len()).expect("what was encoded decodes");
        assert_eq!(output, input);
        let mut output = Vec::new();
        assert!(zstd.decode(&frame, &encoded, &mut output, input.len() - 1).is_err());
    }
}

/// A page of entries that decodes encodes to a page that decodes to the same.
pub fn entry_page(input: &[u8]) {
    let Ok(entries) = StoredEntry::decode_page(input) else { return };
    assert!(entries.is_sorted_by(|a, b| a.entry.name < b.entry.name));
    let mut writer = EntryPageWriter::default();
    entries.iter().for_each(|entry| writer.push(entry));
    let Some((first, page)) = writer.cut() else { return assert!(entries.is_empty()) };
    assert_eq!(Some(&first), entries.first().map(|stored| &stored.entry.name));
    assert_eq!(StoredEntry::decode_page(&page).expect("what was encoded decodes"), entries);
}

/// Chunk lists, and the branches above them and above entry pages.
pub fn chunk_list(input: &[u8]) {
    let _ = ChunkRef::decode_page(input);
    let _ = ChunkBranchRow::decode_page(input);
    let _ = EntryBranchRow::decode_page(input);
}

/// The directory of a pack.
pub fn directory(input: &[u8]) {
    let Ok(directory) = Directory::decode(input) else { return };
    let again = Directory::decode(&directory.encode()).expect("what was encoded decodes");
    assert_eq!(format!("{again:?}"), format!("{directory:?}"));
    directory.iter(u64::MAX / 2).for_each(drop);
}

/// The three kinds of frames in an index segment.
pub fn index_segment(input: &[u8]) {
    if let Ok(head) = SegmentHead::decode(input) {
        let again = SegmentHead::decode(&head.encode()).expect("what was encoded decodes");
        assert_eq!(format!("{again:?}"), format!("{head:?}"));
    }
    if let Ok(packs) = PackRecord::decode_all(input) {
        let mut bytes = Vec::new();
        packs.iter().for_each(|pack| pack.encode(&mut bytes));
        let again = PackRecord::decode_all(&bytes).expect("what was encoded decodes");
        assert_eq!(format!("{again:?}"), format!("{packs:?}"));
    }
    let mut rows = Vec::new();
    if decode_rows(input, &mut rows).is_ok() {
        assert!(rows.is_sorted_by_key(|row| row.id));
        let mut again = Vec::new();
        decode_rows(&encode_rows(&rows), &mut again).expect("what was encoded decodes");
        assert_eq!(format!("{again:?}"), format!("{rows:?}"));
    }
}

/// Whole objects: opened as they are, and one that was sound but for one byte.
pub fn container(input: &[u8]) {
    if let Ok((header, len)) = ObjectHeader::decode(input) {
        assert!(len <= input.len());
        let encoded = header.encode().expect("what was decoded can be encoded");
        assert_eq!(encoded, input[..len]);
    }
    let _ = Trailer::decode(input);
    let protection = Unprotected::new(REPOSITORY);
    for object_type in [ObjectType::Data, ObjectType::Index, ObjectType::Snapshot] {
        let opener = ObjectOpener::new(&protection, &TransformSet::builtin(), object_type, input);
        let Ok(opener) = opener else { continue };
        let Ok(directory) = opener.open_directory(input, input.len() as u64) else { continue };
        let mut plain = Vec::new();
        for (ordinal, record) in directory.frames.iter().enumerate() {
            let _ = opener.open_frame(ordinal as u32, record, input, &mut Scratch::default(), &mut plain);
        }
    }

    let Some((&[place_low, place_high, change], content)) = input.split_first_chunk() else { return };
    let text = content.iter().map(|byte| char::from(*byte)).collect::<String>();
    let sound =
        document::seal(&protection, ObjectType::Set, [9; 32], &text).expect("a document can be sealed");
    let opened: String =
        document::open(&protection, ObjectType::Set, &sound).expect("a sound document opens");
    assert_eq!(opened, text);
    let mut damaged = sound.to_vec();
    let place = usize::from(u16::from_le_bytes([place_low, place_high])) % damaged.len();
    damaged[place] ^= change.max(1);
    let opened = document::open::<String>(&protection, ObjectType::Set, &damaged);
    assert!(opened.is_err(), "a change of byte {place} went unseen");
    damaged.truncate(place);
    assert!(document::open::<String>(&protection, ObjectType::Set, &damaged).is_err());
}

/// The JSON of snapshots, parameters, sets and sessions, as it stands in opened objects.
pub fn documents(input: &[u8]) {
    fn check<T: Serialize + DeserializeOwned + Debug>(input: &[u8]) {
        let Ok(document) = serde_json::from_slice::<T>(input) else { return };
        let json = serde_json::to_vec(&document).expect("what was read can be written");
        let again: T = serde_json::from_slice(&json).expect("what was written can be read");
        assert_eq!(format!("{again:?}"), format!("{document:?}"));
    }
    check::<document::SnapshotDocument>(input);
    check::<document::RepositoryParameters>(input);
    check::<document::SnapshotSet>(input);
    check::<document::SessionDocument>(input);
}

/// A key slot in a store, read by someone with a key file.
pub fn key_slot(input: &[u8]) {
    static RECIPIENT: LazyLock<Recipient> = LazyLock::new(|| {
        Recipient::key_file(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a key file")
    });
    if input.len() > CONTROL_BYTES_MAX {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
        let key = ObjectKey::new("keys/1/0123456789abcdef0123456789abcdef").expect("a key");
        sink.put(&key, bytes::Bytes::copy_from_slice(input)).await.expect("memory takes it");
        let job = JobContext::new();
        let _ = list_recipients(&sink, &job).await;
        assert!(Keyring::unlock(&sink, std::slice::from_ref(&*RECIPIENT), &job).await.is_err());
    });
}

/// A log segment: as it is, with this head, and sound but for one byte.
pub fn log_segment(input: &[u8]) {
    let protection = Unprotected::new(REPOSITORY);
    let _ = log::open(&protection, &TransformSet::builtin(), input);
    if let Ok(head) = serde_json::from_slice::<LogHead>(input) {
        let _ = head.check();
        let _ = head.key(0);
    }
    // A head that says anything, sealed by somebody who has the keys.
    let mut forged =
        ObjectWriter::new(&protection, ObjectType::Log, &[], [8; 32], Vec::new()).expect("a writer");
    forged.push_frame(input, &[]).expect("a frame of a few bytes");
    forged.push_frame(b"content", &[]).expect("a frame of a few bytes");
    let forged = forged.finish().expect("an object of two frames");
    if let Ok((head, content)) = log::open(&protection, &TransformSet::builtin(), &forged.bytes) {
        assert_eq!(head.bytes, content.len() as u64);
    }

    let Some((&[place_low, place_high, change], content)) = input.split_first_chunk() else { return };
    let time = Timestamp::new(0, 0);
    let head = LogHead::new("fuzz", "lineage", "timeline", "segment", time);
    let zstd: [Arc<dyn Transform>; 1] = [Arc::new(Zstd::default())];
    let (head, sound) = log::seal(&protection, &zstd, [9; 32], head, content).expect("a short segment");
    let opened =
        log::open(&protection, &TransformSet::builtin(), &sound.bytes).expect("a sound segment opens");
    assert_eq!(opened, (head, content.to_vec()));
    let mut damaged = sound.bytes.to_vec();
    let place = usize::from(u16::from_le_bytes([place_low, place_high])) % damaged.len();
    damaged[place] ^= change.max(1);
    assert!(
        log::open(&protection, &TransformSet::builtin(), &damaged).is_err(),
        "a change of byte {place} went unseen"
    );
}

/// A configuration file, in both languages.
pub fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for error in [Config::from_toml(text, "fuzz.toml").err(), Config::from_json(text, "fuzz.json").err()] {
        // It says where.
        assert!(error.is_none_or(|error| error.to_string().contains("fuzz.")));
    }
}
