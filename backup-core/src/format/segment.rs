//! Index segments: which chunk is where. An accelerator only: packs alone say the same.
//!
//! A segment is an object whose first frame is its head, followed by frames of pack records and frames of rows sorted by
//! chunk. The head names the first chunk of every row frame, so a segment can be read in parts.

use super::codec::{Cursor, put_bytes, put_varint};
use super::directory::FrameRecord;
use super::object::HEADER_BYTES_MAX;
use crate::limits;
use crate::transform::ObjectType;
use crate::{Error, Result, ShortId, SnapshotId};

/// Most packs in one segment.
pub const SEGMENT_PACKS_MAX: usize = 1 << 20;
/// Most row frames in one segment.
pub const SEGMENT_PAGES_MAX: usize = limits::PACK_FRAMES_MAX;

/// The first frame of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHead {
    /// The session that wrote the segment.
    pub session: SnapshotId,
    /// The segments that this one replaces, by their SHA-256.
    pub supersedes: Vec<[u8; 32]>,
    /// How many frames of pack records follow.
    pub pack_frames: u32,
    /// The first chunk and the number of rows of every row frame, in order.
    pub pages: Vec<(ShortId, u32)>,
}

/// A pack, as far as one must know it to read single frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRecord {
    /// SHA-256 of its bytes: its name.
    pub digest: [u8; 32],
    /// Data or meta.
    pub object_type: ObjectType,
    /// Its length.
    pub object_len: u64,
    /// Its header, byte for byte.
    pub header: Vec<u8>,
    /// Its frames in order.
    pub frames: Vec<FrameRecord>,
}

/// Where one chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexRow {
    /// The chunk.
    pub id: ShortId,
    /// The pack's number in its segment.
    pub pack: u32,
    /// The frame's ordinal in the pack.
    pub frame: u32,
    /// The chunk's offset in the frame's plaintext.
    pub offset: u32,
    /// The chunk's length.
    pub len: u32,
}

impl SegmentHead {
    /// The head as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(self.session.as_bytes());
        put_varint(&mut out, self.supersedes.len() as u64);
        for digest in &self.supersedes {
            out.extend_from_slice(digest);
        }
        put_varint(&mut out, u64::from(self.pack_frames));
        put_varint(&mut out, self.pages.len() as u64);
        for (first, rows) in &self.pages {
            out.extend_from_slice(&first.0.to_be_bytes());
            put_varint(&mut out, u64::from(*rows));
        }
        out
    }

    /// The head in `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let session = SnapshotId::from_bytes(cursor.array()?);
        let count = cursor.count(cursor.remaining() / 32, "superseded segments")?;
        let supersedes = (0..count).map(|_| cursor.array()).collect::<Result<_>>()?;
        let pack_frames = cursor.varint_u32("frames of packs")?;
        let count = cursor.count(cursor.remaining() / 17, "pages of a segment")?;
        let mut pages = Vec::with_capacity(count);
        for _ in 0..count {
            let first = ShortId(u128::from_be_bytes(cursor.array()?));
            pages.push((first, cursor.count(limits::SEGMENT_PAGE_ROWS, "rows of an index page")? as u32));
        }
        cursor.finish()?;
        Ok(Self { session, supersedes, pack_frames, pages })
    }
}

impl PackRecord {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest);
        out.push(self.object_type.number());
        put_varint(out, self.object_len);
        put_bytes(out, &self.header);
        put_varint(out, self.frames.len() as u64);
        for frame in &self.frames {
            put_varint(out, u64::from(frame.stored_len));
            put_varint(out, u64::from(frame.plain_len));
            out.push(frame.mask);
        }
    }

    /// The records of one frame.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>> {
        let mut packs = Vec::new();
        Self::decode_each(bytes, |pack| {
            packs.push(pack);
            Ok(())
        })?;
        Ok(packs)
    }

    /// Gives the records of one frame to `take`, one after the other: decoded they need more memory than encoded.
    pub fn decode_each(bytes: &[u8], mut take: impl FnMut(Self) -> Result<()>) -> Result<()> {
        let mut cursor = Cursor::new(bytes);
        while cursor.remaining() > 0 {
            take(Self::decode(&mut cursor)?)?;
        }
        Ok(())
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let digest = cursor.array()?;
        let object_type = match ObjectType::from_number(cursor.byte()?) {
            Some(known @ (ObjectType::Data | ObjectType::Meta)) => known,
            _ => return Err(Error::corruption("an index names a pack of a type that packs do not have")),
        };
        let object_len = cursor.count(limits::OBJECT_BYTES_MAX, "bytes of a pack")? as u64;
        let header = cursor.bytes(HEADER_BYTES_MAX, "bytes of a pack's header")?.to_vec();
        let count = cursor.count(limits::PACK_FRAMES_MAX.min(cursor.remaining() / 3), "frames of a pack")?;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            let stored_len = cursor.count(limits::FRAME_STORED_BYTES_MAX, "bytes of a stored frame")? as u32;
            let plain_len = cursor.count(limits::FRAME_PLAIN_BYTES_MAX, "bytes of a frame")? as u32;
            frames.push(FrameRecord { stored_len, plain_len, mask: cursor.byte()? });
        }
        Ok(Self { digest, object_type, object_len, header, frames })
    }
}

/// Row frames: all identities first, then the places column by column, which compresses better than row by row.
pub fn encode_rows(rows: &[IndexRow]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 24 + 4);
    put_varint(&mut out, rows.len() as u64);
    for row in rows {
        out.extend_from_slice(&row.id.0.to_be_bytes());
    }
    let columns: [fn(&IndexRow) -> u32; 4] =
        [|row| row.pack, |row| row.frame, |row| row.offset, |row| row.len];
    for column in columns {
        for row in rows {
            put_varint(&mut out, u64::from(column(row)));
        }
    }
    out
}

/// The rows of one frame, ascending by chunk, appended to `rows`.
pub fn decode_rows(bytes: &[u8], rows: &mut Vec<IndexRow>) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    let count =
        cursor.count(limits::SEGMENT_PAGE_ROWS.min(cursor.remaining() / 20), "rows of an index page")?;
    let start = rows.len();
    for _ in 0..count {
        let id = ShortId(u128::from_be_bytes(cursor.array()?));
        if rows.get(start..).and_then(<[_]>::last).is_some_and(|last| last.id > id) {
            return Err(Error::corruption("the rows of an index page are out of order"));
        }
        rows.push(IndexRow { id, pack: 0, frame: 0, offset: 0, len: 0 });
    }
    for column in 0..4 {
        for row in rows.iter_mut().skip(start) {
            let value = cursor.varint_u32("a number in an index")?;
            match column {
                0 => row.pack = value,
                1 => row.frame = value,
                2 => row.offset = value,
                _ => row.len = value,
            }
        }
    }
    cursor.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_survive(rows in prop::collection::vec((any::<u128>(), any::<[u32; 4]>()), 0..100)) {
            let mut rows: Vec<_> = rows
                .into_iter()
                .map(|(id, [pack, frame, offset, len])| IndexRow { id: ShortId(id), pack, frame, offset, len })
                .collect();
            rows.sort();
            let bytes = encode_rows(&rows);
            let mut back = Vec::new();
            decode_rows(&bytes, &mut back).unwrap();
            prop_assert_eq!(back, rows);
            for len in 0..bytes.len() {
                prop_assert!(decode_rows(&bytes[..len], &mut Vec::new()).is_err());
            }
            let longer = [bytes, vec![0]].concat();
            prop_assert!(decode_rows(&longer, &mut Vec::new()).is_err());
        }

        #[test]
        fn a_head_survives(session: [u8; 16], supersedes in prop::collection::vec(any::<[u8; 32]>(), 0..4), pack_frames: u32, pages in prop::collection::vec((any::<u128>(), 0_u32..=4096), 0..20)) {
            let pages = pages.into_iter().map(|(id, rows)| (ShortId(id), rows)).collect();
            let head = SegmentHead { session: SnapshotId::from_bytes(session), supersedes, pack_frames, pages };
            let bytes = head.encode();
            for len in 0..bytes.len() {
                prop_assert!(SegmentHead::decode(&bytes[..len]).is_err());
            }
            let longer = [&bytes[..], &[0]].concat();
            prop_assert!(SegmentHead::decode(&longer).is_err());
            prop_assert_eq!(SegmentHead::decode(&bytes).unwrap(), head);
        }

        #[test]
        fn pack_records_survive(digest: [u8; 32], len in 0_u64..1000, header in prop::collection::vec(any::<u8>(), 0..200), frames in prop::collection::vec((0_u32..1000, 0_u32..1000, any::<u8>()), 0..20)) {
            let frames = frames.into_iter().map(|(stored_len, plain_len, mask)| FrameRecord { stored_len, plain_len, mask }).collect();
            let pack = PackRecord { digest, object_type: ObjectType::Data, object_len: len, header, frames };
            let mut bytes = Vec::new();
            pack.encode(&mut bytes);
            pack.encode(&mut bytes);
            prop_assert_eq!(PackRecord::decode_all(&bytes).unwrap(), vec![pack.clone(), pack]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_rows(&bytes, &mut Vec::new());
            let _ = SegmentHead::decode(&bytes);
            let _ = PackRecord::decode_all(&bytes);
        }
    }

    #[test]
    fn one_chunk_may_stand_in_two_places_and_rows_ascend() {
        let row = |id, pack| IndexRow { id: ShortId(id), pack, frame: 0, offset: 0, len: 1 };
        let decode = |rows: &[IndexRow]| {
            let mut back = Vec::new();
            decode_rows(&encode_rows(rows), &mut back).map(|()| back)
        };
        let twice = [row(3, 0), row(3, 1), row(4, 0)];
        assert_eq!(decode(&twice).unwrap(), twice);
        assert_eq!(decode(&[row(4, 0), row(3, 0)]).unwrap_err().kind(), crate::ErrorKind::Corruption);
        // What stood in the buffer before has no part in the order.
        let mut rows = vec![row(9, 0)];
        decode_rows(&encode_rows(&twice), &mut rows).unwrap();
        assert_eq!(rows.len(), 4);
    }
}
