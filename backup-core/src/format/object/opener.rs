//! Opening the frames of an object.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::UNSIGNED;
use super::header::ObjectHeader;
use super::sealing::{DirectoryTail, Scratch, Sealing};
use super::trailer::Trailer;
use crate::format::directory::{Directory, FrameRecord};
use crate::limits;
use crate::protection::Protection;
use crate::transform::{ObjectType, TransformSet};
use crate::{Error, Result};

/// Opens the frames of one object whose header is known. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ObjectOpener {
    sealing: Arc<Sealing>,
    header_len: usize,
}

impl ObjectOpener {
    /// What opens the object that starts with `header` (further bytes may follow), which must be of `object_type` and
    /// belong to the repository of `protection`.
    pub fn new(
        protection: &dyn Protection,
        transforms: &TransformSet,
        object_type: ObjectType,
        header: &[u8],
    ) -> Result<Self> {
        let (parsed, header_len) = ObjectHeader::decode(header)?;
        if parsed.repository != protection.repository() {
            return Err(Error::corruption(format!("belongs to another repository ({})", parsed.repository)));
        }
        if parsed.object_type != object_type {
            return Err(Error::corruption("is an object of another type than its place says"));
        }
        let (seal_name, names) =
            parsed.chain.split_last().ok_or_else(|| Error::corruption("the header names no seal"))?;
        if seal_name != protection.seal_name() {
            return Err(Error::corruption(format!(
                "is sealed by `{seal_name}`, not by `{}`",
                protection.seal_name()
            )));
        }
        let seal = protection.open(object_type, &parsed.protection)?;
        let transforms = names.iter().map(|name| transforms.get(name).cloned()).collect::<Result<_>>()?;
        let header_hash = Sha256::digest(header.get(..header_len).unwrap_or_default()).into();
        let sealing = Sealing {
            repository: parsed.repository,
            object_type,
            salt: parsed.protection.salt,
            header_hash,
            transforms,
            seal,
        };
        Ok(Self { sealing: Arc::new(sealing), header_len })
    }

    /// Bytes of the header: where the first frame starts.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Appends the plaintext of a frame to `output`.
    pub fn open_frame(
        &self,
        ordinal: u32,
        record: &FrameRecord,
        stored: &[u8],
        scratch: &mut Scratch,
        output: &mut Vec<u8>,
    ) -> Result<()> {
        if stored.len() as u64 != u64::from(record.stored_len) {
            return Err(Error::corruption("a frame is cut short"));
        }
        self.sealing.open_frame(ordinal, record.plain_len, record.mask, stored, None, scratch, output)
    }

    /// The directory, from the last bytes of an object of `object_len` bytes; `tail` must hold at least
    /// [`Trailer::tail_len`] bytes.
    pub fn open_directory(&self, tail: &[u8], object_len: u64) -> Result<Directory> {
        let trailer = Trailer::decode(tail)?;
        let short = || Error::corruption("the directory is cut short");
        let tail_len = usize::try_from(trailer.tail_len()).map_err(|_| short())?;
        let start = tail.len().checked_sub(tail_len).ok_or_else(short)?;
        let stored_len = trailer.directory_stored_len as usize;
        if stored_len > limits::OBJECT_BYTES_MAX
            || trailer.directory_plain_len as usize > limits::OBJECT_BYTES_MAX
        {
            return Err(Error::corruption("the directory claims to exceed the limits"));
        }
        let rest = tail.get(start..).ok_or_else(short)?;
        let (stored, rest) = rest.split_at_checked(stored_len).ok_or_else(short)?;
        if rest.get(..UNSIGNED.len()) != Some(&UNSIGNED) {
            return Err(Error::corruption("the signature block is damaged"));
        }
        let mut plain = Vec::new();
        let position = DirectoryTail { frames: trailer.frames, signature_len: trailer.signature_len };
        self.sealing.open_frame(
            trailer.frames,
            trailer.directory_plain_len,
            trailer.directory_mask,
            stored,
            Some(position),
            &mut Scratch::default(),
            &mut plain,
        )?;
        let directory = Directory::decode(&plain)?;
        let frames: u64 = directory.frames.iter().map(|frame| u64::from(frame.stored_len)).sum();
        let expected = (self.header_len as u64).saturating_add(frames).saturating_add(trailer.tail_len());
        if expected != object_len || directory.frames.len() as u64 != u64::from(trailer.frames) {
            return Err(Error::corruption("the directory does not fit the object's length"));
        }
        Ok(directory)
    }
}
