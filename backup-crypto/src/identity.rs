//! The keyed hash that names chunks.

use std::fmt;

use backup_core::{ChunkId, Error, RepositoryId, Result};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::hierarchy;
use crate::secret::Secret;

/// Which keyed hash names chunks; fixed when a repository is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChunkIdFunction {
    /// BLAKE3 in keyed mode: the fastest.
    #[default]
    Blake3,
    /// HMAC-SHA256 (RFC 2104), for places where only approved algorithms are allowed.
    HmacSha256,
}

impl ChunkIdFunction {
    /// The name in the format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::HmacSha256 => "hmac-sha256",
        }
    }
}

/// The chunk-id function with its key set up.
pub(crate) enum ChunkHasher {
    Blake3(Secret),
    HmacSha256(Hmac<Sha256>),
}

impl ChunkHasher {
    pub(crate) fn new(
        identity: &Secret,
        repository: RepositoryId,
        function: ChunkIdFunction,
    ) -> Result<Self> {
        let key = hierarchy::chunk_id_key(identity, repository, function)?;
        Ok(match function {
            ChunkIdFunction::Blake3 => Self::Blake3(key),
            ChunkIdFunction::HmacSha256 => Self::HmacSha256(
                Hmac::new_from_slice(&key.0)
                    .map_err(|_| Error::internal("HMAC refused a key of 32 bytes"))?,
            ),
        })
    }

    pub(crate) fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        match self {
            Self::Blake3(key) => ChunkId(*blake3::keyed_hash(&key.0, plaintext).as_bytes()),
            Self::HmacSha256(keyed) => {
                let mut mac = keyed.clone();
                mac.update(plaintext);
                ChunkId(mac.finalize().into_bytes().into())
            }
        }
    }
}

impl fmt::Debug for ChunkHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blake3(_) => "Blake3",
            Self::HmacSha256(_) => "HmacSha256",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_functions_are_keyed_by_secret_and_repository() {
        for function in [ChunkIdFunction::Blake3, ChunkIdFunction::HmacSha256] {
            let id = |secret, repository| {
                let hasher =
                    ChunkHasher::new(&Secret([secret; 32]), RepositoryId([repository; 16]), function);
                hasher.unwrap().chunk_id(b"chunk")
            };
            assert_eq!(id(1, 1), id(1, 1));
            assert_ne!(id(1, 1), id(2, 1));
            assert_ne!(id(1, 1), id(1, 2));
        }
    }

    #[test]
    fn names_in_the_format_are_what_serde_writes() {
        for function in [ChunkIdFunction::Blake3, ChunkIdFunction::HmacSha256] {
            assert_eq!(serde_json::to_string(&function).unwrap(), format!("\"{}\"", function.as_str()));
        }
    }
}
