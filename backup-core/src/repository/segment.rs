//! Writing index segments.

use crate::format::object::{HEADER_BYTES_MAX, ObjectWriter, SealedObject};
use crate::format::segment::{IndexRow, PackRecord, SEGMENT_PACKS_MAX, SegmentHead, encode_rows};
use crate::limits;
use crate::transform::{ObjectType, Zstd};
use crate::{JobContext, Result, SnapshotId};

use super::keys;
use super::lane::Lane;
use super::store::{PutCounters, Store};

/// Bytes of pack records in one frame, about.
const PACK_FRAME_BYTES: usize = limits::MIB;

/// What a row takes at most: its chunk, four numbers of 32 bits, its share of what a page of rows needs besides.
const ROW_BYTES_MAX: usize = 16 + 4 * 5 + 1;
/// What a pack's record takes at most beside its header, and what a frame takes in it.
const PACK_BYTES_MAX: usize = 32 + 1 + 3 * 10;
const FRAME_BYTES_MAX: usize = 2 * 5 + 1;

// Whatever a segment holds, one more pack fits, be it as large as packs may be.
const _: () = assert!(
    limits::SEGMENT_TARGET_BYTES
        + limits::PACK_CHUNKS_MAX * ROW_BYTES_MAX
        + limits::PACK_FRAMES_MAX * FRAME_BYTES_MAX
        + HEADER_BYTES_MAX
        + PACK_BYTES_MAX
        <= limits::SEGMENT_BYTES_MAX
);

// Its bytes limit its packs, too.
const _: () = assert!(limits::SEGMENT_TARGET_BYTES / PACK_BYTES_MAX < SEGMENT_PACKS_MAX);

/// Gathers packs and the rows of their chunks.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    packs: Vec<PackRecord>,
    rows: Vec<IndexRow>,
    supersedes: Vec<[u8; 32]>,
    bytes: usize,
}

impl SegmentBuilder {
    /// Adds a pack; the pack numbers in `rows` are replaced.
    pub(crate) fn push(&mut self, pack: PackRecord, rows: Vec<IndexRow>) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        let frames = pack.frames.len().saturating_mul(FRAME_BYTES_MAX);
        let record = PACK_BYTES_MAX.saturating_add(pack.header.len()).saturating_add(frames);
        let bytes = record.saturating_add(rows.len().saturating_mul(ROW_BYTES_MAX));
        self.bytes = self.bytes.saturating_add(bytes);
        self.packs.push(pack);
        self.rows.extend(rows.into_iter().map(|row| IndexRow { pack: number, ..row }));
    }

    /// Says that it replaces these segments.
    pub(crate) fn supersede(&mut self, segments: Vec<[u8; 32]>) {
        self.bytes = self.bytes.saturating_add(segments.len().saturating_mul(32));
        self.supersedes.extend(segments);
    }

    /// Whether it must be written before anything else is added.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= limits::SEGMENT_ROWS_TARGET || self.bytes >= limits::SEGMENT_TARGET_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.supersedes.is_empty()
    }
}

/// Seals a segment and puts it.
pub(crate) async fn put_segment(
    store: &Store,
    session: SnapshotId,
    segment: SegmentBuilder,
    put: &PutCounters,
    job: &JobContext,
) -> Result<()> {
    put_segment_on(&Lane::start()?, store, session, segment, put, job).await
}

/// The same, sealed on this thread.
pub(crate) async fn put_segment_on(
    lane: &Lane,
    store: &Store,
    session: SnapshotId,
    segment: SegmentBuilder,
    put: &PutCounters,
    job: &JobContext,
) -> Result<()> {
    let (sealing, context) = (store.clone(), job.clone());
    // Sorting, compressing and sealing a hundred thousand rows takes too long for the runtime's threads.
    let sealed = lane.run(move || seal_segment(&sealing, session, segment, &context)).await?;
    store.put(&keys::segment(&sealed.digest)?, sealed.bytes, put, job).await
}

/// Sorts, encodes and seals a segment.
fn seal_segment(
    store: &Store,
    session: SnapshotId,
    mut segment: SegmentBuilder,
    job: &JobContext,
) -> Result<SealedObject> {
    segment.rows.sort_unstable();
    let mut pack_frames: Vec<Vec<u8>> = Vec::new();
    let mut frame = Vec::new();
    for pack in &segment.packs {
        pack.encode(&mut frame);
        if frame.len() >= PACK_FRAME_BYTES {
            pack_frames.push(std::mem::take(&mut frame));
        }
    }
    if !frame.is_empty() {
        pack_frames.push(frame);
    }
    let pages: Vec<&[IndexRow]> = segment.rows.chunks(limits::SEGMENT_PAGE_ROWS).collect();
    let head = SegmentHead {
        session,
        supersedes: std::mem::take(&mut segment.supersedes),
        pack_frames: u32::try_from(pack_frames.len()).unwrap_or(u32::MAX),
        pages: pages
            .iter()
            .filter_map(|page| Some((page.first()?.id, u32::try_from(page.len()).unwrap_or(u32::MAX))))
            .collect(),
    };
    let transforms = [std::sync::Arc::new(Zstd::default()) as _];
    let salt = Store::salt(job)?;
    let mut writer = ObjectWriter::new(&*store.protection, ObjectType::Index, &transforms, salt, Vec::new())?;
    writer.push_frame(&head.encode(), &[])?;
    for frame in &pack_frames {
        writer.push_frame(frame, &[])?;
    }
    for page in pages {
        writer.push_frame(&encode_rows(page), &[])?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShortId;
    use crate::format::directory::FrameRecord;

    fn pack(frames: usize) -> PackRecord {
        let frames = vec![FrameRecord { stored_len: 1, plain_len: 1, mask: 0 }; frames];
        let object_type = ObjectType::Data;
        PackRecord { digest: [7; 32], object_type, object_len: 1, header: vec![1; 100], frames }
    }

    fn rows(count: usize) -> Vec<IndexRow> {
        let row = |id: usize| IndexRow { id: ShortId(id as u128), pack: 9, frame: 0, offset: 0, len: 1 };
        (0..count).map(row).collect()
    }

    #[test]
    fn a_segment_is_full_of_rows_or_of_bytes() {
        let mut segment = SegmentBuilder::default();
        assert!(segment.is_empty() && !segment.is_full());
        segment.push(pack(1), rows(limits::SEGMENT_ROWS_TARGET - 1));
        assert!(!segment.is_empty() && !segment.is_full());
        segment.push(pack(1), rows(1));
        assert!(segment.is_full());

        let mut segment = SegmentBuilder::default();
        let packs = limits::SEGMENT_TARGET_BYTES.div_ceil(PACK_BYTES_MAX + 100 + 50_000 * FRAME_BYTES_MAX);
        for _ in 0..packs {
            assert!(!segment.is_full());
            segment.push(pack(50_000), Vec::new());
        }
        assert!(segment.is_full() && segment.rows.is_empty());
    }

    #[test]
    fn rows_name_their_pack_by_its_place_in_the_segment() {
        let mut segment = SegmentBuilder::default();
        segment.push(pack(1), rows(2));
        segment.push(pack(1), rows(1));
        assert_eq!(segment.rows.iter().map(|row| row.pack).collect::<Vec<_>>(), [0, 0, 1]);
    }
}
