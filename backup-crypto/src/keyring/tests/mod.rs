//! Keyrings on a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use backup_core::testing::{FailingSink, Fault, Manner, Operation};
use backup_core::{
    CancellationToken, Fetched, FrameContext, GetRange, JobContext, ObjectMeta, PutOutcome, Sink, SinkExt,
    SystemRandom, Unprotected,
};
use bytes::Bytes;

use super::create::write_slot;
use super::*;
use crate::identity::ChunkIdFunction;
use crate::limits::{RECIPIENTS_AT_CREATION_MAX, SLOTS_MAX, TRIES_MAX};
use crate::slot::RecipientId;
use crate::{PassphraseCost, Recipient, generate_key_file, list_recipients};

mod golden;
mod objects;
mod recipients;
mod slots;

/// A store in memory.
#[derive(Debug, Default)]
struct Store(Mutex<BTreeMap<ObjectKey, Bytes>>);

#[async_trait]
impl Sink for Store {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        // Gives other tasks their turn, as every real store does.
        tokio::task::yield_now().await;
        let mut objects = self.0.lock().unwrap();
        if objects.contains_key(key) {
            return Ok(PutOutcome::AlreadyExists);
        }
        objects.insert(key.clone(), bytes);
        Ok(PutOutcome::Created)
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let objects = self.0.lock().unwrap();
        let bytes = objects.get(key).ok_or_else(|| Error::new(ErrorKind::NotFound, "not found"))?;
        let range = range.resolve(bytes.len() as u64)?;
        Ok(Fetched {
            bytes: bytes.slice(range.start as usize..range.end as usize),
            object_len: bytes.len() as u64,
        })
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        tokio::task::yield_now().await;
        let objects = self.0.lock().unwrap();
        let wanted = objects
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix) && after.is_none_or(|a| a < *key));
        let meta = |(key, bytes): (&ObjectKey, &Bytes)| ObjectMeta {
            key: key.clone(),
            len: bytes.len() as u64,
            created: None,
        };
        Ok(wanted.take(limit).map(meta).collect())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }
}

/// One store under two types: one to give to the keyring, one to tamper with.
fn store() -> (Arc<Store>, Arc<dyn Sink>) {
    let store = Arc::new(Store::default());
    (Arc::clone(&store), store)
}

fn cheap() -> PassphraseCost {
    PassphraseCost::new(8, 1, 1).unwrap()
}

fn passphrase(text: &str) -> Recipient {
    Recipient::passphrase(text.to_owned()).unwrap().with_cost(cheap())
}

fn key_file() -> Recipient {
    Recipient::key_file(generate_key_file(&SystemRandom).unwrap().as_bytes()).unwrap()
}

fn salt() -> [u8; 32] {
    Secret::random(&SystemRandom).unwrap().0
}

fn slots(store: &Store) -> Vec<(ObjectKey, Bytes)> {
    store.0.lock().unwrap().iter().map(|(key, bytes)| (key.clone(), bytes.clone())).collect()
}

fn replace(store: &Store, key: &ObjectKey, bytes: impl Into<Bytes>) {
    store.0.lock().unwrap().insert(key.clone(), bytes.into());
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Opens `epoch` for `recipients` as a rotation will: the same identity, a new epoch secret.
async fn rotate(
    keyring: &Keyring,
    sink: &Arc<dyn Sink>,
    epoch: u32,
    recipients: &[(RecipientId, Recipient)],
) {
    let epoch_secret = Secret::random(&SystemRandom).unwrap();
    let old = keyring.epochs().pop().unwrap();
    let secrets = Secrets { epoch, epoch_secret, ..keyring.secrets(old).unwrap() };
    for (recipient, means) in recipients {
        let name = SlotName { epoch, recipient: *recipient };
        write_slot(sink.as_ref(), &secrets, name, means, &JobContext::new()).await.unwrap();
    }
}

/// One sealed frame of a new object, and its header.
fn seal(protection: &dyn Protection, object_type: ObjectType) -> (ProtectionHeader, Vec<u8>) {
    let object = protection.seal(object_type, salt()).unwrap();
    let mut sealed = Vec::new();
    object
        .seal
        .encode(&frame(protection, object_type, &object.header.salt), b"content", &mut sealed)
        .unwrap();
    (object.header, sealed)
}

fn open(
    protection: &dyn Protection,
    object_type: ObjectType,
    header: &ProtectionHeader,
    sealed: &[u8],
) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let opener = protection.open(object_type, header)?;
    let repository = protection.repository();
    let frame = FrameContext {
        chunks: 1,
        repository: &repository.0,
        object_type,
        salt: &header.salt,
        ordinal: 0,
        plain_len: 7,
        associated_data: b"aad",
    };
    opener.decode(&frame, sealed, &mut plain, 7)?;
    Ok(plain)
}

fn frame<'a>(protection: &dyn Protection, object_type: ObjectType, salt: &'a [u8; 32]) -> FrameContext<'a> {
    let repository: &'a [u8; 16] = Box::leak(Box::new(protection.repository().0));
    FrameContext {
        repository,
        object_type,
        salt,
        ordinal: 0,
        plain_len: 7,
        chunks: 1,
        associated_data: b"aad",
    }
}
