//! Writing index segments.

use crate::format::object::{ObjectWriter, SealedObject};
use crate::format::segment::{IndexRow, PackRecord, SegmentHead, encode_rows};
use crate::limits;
use crate::transform::{ObjectType, Zstd};
use crate::{JobContext, Result, SnapshotId};

use super::store::Store;

/// Bytes of pack records in one frame, about.
const PACK_FRAME_BYTES: usize = limits::MIB;

/// Gathers packs and the rows of their chunks.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    packs: Vec<PackRecord>,
    rows: Vec<IndexRow>,
}

impl SegmentBuilder {
    /// Adds a pack; the pack numbers in `rows` are replaced.
    pub(crate) fn push(&mut self, pack: PackRecord, rows: Vec<IndexRow>) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(pack);
        self.rows.extend(rows.into_iter().map(|row| IndexRow { pack: number, ..row }));
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }
}

/// Sorts, encodes and seals a segment.
pub(crate) fn seal_segment(
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
        supersedes: Vec::new(),
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
