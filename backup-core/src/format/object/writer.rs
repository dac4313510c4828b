//! Sealing frames into one object.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::UNSIGNED;
use super::header::ObjectHeader;
use super::sealing::{DirectoryTail, Holds, Scratch, Sealing, len_u32};
use super::trailer::Trailer;
use crate::format::directory::{ChunkRecord, Directory, FrameRecord};
use crate::limits;
use crate::protection::Protection;
use crate::transform::{ObjectType, Transform};
use crate::{Error, ErrorKind, Result};

/// A finished object, ready to be put.
#[derive(Debug, Clone)]
pub struct SealedObject {
    /// All its bytes.
    pub bytes: Bytes,
    /// SHA-256 of them: the name of packs and index segments.
    pub digest: [u8; 32],
    /// Its header as stored.
    pub header: Vec<u8>,
    /// What it holds.
    pub directory: Directory,
}

/// Seals frames into one object. One worker owns a writer from salt to finish; after an error it must be dropped.
#[derive(Debug)]
pub struct ObjectWriter {
    header: Vec<u8>,
    sealing: Sealing,
    buffer: Vec<u8>,
    hash: Sha256,
    directory: Directory,
    scratch: Scratch,
    broken: bool,
}

impl ObjectWriter {
    /// Starts an object. `salt` must be fresh; `transforms` come before the seal; `buffer` is cleared and reused.
    pub fn new(
        protection: &dyn Protection,
        object_type: ObjectType,
        transforms: &[Arc<dyn Transform>],
        salt: [u8; 32],
        mut buffer: Vec<u8>,
    ) -> Result<Self> {
        let object = protection.seal(object_type, salt)?;
        let mut chain: Vec<_> = transforms.iter().map(|transform| transform.name().to_owned()).collect();
        chain.push(object.seal.name().to_owned());
        let repository = protection.repository();
        let header = ObjectHeader { object_type, repository, protection: object.header, chain }.encode()?;
        let sealing = Sealing {
            repository,
            object_type,
            salt,
            header_hash: Sha256::digest(&header).into(),
            transforms: transforms.to_vec(),
            seal: object.seal,
        };
        buffer.clear();
        buffer.extend_from_slice(&header);
        let mut hash = Sha256::new();
        hash.update(&header);
        Ok(Self {
            header,
            sealing,
            buffer,
            hash,
            directory: Directory::default(),
            scratch: Scratch::default(),
            broken: false,
        })
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no frame was added yet.
    pub fn is_empty(&self) -> bool {
        self.directory.frames.is_empty()
    }

    /// Whether another frame with `chunks` chunks fits the format's limits.
    pub fn has_room(&self, chunks: usize) -> bool {
        self.directory.frames.len() < limits::PACK_FRAMES_MAX
            && self.directory.chunks.len().saturating_add(chunks) <= limits::PACK_CHUNKS_MAX
    }

    /// Transforms, seals and appends a frame; returns its ordinal.
    pub fn push_frame(&mut self, plain: &[u8], chunks: &[ChunkRecord]) -> Result<u32> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let pushed = self.push_frame_checked(plain, chunks, &mut scratch, None);
        self.scratch = scratch;
        pushed
    }

    /// [`push_frame`](Self::push_frame) with the memory of the caller, who has it from object to object, that decodes what it
    /// encoded, step by step, into the buffer `check`. A step that does not give back its input is [`ErrorKind::Internal`] and
    /// names its transform.
    pub fn push_frame_checked(
        &mut self,
        plain: &[u8],
        chunks: &[ChunkRecord],
        scratch: &mut Scratch,
        check: Option<&mut Vec<u8>>,
    ) -> Result<u32> {
        if self.broken || !self.has_room(chunks.len()) || plain.len() > limits::FRAME_PLAIN_BYTES_MAX {
            return Err(Error::internal("a frame was pushed that the object cannot take"));
        }
        // An error leaves an ordinal used or not: nobody may go on with this salt.
        self.broken = true;
        let ordinal =
            u32::try_from(self.directory.frames.len()).map_err(|_| Error::internal("too many frames"))?;
        let start = self.buffer.len();
        let mask = self.sealing.seal_frame(
            ordinal,
            plain,
            Holds::Chunks(chunks.len()),
            scratch,
            &mut self.buffer,
            check,
        )?;
        let stored = self.buffer.get(start..).unwrap_or_default();
        self.hash.update(stored);
        let frame =
            FrameRecord { stored_len: len_u32(stored.len())?, plain_len: len_u32(plain.len())?, mask };
        self.directory.push(frame, chunks);
        self.broken = false;
        Ok(ordinal)
    }

    /// Seals the directory and closes the object.
    pub fn finish(self) -> Result<SealedObject> {
        self.finish_checked(None)
    }

    /// [`finish`](Self::finish) that decodes the directory as [`push_frame_checked`](Self::push_frame_checked) does frames.
    pub fn finish_checked(mut self, check: Option<&mut Vec<u8>>) -> Result<SealedObject> {
        if self.broken {
            return Err(Error::internal("an object was finished after an error"));
        }
        let start = self.buffer.len();
        let ordinal = len_u32(self.directory.frames.len())?;
        let plain = self.directory.encode();
        let tail = DirectoryTail { frames: ordinal, signature_len: UNSIGNED.len() as u16 };
        let mask = self.sealing.seal_frame(
            ordinal,
            &plain,
            Holds::Directory(tail),
            &mut self.scratch,
            &mut self.buffer,
            check,
        )?;
        let stored_len = self.buffer.len().saturating_sub(start);
        let trailer = Trailer {
            directory_stored_len: len_u32(stored_len)?,
            directory_plain_len: len_u32(plain.len())?,
            directory_mask: mask,
            frames: ordinal,
            signature_len: tail.signature_len,
        };
        self.buffer.extend_from_slice(&UNSIGNED);
        self.buffer.extend_from_slice(&trailer.encode());
        if self.buffer.len() > limits::OBJECT_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "an object would exceed the largest allowed length",
            ));
        }
        self.hash.update(self.buffer.get(start..).unwrap_or_default());
        let digest = self.hash.finalize().into();
        Ok(SealedObject { bytes: self.buffer.into(), digest, header: self.header, directory: self.directory })
    }
}
