//! Keyrings on a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use backup_core::{
    CancellationToken, Fetched, FrameContext, GetRange, JobContext, ObjectMeta, PutOutcome, Sink, SinkExt,
    SystemRandom, Unprotected,
};
use bytes::Bytes;

use super::create::write_slot;
use super::*;
use crate::limits::{SLOTS_MAX, TRIES_MAX};
use crate::slot::RecipientId;
use crate::{PassphraseCost, Recipient, generate_key_file, list_recipients};

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
    FrameContext { repository, object_type, salt, ordinal: 0, plain_len: 7, associated_data: b"aad" }
}

#[tokio::test]
async fn every_recipient_unlocks_the_same_keys() {
    let (_, sink) = store();
    let job = JobContext::new();
    let recipients = [passphrase("one"), passphrase("two"), key_file()];
    let made = Keyring::create(&sink, &recipients, &job).await.unwrap();
    let (header, sealed) = seal(&*made, ObjectType::Data);
    for recipient in recipients {
        let unlocked = Keyring::unlock(&sink, &[recipient], &job).await.unwrap();
        assert_eq!(unlocked.repository(), made.repository());
        assert_eq!(unlocked.chunk_id(b"x"), made.chunk_id(b"x"));
        assert_eq!(unlocked.chunker_key().unwrap(), made.chunker_key().unwrap());
        assert_eq!(open(&*unlocked, ObjectType::Data, &header, &sealed).unwrap(), b"content");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_are_send_and_run_on_several_threads() {
    let (_, sink) = store();
    let task = tokio::spawn(async move {
        let (job, recipient) = (JobContext::new(), passphrase("one"));
        let keyring = Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
        let added = keyring.add_recipient(&sink, &key_file(), &job).await.unwrap();
        keyring.remove_recipient(&sink, added, &job).await.unwrap();
        list_recipients(&sink, &job).await.unwrap();
        Keyring::unlock(&sink, &[recipient], &job).await.unwrap();
    });
    task.await.unwrap();
}

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
async fn what_does_not_fit_is_denied_and_no_slots_are_not_found() {
    let (_, sink) = store();
    let job = JobContext::new();
    let error = Keyring::unlock(&sink, &[passphrase("x")], &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    Keyring::create(&sink, &[passphrase("right"), key_file()], &job).await.unwrap();
    for wrong in [vec![], vec![passphrase("wrong")], vec![key_file()], vec![key_file(), passphrase("wrong")]]
    {
        let error = Keyring::unlock(&sink, &wrong, &job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(!format!("{error:?}{error}").contains("wrong"), "{error:?}");
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

#[tokio::test]
async fn every_change_of_a_slot_is_detected() {
    let (store, sink) = store();
    let job = JobContext::new();
    let keyring = Keyring::create(&sink, &[passphrase("one"), key_file()], &job).await.unwrap();
    let slots = slots(&store);
    for (key, bytes) in &slots {
        keyring.check_slot(key, bytes).unwrap();
        let refused = |changed: &[u8]| {
            let error = keyring.check_slot(key, changed).unwrap_err();
            assert!(error.is_corruption(), "{error}");
            assert_eq!(error.object(), Some(key.as_str()));
        };
        for position in 0..bytes.len() {
            for change in 1..=255_u8 {
                let mut changed = bytes.to_vec();
                changed[position] ^= change;
                refused(&changed);
            }
            refused(&bytes[..position]);
        }
        for more in [&b"\n"[..], b" ", b"\0", b"x\n", &vec![b'x'; crate::limits::SLOT_BYTES_MAX]] {
            refused(&[bytes, more].concat());
        }
    }
    let [(first, first_bytes), (second, second_bytes)] = &slots[..] else { panic!("two slots") };
    assert!(keyring.check_slot(first, second_bytes).unwrap_err().is_corruption(), "swapped");
    assert!(keyring.check_slot(second, first_bytes).unwrap_err().is_corruption(), "swapped");
    let moved = ObjectKey::new(first.as_str().replace("keys/1/", "keys/2/")).unwrap();
    assert_eq!(keyring.check_slot(&moved, first_bytes).unwrap_err().kind(), ErrorKind::Denied);
    let stray = ObjectKey::new("keys/readme").unwrap();
    assert!(keyring.check_slot(&stray, first_bytes).unwrap_err().is_corruption());
}

#[tokio::test]
async fn a_changed_slot_never_unlocks() {
    let (store, sink) = store();
    let (job, recipient) = (JobContext::new(), key_file());
    Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    let (key, bytes) = slots(&store).remove(0);
    for position in 0..bytes.len() {
        for change in [0x01, 0x20, 0x80] {
            let mut changed = bytes.to_vec();
            changed[position] ^= change;
            replace(&store, &key, changed);
            let error = Keyring::unlock(&sink, std::slice::from_ref(&recipient), &job).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Corruption), "{position}: {error}");
        }
    }
    replace(&store, &key, bytes);
    Keyring::unlock(&sink, &[recipient], &job).await.unwrap();
}

#[tokio::test]
async fn a_slot_of_the_right_recipient_with_damaged_secrets_is_corruption_not_a_wrong_passphrase() {
    let (store, sink) = store();
    let (job, recipient) = (JobContext::new(), passphrase("right"));
    Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    let (key, bytes) = slots(&store).remove(0);
    let wrapped = text(&bytes).find("\"wrapped\":\"").unwrap() + 20;
    let mut changed = bytes.to_vec();
    changed[wrapped] = if changed[wrapped] == b'A' { b'B' } else { b'A' };
    replace(&store, &key, changed);
    let error = Keyring::unlock(&sink, &[recipient], &job).await.unwrap_err();
    assert!(error.is_corruption(), "{error}");
    assert_eq!(error.object(), Some(key.as_str()));
}

#[tokio::test]
async fn trap_21_hostile_key_derivation_parameters_are_refused_before_they_are_paid() {
    let (store, sink) = store();
    let (job, recipient) = (JobContext::new(), passphrase("right"));
    Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    let (key, bytes) = slots(&store).remove(0);
    let name = SlotName::parse(&key).unwrap();
    let honest = r#""cost":{"memory_kib":8,"passes":1,"lanes":1}"#;
    assert!(text(&bytes).contains(honest));
    for hostile in [
        r#""cost":{"memory_kib":1048577,"passes":1,"lanes":1}"#,
        r#""cost":{"memory_kib":4294967295,"passes":1,"lanes":1}"#,
        r#""cost":{"memory_kib":1e300,"passes":1,"lanes":1}"#,
        r#""cost":{"memory_kib":-1,"passes":1,"lanes":1}"#,
        r#""cost":{"memory_kib":8,"passes":4294967295,"lanes":1}"#,
        r#""cost":{"memory_kib":8,"passes":1,"lanes":16777215}"#,
        r#""cost":{"memory_kib":8,"passes":0,"lanes":0}"#,
        r#""cost":{"memory_kib":8,"passes":1,"lanes":1,"more":1}"#,
    ] {
        let changed = text(&bytes).replace(honest, hostile);
        // Reading the slot is what refuses it: nothing that could allocate is reached.
        assert!(document::Slot::parse(name, changed.as_bytes()).unwrap_err().is_corruption(), "{hostile}");
        replace(&store, &key, changed);
        let error = Keyring::unlock(&sink, std::slice::from_ref(&recipient), &job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("1 key slots are damaged"), "{error}");
    }
}

#[tokio::test]
async fn slots_of_unknown_kinds_are_listed_and_checked_but_passed_over() {
    let (store, sink) = store();
    let (job, recipient) = (JobContext::new(), key_file());
    let keyring = Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    let (_, bytes) = slots(&store).remove(0);
    let own = list_recipients(&sink, &job).await.unwrap().remove(0).id;
    let future = RecipientId([0; 16]);
    let line = text(&bytes).lines().next().unwrap().replace(&own.to_string(), &future.to_string());
    let line = format!("{}\n", line.replace("\"key-file\"", "\"age\"").replace("\"kdf\"", "\"stanza\""));
    let mac = document::mac_line(line.as_bytes(), keyring.epoch(1).unwrap(), keyring.repository, 1).unwrap();
    let key = SlotName { epoch: 1, recipient: future }.key().unwrap();
    replace(&store, &key, format!("{line}{mac}"));

    keyring.check_slot(&key, format!("{line}{mac}").as_bytes()).unwrap();
    Keyring::unlock(&sink, &[recipient], &job).await.unwrap();
    let error = Keyring::unlock(&sink, &[key_file()], &job).await.unwrap_err();
    assert!(error.to_string().contains("kinds that this version does not know"), "{error}");
    assert!(list_recipients(&sink, &job).await.unwrap().iter().any(|info| info.kind == "age"));
}

#[tokio::test]
async fn what_is_not_utf_8_or_not_json_is_passed_over() {
    let (store, sink) = store();
    let (job, recipient) = (JobContext::new(), key_file());
    Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    let junk: [&[u8]; 5] = [b"", b"\n", b"\xff\xff\n", b"{}\nmac\n", &[b'['; 10_000]];
    for (number, junk) in junk.into_iter().enumerate() {
        let name = SlotName { epoch: 1, recipient: RecipientId([number as u8; 16]) };
        replace(&store, &name.key().unwrap(), junk.to_vec());
    }
    replace(&store, &ObjectKey::new("keys/readme").unwrap(), "not a slot");
    Keyring::unlock(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    let listed = list_recipients(&sink, &job).await.unwrap();
    assert_eq!(listed.iter().filter(|info| info.kind == "damaged").count(), 5);
}

#[tokio::test]
async fn passphrases_are_tried_a_bounded_number_of_times() {
    let (store, sink) = store();
    let (job, recipient) = (JobContext::new(), passphrase("right"));
    let keyring = Keyring::create(&sink, std::slice::from_ref(&recipient), &job).await.unwrap();
    // Slots for another passphrase, all before the right one.
    let secrets = keyring.secrets(1).unwrap();
    for number in 0..TRIES_MAX {
        let name = SlotName {
            epoch: 1,
            recipient: RecipientId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number as u8]),
        };
        write_slot(sink.as_ref(), &secrets, name, &passphrase("other"), &job).await.unwrap();
    }
    let error = Keyring::unlock(&sink, std::slice::from_ref(&recipient), &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("only 64"), "{error}");
    // One fewer, and it is reached.
    let first = slots(&store).remove(0).0;
    sink.delete(&first).await.unwrap();
    Keyring::unlock(&sink, &[recipient], &job).await.unwrap();
}

#[tokio::test]
async fn more_objects_than_slots_may_be_are_refused() {
    let (store, sink) = store();
    for number in 0..=SLOTS_MAX {
        replace(&store, &ObjectKey::new(format!("keys/1/{number:032x}")).unwrap(), "x");
    }
    let error = Keyring::unlock(&sink, &[key_file()], &JobContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[tokio::test]
async fn a_store_with_slots_is_not_created_anew() {
    let (store, sink) = store();
    let job = JobContext::new();
    Keyring::create(&sink, &[key_file()], &job).await.unwrap();
    let before = slots(&store);
    let error = Keyring::create(&sink, &[key_file()], &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(slots(&store), before);
    assert!(Keyring::create(&sink, &[], &job).await.unwrap_err().kind() == ErrorKind::InvalidInput);
}

#[tokio::test]
async fn of_two_creations_at_once_at_most_one_succeeds_and_no_stray_slot_stays() {
    for _ in 0..20 {
        let (store, sink) = store();
        let (job, ours, theirs) = (JobContext::new(), [key_file()], [key_file()]);
        let (one, two) =
            tokio::join!(Keyring::create(&sink, &ours, &job), Keyring::create(&sink, &theirs, &job));
        let made: Vec<_> = [one, two].into_iter().flatten().collect();
        assert!(made.len() <= 1);
        assert_eq!(slots(&store).len(), made.len());
    }
}

#[tokio::test]
async fn a_cancelled_job_creates_nothing_and_unlocks_nothing() {
    let (store, sink) = store();
    let token = CancellationToken::new();
    token.cancel();
    let cancelled = JobContext::new().with_cancellation(token);
    assert!(Keyring::create(&sink, &[passphrase("x")], &cancelled).await.unwrap_err().is_cancelled());
    assert!(slots(&store).is_empty());
    Keyring::create(&sink, &[passphrase("x")], &JobContext::new()).await.unwrap();
    assert!(Keyring::unlock(&sink, &[passphrase("x")], &cancelled).await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn recipients_come_and_go_but_never_the_last() {
    let (store, sink) = store();
    let (job, alice, bob) =
        (JobContext::new(), passphrase("alice's").with_label("alice").unwrap(), key_file());
    let first = Keyring::create(&sink, std::slice::from_ref(&alice), &job).await.unwrap();
    let alice_id = list_recipients(&sink, &job).await.unwrap().remove(0).id;
    rotate(&first, &sink, 2, &[(alice_id, alice.clone())]).await;
    let keyring = Keyring::unlock(&sink, std::slice::from_ref(&alice), &job).await.unwrap();
    assert_eq!(
        keyring.remove_recipient(&sink, alice_id, &job).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );

    let bob_id = keyring.add_recipient(&sink, &bob, &job).await.unwrap();
    assert_eq!(Keyring::unlock(&sink, std::slice::from_ref(&bob), &job).await.unwrap().epochs(), [1, 2]);
    let listed = list_recipients(&sink, &job).await.unwrap();
    let info = listed.iter().find(|info| info.id == alice_id).unwrap();
    assert_eq!(
        (info.kind.as_str(), info.label.as_str(), &info.epochs[..]),
        ("passphrase", "alice", &[1, 2][..])
    );

    // A damaged slot of Bob's is not one to rely on.
    let bobs = SlotName { epoch: 1, recipient: bob_id }.key().unwrap();
    let bytes = sink.get_whole(&bobs, 10_000).await.unwrap();
    replace(&store, &bobs, &b"damaged"[..]);
    assert_eq!(
        keyring.remove_recipient(&sink, alice_id, &job).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    replace(&store, &bobs, bytes);

    keyring.remove_recipient(&sink, alice_id, &job).await.unwrap();
    assert_eq!(Keyring::unlock(&sink, &[alice], &job).await.unwrap_err().kind(), ErrorKind::Denied);
    Keyring::unlock(&sink, &[bob], &job).await.unwrap();
    assert_eq!(
        keyring.remove_recipient(&sink, alice_id, &job).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn nothing_secret_is_shown_or_stored() {
    let (store, sink) = store();
    let job = JobContext::new();
    let recipients = [passphrase("open sesame"), key_file()];
    let keyring = Keyring::create(&sink, &recipients, &job).await.unwrap();
    let object = keyring.seal(ObjectType::Data, salt()).unwrap();
    let key = hierarchy::object_key(
        keyring.epoch(1).unwrap(),
        &object.header.salt,
        keyring.repository,
        ObjectType::Data,
    );
    let mut shown = format!("{keyring:?} {object:?} {recipients:?} {:?}", keyring.secrets(1).unwrap());
    shown.push_str(&format!("{:?}", Keyring::unlock(&sink, &[passphrase("wrong")], &job).await));
    for (_, bytes) in slots(&store) {
        shown.push_str(&text(&bytes));
    }
    let chunk_key =
        hierarchy::chunk_id_key(&keyring.identity, keyring.repository, keyring.chunk_ids).unwrap();
    let secrets =
        [&keyring.identity, &keyring.chunker, keyring.epoch(1).unwrap(), &key.unwrap().key, &chunk_key];
    for secret in secrets {
        let as_list = format!("{:?}", secret.0);
        let as_list = as_list.trim_matches(|bracket| bracket == '[' || bracket == ']');
        assert!(!shown.contains(&hex::encode(secret.0)) && !shown.contains(as_list));
    }
    assert!(!shown.contains("sesame"));
}
