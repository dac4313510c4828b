//! How a slot wraps the secrets, and how a recipient unwraps them.
//!
//! The secrets are one JSON document, sealed with AES-256-GCM under the slot key of the
//! [hierarchy](crate::hierarchy), with a nonce of twelve zero bytes (the slot's salt is fresh, so its key seals once)
//! and `backup v1 slot`, 0x00, repository id, epoch and recipient id as associated data. In `wrapped` it stands as
//! base64 of ciphertext and tag.

use backup_core::{Error, Random, RepositoryId, Result, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::document::{self, Document, FORMAT, Kdf, RecipientPart, Slot, TYPE};
use super::{RecipientId, SlotName};
use crate::aead::Aead;
use crate::hierarchy;
use crate::identity::ChunkIdFunction;
use crate::recipient::{Means, Recipient};
use crate::secret::Secret;

/// Room for the secrets' document, so that writing it never moves it and leaves a copy behind.
const PAYLOAD_BYTES_MAX: usize = 1024;

const NONCE: [u8; 12] = [0; 12];

/// What a slot wraps.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    pub(crate) repository: RepositoryId,
    pub(crate) epoch: u32,
    pub(crate) chunk_ids: ChunkIdFunction,
    pub(crate) identity: Secret,
    pub(crate) chunker: Secret,
    pub(crate) epoch_secret: Secret,
}

impl Secrets {
    /// Whether both are of one repository: all that its epochs share is the same.
    pub(crate) fn same_repository(&self, other: &Self) -> bool {
        self.repository == other.repository
            && self.chunk_ids == other.chunk_ids
            && self.identity.same_as(&other.identity)
            && self.chunker.same_as(&other.chunker)
    }
}

/// The bytes of a new slot for `recipient`. With a passphrase this takes a good part of a second: blocking.
pub(crate) fn make(
    secrets: &Secrets,
    id: RecipientId,
    recipient: &Recipient,
    created: Timestamp,
    random: &dyn Random,
) -> Result<Vec<u8>> {
    let mut salt = [0; 32];
    random.fill(&mut salt)?;
    let kdf = match &recipient.means {
        Means::Passphrase(_, cost) => Kdf::Argon2id { salt, cost: *cost },
        Means::KeyFile(_) => Kdf::HkdfSha256 { salt },
    };
    let recipient_secret = recipient_secret(recipient, &kdf)?
        .ok_or_else(|| Error::internal("a recipient does not fit the slot being made for it"))?;
    let (repository, epoch) = (secrets.repository, secrets.epoch);
    let wrapping = hierarchy::slot_key(&recipient_secret, &salt, repository, epoch, &id.0)?;
    let mut sealed = Vec::new();
    let aad = associated_data(repository, epoch, id);
    Aead::new(&wrapping.key)?.seal(NONCE, &aad, write(secrets)?.as_bytes(), &mut sealed)?;
    let document = Document {
        format: FORMAT,
        object: TYPE.to_owned(),
        repository,
        epoch,
        recipient: RecipientPart {
            id,
            kind: recipient.kind().to_owned(),
            label: recipient.label().to_owned(),
            created,
        },
        kdf,
        commitment: wrapping.commitment,
        wrapped: STANDARD.encode(&sealed),
    };
    document::write(&document, &secrets.epoch_secret)
}

/// Whether trying this recipient on this slot costs an Argon2id.
pub(crate) fn is_costly(slot: &Slot, recipient: &Recipient) -> bool {
    let kdf = slot.document.as_ref().map(|document| &document.kdf);
    matches!((kdf, &recipient.means), (Some(Kdf::Argon2id { .. }), Means::Passphrase(..)))
}

/// The secrets in `slot`, if it was made for `recipient`; [`ErrorKind::Corruption`](backup_core::ErrorKind::Corruption)
/// if it was, but is not as it was made. [Costly](is_costly) tries are blocking.
pub(crate) fn open(slot: &Slot, name: SlotName, recipient: &Recipient) -> Result<Option<Secrets>> {
    let Some(document) = &slot.document else { return Ok(None) };
    let Some(recipient_secret) = recipient_secret(recipient, &document.kdf)? else { return Ok(None) };
    let (repository, SlotName { epoch, recipient: id }) = (document.repository, name);
    let wrapping = hierarchy::slot_key(&recipient_secret, document.kdf.salt(), repository, epoch, &id.0)?;
    // First of all: AES-GCM alone does not say that this is the key.
    if !bool::from(wrapping.commitment.ct_eq(&document.commitment)) {
        return Ok(None);
    }
    let damaged =
        || Error::corruption("the key slot is made for this recipient, but the secrets in it are damaged");
    let sealed = STANDARD.decode(&document.wrapped).map_err(|_| damaged())?;
    // As long as what is sealed, so that opening does not move it.
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    let aad = associated_data(repository, epoch, id);
    Aead::new(&wrapping.key)?.open(NONCE, &aad, &sealed, &mut plain).map_err(|_| damaged())?;
    let secrets = read(&plain).ok_or_else(damaged)?;
    if secrets.repository != repository || secrets.epoch != epoch {
        return Err(Error::corruption("the key slot wraps the secrets of another repository or epoch"));
    }
    slot.check_mac(&secrets.epoch_secret, repository, epoch)?;
    Ok(Some(secrets))
}

/// What the recipient's means give for a slot of this derivation; `None` if the slot is for another kind.
fn recipient_secret(recipient: &Recipient, kdf: &Kdf) -> Result<Option<Secret>> {
    match (&recipient.means, kdf) {
        (Means::Passphrase(passphrase, _), Kdf::Argon2id { salt, cost }) => {
            cost.stretch(passphrase, salt).map(Some)
        }
        (Means::KeyFile(secret), Kdf::HkdfSha256 { .. }) => Ok(Some(secret.clone())),
        _ => Ok(None),
    }
}

fn associated_data(repository: RepositoryId, epoch: u32, recipient: RecipientId) -> Vec<u8> {
    [&b"backup v1 slot\0"[..], &repository.0, &epoch.to_be_bytes(), &recipient.0].concat()
}

/// The wrapped document. Written by hand: a serializer would leave copies of the secrets behind.
fn write(secrets: &Secrets) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(PAYLOAD_BYTES_MAX));
    text.push_str("{\"format\":1,\"repository\":\"");
    text.push_str(&secrets.repository.to_string());
    text.push_str("\",\"epoch\":");
    text.push_str(&secrets.epoch.to_string());
    text.push_str(",\"chunk_id\":\"");
    text.push_str(secrets.chunk_ids.as_str());
    for (name, secret) in [
        ("\",\"identity_secret\":\"", &secrets.identity),
        ("\",\"chunker_secret\":\"", &secrets.chunker),
        ("\",\"epoch_secret\":\"", &secrets.epoch_secret),
    ] {
        text.push_str(name);
        let mut digits = Zeroizing::new([0_u8; 64]);
        hex::encode_to_slice(secret.0, &mut *digits)
            .map_err(|_| Error::internal("hexadecimal digits do not fit"))?;
        digits.iter().for_each(|digit| text.push(char::from(*digit)));
    }
    text.push_str("\"}");
    Ok(text)
}

fn read(text: &[u8]) -> Option<Secrets> {
    // Borrows from `text`, and what the parser says of a failure is dropped: it may repeat what it read.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Payload<'a> {
        format: u32,
        repository: RepositoryId,
        epoch: u32,
        chunk_id: ChunkIdFunction,
        identity_secret: &'a str,
        chunker_secret: &'a str,
        epoch_secret: &'a str,
    }
    let secret = |digits: &str| {
        let mut secret = Secret::zero();
        hex::decode_to_slice(digits, &mut secret.0).ok().map(|()| secret)
    };
    let payload: Payload<'_> = serde_json::from_slice(text).ok()?;
    (payload.format == FORMAT).then_some(())?;
    Some(Secrets {
        repository: payload.repository,
        epoch: payload.epoch,
        chunk_ids: payload.chunk_id,
        identity: secret(payload.identity_secret)?,
        chunker: secret(payload.chunker_secret)?,
        epoch_secret: secret(payload.epoch_secret)?,
    })
}

#[cfg(test)]
mod tests {
    use backup_core::SystemRandom;

    use super::*;

    fn secrets() -> Secrets {
        let secret = |byte| Secret([byte; 32]);
        Secrets {
            repository: RepositoryId([1; 16]),
            epoch: 1,
            chunk_ids: ChunkIdFunction::default(),
            identity: secret(2),
            chunker: secret(3),
            epoch_secret: secret(4),
        }
    }

    #[test]
    fn epochs_of_one_repository_share_all_but_their_secret() {
        let one = secrets();
        assert!(one.same_repository(&Secrets { epoch: 2, epoch_secret: Secret([9; 32]), ..secrets() }));
        let other = match one.chunk_ids {
            ChunkIdFunction::Blake3 => ChunkIdFunction::HmacSha256,
            ChunkIdFunction::HmacSha256 => ChunkIdFunction::Blake3,
        };
        for different in [
            Secrets { repository: RepositoryId([9; 16]), ..secrets() },
            Secrets { chunk_ids: other, ..secrets() },
            Secrets { identity: Secret([9; 32]), ..secrets() },
            Secrets { chunker: Secret([9; 32]), ..secrets() },
        ] {
            assert!(!one.same_repository(&different) && !different.same_repository(&one));
        }
    }

    #[test]
    fn what_is_wrapped_is_read_as_it_was_written_and_no_other_format_is() {
        let text = write(&secrets()).unwrap();
        let back = read(text.as_bytes()).unwrap();
        assert!(back.same_repository(&secrets()) && back.epoch_secret.same_as(&secrets().epoch_secret));
        assert_eq!(back.epoch, 1);
        let newer = text.replace("\"format\":1", "\"format\":2");
        assert_ne!(newer, *text);
        assert!(read(newer.as_bytes()).is_none());
    }

    #[test]
    fn every_slot_has_a_salt_of_its_own() {
        let recipient =
            Recipient::key_file(crate::generate_key_file(&SystemRandom).unwrap().as_bytes()).unwrap();
        let mut salts = std::collections::HashSet::from([[0; 32]]);
        for number in 1..=4 {
            let name = SlotName { epoch: 1, recipient: RecipientId([5; 16]) };
            let bytes =
                make(&secrets(), name.recipient, &recipient, Timestamp::new(number, 0), &SystemRandom)
                    .unwrap();
            let slot = Slot::parse(name, &bytes).unwrap();
            assert!(salts.insert(*slot.document.unwrap().kdf.salt()), "a salt came twice, or is zero");
        }
    }

    #[test]
    fn only_a_passphrase_on_a_slot_for_passphrases_is_costly() {
        let key_file =
            Recipient::key_file(crate::generate_key_file(&SystemRandom).unwrap().as_bytes()).unwrap();
        let cost = crate::PassphraseCost::new(8, 1, 1).unwrap();
        let passphrase = Recipient::passphrase("x".to_owned()).unwrap().with_cost(cost);
        let name = SlotName { epoch: 1, recipient: RecipientId([5; 16]) };
        let slot = |recipient| {
            let made = make(&secrets(), name.recipient, recipient, Timestamp::new(1, 0), &SystemRandom);
            Slot::parse(name, &made.unwrap()).unwrap()
        };
        assert!(is_costly(&slot(&passphrase), &passphrase));
        assert!(!is_costly(&slot(&passphrase), &key_file));
        assert!(!is_costly(&slot(&key_file), &passphrase) && !is_costly(&slot(&key_file), &key_file));
    }
}
