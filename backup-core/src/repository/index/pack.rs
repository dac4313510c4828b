//! A pack that the index knows.

use std::sync::OnceLock;

use crate::format::object::{ObjectOpener, Scratch};
use crate::format::segment::PackRecord;
use crate::repository::keys;
use crate::repository::store::Store;
use crate::{Error, ObjectKey, Result};

/// What single frames of a pack are read with.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) record: PackRecord,
    pub(crate) key: ObjectKey,
    /// Where each frame starts.
    offsets: Vec<u64>,
    opener: OnceLock<ObjectOpener>,
}

impl Pack {
    pub(super) fn new(record: PackRecord) -> Result<Self> {
        let key = keys::pack(record.object_type, &record.digest)?;
        let mut offset = record.header.len() as u64;
        let mut offsets = Vec::with_capacity(record.frames.len());
        for frame in &record.frames {
            offsets.push(offset);
            offset = offset.saturating_add(u64::from(frame.stored_len));
        }
        Ok(Self { record, key, offsets, opener: OnceLock::new() })
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

    /// Bytes held, about: the structure, its opener, its header, 20 bytes a frame.
    pub(super) fn bytes(record: &PackRecord) -> usize {
        let frames = record.frames.len().saturating_mul(20);
        768_usize.saturating_add(record.header.len()).saturating_add(frames)
    }
}
