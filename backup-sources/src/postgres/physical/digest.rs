//! Checksums of files as a backup manifest has them.

use backup_core::Attribute;
use sha2::{Digest as _, Sha256};

/// Which checksum the manifest has of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ManifestChecksum {
    /// CRC-32C, as the server's own backups have it: it costs next to nothing and finds damage, not forgery.
    #[default]
    Crc32c,
    /// SHA-256.
    Sha256,
}

impl ManifestChecksum {
    /// Its name in a manifest.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Sha256 => "SHA256",
        }
    }

    /// The attribute that keeps a file's checksum beside its content.
    const fn attribute(self) -> &'static [u8] {
        match self {
            Self::Crc32c => b"file:pg-crc32c",
            Self::Sha256 => b"file:pg-sha256",
        }
    }

    pub(super) fn begin(self) -> Digest {
        match self {
            Self::Crc32c => Digest::Crc32c(0),
            Self::Sha256 => Digest::Sha256(Box::default()),
        }
    }
}

/// A checksum under way.
#[derive(Debug, Clone)]
pub(super) enum Digest {
    Crc32c(u32),
    Sha256(Box<Sha256>),
}

impl Digest {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Checksum {
        match self {
            // As the bytes stand in the server's memory.
            Self::Crc32c(crc) => {
                Checksum { kind: ManifestChecksum::Crc32c, bytes: crc.to_le_bytes().to_vec() }
            }
            Self::Sha256(hash) => {
                Checksum { kind: ManifestChecksum::Sha256, bytes: hash.finalize().to_vec() }
            }
        }
    }
}

/// The checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) kind: ManifestChecksum,
    pub(super) bytes: Vec<u8>,
}

impl Checksum {
    pub(super) fn of(kind: ManifestChecksum, bytes: &[u8]) -> Self {
        let mut digest = kind.begin();
        digest.update(bytes);
        digest.finish()
    }

    pub(super) fn to_attribute(&self) -> Attribute {
        Attribute { name: self.kind.attribute().into(), value: self.bytes.clone().into() }
    }

    /// What an earlier run noted beside the content.
    pub(super) fn from_attributes(attributes: &[Attribute]) -> Option<Self> {
        [ManifestChecksum::Sha256, ManifestChecksum::Crc32c].into_iter().find_map(|kind| {
            let found = attributes.iter().find(|attribute| *attribute.name == *kind.attribute())?;
            Some(Self { kind, bytes: found.value.to_vec() })
        })
    }
}
