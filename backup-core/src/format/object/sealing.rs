//! The chain of an object's transforms, applied to a frame and undone.

use std::sync::Arc;

use super::check::check_step;
use crate::protection::RepositoryId;
use crate::transform::{Encoded, FrameContext, ObjectType, Transform};
use crate::{Error, ErrorKind, Result};

/// Intermediate results of a chain, kept so that their memory is reused. It lives as long as its worker.
#[derive(Debug, Default)]
pub struct Scratch {
    front: Vec<u8>,
    back: Vec<u8>,
}

/// What the seal of a directory binds beside what that of a frame does.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirectoryTail {
    pub(super) frames: u32,
    pub(super) signature_len: u16,
}

/// What a frame holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holds {
    /// So many chunks.
    Chunks(usize),
    /// The directory.
    Directory(DirectoryTail),
}

/// The chain of one object, with what is bound into every seal.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) repository: RepositoryId,
    pub(super) object_type: ObjectType,
    pub(super) salt: [u8; 32],
    pub(super) header_hash: [u8; 32],
    pub(super) transforms: Vec<Arc<dyn Transform>>,
    pub(super) seal: Arc<dyn Transform>,
}

impl Sealing {
    // The mask stands in the associated data, so it must be known before the seal: the seal comes last.
    fn associated_data(
        &self,
        ordinal: u32,
        plain_len: u32,
        mask: u8,
        directory: Option<DirectoryTail>,
    ) -> Vec<u8> {
        let mut data = Vec::with_capacity(48);
        data.extend_from_slice(&self.header_hash);
        data.extend_from_slice(&ordinal.to_le_bytes());
        data.extend_from_slice(&plain_len.to_le_bytes());
        data.push(mask);
        match directory {
            None => data.push(0),
            Some(tail) => {
                data.push(1);
                data.extend_from_slice(&tail.frames.to_le_bytes());
                data.extend_from_slice(&tail.signature_len.to_le_bytes());
            }
        }
        data
    }

    fn context<'a>(&'a self, ordinal: u32, plain_len: usize, associated_data: &'a [u8]) -> FrameContext<'a> {
        FrameContext {
            chunks: 0,
            repository: &self.repository.0,
            object_type: self.object_type,
            salt: &self.salt,
            ordinal,
            plain_len,
            associated_data,
        }
    }

    /// Appends the stored bytes of a frame; which transforms were applied. With `check` each step is undone and compared.
    pub(super) fn seal_frame(
        &self,
        ordinal: u32,
        plain: &[u8],
        holds: Holds,
        scratch: &mut Scratch,
        output: &mut Vec<u8>,
        mut check: Option<&mut Vec<u8>>,
    ) -> Result<u8> {
        let plain_len = len_u32(plain.len())?;
        let (chunks, directory) = match holds {
            Holds::Chunks(chunks) => (chunks, None),
            Holds::Directory(tail) => (0, Some(tail)),
        };
        let mut mask = 0_u8;
        let mut applied = false;
        for (bit, transform) in self.transforms.iter().enumerate() {
            scratch.back.clear();
            let input = if applied { &scratch.front[..] } else { plain };
            let frame = FrameContext { chunks, ..self.context(ordinal, plain.len(), &self.header_hash) };
            if transform.encode(&frame, input, &mut scratch.back)? == Encoded::Applied {
                if let Some(check) = &mut check {
                    check_step(&**transform, &frame, input, &scratch.back, check)?;
                }
                std::mem::swap(&mut scratch.front, &mut scratch.back);
                mask |= 1_u8.checked_shl(bit as u32).unwrap_or(0);
                applied = true;
            }
        }
        let input = if applied { &scratch.front[..] } else { plain };
        let data = self.associated_data(ordinal, plain_len, mask, directory);
        let frame = self.context(ordinal, plain.len(), &data);
        let start = output.len();
        if self.seal.encode(&frame, input, output)? == Encoded::Skipped {
            return Err(Error::internal("the seal refused to seal"));
        }
        if let Some(check) = check {
            check_step(&*self.seal, &frame, input, output.get(start..).unwrap_or_default(), check)?;
        }
        Ok(mask)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site each; a struct would only rename them")]
    pub(super) fn open_frame(
        &self,
        ordinal: u32,
        plain_len: u32,
        mask: u8,
        stored: &[u8],
        directory: Option<DirectoryTail>,
        scratch: &mut Scratch,
        output: &mut Vec<u8>,
    ) -> Result<()> {
        let max = plain_len as usize;
        let known = 1_u32.checked_shl(self.transforms.len() as u32).unwrap_or(u32::MAX);
        if u32::from(mask) >= known {
            return Err(Error::corruption("a frame claims a transform that its object does not name"));
        }
        let start = output.len();
        let data = self.associated_data(ordinal, plain_len, mask, directory);
        if mask == 0 {
            self.seal.decode(&self.context(ordinal, max, &data), stored, output, max)?;
        } else {
            scratch.front.clear();
            self.seal.decode(&self.context(ordinal, max, &data), stored, &mut scratch.front, stored.len())?;
            let frame = self.context(ordinal, max, &self.header_hash);
            let mut left = mask;
            for (bit, transform) in self.transforms.iter().enumerate().rev() {
                let flag = 1_u8.checked_shl(bit as u32).unwrap_or(0);
                if left & flag == 0 {
                    continue;
                }
                left &= !flag;
                if left == 0 {
                    transform.decode(&frame, &scratch.front, output, max)?;
                } else {
                    scratch.back.clear();
                    let room = max.saturating_mul(2).saturating_add(64 * 1024);
                    transform.decode(&frame, &scratch.front, &mut scratch.back, room)?;
                    std::mem::swap(&mut scratch.front, &mut scratch.back);
                }
            }
        }
        if output.len().saturating_sub(start) == max {
            Ok(())
        } else {
            output.truncate(start);
            Err(Error::corruption("a frame is not as long as it claims"))
        }
    }
}

pub(super) fn len_u32(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::new(ErrorKind::LimitExceeded, "a length exceeds 32 bits"))
}
