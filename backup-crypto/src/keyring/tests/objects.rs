//! What a keyring seals and opens, over epochs and between repositories.

use super::*;

#[tokio::test]
async fn chunk_ids_are_of_the_function_chosen_at_creation() {
    for function in [ChunkIdFunction::Blake3, ChunkIdFunction::HmacSha256] {
        let (_, sink) = store();
        let (job, recipient) = (JobContext::new(), key_file());
        let options = KeyringOptions::default().with_chunk_ids(function);
        let made =
            Keyring::create_with(&sink, std::slice::from_ref(&recipient), &options, &job).await.unwrap();
        let unlocked = Keyring::unlock(&sink, &[recipient], &job).await.unwrap();
        assert_eq!(unlocked.chunk_id_function(), function);
        let key = hierarchy::chunk_id_key(&made.identity, made.repository, function).unwrap();
        let expected: [u8; 32] = match function {
            ChunkIdFunction::Blake3 => *blake3::keyed_hash(&key.0, b"x").as_bytes(),
            ChunkIdFunction::HmacSha256 => {
                use hmac::{KeyInit, Mac};
                let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key.0).unwrap();
                mac.update(b"x");
                mac.finalize().into_bytes().into()
            }
        };
        assert_eq!(unlocked.chunk_id(b"x").0, expected);
    }
}

#[tokio::test]
async fn trap_10_objects_name_their_epoch_and_each_is_opened_under_it() {
    let (_, sink) = store();
    let (job, alice, bob) = (JobContext::new(), key_file(), key_file());
    let first = Keyring::create(&sink, &[alice.clone(), bob.clone()], &job).await.unwrap();
    let (old_header, old_sealed) = seal(&*first, ObjectType::Data);
    let id = RecipientId::random(&SystemRandom).unwrap();
    rotate(&first, &sink, 2, &[(id, alice.clone())]).await;

    let both = Keyring::unlock(&sink, &[alice], &job).await.unwrap();
    assert_eq!(both.epochs(), [1, 2]);
    let (header, sealed) = seal(&*both, ObjectType::Data);
    assert_eq!((old_header.epoch, header.epoch), (1, 2));
    assert_eq!(open(&*both, ObjectType::Data, &header, &sealed).unwrap(), b"content");
    assert_eq!(open(&*both, ObjectType::Data, &old_header, &old_sealed).unwrap(), b"content");
    // Chunks keep their names over epochs, or nothing would be found again.
    assert_eq!(both.chunk_id(b"x"), first.chunk_id(b"x"));
    // An object under another epoch's number fits no key.
    let lying = ProtectionHeader { epoch: 1, ..header.clone() };
    assert!(both.open(ObjectType::Data, &lying).unwrap_err().is_corruption());
    let unknown = ProtectionHeader { epoch: 3, ..header.clone() };
    assert_eq!(both.open(ObjectType::Data, &unknown).unwrap_err().kind(), ErrorKind::Denied);

    // Bob was left out of the rotation: he reads what he could, and seals nothing under the retired key.
    let left_out = Keyring::unlock(&sink, &[bob], &job).await.unwrap();
    assert_eq!(left_out.epochs(), [1]);
    assert_eq!(open(&*left_out, ObjectType::Data, &old_header, &old_sealed).unwrap(), b"content");
    assert_eq!(left_out.open(ObjectType::Data, &header).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(left_out.seal(ObjectType::Data, salt()).unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_header_that_was_changed_or_moved_fits_no_key() {
    let (job, recipient) = (JobContext::new(), passphrase("the same in both"));
    let (_, sink) = store();
    let keyring = Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    let (header, _) = seal(&*keyring, ObjectType::Data);
    keyring.open(ObjectType::Data, &header).unwrap();
    for position in 0..32 {
        let mut changed = header.clone();
        changed.commitment[position] ^= 1;
        assert!(keyring.open(ObjectType::Data, &changed).unwrap_err().is_corruption());
        let mut changed = header.clone();
        changed.salt[position] ^= 1;
        assert!(keyring.open(ObjectType::Data, &changed).unwrap_err().is_corruption());
    }
    assert!(keyring.open(ObjectType::Meta, &header).unwrap_err().is_corruption());
    let (_, elsewhere) = store();
    let other = Keyring::create(&elsewhere, &[recipient], &job).await.unwrap();
    assert!(other.open(ObjectType::Data, &header).unwrap_err().is_corruption());
}

#[tokio::test]
async fn encrypted_and_unencrypted_are_never_taken_for_each_other() {
    let (_, sink) = store();
    let job = JobContext::new();
    let keyring = Keyring::create(&sink, &[key_file()], &job).await.unwrap();
    let unprotected = Unprotected::new(keyring.repository());
    assert_ne!(keyring.seal_name(), unprotected.seal_name());
    let (plain_header, _) = seal(&unprotected, ObjectType::Data);
    assert!(keyring.open(ObjectType::Data, &plain_header).unwrap_err().is_corruption());
    let (header, _) = seal(&*keyring, ObjectType::Data);
    assert_eq!(unprotected.open(ObjectType::Data, &header).unwrap_err().kind(), ErrorKind::Denied);
    let stripped = ProtectionHeader { epoch: 0, ..header.clone() };
    assert!(keyring.open(ObjectType::Data, &stripped).unwrap_err().is_corruption());
    assert!(unprotected.open(ObjectType::Data, &stripped).unwrap_err().is_corruption());
    let encapsulated = ProtectionHeader { encapsulation: vec![1], ..header };
    assert!(keyring.open(ObjectType::Data, &encapsulated).unwrap_err().is_corruption());
}
