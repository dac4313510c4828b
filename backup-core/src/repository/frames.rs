//! Reading single chunks through a small cache of opened frames: pages, random access to stored files.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::index::{Index, Pack};
use super::store::Store;
use crate::format::object::Scratch;
use crate::format::segment::IndexRow;
use crate::{ChunkId, Error, ErrorKind, GetRange, JobContext, Result};

/// Plaintext that the cache holds at most; the frame used last stays whatever its length.
const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Frames opened lately, the latest in front.
#[derive(Debug, Default)]
pub(crate) struct FrameCache(Mutex<VecDeque<CachedFrame>>);

type FrameKey = ([u8; 32], u32);

#[derive(Debug, Clone)]
struct CachedFrame {
    key: FrameKey,
    plain: Arc<Vec<u8>>,
}

impl FrameCache {
    fn get(&self, key: FrameKey) -> Option<Arc<Vec<u8>>> {
        let mut frames = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = frames.iter().position(|frame| frame.key == key)?;
        let frame = frames.remove(at)?;
        let plain = frame.plain.clone();
        frames.push_front(frame);
        Some(plain)
    }

    fn insert(&self, key: FrameKey, plain: Arc<Vec<u8>>) {
        let mut frames = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        frames.push_front(CachedFrame { key, plain });
        let mut bytes = 0_usize;
        let keep = frames.iter().take_while(|frame| {
            bytes = bytes.saturating_add(frame.plain.len());
            bytes <= CACHE_BYTES_MAX
        });
        let keep = keep.count().max(1);
        frames.truncate(keep);
    }
}

/// A frame's plaintext.
pub(crate) async fn read_frame(
    store: &Store,
    cache: &FrameCache,
    pack: &Pack,
    frame: u32,
    job: &JobContext,
) -> Result<Arc<Vec<u8>>> {
    let key = (pack.record.digest, frame);
    if let Some(plain) = cache.get(key) {
        return Ok(plain);
    }
    let range = pack.frame_range(frame)?;
    let fetched = store.get(&pack.key, GetRange::Bounded(range), job).await.map_err(missing)?;
    let mut plain = Vec::new();
    pack.open_frame(store, frame, &fetched.bytes, &mut Scratch::default(), &mut plain)?;
    let plain = Arc::new(plain);
    cache.insert(key, plain.clone());
    Ok(plain)
}

/// The part of a frame's plaintext that a row names.
pub(crate) fn slice_of<'a>(plain: &'a [u8], row: &IndexRow) -> Result<&'a [u8]> {
    let start = row.offset as usize;
    plain
        .get(start..start.saturating_add(row.len as usize))
        .ok_or_else(|| Error::corruption("an index names a chunk beyond the end of its frame"))
}

/// Reads a chunk from whichever of its places still has it; its identity is checked.
pub(crate) async fn read_chunk(
    store: &Store,
    index: &Index,
    cache: &FrameCache,
    id: &ChunkId,
    len: u32,
    job: &JobContext,
) -> Result<Vec<u8>> {
    let mut failure = None;
    for row in index.find(id.short(), len)?.iter() {
        let pack = index.pack(row.pack)?;
        match read_frame(store, cache, &pack, row.frame, job).await {
            Ok(plain) => match slice_of(&plain, row) {
                Ok(bytes) if store.protection.chunk_id(bytes) == *id => return Ok(bytes.to_vec()),
                Ok(_) => {
                    failure = Some(
                        Error::corruption("a chunk is not what its identity says").with_object(&pack.key),
                    )
                }
                Err(error) => failure = Some(error.with_object(&pack.key)),
            },
            Err(error) if error.is_corruption() => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| chunk_not_found(id)))
}

/// The error for a chunk that no pack holds.
pub(crate) fn chunk_not_found(id: &ChunkId) -> Error {
    Error::corruption(format!(
        "the chunk {id} is in no pack that the index names; a repair of the index finds it if a pack has it"
    ))
}

/// An object that the index names and the store lacks is damage, not a question of names.
pub(crate) fn missing(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound { error.with_kind(ErrorKind::Corruption) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![0; bytes])
    }

    #[test]
    fn the_cache_holds_the_frames_used_last_up_to_its_bytes() {
        let cache = FrameCache::default();
        let quarter = CACHE_BYTES_MAX / 4;
        for number in 0..4 {
            cache.insert(([number; 32], 0), frame(quarter));
        }
        let held = |number| cache.get(([number; 32], 0)).is_some();
        assert!((0..4).all(held), "exactly full");
        // The first is used again, so the second goes.
        assert!(held(0));
        cache.insert(([4; 32], 0), frame(1));
        assert_eq!((0..5).map(held).collect::<Vec<_>>(), [true, false, true, true, true]);
        assert!(cache.get(([0; 32], 1)).is_none(), "another frame of the same pack");
    }

    #[test]
    fn one_frame_stays_whatever_its_length() {
        let cache = FrameCache::default();
        cache.insert(([1; 32], 0), frame(1));
        cache.insert(([2; 32], 0), frame(CACHE_BYTES_MAX + 1));
        assert!(cache.get(([1; 32], 0)).is_none());
        assert_eq!(cache.get(([2; 32], 0)).unwrap().len(), CACHE_BYTES_MAX + 1);
    }
}
