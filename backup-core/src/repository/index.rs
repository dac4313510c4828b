//! Which chunk is where, as far as this process knows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::stream;

use super::keys;
use super::store::Store;
use crate::format::directory::Directory;
use crate::format::object::{ObjectHeader, ObjectOpener, Scratch, Trailer};
use crate::format::segment::{IndexRow, PackRecord, SegmentHead, decode_rows};
use crate::limits;
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, GetRange, JobContext, ObjectKey, ObjectMeta, Result, ShortId, SnapshotId};

/// Bytes fetched from the end of a pack to read its directory in one request, where it fits.
const DIRECTORY_GUESS_BYTES: u64 = 64 * 1024;

/// A pack that the index knows.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) record: PackRecord,
    pub(crate) key: ObjectKey,
    /// Where each frame starts.
    offsets: Vec<u64>,
    /// Whether a committed session has named it; others may be used only by naming them again.
    pub(crate) committed: bool,
    /// Whether no segment names it at all.
    pub(crate) orphan: bool,
    /// Whether this process has used it although it is not committed.
    used: AtomicBool,
    opener: OnceLock<ObjectOpener>,
}

impl Pack {
    fn new(record: PackRecord, committed: bool, orphan: bool) -> Result<Self> {
        let key = keys::pack(record.object_type, &record.digest)?;
        let mut offset = record.header.len() as u64;
        let mut offsets = Vec::with_capacity(record.frames.len());
        for frame in &record.frames {
            offsets.push(offset);
            offset = offset.saturating_add(u64::from(frame.stored_len));
        }
        Ok(Self {
            record,
            key,
            offsets,
            committed,
            orphan,
            used: AtomicBool::new(false),
            opener: OnceLock::new(),
        })
    }

    /// The bytes of the pack that hold a frame.
    pub(crate) fn frame_range(&self, frame: u32) -> Result<std::ops::Range<u64>> {
        let gone = || Error::corruption(format!("has no frame {frame}")).with_object(&self.key);
        let start = *self.offsets.get(frame as usize).ok_or_else(gone)?;
        let record = self.record.frames.get(frame as usize).ok_or_else(gone)?;
        Ok(start..start.saturating_add(u64::from(record.stored_len)))
    }

    /// What opens the pack's frames.
    pub(crate) fn opener(&self, store: &Store) -> Result<&ObjectOpener> {
        if let Some(opener) = self.opener.get() {
            return Ok(opener);
        }
        let record = &self.record;
        let opener =
            ObjectOpener::new(&*store.protection, &store.transforms, record.object_type, &record.header)
                .map_err(|e| e.with_object(&self.key))?;
        Ok(self.opener.get_or_init(|| opener))
    }

    /// The plaintext of a frame, from its stored bytes.
    pub(crate) fn open_frame(
        &self,
        store: &Store,
        frame: u32,
        stored: &[u8],
        scratch: &mut Scratch,
        output: &mut Vec<u8>,
    ) -> Result<()> {
        let record = self
            .record
            .frames
            .get(frame as usize)
            .ok_or_else(|| Error::corruption(format!("has no frame {frame}")).with_object(&self.key))?;
        self.opener(store)?
            .open_frame(frame, record, stored, scratch, output)
            .map_err(|e| e.with_object(&self.key))
    }
}

/// A multimap from chunks to places. Immutable; a refreshed index is a new one.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) packs: Vec<Pack>,
    /// Sorted by chunk; `pack` counts in `packs`.
    rows: Vec<IndexRow>,
    /// The segments it was made from.
    pub(crate) segments: BTreeSet<ObjectKey>,
    /// Segments that could not be read, and why.
    pub(crate) unreadable: Vec<(ObjectKey, String)>,
}

impl Index {
    /// Reads every segment. A damaged segment is set aside: what it says the packs say, too.
    pub(crate) async fn load(
        store: &Store,
        committed: &HashSet<SnapshotId>,
        job: &JobContext,
    ) -> Result<Self> {
        use crate::SinkExt;
        let listed = store.sink.list_all(keys::INDEX).await?;
        let requests = job.resources().requests();
        let mut segments = Vec::new();
        let mut index = Self::default();
        let mut reads = stream::iter(listed.into_iter().map(|meta| read_segment(store, meta.key, job)))
            .buffered(requests);
        while let Some((key, segment)) = reads.next().await {
            match segment {
                Ok(segment) => segments.push((key, segment)),
                Err(error) if !is_damage(&error) => return Err(error),
                Err(error) => index.unreadable.push((key, error.to_string())),
            }
        }
        drop(reads);
        // Only what a committed session says can replace what others said.
        let superseded: HashSet<[u8; 32]> = segments
            .iter()
            .filter(|(_, segment)| committed.contains(&segment.head.session))
            .flat_map(|(_, segment)| segment.head.supersedes.iter().copied())
            .collect();
        let mut known: HashMap<[u8; 32], u32> = HashMap::new();
        index.rows.reserve_exact(segments.iter().map(|(_, segment)| segment.rows.len()).sum());
        for (key, segment) in segments {
            let digest = keys::digest_of(&key)?;
            index.segments.insert(key);
            if !superseded.contains(&digest) {
                let committed = committed.contains(&segment.head.session);
                index.add_segment(segment, committed, &mut known)?;
            }
        }
        // In place: a table of many millions of rows has no twin beside it.
        index.rows.sort_unstable();
        index.rows.dedup();
        Ok(index)
    }

    fn add_segment(
        &mut self,
        segment: Segment,
        committed: bool,
        known: &mut HashMap<[u8; 32], u32>,
    ) -> Result<()> {
        let mut numbers = Vec::with_capacity(segment.packs.len());
        for record in segment.packs {
            let next = u32::try_from(self.packs.len()).map_err(|_| Error::internal("too many packs"))?;
            let number = *known.entry(record.digest).or_insert(next);
            if number == next {
                self.packs.push(Pack::new(record, committed, false)?);
            } else if let Some(pack) = self.packs.get_mut(number as usize) {
                pack.committed |= committed;
            }
            numbers.push(number);
        }
        self.rows.reserve(segment.rows.len());
        for mut row in segment.rows {
            // A row that names no pack of its segment serves nobody.
            if let Some(number) = numbers.get(row.pack as usize) {
                row.pack = *number;
                self.rows.push(row);
            }
        }
        Ok(())
    }

    /// The same index with the packs that no segment names. Packs that cannot be read are returned beside it.
    pub(crate) async fn scan(
        mut self,
        store: &Store,
        job: &JobContext,
    ) -> Result<(Self, Vec<(ObjectKey, String)>)> {
        use crate::SinkExt;
        let known: HashSet<[u8; 32]> = self.packs.iter().map(|pack| pack.record.digest).collect();
        let mut lost = Vec::new();
        let mut unknown = Vec::new();
        for (prefix, object_type) in [(keys::META, ObjectType::Meta), (keys::DATA, ObjectType::Data)] {
            for meta in store.sink.list_all(prefix).await? {
                match keys::digest_of(&meta.key) {
                    Ok(digest) if known.contains(&digest) => {}
                    Ok(digest) => unknown.push((object_type, digest, meta)),
                    Err(error) => lost.push((meta.key, error.to_string())),
                }
            }
        }
        let requests = job.resources().requests();
        let mut reads = stream::iter(unknown.into_iter().map(|(object_type, digest, meta)| async move {
            let key = meta.key.clone();
            (key, read_directory(store, object_type, digest, meta, job).await)
        }))
        .buffered(requests);
        while let Some((key, read)) = reads.next().await {
            match read {
                Ok((record, directory)) => self.add_pack(record, &directory)?,
                Err(error) if !is_damage(&error) => return Err(error),
                Err(error) => lost.push((key, error.to_string())),
            }
        }
        drop(reads);
        self.rows.sort_unstable();
        Ok((self, lost))
    }

    /// A copy, for when others still read this one.
    fn copy(&self) -> Result<Self> {
        let packs = self.packs.iter().map(|pack| Pack::new(pack.record.clone(), pack.committed, pack.orphan));
        Ok(Self {
            packs: packs.collect::<Result<_>>()?,
            rows: self.rows.clone(),
            segments: self.segments.clone(),
            unreadable: self.unreadable.clone(),
        })
    }

    /// The index itself if nobody else holds it, otherwise a copy.
    pub(crate) fn take(index: std::sync::Arc<Self>) -> Result<Self> {
        std::sync::Arc::try_unwrap(index).or_else(|shared| shared.copy())
    }

    fn add_pack(&mut self, record: PackRecord, directory: &Directory) -> Result<()> {
        let number = u32::try_from(self.packs.len()).map_err(|_| Error::internal("too many packs"))?;
        self.rows.extend(rows_of(number, record.header.len() as u64, directory));
        self.packs.push(Pack::new(record, false, true)?);
        Ok(())
    }

    /// The places of a chunk.
    pub(crate) fn find(&self, id: ShortId) -> &[IndexRow] {
        let start = self.lower_bound(id);
        let rest = self.rows.get(start..).unwrap_or_default();
        let count = rest.iter().take_while(|row| row.id == id).count();
        rest.get(..count).unwrap_or_default()
    }

    /// Whether a chunk of this length has a place; notes that the pack is used.
    pub(crate) fn contains(&self, id: ShortId, len: u32) -> bool {
        let rows = self.find(id);
        // A committed place needs nothing further.
        let best = rows
            .iter()
            .filter(|row| row.len == len)
            .filter_map(|row| self.packs.get(row.pack as usize))
            .max_by_key(|pack| pack.committed);
        match best {
            None => false,
            Some(pack) => {
                if !pack.committed {
                    pack.used.store(true, Ordering::Relaxed);
                }
                true
            }
        }
    }

    /// The packs that must be named again by whoever used this index: used ones that no committed session has named,
    /// and those that no segment names at all.
    pub(crate) fn adopted(&self) -> HashSet<u32> {
        (0..)
            .zip(&self.packs)
            .filter(|(_, pack)| !pack.committed && (pack.orphan || pack.used.load(Ordering::Relaxed)))
            .map(|(number, _)| number)
            .collect()
    }

    /// All rows, sorted by chunk.
    pub(crate) fn rows(&self) -> &[IndexRow] {
        &self.rows
    }

    // Identities are uniform, so the place of one can be guessed: a few steps instead of twenty.
    fn lower_bound(&self, id: ShortId) -> usize {
        let (mut low, mut high) = (0_usize, self.rows.len());
        let mut bounds = (0_u128, u128::MAX);
        for _ in 0..8 {
            if high.saturating_sub(low) < 32 {
                break;
            }
            let span = (bounds.1.saturating_sub(bounds.0) >> 64).max(1);
            let part = id.0.saturating_sub(bounds.0) >> 64;
            let width = (high - low) as u128;
            let guess = low
                .saturating_add(usize::try_from(part.saturating_mul(width) / span).unwrap_or(0))
                .min(high - 1);
            let Some(row) = self.rows.get(guess) else { break };
            if row.id < id {
                low = guess + 1;
                bounds.0 = row.id.0;
            } else {
                high = guess;
                bounds.1 = row.id.0;
            }
        }
        let slice = self.rows.get(low..high).unwrap_or_default();
        low.saturating_add(slice.partition_point(|row| row.id < id))
    }
}

/// Whether an error tells of one object and not of the store: the object can be set aside then. A repair removes segments
/// that are, so this is no place for doubt.
fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::LimitExceeded
    )
}

/// A header of another epoch is damage or another's: either way the object cannot be opened. A store's refusal to hand
/// out an object is neither.
fn not_ours(error: Error) -> Error {
    if error.kind() == ErrorKind::Denied { error.with_kind(ErrorKind::Corruption) } else { error }
}

/// The rows of a pack's chunks.
pub(crate) fn rows_of(pack: u32, header_len: u64, directory: &Directory) -> Vec<IndexRow> {
    let mut rows = Vec::with_capacity(directory.chunks.len());
    for frame in directory.iter(header_len) {
        let mut offset = 0_u32;
        for chunk in frame.chunks {
            rows.push(IndexRow { id: chunk.id, pack, frame: frame.ordinal, offset, len: chunk.len });
            offset = offset.saturating_add(chunk.len);
        }
    }
    rows
}

/// The header and directory of a pack, without its content.
pub(crate) async fn read_directory(
    store: &Store,
    object_type: ObjectType,
    digest: [u8; 32],
    meta: ObjectMeta,
    job: &JobContext,
) -> Result<(PackRecord, Directory)> {
    let front = meta.len.min(crate::format::object::HEADER_BYTES_MAX as u64);
    let front = store.get(&meta.key, GetRange::Bounded(0..front), job).await?.bytes;
    let (_, header_len) = ObjectHeader::decode(&front).map_err(|e| e.with_object(&meta.key))?;
    let header = front.get(..header_len).unwrap_or_default().to_vec();
    let opener = ObjectOpener::new(&*store.protection, &store.transforms, object_type, &header)
        .map_err(|e| not_ours(e).with_object(&meta.key))?;
    let mut tail = store.get(&meta.key, GetRange::Suffix(DIRECTORY_GUESS_BYTES), job).await?;
    let needed = Trailer::decode(&tail.bytes).map_err(|e| e.with_object(&meta.key))?.tail_len();
    if needed > tail.bytes.len() as u64 {
        if needed > limits::OBJECT_BYTES_MAX as u64 {
            return Err(Error::corruption("the directory claims to exceed the limits").with_object(&meta.key));
        }
        tail = store.get(&meta.key, GetRange::Suffix(needed), job).await?;
    }
    let directory =
        opener.open_directory(&tail.bytes, tail.object_len).map_err(|e| e.with_object(&meta.key))?;
    let record = PackRecord {
        digest,
        object_type,
        object_len: tail.object_len,
        header,
        frames: directory.frames.clone(),
    };
    Ok((record, directory))
}

struct Segment {
    head: SegmentHead,
    packs: Vec<PackRecord>,
    rows: Vec<IndexRow>,
}

async fn read_segment(store: &Store, key: ObjectKey, job: &JobContext) -> (ObjectKey, Result<Segment>) {
    let read = async {
        let digest = keys::digest_of(&key)?;
        let bytes = store.get_whole(&key, limits::OBJECT_BYTES_MAX, job).await?;
        decode_segment(store, &digest, &bytes).map_err(|e| not_ours(e).with_object(&key))
    };
    let segment = read.await;
    (key, segment)
}

fn decode_segment(store: &Store, digest: &[u8; 32], bytes: &[u8]) -> Result<Segment> {
    use sha2::{Digest, Sha256};
    if <[u8; 32]>::from(Sha256::digest(bytes)) != *digest {
        return Err(Error::corruption("its bytes are not those that it is named by"));
    }
    let opener = ObjectOpener::new(&*store.protection, &store.transforms, ObjectType::Index, bytes)?;
    let directory = opener.open_directory(bytes, bytes.len() as u64)?;
    let mut scratch = Scratch::default();
    let mut plain = Vec::new();
    let mut frames = directory.iter(opener.header_len() as u64);
    let mut next = |plain: &mut Vec<u8>| -> Result<bool> {
        plain.clear();
        let Some(frame) = frames.next() else { return Ok(false) };
        let start = usize::try_from(frame.offset).unwrap_or(usize::MAX);
        let stored = bytes
            .get(start..start.saturating_add(frame.record.stored_len as usize))
            .ok_or_else(|| Error::corruption("a frame is cut short"))?;
        opener.open_frame(frame.ordinal, &frame.record, stored, &mut scratch, plain)?;
        Ok(true)
    };
    if !next(&mut plain)? {
        return Err(Error::corruption("a segment has no head"));
    }
    let head = SegmentHead::decode(&plain)?;
    let mut packs = Vec::new();
    for _ in 0..head.pack_frames {
        if !next(&mut plain)? {
            return Err(Error::corruption("a segment lacks frames that its head names"));
        }
        packs.extend(PackRecord::decode_all(&plain)?);
    }
    let mut rows = Vec::new();
    while next(&mut plain)? {
        decode_rows(&plain, &mut rows)?;
    }
    Ok(Segment { head, packs, rows })
}
