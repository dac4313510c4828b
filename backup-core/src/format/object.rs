//! The envelope of every object: header, frames, sealed directory, signature block, trailer.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::FORMAT_VERSION;
use super::check::check_step;
use super::codec::Cursor;
use super::directory::{ChunkRecord, Directory, FrameRecord};
use crate::limits;
use crate::protection::{Protection, ProtectionHeader, RepositoryId};
use crate::transform::{Encoded, FrameContext, ObjectType, Transform, TransformSet};
use crate::{Error, ErrorKind, Result};

/// The first bytes of every object.
pub const MAGIC: [u8; 8] = *b"\x89BKP\r\n\x1a\n";
/// The last bytes of every object.
pub const END_MAGIC: [u8; 4] = *b"BKPE";
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 19;
/// The signature block of an object that nobody signed: no writer, no signature.
pub const UNSIGNED: [u8; 3] = [0, 0, 0];
/// Longest header.
pub const HEADER_BYTES_MAX: usize = 4096;

/// What stands in clear at the front of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHeader {
    /// What the object is.
    pub object_type: ObjectType,
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// Its protection.
    pub protection: ProtectionHeader,
    /// The names of its transforms in the order of encoding; the last seals.
    pub chain: Vec<String>,
}

impl ObjectHeader {
    /// The header as bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&MAGIC);
        out.push(FORMAT_VERSION);
        out.push(self.object_type.number());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.protection.epoch.to_le_bytes());
        out.extend_from_slice(&self.repository.0);
        out.extend_from_slice(&self.protection.salt);
        out.extend_from_slice(&self.protection.commitment);
        let too_long = |_| Error::invalid_input("a header field is too long");
        let encapsulation = u16::try_from(self.protection.encapsulation.len()).map_err(too_long)?;
        out.extend_from_slice(&encapsulation.to_le_bytes());
        out.extend_from_slice(&self.protection.encapsulation);
        out.push(u8::try_from(self.chain.len()).map_err(too_long)?);
        for name in &self.chain {
            out.push(u8::try_from(name.len()).map_err(too_long)?);
            out.extend_from_slice(name.as_bytes());
        }
        if out.len() > HEADER_BYTES_MAX || self.chain.len() > limits::CHAIN_TRANSFORMS_MAX {
            return Err(Error::invalid_input("the chain of transforms is too long for a header"));
        }
        let len = u16::try_from(out.len()).map_err(too_long)?.to_le_bytes();
        if let Some(field) = out.get_mut(10..12) {
            field.copy_from_slice(&len);
        }
        Ok(out)
    }

    /// The header at the front of `bytes`, and its length.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize)> {
        let mut cursor = Cursor::new(bytes);
        if cursor.array()? != MAGIC {
            return Err(Error::corruption("it does not start like an object of a backup repository"));
        }
        let version = cursor.byte()?;
        if version != FORMAT_VERSION {
            let message = format!("has format version {version}; this build reads version {FORMAT_VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let object_type = ObjectType::from_number(cursor.byte()?)
            .ok_or_else(|| Error::corruption("the header names no known type of object"))?;
        let len = usize::from(cursor.u16()?);
        let epoch = cursor.u32()?;
        let repository = RepositoryId(cursor.array()?);
        let salt = cursor.array()?;
        let commitment = cursor.array()?;
        let encapsulation = usize::from(cursor.u16()?);
        let encapsulation = cursor.take(encapsulation)?.to_vec();
        let transforms = usize::from(cursor.byte()?);
        if transforms == 0 || transforms > limits::CHAIN_TRANSFORMS_MAX {
            return Err(Error::corruption("the header names an impossible number of transforms"));
        }
        let mut chain = Vec::with_capacity(transforms);
        for _ in 0..transforms {
            let name = usize::from(cursor.byte()?);
            let name = std::str::from_utf8(cursor.take(name)?)
                .map_err(|_| Error::corruption("the header names a transform that is not text"))?;
            chain.push(name.to_owned());
        }
        let read = bytes.len().saturating_sub(cursor.remaining());
        if read != len || len > HEADER_BYTES_MAX {
            return Err(Error::corruption("the header's length does not fit its content"));
        }
        let protection = ProtectionHeader { epoch, salt, commitment, encapsulation };
        Ok((Self { object_type, repository, protection, chain }, len))
    }
}

/// What stands at the very end of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Stored bytes of the directory.
    pub directory_stored_len: u32,
    /// Plain bytes of the directory.
    pub directory_plain_len: u32,
    /// The transforms applied to the directory.
    pub directory_mask: u8,
    /// How many frames precede the directory.
    pub frames: u32,
    /// Bytes of the signature block between directory and trailer.
    pub signature_len: u16,
}

impl Trailer {
    /// The trailer as bytes.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&self.directory_stored_len.to_le_bytes());
        out.extend_from_slice(&self.directory_plain_len.to_le_bytes());
        out.push(self.directory_mask);
        out.extend_from_slice(&self.frames.to_le_bytes());
        out.extend_from_slice(&self.signature_len.to_le_bytes());
        out.extend_from_slice(&END_MAGIC);
        let mut bytes = [0; TRAILER_BYTES];
        for (to, from) in bytes.iter_mut().zip(out) {
            *to = from;
        }
        bytes
    }

    /// The trailer in the last bytes of `tail`.
    pub fn decode(tail: &[u8]) -> Result<Self> {
        let bytes = tail
            .last_chunk::<TRAILER_BYTES>()
            .ok_or_else(|| Error::corruption("is too short for an object"))?;
        let mut cursor = Cursor::new(bytes);
        let trailer = Self {
            directory_stored_len: cursor.u32()?,
            directory_plain_len: cursor.u32()?,
            directory_mask: cursor.byte()?,
            frames: cursor.u32()?,
            signature_len: cursor.u16()?,
        };
        if cursor.array()? != END_MAGIC {
            return Err(Error::corruption(
                "does not end like an object of a backup repository; it may be cut short",
            ));
        }
        if trailer.signature_len as usize != UNSIGNED.len() {
            return Err(Error::new(ErrorKind::Unsupported, "is signed, which this build does not support"));
        }
        Ok(trailer)
    }

    /// How many bytes at the end of the object the directory, signature block and trailer take.
    pub fn tail_len(&self) -> u64 {
        u64::from(self.directory_stored_len)
            .saturating_add(u64::from(self.signature_len))
            .saturating_add(TRAILER_BYTES as u64)
    }
}

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
        self.push_frame_checked(plain, chunks, None)
    }

    /// [`push_frame`](Self::push_frame) that decodes what it encoded, step by step, into the buffer `check`. A step that
    /// does not give back its input is [`ErrorKind::Internal`] and names its transform.
    pub fn push_frame_checked(
        &mut self,
        plain: &[u8],
        chunks: &[ChunkRecord],
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
        let mask =
            self.sealing.seal_frame(ordinal, plain, None, &mut self.scratch, &mut self.buffer, check)?;
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
            Some(tail),
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

/// Intermediate results of a chain, kept so that their memory is reused. It lives as long as its worker.
#[derive(Debug, Default)]
pub struct Scratch {
    front: Vec<u8>,
    back: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct DirectoryTail {
    frames: u32,
    signature_len: u16,
}

#[derive(Debug)]
struct Sealing {
    repository: RepositoryId,
    object_type: ObjectType,
    salt: [u8; 32],
    header_hash: [u8; 32],
    transforms: Vec<Arc<dyn Transform>>,
    seal: Arc<dyn Transform>,
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
            repository: &self.repository.0,
            object_type: self.object_type,
            salt: &self.salt,
            ordinal,
            plain_len,
            associated_data,
        }
    }

    fn seal_frame(
        &self,
        ordinal: u32,
        plain: &[u8],
        directory: Option<DirectoryTail>,
        scratch: &mut Scratch,
        output: &mut Vec<u8>,
        mut check: Option<&mut Vec<u8>>,
    ) -> Result<u8> {
        let plain_len = len_u32(plain.len())?;
        let mut mask = 0_u8;
        let mut applied = false;
        for (bit, transform) in self.transforms.iter().enumerate() {
            scratch.back.clear();
            let input = if applied { &scratch.front[..] } else { plain };
            let frame = self.context(ordinal, plain.len(), &self.header_hash);
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
    fn open_frame(
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

fn len_u32(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::new(ErrorKind::LimitExceeded, "a length exceeds 32 bits"))
}
