//! What stands at the very end of an object.

use super::{END_MAGIC, TRAILER_BYTES, UNSIGNED};
use crate::format::codec::Cursor;
use crate::{Error, ErrorKind, Result};

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
