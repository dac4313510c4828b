//! How the engine asks for what depends on keys, without ever seeing one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::transform::{ObjectType, Transform};
use crate::{Error, ErrorKind, ObjectKey, Random, Result};

/// The identity of a repository: 16 random bytes, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryId(pub [u8; 16]);

impl RepositoryId {
    /// A new identity.
    pub fn random(random: &dyn Random) -> Result<Self> {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        Ok(Self(id))
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<RepositoryId> for String {
    fn from(id: RepositoryId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RepositoryId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(&text, &mut id).map_err(|_| {
            Error::invalid_input(format!("`{text}` is not a repository id (32 hexadecimal digits)"))
        })?;
        Ok(Self(id))
    }
}

/// The identity of a chunk: the keyed hash of its plaintext.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The first 16 bytes, by which directories and indexes name chunks. References in entries are always whole, and
    /// what is read is always checked against the whole.
    pub fn short(&self) -> ShortId {
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(self.0) {
            *to = from;
        }
        ShortId(u128::from_be_bytes(short))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first 16 bytes of a [`ChunkId`], as a number in big-endian order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(pub u128);

/// What the header of an object says about its protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectionHeader {
    /// The epoch whose secret the object's key derives from; 0 without encryption.
    pub epoch: u32,
    /// 32 random bytes, drawn once per object.
    pub salt: [u8; 32],
    /// Commits to the object's key: a wrong key is known before anything is decrypted.
    pub commitment: [u8; 32],
    /// A secret encapsulated to the epoch's public key; empty where the epoch's own secret is used.
    pub encapsulation: Vec<u8>,
}

/// The protection of one object: what its header says, and what seals its frames.
#[derive(Debug, Clone)]
pub struct ObjectProtection {
    /// For the object's header.
    pub header: ProtectionHeader,
    /// Applied to every frame after all other transforms; never skipped.
    pub seal: Arc<dyn Transform>,
}

/// Keys, as far as the engine may know of them.
///
/// `backup-crypto` implements this over a key hierarchy; [`Unprotected`] implements it without one. Implementations are
/// cheap to call: [`chunk_id`](Protection::chunk_id) runs once per chunk, the others once per object.
pub trait Protection: fmt::Debug + Send + Sync + 'static {
    /// The repository that this protects.
    fn repository(&self) -> RepositoryId;

    /// The name of the sealing transform in objects' headers.
    fn seal_name(&self) -> &str;

    /// The keyed hash of a chunk's plaintext.
    fn chunk_id(&self, plaintext: &[u8]) -> ChunkId;

    /// The key from which the repository's cutting table is made.
    fn chunker_key(&self) -> Result<[u8; 32]>;

    /// The protection of a new object with a fresh `salt`. Each salt is used for one object, sealed by one worker.
    fn seal(&self, object_type: ObjectType, salt: [u8; 32]) -> Result<ObjectProtection>;

    /// What opens an object with this header, after the commitment was checked: [`ErrorKind::Corruption`] where it does
    /// not fit the key, [`ErrorKind::Denied`] where the key of that epoch is not at hand.
    fn open(&self, object_type: ObjectType, header: &ProtectionHeader) -> Result<Arc<dyn Transform>>;

    /// Checks that a key slot, read from `key`, is byte for byte what a holder of the keys made. Slots of epochs whose
    /// key is not at hand are [`ErrorKind::Denied`].
    fn check_slot(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()>;
}

/// No encryption: anyone who reads the store reads everything. Frames carry a plain SHA-256 in place of a seal's tag, so
/// damage is detected; forgery is not.
#[derive(Debug, Clone)]
pub struct Unprotected {
    repository: RepositoryId,
}

impl Unprotected {
    /// Repository `id` without encryption.
    pub fn new(repository: RepositoryId) -> Self {
        Self { repository }
    }

    fn commitment(&self, object_type: ObjectType, salt: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"backup unprotected object v1");
        hash.update(self.repository.0);
        hash.update([object_type.number()]);
        hash.update(salt);
        hash.finalize().into()
    }
}

impl Protection for Unprotected {
    fn repository(&self) -> RepositoryId {
        self.repository
    }

    fn seal_name(&self) -> &str {
        Checksum::NAME
    }

    fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId(*blake3::hash(plaintext).as_bytes())
    }

    fn chunker_key(&self) -> Result<[u8; 32]> {
        Ok(Sha256::digest(b"backup unprotected chunker v1").into())
    }

    fn seal(&self, object_type: ObjectType, salt: [u8; 32]) -> Result<ObjectProtection> {
        let commitment = self.commitment(object_type, &salt);
        let header = ProtectionHeader { epoch: 0, salt, commitment, encapsulation: Vec::new() };
        Ok(ObjectProtection { header, seal: Arc::new(Checksum) })
    }

    fn open(&self, object_type: ObjectType, header: &ProtectionHeader) -> Result<Arc<dyn Transform>> {
        if header.epoch != 0 {
            let message = "the object is encrypted, and no key was given; give a password file or a key file";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        if header.commitment != self.commitment(object_type, &header.salt) || !header.encapsulation.is_empty()
        {
            return Err(Error::corruption("the header's commitment does not fit"));
        }
        Ok(Arc::new(Checksum))
    }

    fn check_slot(&self, key: &ObjectKey, _: &[u8]) -> Result<()> {
        Err(Error::corruption("a repository without encryption has no key slots").with_object(key))
    }
}

/// The seal of repositories without encryption: SHA-256 over associated data and bytes, appended.
#[derive(Debug)]
struct Checksum;

impl Checksum {
    const NAME: &'static str = "sha256";

    fn digest(frame: &crate::FrameContext<'_>, bytes: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(frame.associated_data);
        hash.update(bytes);
        hash.finalize().into()
    }
}

impl Transform for Checksum {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn encode(
        &self,
        frame: &crate::FrameContext<'_>,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<crate::Encoded> {
        output.extend_from_slice(input);
        output.extend_from_slice(&Self::digest(frame, input));
        Ok(crate::Encoded::Applied)
    }

    fn decode(
        &self,
        frame: &crate::FrameContext<'_>,
        input: &[u8],
        output: &mut Vec<u8>,
        max: usize,
    ) -> Result<()> {
        let damaged = || Error::corruption("a frame does not fit its checksum");
        let split = input.len().checked_sub(32).ok_or_else(damaged)?;
        let (bytes, digest) = input.split_at(split);
        if bytes.len() > max || digest != Self::digest(frame, bytes) {
            return Err(damaged());
        }
        output.extend_from_slice(bytes);
        Ok(())
    }
}
