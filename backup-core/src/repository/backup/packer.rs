//! From chunks to packs: frames are filled, transformed, sealed and collected; full packs are handed to the uploader.
//!
//! Each worker owns a packer for content, and the run has one for pages. A frame of content is full at
//! [`limits::FRAME_TARGET_BYTES`], or where it holds small files at [`limits::SMALL_FILES_FRAME_TARGET_BYTES`]; a pack is at
//! [`limits::PACK_TARGET_BYTES`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::format::directory::ChunkRecord;
use crate::format::object::{ObjectWriter, Scratch, SealedObject};
use crate::format::page::PageRef;
use crate::limits;
use crate::repository::tree::PageSink;
use crate::transform::{ObjectType, is_long_content};
use crate::{ChunkId, DataKind, Error, Result, ShortId};

use super::shared::Shared;

/// Plaintext after which a frame of pages is closed: small, so that reading one page reads little else.
const PAGE_FRAME_BYTES: usize = 512 * 1024;

// A frame that is not full yet has room for any chunk.
const _: () = assert!(
    limits::SMALL_FILES_FRAME_TARGET_BYTES + limits::CHUNK_BYTES_MAX <= limits::FRAME_PLAIN_BYTES_MAX
);

/// A pack that is ready to be put.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    pub(crate) object_type: ObjectType,
    pub(crate) sealed: SealedObject,
}

/// When a frame is full.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FrameTarget {
    /// By what it holds.
    Content,
    /// At so many bytes.
    Bytes(usize),
}

impl FrameTarget {
    fn most(self) -> usize {
        match self {
            Self::Content => limits::SMALL_FILES_FRAME_TARGET_BYTES,
            Self::Bytes(bytes) => bytes,
        }
    }

    fn is_reached(self, bytes: usize, chunks: usize) -> bool {
        match self {
            Self::Content if is_long_content(bytes, chunks) && bytes >= limits::FRAME_TARGET_BYTES => true,
            _ => bytes >= self.most(),
        }
    }
}

/// Collects new chunks into frames and packs.
#[derive(Debug)]
pub(crate) struct Packer {
    shared: Arc<Shared>,
    object_type: ObjectType,
    target: FrameTarget,
    frame: Vec<u8>,
    /// What the next chunks are of.
    kind: DataKind,
    /// Bytes in the frame by kinds of data.
    kinds: [u64; DataKind::ALL.len()],
    /// What frames are decoded into before they count as stored; kept from frame to frame.
    decoded: Vec<u8>,
    /// What transforms write into; kept from pack to pack.
    scratch: Scratch,
    chunks: Vec<ChunkRecord>,
    pack: Option<ObjectWriter>,
    packs: async_channel::Sender<FinishedPack>,
}

impl Packer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        object_type: ObjectType,
        target: FrameTarget,
        packs: async_channel::Sender<FinishedPack>,
    ) -> Self {
        Self {
            shared,
            object_type,
            target,
            frame: Vec::new(),
            kind: DataKind::Other,
            kinds: [0; DataKind::ALL.len()],
            decoded: Vec::new(),
            scratch: Scratch::default(),
            chunks: Vec::new(),
            pack: None,
            packs,
        }
    }

    /// Says what the next chunks are of.
    pub(crate) fn set_kind(&mut self, kind: DataKind) {
        self.kind = kind;
    }

    /// Identifies a chunk and stores it unless it is known. Returns its identity and whether it was new.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(ChunkId, bool)> {
        let id = {
            let _processor = self.shared.job.resources().processor();
            self.shared.store.protection.chunk_id(bytes)
        };
        let len = u32::try_from(bytes.len()).map_err(|_| Error::internal("a chunk exceeds 32 bits"))?;
        if !self.shared.known.claim(id.short(), len)? {
            return Ok((id, false));
        }
        if !self.shared.dry_run {
            self.push(id.short(), len, bytes)?;
        }
        Ok((id, true))
    }

    /// Stores a chunk under its identity unless it is known; false if it is not what that says, and so is not stored.
    pub(crate) fn add_again(&mut self, id: ShortId, bytes: &[u8]) -> Result<bool> {
        let is_right = {
            let _processor = self.shared.job.resources().processor();
            self.shared.store.protection.chunk_id(bytes).short() == id
        };
        let len = u32::try_from(bytes.len()).map_err(|_| Error::internal("a chunk exceeds 32 bits"))?;
        if is_right && self.shared.known.claim(id, len)? {
            self.push(id, len, bytes)?;
        }
        Ok(is_right)
    }

    fn push(&mut self, id: ShortId, len: u32, bytes: &[u8]) -> Result<()> {
        if self.frame.capacity() == 0 {
            // Not more and more, each time with a copy: what is not written to costs no memory.
            self.frame.reserve(self.target.most().saturating_add(limits::MIB));
        }
        self.frame.extend_from_slice(bytes);
        if let Some(of_kind) = self.kinds.get_mut(self.kind.place()) {
            *of_kind = of_kind.saturating_add(len.into());
        }
        self.chunks.push(ChunkRecord { id, len });
        if self.target.is_reached(self.frame.len(), self.chunks.len()) { self.flush_frame() } else { Ok(()) }
    }

    /// Seals what the frame holds.
    pub(crate) fn flush_frame(&mut self) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        if self.pack.as_ref().is_some_and(|pack| !pack.has_room(self.chunks.len())) {
            self.flush_pack()?;
        }
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None => {
                let mut salt = [0; 32];
                self.shared.job.random().fill(&mut salt)?;
                let buffer = self.shared.buffers.take();
                let protection = &*self.shared.store.protection;
                ObjectWriter::new(protection, self.object_type, &self.shared.transforms, salt, buffer)?
            }
        };
        // An error drops the pack and its salt with it.
        {
            let _processor = self.shared.job.resources().processor();
            let check = self.shared.verify_encoding.then_some(&mut self.decoded);
            let before = pack.len();
            pack.push_frame_checked(&self.frame, &self.chunks, &mut self.scratch, check)?;
            if self.object_type == ObjectType::Data {
                let counters = &self.shared.counters;
                let stored = pack.len().saturating_sub(before);
                counters.frames_plain.fetch_add(self.frame.len() as u64, Ordering::Relaxed);
                counters.frames_stored.fetch_add(stored as u64, Ordering::Relaxed);
                self.count_kinds(stored as u64);
            }
        }
        self.kinds.fill(0);
        self.frame.clear();
        self.chunks.clear();
        let full = pack.len() >= limits::PACK_TARGET_BYTES;
        self.pack = Some(pack);
        if full { self.flush_pack() } else { Ok(()) }
    }

    // What is compressed as one took what it took together: each kind's share is that of its bytes.
    fn count_kinds(&self, stored: u64) {
        let all = u128::from(self.frame.len() as u64).max(1);
        for (kind, bytes) in DataKind::ALL.into_iter().zip(self.kinds).filter(|(_, bytes)| *bytes > 0) {
            let share = u128::from(stored).saturating_mul(bytes.into()) / all;
            let counters = self.shared.counters.kind(kind);
            counters.bytes_new.fetch_add(bytes, Ordering::Relaxed);
            counters.bytes_stored.fetch_add(u64::try_from(share).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    fn flush_pack(&mut self) -> Result<()> {
        let Some(pack) = self.pack.take() else { return Ok(()) };
        let check = self.shared.verify_encoding.then_some(&mut self.decoded);
        let finished = FinishedPack { object_type: self.object_type, sealed: pack.finish_checked(check)? };
        self.shared.check()?;
        // Waits while the uploader has its hands full: that is what bounds memory.
        self.packs.send_blocking(finished).map_err(|_| Error::cancelled())
    }

    /// Seals and hands over everything.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush_frame()?;
        self.flush_pack()
    }
}

/// The packer of a run's pages, shared by the assembler and by workers that write long chunk lists.
#[derive(Debug, Clone)]
pub(crate) struct SharedPages(Arc<Mutex<Option<Packer>>>);

impl SharedPages {
    pub(crate) fn new(shared: Arc<Shared>, packs: async_channel::Sender<FinishedPack>) -> Self {
        let packer = Packer::new(shared, ObjectType::Meta, FrameTarget::Bytes(PAGE_FRAME_BYTES), packs);
        Self(Arc::new(Mutex::new(Some(packer))))
    }

    /// Stores a page again; see [`Packer::add_again`].
    pub(crate) fn add_again(&self, id: ShortId, bytes: &[u8]) -> Result<bool> {
        let mut packer = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let packer = packer.as_mut().ok_or_else(|| Error::internal("a page was written after the last"))?;
        packer.add_again(id, bytes)
    }

    /// Seals and hands over what it holds; nothing can be added afterwards.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            Some(packer) => packer.finish(),
            None => Ok(()),
        }
    }
}

impl PageSink for SharedPages {
    fn put_page(&mut self, page: &[u8]) -> Result<PageRef> {
        let mut packer = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        packer.as_mut().ok_or_else(|| Error::internal("a page was written after the last"))?.put_page(page)
    }
}

impl PageSink for Packer {
    fn put_page(&mut self, page: &[u8]) -> Result<PageRef> {
        let (id, _) = self.add(page)?;
        let len = u32::try_from(page.len()).map_err(|_| Error::internal("a page exceeds 32 bits"))?;
        Ok(PageRef { id, len })
    }
}
