//! How much frames and packs hold: enough that there are few of them, and never more than the format allows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backup_core::chunker::ChunkerParameters;
use backup_core::format::directory::Directory;
use backup_core::format::object::{ObjectHeader, ObjectOpener};
use backup_core::repository::BackupOptions;
use backup_core::resources::Resources;
use backup_core::transform::ObjectType;
use backup_core::{JobContext, Sink, TransformSet, limits};
use backup_sinks::MemorySink;
use common::{Protect, SMALL, Setup, TestEntry, TestSource, in_memory, long, objects, random};

/// The directories of all packs of a kind, and how long the packs are.
async fn packs(setup: &Setup, sink: &MemorySink, prefix: &str, kind: ObjectType) -> Vec<(Directory, usize)> {
    let all = objects(sink as &dyn Sink).await;
    let packs = all.iter().filter(|(key, _)| key.starts_with(prefix));
    packs
        .map(|(_, bytes)| {
            let (_, header_len) = ObjectHeader::decode(bytes).unwrap();
            let protection = &*setup.protection;
            let opener =
                ObjectOpener::new(protection, &TransformSet::builtin(), kind, &bytes[..header_len]).unwrap();
            (opener.open_directory(bytes, bytes.len() as u64).unwrap(), bytes.len())
        })
        .collect()
}

#[tokio::test]
async fn frames_and_packs_are_filled_up_to_their_targets_and_little_beyond() {
    let long = || TestEntry::file("long", random(1000, 40 * limits::MIB));
    let small = (0..700).map(|i| TestEntry::file(&format!("small/{i:03}"), random(i, 30_000)));
    // Small files, and what is cut into chunks as small, beside each other; and long content by itself.
    for (parameters, entries, target, least) in [
        (SMALL, [long()].into_iter().chain(small).collect(), limits::SMALL_FILES_FRAME_TARGET_BYTES, 13),
        (ChunkerParameters::default(), vec![long()], limits::FRAME_TARGET_BYTES, 25),
    ] {
        let (setup, sink) = in_memory(Protect::Plain, parameters).await;
        setup.store(&TestSource::new(entries)).await;

        let packs = packs(&setup, &sink, "data/", ObjectType::Data).await;
        let frame_max = target + parameters.max_bytes as usize;
        let (mut frames, mut short_frames, mut short_packs) = (0, 0, 0);
        for (directory, len) in &packs {
            short_packs += usize::from(*len < limits::PACK_TARGET_BYTES);
            assert!(*len < limits::PACK_TARGET_BYTES + 2 * frame_max, "a pack has {len} bytes");
            for frame in &directory.frames {
                let plain = frame.plain_len as usize;
                assert!(plain < frame_max, "a frame has {plain} bytes");
                frames += 1;
                short_frames += usize::from(plain < target);
            }
        }
        // Only what a worker holds at the end is not full.
        let workers = setup.job.resources().workers();
        assert!(
            short_packs <= workers && short_frames <= workers,
            "{short_packs} and {short_frames} of {frames}"
        );
        assert!(packs.len() > short_packs && frames >= least, "{} packs, {frames} frames", packs.len());
    }
}

/// Only the long form, of 600 MB, has more chunks than a pack may hold.
#[tokio::test]
async fn a_pack_holds_no_more_chunks_than_the_format_allows() {
    const CHUNK: usize = 512;
    let chunks = limits::PACK_CHUNKS_MAX / if long() { 1 } else { 32 } * 9 / 8;
    let mut content = vec![0; chunks * CHUNK];
    // Each differs from all others, and all are so alike that their pack stays short.
    for (number, chunk) in content.chunks_mut(CHUNK).enumerate() {
        chunk[..4].copy_from_slice(&(number as u32).to_be_bytes());
    }
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    let source = TestSource::new(vec![TestEntry::file("alike", content).fixed(CHUNK as u32)]);
    // One worker: several would share the content out among their packs.
    let job = JobContext::new().with_resources(Resources::new().with_workers(1));
    let report = setup.repository.backup(&source, &BackupOptions::default(), &job).await.unwrap();

    let counts: Vec<usize> = packs(&setup, &sink, "data/", ObjectType::Data)
        .await
        .into_iter()
        .map(|(directory, _)| directory.chunks.len())
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), chunks, "{counts:?}");
    assert!(counts.iter().all(|count| *count <= limits::PACK_CHUNKS_MAX), "{counts:?}");
    setup.assert_restores(report.snapshot.unwrap(), &source).await;
}
