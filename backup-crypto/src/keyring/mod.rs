//! The keys of one repository that are at hand, as the engine's [`Protection`].

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::protection::{ObjectProtection, ProtectionHeader};
use backup_core::{
    ChunkId, Error, ErrorKind, ObjectKey, ObjectType, Protection, RepositoryId, Result, Transform,
};
use subtle::ConstantTimeEq;

use crate::aes_gcm::AesGcm;
use crate::hierarchy;
use crate::identity::{ChunkHasher, ChunkIdFunction};
use crate::secret::Secret;
use crate::slot::SlotName;
use crate::slot::document;
use crate::slot::wrap::Secrets;

mod create;
mod recipients;
#[cfg(test)]
mod tests;
mod unlock;

pub use self::create::KeyringOptions;
pub use self::recipients::{RecipientInfo, list_recipients};

/// The secrets of a repository, unlocked.
///
/// What it seals, it seals under the newest epoch; it opens objects of every epoch that it has the secret of. `Debug`
/// shows ids and epochs, nothing secret; secrets are wiped from memory when the last handle is dropped.
#[derive(Debug)]
pub struct Keyring {
    repository: RepositoryId,
    chunk_ids: ChunkIdFunction,
    identity: Secret,
    chunker: Secret,
    hasher: ChunkHasher,
    epochs: BTreeMap<u32, Secret>,
    // The newest epoch that has slots, whether or not it is at hand.
    newest: u32,
}

impl Keyring {
    /// The function that names chunks.
    pub fn chunk_id_function(&self) -> ChunkIdFunction {
        self.chunk_ids
    }

    /// The epochs whose secrets are at hand, oldest first.
    pub fn epochs(&self) -> Vec<u32> {
        self.epochs.keys().copied().collect()
    }

    /// The keyring of these secrets, at least one and each of another epoch; `newest` is the newest epoch with slots.
    fn assemble(opened: Vec<Secrets>, newest: u32) -> Result<Self> {
        let Some(first) = opened.first().cloned() else {
            return Err(Error::internal("a keyring was to be made of no secrets"));
        };
        if !opened.iter().all(|other| other.same_repository(&first)) {
            return Err(Error::corruption(
                "the key slots of different epochs belong to different repositories",
            ));
        }
        let Secrets { repository, chunk_ids, identity, chunker, .. } = first;
        let hasher = ChunkHasher::new(&identity, repository, chunk_ids)?;
        let epochs = opened.into_iter().map(|secrets| (secrets.epoch, secrets.epoch_secret)).collect();
        Ok(Self { repository, chunk_ids, identity, chunker, hasher, epochs, newest })
    }

    /// What a slot of an epoch at hand wraps.
    fn secrets(&self, epoch: u32) -> Result<Secrets> {
        Ok(Secrets {
            repository: self.repository,
            epoch,
            chunk_ids: self.chunk_ids,
            identity: self.identity.clone(),
            chunker: self.chunker.clone(),
            epoch_secret: self.epoch(epoch)?.clone(),
        })
    }

    fn epoch(&self, epoch: u32) -> Result<&Secret> {
        self.epochs.get(&epoch).ok_or_else(|| {
            let message =
                format!("the key of epoch {epoch} is not at hand; unlock with a recipient who has it");
            Error::new(ErrorKind::Denied, message)
        })
    }
}

impl Protection for Keyring {
    fn repository(&self) -> RepositoryId {
        self.repository
    }

    fn seal_name(&self) -> &str {
        AesGcm::NAME
    }

    fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        self.hasher.chunk_id(plaintext)
    }

    fn chunker_key(&self) -> Result<[u8; 32]> {
        hierarchy::chunker_key(&self.chunker, self.repository).map(|key| key.0)
    }

    /// Seals under the newest epoch. [`ErrorKind::Denied`] where there are slots of a newer epoch than this keyring
    /// has: whoever was left out of a rotation must not go on sealing under the key that it retired.
    fn seal(&self, object_type: ObjectType, salt: [u8; 32]) -> Result<ObjectProtection> {
        let secret = self.epochs.get(&self.newest).ok_or_else(|| {
            let message = format!(
                "the repository is at epoch {}, whose key is not at hand: what is stored can be read, but nothing added; \
                 unlock with a recipient of that epoch",
                self.newest
            );
            Error::new(ErrorKind::Denied, message)
        })?;
        let made = hierarchy::object_key(secret, &salt, self.repository, object_type)?;
        let seal = AesGcm::sealer(&made.key, self.repository, object_type, salt)?;
        let commitment = made.commitment;
        let header = ProtectionHeader { epoch: self.newest, salt, commitment, encapsulation: Vec::new() };
        Ok(ObjectProtection { header, seal: Arc::new(seal) })
    }

    fn open(&self, object_type: ObjectType, header: &ProtectionHeader) -> Result<Arc<dyn Transform>> {
        if header.epoch == 0 {
            return Err(Error::corruption("an object without encryption stands in an encrypted repository"));
        }
        if !header.encapsulation.is_empty() {
            let message =
                "the header carries an encapsulated secret, which this version of the format does not have";
            return Err(Error::corruption(message));
        }
        let secret = self.epoch(header.epoch)?;
        let made = hierarchy::object_key(secret, &header.salt, self.repository, object_type)?;
        if !bool::from(made.commitment.ct_eq(&header.commitment)) {
            return Err(Error::corruption(
                "the header's commitment does not fit the repository's key: the object is damaged, was moved here from \
                 another place or repository, or is not of the type it claims",
            ));
        }
        Ok(Arc::new(AesGcm::opener(&made.key, self.repository, object_type, header.salt)?))
    }

    fn check_slot(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        let check = || {
            let name =
                SlotName::parse(key).ok_or_else(|| Error::corruption("the key is not that of a key slot"))?;
            document::check(name, bytes, self.epoch(name.epoch)?, self.repository)
        };
        check().map_err(|error| error.with_object(key))
    }
}
