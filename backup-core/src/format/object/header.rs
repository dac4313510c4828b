//! What stands in clear at the front of an object.

use super::{HEADER_BYTES_MAX, MAGIC};
use crate::format::FORMAT_VERSION;
use crate::format::codec::Cursor;
use crate::limits;
use crate::protection::{ProtectionHeader, RepositoryId};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, Result};

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
