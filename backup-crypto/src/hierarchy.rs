//! The key hierarchy: every key of a repository, derived from its few stored secrets.
//!
//! A repository has an **identity secret** and a **chunker secret**, which never change, and one **epoch secret** per
//! epoch; each is 32 random bytes. They are stored only inside [key slots](crate#key-slots). Everything else derives
//! from them with HKDF-SHA256 (RFC 5869), extract and expand:
//!
//! ```text
//! derive(ikm, salt, label, context, n) = HKDF-SHA256(ikm, salt, info = label || 0x00 || context, length = n)
//! ```
//!
//! `label` is ASCII without NUL, so the 0x00 ends it unambiguously; every `context` has one fixed length per label.
//! `repository` is the repository id (16 bytes), `epoch` a 32-bit and `type` an 8-bit unsigned number, big-endian;
//! `recipient` is the recipient id (16 bytes).
//!
//! | Key | ikm | salt | label | context | n |
//! |---|---|---|---|---|---|
//! | object key, commitment | epoch secret | object salt (32) | `backup v1 object` | repository, type | 32 + 32 |
//! | chunk id key, BLAKE3 | identity secret | repository | `backup v1 chunk id blake3` | none | 32 |
//! | chunk id key, HMAC | identity secret | repository | `backup v1 chunk id hmac-sha256` | none | 32 |
//! | chunker key | chunker secret | repository | `backup v1 chunker` | none | 32 |
//! | slot key, slot commitment | Argon2id output or key file | slot salt (32) | `backup v1 slot key` | repository, epoch, recipient | 32 + 32 |
//! | slot MAC key | epoch secret | repository | `backup v1 slot mac` | epoch | 32 |
//!
//! A commitment is public. It fixes the key that it was derived with: AES-GCM alone would let someone make bytes that
//! open, differently, under two keys. It is compared in constant time before anything is decrypted.
//!
//! The chunk id of a plaintext is keyed BLAKE3 or HMAC-SHA256 (RFC 2104) of it under the chunk id key, 32 bytes. Which
//! of the two is a parameter of the repository, chosen when it is created and kept beside the secrets.
//!
//! In Python, for whoever writes a decoder:
//!
//! ```text
//! import hashlib, hmac
//! def derive(ikm, salt, label, context, n):
//!     prk = hmac.new(salt, ikm, hashlib.sha256).digest()
//!     out, block, i = b"", b"", 1
//!     while len(out) < n:
//!         block = hmac.new(prk, block + label + b"\0" + context + bytes([i]), hashlib.sha256).digest()
//!         out, i = out + block, i + 1
//!     return out[:n]
//! okm = derive(epoch_secret, object_salt, b"backup v1 object", repository + bytes([object_type]), 64)
//! key, commitment = okm[:32], okm[32:]
//! ```

use backup_core::{Error, ObjectType, RepositoryId, Result};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::identity::ChunkIdFunction;
use crate::secret::Secret;

/// A key and what commits to it.
#[derive(Debug)]
pub(crate) struct CommittedKey {
    pub(crate) key: Secret,
    pub(crate) commitment: [u8; 32],
}

/// The key of the object of this type with this salt.
pub(crate) fn object_key(
    epoch_secret: &Secret,
    salt: &[u8; 32],
    repository: RepositoryId,
    object_type: ObjectType,
) -> Result<CommittedKey> {
    committed(&epoch_secret.0, salt, "backup v1 object", &[&repository.0, &[object_type.number()]])
}

/// The key that wraps the secrets for one recipient.
pub(crate) fn slot_key(
    recipient_secret: &Secret,
    salt: &[u8; 32],
    repository: RepositoryId,
    epoch: u32,
    recipient: &[u8; 16],
) -> Result<CommittedKey> {
    let context: [&[u8]; 3] = [&repository.0, &epoch.to_be_bytes(), recipient];
    committed(&recipient_secret.0, salt, "backup v1 slot key", &context)
}

/// The key under which the slots of an epoch are authenticated.
pub(crate) fn slot_mac_key(epoch_secret: &Secret, repository: RepositoryId, epoch: u32) -> Result<Secret> {
    single(&epoch_secret.0, &repository.0, "backup v1 slot mac", &[&epoch.to_be_bytes()])
}

/// The key of the function that names chunks.
pub(crate) fn chunk_id_key(
    identity_secret: &Secret,
    repository: RepositoryId,
    function: ChunkIdFunction,
) -> Result<Secret> {
    let label = match function {
        ChunkIdFunction::Blake3 => "backup v1 chunk id blake3",
        ChunkIdFunction::HmacSha256 => "backup v1 chunk id hmac-sha256",
    };
    single(&identity_secret.0, &repository.0, label, &[])
}

/// The key of the cutting table.
pub(crate) fn chunker_key(chunker_secret: &Secret, repository: RepositoryId) -> Result<Secret> {
    single(&chunker_secret.0, &repository.0, "backup v1 chunker", &[])
}

fn committed(ikm: &[u8; 32], salt: &[u8; 32], label: &str, context: &[&[u8]]) -> Result<CommittedKey> {
    let mut both = Zeroizing::new([0_u8; 64]);
    expand(ikm, salt, label, context, &mut *both)?;
    let mut key = Secret::zero();
    let mut commitment = [0; 32];
    let (left, right) = both.split_at(32);
    key.0.copy_from_slice(left);
    commitment.copy_from_slice(right);
    Ok(CommittedKey { key, commitment })
}

fn single(ikm: &[u8; 32], salt: &[u8], label: &str, context: &[&[u8]]) -> Result<Secret> {
    let mut key = Secret::zero();
    expand(ikm, salt, label, context, &mut key.0)?;
    Ok(key)
}

fn expand(ikm: &[u8], salt: &[u8], label: &str, context: &[&[u8]], out: &mut [u8]) -> Result<()> {
    let mut info = [label.as_bytes(), b"\0"].concat();
    info.extend(context.iter().copied().flatten());
    Hkdf::<Sha256>::new(Some(salt), ikm)
        .expand(&info, out)
        .map_err(|_| Error::internal("a key was asked for that HKDF cannot make"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: RepositoryId = RepositoryId([7; 16]);

    #[test]
    fn derivation_matches_the_python_of_the_specification() {
        // Computed with the Python in this module's documentation.
        let made = object_key(&Secret([1; 32]), &[2; 32], REPOSITORY, ObjectType::Data).unwrap();
        assert_eq!(
            hex::encode(made.key.0),
            "93807fa4f4f1448e67fe2733964cc64f38c138661a7299b3de875f9167fe6337"
        );
        assert_eq!(
            hex::encode(made.commitment),
            "1f2335a6b4b18cbf46daddbbb14fb5377c1cff26812f8284757306676bceb9eb"
        );
        let made = slot_key(&Secret([1; 32]), &[2; 32], REPOSITORY, 3, &[4; 16]).unwrap();
        assert_eq!(
            hex::encode(made.key.0),
            "549fcd19953c9e691d2f1d35af981bcd93f94b994cfc629f19fd11a5a1694d65"
        );
        let made = slot_mac_key(&Secret([1; 32]), REPOSITORY, 3).unwrap();
        assert_eq!(hex::encode(made.0), "723cf66087b11917db1730967fe2f9e120d1db93d92a9f1c6144ee25fa38dff1");
        let made = chunk_id_key(&Secret([1; 32]), REPOSITORY, ChunkIdFunction::Blake3).unwrap();
        assert_eq!(hex::encode(made.0), "5f5c2cb05817b435b1281c717254446bfddb8eb01dae487475b9b7a90df8f547");
        let made = chunk_id_key(&Secret([1; 32]), REPOSITORY, ChunkIdFunction::HmacSha256).unwrap();
        assert_eq!(hex::encode(made.0), "2eb63f1861b9d90f6d4a99ce37c0c8b2bd32deb14e896608dd8acef9962846e7");
        let made = chunker_key(&Secret([1; 32]), REPOSITORY).unwrap();
        assert_eq!(hex::encode(made.0), "96fc13590b4e3378ced8be81ae33c6344e6bd48f2326f25e2d0eefbbead30283");
    }

    #[test]
    fn every_input_of_an_object_key_changes_key_and_commitment() {
        let base = || (Secret([1; 32]), [2; 32], REPOSITORY, ObjectType::Data);
        let make = |(secret, salt, repository, object_type): (Secret, [u8; 32], RepositoryId, ObjectType)| {
            object_key(&secret, &salt, repository, object_type).unwrap()
        };
        let first = make(base());
        let others = [
            (Secret([9; 32]), base().1, base().2, base().3),
            (base().0, [9; 32], base().2, base().3),
            (base().0, base().1, RepositoryId([9; 16]), base().3),
            (base().0, base().1, base().2, ObjectType::Meta),
        ];
        for other in others.map(make) {
            assert!(!first.key.same_as(&other.key));
            assert_ne!(first.commitment, other.commitment);
        }
    }
}
