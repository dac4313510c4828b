//! The directory at the end of every object: its frames, and which chunks each holds.

use super::codec::{Cursor, put_varint};
use crate::limits;
use crate::{Error, Result, ShortId};

/// One frame as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRecord {
    /// Bytes in the object.
    pub stored_len: u32,
    /// Bytes of plaintext.
    pub plain_len: u32,
    /// Which of the chain's optional transforms were applied: bit 0 is the first.
    pub mask: u8,
}

/// One chunk within a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRecord {
    /// The first 16 bytes of its identity.
    pub id: ShortId,
    /// Its length in bytes.
    pub len: u32,
}

/// What an object holds: frames in order, and the chunks of each in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// The frames.
    pub frames: Vec<FrameRecord>,
    /// The chunks of all frames, in order.
    pub chunks: Vec<ChunkRecord>,
    /// How many chunks each frame holds; as many numbers as frames.
    pub chunks_per_frame: Vec<u32>,
}

impl Directory {
    /// Adds a frame and its chunks.
    pub fn push(&mut self, frame: FrameRecord, chunks: &[ChunkRecord]) {
        self.frames.push(frame);
        self.chunks.extend_from_slice(chunks);
        self.chunks_per_frame.push(u32::try_from(chunks.len()).unwrap_or(u32::MAX));
    }

    /// The frames with their ordinals, their offsets in the object (the first starts at `header_len`) and their chunks.
    pub fn iter(&self, header_len: u64) -> impl Iterator<Item = PlacedFrame<'_>> {
        let mut offset = header_len;
        let mut rest: &[ChunkRecord] = &self.chunks;
        self.frames.iter().zip(&self.chunks_per_frame).zip(0_u32..).map(move |((frame, count), ordinal)| {
            let count = usize::try_from(*count).unwrap_or(usize::MAX).min(rest.len());
            let (chunks, tail) = rest.split_at(count);
            rest = tail;
            let placed = PlacedFrame { ordinal, offset, record: *frame, chunks };
            offset = offset.saturating_add(u64::from(frame.stored_len));
            placed
        })
    }

    /// The directory as bytes: frame table, then chunk lengths, then chunk identities.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.frames.len() * 8 + self.chunks.len() * 19 + 8);
        put_varint(&mut out, self.frames.len() as u64);
        for (frame, count) in self.frames.iter().zip(&self.chunks_per_frame) {
            put_varint(&mut out, u64::from(frame.stored_len));
            put_varint(&mut out, u64::from(frame.plain_len));
            out.push(frame.mask);
            put_varint(&mut out, u64::from(*count));
        }
        for chunk in &self.chunks {
            put_varint(&mut out, u64::from(chunk.len));
        }
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.id.0.to_be_bytes());
        }
        out
    }

    /// The directory in `bytes`. In a frame that holds chunks their lengths add up to the frame's.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let frames = cursor.count(limits::PACK_FRAMES_MAX, "frames of an object")?;
        let mut directory = Self::default();
        let mut chunks = 0_usize;
        for _ in 0..frames {
            let stored_len = cursor.count(limits::FRAME_STORED_BYTES_MAX, "bytes of a stored frame")?;
            let plain_len = cursor.count(limits::FRAME_PLAIN_BYTES_MAX, "bytes of a frame")?;
            let mask = cursor.byte()?;
            let count =
                cursor.count(limits::PACK_CHUNKS_MAX.saturating_sub(chunks), "chunks of an object")?;
            chunks = chunks.saturating_add(count);
            directory.frames.push(FrameRecord {
                stored_len: to_u32(stored_len),
                plain_len: to_u32(plain_len),
                mask,
            });
            directory.chunks_per_frame.push(to_u32(count));
        }
        // Before anything is allocated by a claimed count: a chunk takes at least 17 bytes here.
        if cursor.remaining() < chunks.saturating_mul(17) {
            return Err(Error::corruption("the directory is shorter than its chunks need"));
        }
        let mut lens = Vec::with_capacity(chunks);
        for (frame, count) in directory.frames.iter().zip(&directory.chunks_per_frame) {
            let mut sum = 0_u64;
            for _ in 0..*count {
                let len = cursor.count(limits::CHUNK_BYTES_MAX, "bytes of a chunk")?;
                sum = sum.saturating_add(len as u64);
                lens.push(to_u32(len));
            }
            if *count > 0 && sum != u64::from(frame.plain_len) {
                return Err(Error::corruption("the chunks of a frame do not add up to it"));
            }
        }
        for len in lens {
            directory.chunks.push(ChunkRecord { id: ShortId(u128::from_be_bytes(cursor.array()?)), len });
        }
        cursor.finish()?;
        Ok(directory)
    }
}

/// A frame and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct PlacedFrame<'a> {
    /// Its number within the object.
    pub ordinal: u32,
    /// Where it starts in the object.
    pub offset: u64,
    /// Its lengths and mask.
    pub record: FrameRecord,
    /// Its chunks.
    pub chunks: &'a [ChunkRecord],
}

// The limits are all below 2^32.
fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_directory_survives(frames in prop::collection::vec((1_u32..1000, 0_u8..4, prop::collection::vec((any::<u128>(), 0_u32..1000), 0..20)), 0..20)) {
            let mut directory = Directory::default();
            for (stored_len, mask, chunks) in &frames {
                let chunks: Vec<_> = chunks.iter().map(|(id, len)| ChunkRecord { id: ShortId(*id), len: *len }).collect();
                let plain_len = chunks.iter().map(|chunk| chunk.len).sum();
                directory.push(FrameRecord { stored_len: *stored_len, plain_len, mask: *mask }, &chunks);
            }
            let bytes = directory.encode();
            prop_assert_eq!(Directory::decode(&bytes).unwrap(), directory);
            for len in 0..bytes.len() {
                prop_assert!(Directory::decode(&bytes[..len]).is_err());
            }
            let longer = [bytes, vec![0]].concat();
            prop_assert!(Directory::decode(&longer).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Directory::decode(&bytes);
        }
    }

    #[test]
    fn the_chunks_of_all_frames_together_are_limited() {
        let directory = |counts: [usize; 2]| {
            let mut bytes = vec![2];
            for count in counts {
                bytes.extend([1, 1, 0]);
                put_varint(&mut bytes, count as u64);
            }
            Directory::decode(&bytes).unwrap_err().to_string()
        };
        let short = "shorter than its chunks need";
        assert!(directory([limits::PACK_CHUNKS_MAX / 2, limits::PACK_CHUNKS_MAX / 2]).contains(short));
        assert!(directory([limits::PACK_CHUNKS_MAX, 0]).contains(short));
        assert!(directory([limits::PACK_CHUNKS_MAX, 1]).contains("chunks of an object"));
        assert!(directory([limits::PACK_CHUNKS_MAX + 1, 0]).contains("chunks of an object"));
    }
}
