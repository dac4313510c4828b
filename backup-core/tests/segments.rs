//! Index segments as others may write them: too large, half nonsense, replaced by others, wrong about where chunks are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::format::object::{ObjectHeader, ObjectOpener, ObjectWriter, Scratch};
use backup_core::format::segment::{IndexRow, PackRecord, SegmentHead, decode_rows, encode_rows};
use backup_core::repository::{BackupOptions, ParentChoice, VerifyLevel};
use backup_core::{EntryName, ObjectKey, ObjectType, Sink, SnapshotId, TransformSet, Zstd, limits};
use common::{Protect, Setup, TINY, TestEntry, TestSource, in_memory, many_chunks, objects, random, sink_of};
use tokio::io::AsyncReadExt;

/// Seals a segment of these frames.
fn segment(setup: &Setup, head: &SegmentHead, frames: &[Vec<u8>]) -> (String, Vec<u8>) {
    let mut salt = [0; 32];
    setup.job.random().fill(&mut salt).unwrap();
    let transforms = [Arc::new(Zstd::default()) as _];
    let mut writer =
        ObjectWriter::new(&*setup.protection, ObjectType::Index, &transforms, salt, Vec::new()).unwrap();
    for frame in [head.encode()].iter().chain(frames) {
        writer.push_frame(frame, &[]).unwrap();
    }
    let sealed = writer.finish().unwrap();
    (format!("index/{}", hex(&sealed.digest)), sealed.bytes.to_vec())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(session: SnapshotId, supersedes: Vec<[u8; 32]>, pack_frames: u32) -> SegmentHead {
    SegmentHead { session, supersedes, pack_frames, pages: Vec::new() }
}

#[tokio::test]
async fn a_segment_that_would_hold_too_much_is_set_aside_before_it_takes_memory() {
    let (setup, sink) = in_memory(Protect::Encrypted, TINY).await;
    let source = many_chunks(1);
    let id = setup.store(&source).await;
    let frames = limits::SEGMENT_BYTES_MAX / limits::FRAME_PLAIN_BYTES_MAX;
    let zeros = vec![vec![0; limits::FRAME_PLAIN_BYTES_MAX]; frames];
    let (key, bytes) = segment(&setup, &head(id, Vec::new(), 0), &zeros);
    sink.put(&ObjectKey::new(&key).unwrap(), bytes.into()).await.unwrap();
    let report = setup.verify(VerifyLevel::Structure).await.unwrap();
    let [damaged] = &report.damaged_objects[..] else { panic!("{:?}", report.damaged_objects) };
    assert_eq!(damaged.object, key);
    assert!(damaged.reason.contains("67108864"), "{}", damaged.reason);
    setup.assert_restores(id, &source).await;
}

#[tokio::test]
async fn a_segment_half_of_which_is_nonsense_is_set_aside_as_a_whole() {
    let (setup, sink) = in_memory(Protect::Plain, TINY).await;
    let source = many_chunks(1);
    let id = setup.store(&source).await;
    let all = objects(&sink).await;
    let (good, _) = all.iter().find(|(key, _)| key.starts_with("index/")).unwrap();
    // A pack that is there, with no rows that can be read: it must not count as known.
    let (name, pack) = all.iter().find(|(key, _)| key.starts_with("data/")).unwrap();
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(name.rsplit('/').next().unwrap().as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    let record = backup_core::format::segment::PackRecord {
        digest,
        object_type: ObjectType::Data,
        object_len: pack.len() as u64,
        header: Vec::new(),
        frames: Vec::new(),
    };
    let mut packs = Vec::new();
    record.encode(&mut packs);
    let (key, bytes) = segment(&setup, &head(id, Vec::new(), 1), &[packs, vec![0xff; 50]]);
    sink.delete(&ObjectKey::new(good).unwrap()).await.unwrap();
    sink.put(&ObjectKey::new(&key).unwrap(), bytes.into()).await.unwrap();
    let opened = setup.reopen(Arc::new(sink)).await.unwrap();
    opened.assert_restores(id, &source).await;
}

#[tokio::test]
async fn what_a_committed_segment_replaces_counts_no_longer_whichever_is_read_first() {
    let (setup, sink) = in_memory(Protect::Plain, TINY).await;
    let source = many_chunks(1);
    let id = setup.store(&source).await;
    let stored = objects(&sink).await;
    let replaced: Vec<[u8; 32]> = stored
        .keys()
        .filter_map(|key| key.strip_prefix("index/"))
        .map(|name| std::array::from_fn(|at| u8::from_str_radix(&name[at * 2..at * 2 + 2], 16).unwrap()))
        .collect();
    assert!(!replaced.is_empty());
    for committed in [true, false] {
        let session = if committed { id } else { SnapshotId::from_bytes([9; 16]) };
        let (key, bytes) = segment(&setup, &head(session, replaced.clone(), 0), &[]);
        let merged = BTreeMap::from([(key, bytes.into())]);
        for merged_first in [true, false] {
            // The memory sink's times are those at which it got its objects.
            let sink = sink_of(if merged_first { &merged } else { &stored }).await;
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            for (key, bytes) in if merged_first { &stored } else { &merged } {
                sink.put(&ObjectKey::new(key).unwrap(), bytes.clone()).await.unwrap();
            }
            for setup in [setup.clone(), setup.spilled()] {
                let opened = setup.reopen(Arc::new(sink_of(&objects(&sink).await).await)).await.unwrap();
                let same = setup.reopen(Arc::new(sink.clone())).await.unwrap();
                for opened in [opened, same] {
                    let options = BackupOptions {
                        parent: ParentChoice::None,
                        dry_run: true,
                        ..BackupOptions::default()
                    };
                    let report = opened.repository.backup(&source, &options, &opened.job).await.unwrap();
                    assert_eq!(report.bytes_added > 0, committed, "{report:?}");
                }
            }
        }
    }
}

/// The frames of a segment, opened.
fn frames_of(setup: &Setup, bytes: &[u8]) -> Vec<Vec<u8>> {
    let (_, header_len) = ObjectHeader::decode(bytes).unwrap();
    let transforms = TransformSet::builtin();
    let opener = ObjectOpener::new(&*setup.protection, &transforms, ObjectType::Index, bytes).unwrap();
    let directory = opener.open_directory(bytes, bytes.len() as u64).unwrap();
    let mut at = header_len;
    let open = |(ordinal, record): (usize, &backup_core::format::directory::FrameRecord)| {
        let stored = &bytes[at..at + record.stored_len as usize];
        at += record.stored_len as usize;
        let mut plain = Vec::new();
        opener.open_frame(ordinal as u32, record, stored, &mut Scratch::default(), &mut plain).unwrap();
        plain
    };
    directory.frames.iter().enumerate().map(open).collect()
}

/// A true segment's packs and rows, the rows changed.
fn changed_segment(
    setup: &Setup,
    bytes: &[u8],
    change: impl Fn(&mut [IndexRow], &[PackRecord]),
) -> (String, Vec<u8>) {
    let frames = frames_of(setup, bytes);
    let mut head = SegmentHead::decode(&frames[0]).unwrap();
    let (packs, pages) = frames[1..].split_at(head.pack_frames as usize);
    let records: Vec<_> = packs.iter().flat_map(|frame| PackRecord::decode_all(frame).unwrap()).collect();
    let mut rows = Vec::new();
    pages.iter().for_each(|page| decode_rows(page, &mut rows).unwrap());
    change(&mut rows, &records);
    rows.sort();
    let pages: Vec<_> = rows.chunks(limits::SEGMENT_PAGE_ROWS).collect();
    head.pages = pages.iter().map(|page| (page[0].id, page.len() as u32)).collect();
    let frames: Vec<_> = packs.iter().cloned().chain(pages.iter().map(|page| encode_rows(page))).collect();
    segment(setup, &head, &frames)
}

#[tokio::test]
async fn a_chunk_that_a_segment_misplaces_is_never_another_chunk() {
    let (setup, sink) = in_memory(Protect::Plain, TINY).await;
    // Chunks of one length, so that only their identities tell them apart.
    let content = random(1, 64 * 512);
    let source = TestSource::new(vec![TestEntry::file("f", content.clone()).fixed(512)]);
    let id = setup.store(&source).await;
    let all = objects(&sink).await;
    let (true_key, bytes) = all.iter().find(|(key, _)| key.starts_with("index/")).unwrap();
    let (key, changed) = changed_segment(&setup, bytes, |rows, packs| {
        let data = |row: &IndexRow| packs[row.pack as usize].object_type == ObjectType::Data;
        let places: Vec<_> = rows.iter().filter(|row| data(row)).map(|row| (row.frame, row.offset)).collect();
        let others = places.iter().cycle().skip(1);
        for (row, (frame, offset)) in rows.iter_mut().filter(|row| data(row)).zip(others) {
            (row.frame, row.offset) = (*frame, *offset);
        }
    });
    sink.put(&ObjectKey::new(&key).unwrap(), changed.into()).await.unwrap();
    let name = EntryName::new("f").unwrap();

    // Beside a true place a wrong one does no harm.
    let both = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    both.assert_restores(id, &source).await;
    let snapshot = both.repository.snapshot(id, &both.job).await.unwrap();
    let stored = snapshot.entry(&name, &both.job).await.unwrap().unwrap();
    let mut read = Vec::new();
    snapshot.open(&stored, &both.job).await.unwrap().read_to_end(&mut read).await.unwrap();
    assert!(read == content);

    // With wrong ones only, whoever reads says so.
    sink.delete(&ObjectKey::new(true_key).unwrap()).await.unwrap();
    let wrong = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    let snapshot = wrong.repository.snapshot(id, &wrong.job).await.unwrap();
    let stored = snapshot.entry(&name, &wrong.job).await.unwrap().unwrap();
    let mut file = snapshot.open(&stored, &wrong.job).await.unwrap();
    let error = file.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("not what its identity says"), "{error}");
    let (found, report) = wrong.restore(id).await.unwrap();
    assert!(found.values().all(|entry| !entry.whole || entry.content.is_empty()), "{report:?}");
    assert_eq!(report.failed.named().iter().map(|failed| failed.name.as_str()).collect::<Vec<_>>(), ["f"]);
    let verified = wrong.verify(VerifyLevel::Content).await.unwrap();
    assert!(!verified.damaged_objects.is_empty() || !verified.damaged_entries.is_empty(), "{verified:?}");

    // The packs know better than the segment.
    sink.delete(&ObjectKey::new(&key).unwrap()).await.unwrap();
    wrong.repository.repair_index(false, &wrong.job).await.unwrap();
    let repaired = setup.reopen(Arc::new(sink)).await.unwrap();
    repaired.assert_restores(id, &source).await;
    repaired.assert_clean().await;
}

#[tokio::test]
async fn what_no_segment_places_is_stored_again_though_the_parent_names_it() {
    let (setup, sink) = in_memory(Protect::Plain, TINY).await;
    let source = TestSource::new(vec![TestEntry::file("f", random(1, 64 * 512)).stamped()]);
    setup.store(&source).await;
    let all = objects(&sink).await;
    let (key, bytes) = all.iter().find(|(key, _)| key.starts_with("index/")).unwrap();
    let (other, changed) = changed_segment(&setup, bytes, |rows, packs| {
        for row in rows.iter_mut().filter(|row| packs[row.pack as usize].object_type == ObjectType::Data) {
            row.id.0 = !row.id.0;
        }
    });
    sink.delete(&ObjectKey::new(key).unwrap()).await.unwrap();
    sink.put(&ObjectKey::new(&other).unwrap(), changed.into()).await.unwrap();
    let opened = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    let id = opened.store(&source).await;
    assert_eq!(source.opened(), 2, "the file is read again");
    opened.assert_restores(id, &source).await;
}

#[tokio::test]
async fn what_a_repair_named_counts_as_committed() {
    let (setup, sink) = in_memory(Protect::Plain, TINY).await;
    let source = TestSource::new(vec![TestEntry::file("f", random(1, 64 * 512)).stamped()]);
    setup.store(&source).await;
    for key in objects(&sink).await.keys().filter(|key| key.starts_with("index/")) {
        sink.delete(&ObjectKey::new(key).unwrap()).await.unwrap();
    }
    let opened = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    opened.repository.repair_index(false, &opened.job).await.unwrap();
    let again = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    again.store(&source).await;
    let segments = objects(&sink).await.keys().filter(|key| key.starts_with("index/")).count();
    assert_eq!(segments, 1, "a backup of nothing new need not name those packs again");
}
