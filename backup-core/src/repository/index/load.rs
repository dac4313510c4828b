//! Loading an index from its segments, one after the other.
//!
//! What replaces what must be known before rows are taken over, and stands in the segments' heads. Asking for all heads
//! first would cost two requests more for each segment, and replaced segments are rare: whoever merges segments deletes
//! what they replace soon afterwards. So everything is read in one pass, new segments before old ones, and only if some
//! segment turns out to be replaced after its rows were taken over, there is another pass. The stores' times only make
//! that improbable; nothing else depends on them.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use super::build::IndexBuilder;
use super::{Index, is_damage, not_ours};
use crate::format::object::{ObjectOpener, Scratch};
use crate::format::segment::{IndexRow, PackRecord, SEGMENT_PACKS_MAX, SegmentHead, decode_rows};
use crate::repository::keys;
use crate::repository::lane::Lane;
use crate::repository::store::Store;
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectMeta, Result, SinkExt, SnapshotId, limits};

/// Bytes of segments fetched ahead, unless one segment has more.
const AHEAD_BYTES_MAX: u64 = 32 * limits::MIB as u64;

/// Of which segments an index is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Those of committed sessions: what a collection may rely upon.
    Committed,
}

/// How often segments are listed anew because a merge deleted some between their listing and their reading.
pub(crate) const LISTINGS_MAX: usize = 4;

impl Index {
    /// Reads every segment. A damaged segment is set aside: what it says the packs say, too.
    pub(crate) async fn load(
        store: &Store,
        committed: &HashSet<SnapshotId>,
        job: &JobContext,
    ) -> Result<Self> {
        let mut listings = 1;
        loop {
            let listed = store.sink.list_all(keys::INDEX).await?;
            let index = Self::load_listed(store, listed, committed, Which::All, job).await?;
            if listings >= LISTINGS_MAX || !index.was_merged(store).await? {
                return Ok(index);
            }
            listings = listings.saturating_add(1);
        }
    }

    /// Whether a segment could not be read because it is not there any longer: others say what it said.
    pub(crate) async fn was_merged(&self, store: &Store) -> Result<bool> {
        if self.unreadable.is_empty() {
            return Ok(false);
        }
        let listed = store.sink.list_all(keys::INDEX).await?;
        Ok(self.unreadable.iter().any(|(key, _)| listed.iter().all(|meta| meta.key != *key)))
    }

    /// The same of the segments that were listed.
    pub(crate) async fn load_listed(
        store: &Store,
        mut listed: Vec<ObjectMeta>,
        committed: &HashSet<SnapshotId>,
        which: Which,
        job: &JobContext,
    ) -> Result<Self> {
        listed.sort_by_key(|meta| Reverse(meta.created));
        let committed = Arc::new(committed.clone());
        let lane = Lane::start()?;
        let mut superseded = HashSet::new();
        loop {
            let superseded_so_far = Arc::new(superseded);
            let pass =
                Pass { store, lane: &lane, committed: &committed, superseded: superseded_so_far, which, job };
            let known = pass.superseded.clone();
            let Loaded { builder, replaced, merged } = pass.run(listed.clone()).await?;
            if merged.is_disjoint(&replaced) {
                return lane.run(move || builder.finish()).await;
            }
            // It grows with each pass, and all of it are segments that were listed.
            superseded = known.union(&replaced).copied().collect();
        }
    }
}

struct Pass<'a> {
    store: &'a Store,
    lane: &'a Lane,
    committed: &'a Arc<HashSet<SnapshotId>>,
    superseded: Arc<HashSet<[u8; 32]>>,
    which: Which,
    job: &'a JobContext,
}

struct Loaded {
    builder: IndexBuilder,
    /// What committed segments replace.
    replaced: HashSet<[u8; 32]>,
    /// Segments whose rows are in the builder.
    merged: HashSet<[u8; 32]>,
}

impl Pass<'_> {
    async fn run(self, listed: Vec<ObjectMeta>) -> Result<Loaded> {
        let mut builder = IndexBuilder::new(self.job.resources());
        let mut replaced: HashSet<[u8; 32]> = (*self.superseded).clone();
        let mut merged = HashSet::new();
        let mut waiting = listed.into_iter().peekable();
        let mut ahead = FuturesOrdered::new();
        let mut ahead_bytes = 0_u64;
        loop {
            while let Some(meta) = waiting.next_if(|meta| {
                let fits = ahead_bytes.saturating_add(meta.len) <= AHEAD_BYTES_MAX;
                ahead.is_empty() || (fits && ahead.len() < self.job.resources().requests())
            }) {
                ahead_bytes = ahead_bytes.saturating_add(meta.len);
                ahead.push_back(fetch(self.store, meta, self.job));
            }
            let Some((meta, fetched)) = ahead.next().await else { break };
            ahead_bytes = ahead_bytes.saturating_sub(meta.len);
            let opened = match fetched {
                Ok((digest, bytes)) => {
                    let (store, key) = (self.store.clone(), meta.key.clone());
                    let open = move || {
                        Ok(Segment::open(&store, digest, &bytes).map_err(|e| not_ours(e).with_object(&key)))
                    };
                    self.lane.run(open).await?
                }
                Err(error) => Err(error),
            };
            let segment = match opened {
                Ok(segment) => segment,
                Err(error) if !is_damage(&error) => return Err(error),
                Err(error) => {
                    builder.unreadable_mut().push((meta.key, error.to_string()));
                    continue;
                }
            };
            builder.segments_mut().insert(meta.key);
            // Only what a committed session says can replace what others said.
            let committed = self.committed.contains(&segment.head.session);
            if committed {
                replaced.extend(&segment.head.supersedes);
            }
            let counts = committed || self.which == Which::All;
            if counts && !replaced.contains(&segment.digest) {
                merged.insert(segment.digest);
                let add = move || segment.add_to(&mut builder, committed).map(|()| builder);
                builder = self.lane.run(add).await?;
            }
        }
        Ok(Loaded { builder, replaced, merged })
    }
}

async fn fetch(store: &Store, meta: ObjectMeta, job: &JobContext) -> (ObjectMeta, Result<([u8; 32], Bytes)>) {
    let read = async {
        let digest = keys::digest_of(&meta.key)?;
        Ok((digest, store.get_whole(&meta.key, limits::OBJECT_BYTES_MAX, job).await?))
    };
    let read = read.await;
    (meta, read)
}

/// A segment whose frames are open and were found to be whole.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) digest: [u8; 32],
    pub(crate) head: SegmentHead,
    /// The frames of packs, then those of rows, one after the other.
    plain: Vec<u8>,
    pack_frames: Vec<usize>,
    row_frames: Vec<usize>,
}

impl Segment {
    /// The segment of this name, of which `bytes` is the whole object.
    pub(crate) fn open(store: &Store, digest: [u8; 32], bytes: &[u8]) -> Result<Self> {
        use sha2::{Digest, Sha256};
        if <[u8; 32]>::from(Sha256::digest(bytes)) != digest {
            return Err(Error::corruption("its bytes are not those that it is named by"));
        }
        let opener = ObjectOpener::new(&*store.protection, &store.transforms, ObjectType::Index, bytes)?;
        let directory = opener.open_directory(bytes, bytes.len() as u64)?;
        let total: u64 = directory.frames.iter().map(|frame| u64::from(frame.plain_len)).sum();
        if total > limits::SEGMENT_BYTES_MAX as u64 {
            let message = format!(
                "a segment holds {total} bytes, more than the {} that are allowed",
                limits::SEGMENT_BYTES_MAX
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let mut scratch = Scratch::default();
        let mut plain = Vec::new();
        let mut lens = Vec::with_capacity(directory.frames.len());
        for frame in directory.iter(opener.header_len() as u64) {
            let start = usize::try_from(frame.offset).unwrap_or(usize::MAX);
            let stored = bytes
                .get(start..start.saturating_add(frame.record.stored_len as usize))
                .ok_or_else(|| Error::corruption("a frame is cut short"))?;
            opener.open_frame(frame.ordinal, &frame.record, stored, &mut scratch, &mut plain)?;
            lens.push(frame.record.plain_len as usize);
        }
        let mut lens = lens.into_iter();
        let head_len = lens.next().ok_or_else(|| Error::corruption("a segment has no head"))?;
        let head = SegmentHead::decode(plain.get(..head_len).unwrap_or_default())?;
        plain.drain(..head_len);
        let pack_frames: Vec<usize> = lens.by_ref().take(head.pack_frames as usize).collect();
        if pack_frames.len() < head.pack_frames as usize {
            return Err(Error::corruption("a segment lacks frames that its head names"));
        }
        let segment = Self { digest, head, plain, pack_frames, row_frames: lens.collect() };
        // All of it is looked at before any of it counts: half a segment would hide what the other half says.
        let mut packs = 0_usize;
        segment.each_pack(|_| {
            packs = packs.saturating_add(1);
            if packs > SEGMENT_PACKS_MAX {
                return Err(Error::new(ErrorKind::LimitExceeded, "a segment names too many packs"));
            }
            Ok(())
        })?;
        segment.each_row(|_| Ok(()))?;
        Ok(segment)
    }

    fn add_to(self, builder: &mut IndexBuilder, committed: bool) -> Result<()> {
        let mut numbers = Vec::new();
        self.each_pack(|record| {
            numbers.push(builder.push_pack(record, committed, false)?);
            Ok(())
        })?;
        self.each_row(|mut row| match numbers.get(row.pack as usize) {
            Some(number) => {
                row.pack = *number;
                builder.push_row(row)
            }
            // A row that names no pack of its segment serves nobody.
            None => Ok(()),
        })
    }

    /// Gives its packs in the order of their numbers.
    pub(crate) fn each_pack(&self, mut take: impl FnMut(PackRecord) -> Result<()>) -> Result<()> {
        frames(&self.plain, 0, &self.pack_frames)
            .try_for_each(|frame| PackRecord::decode_each(frame, &mut take))
    }

    /// Gives its rows in order.
    pub(crate) fn each_row(&self, mut take: impl FnMut(IndexRow) -> Result<()>) -> Result<()> {
        let mut rows = Vec::with_capacity(limits::SEGMENT_PAGE_ROWS);
        let start = self.pack_frames.iter().sum();
        for frame in frames(&self.plain, start, &self.row_frames) {
            rows.clear();
            decode_rows(frame, &mut rows)?;
            rows.iter().try_for_each(|row| take(*row))?;
        }
        Ok(())
    }
}

fn frames<'a>(plain: &'a [u8], mut start: usize, lens: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    lens.iter().map(move |len| {
        let end = start.saturating_add(*len);
        let frame = plain.get(start..end).unwrap_or_default();
        start = end;
        frame
    })
}
