//! Slots that were changed, forged, multiplied.

use super::*;

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
    let job = JobContext::new();
    let error = Keyring::unlock(&sink, &[key_file()], &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    // One fewer are read, though none of them is a slot.
    let first = slots(&store).remove(0).0;
    sink.delete(&first).await.unwrap();
    let error = Keyring::unlock(&sink, &[key_file()], &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_slot_that_cannot_be_had_is_passed_over_but_a_store_that_fails_is_not() {
    let (store, sink) = store();
    let (job, alice) = (JobContext::new(), key_file());
    let keyring = Keyring::create(&sink, std::slice::from_ref(&alice), &job).await.unwrap();
    // Longer than any slot, and before the right one.
    let stray = ObjectKey::new(format!("keys/1/{:032x}", 0)).unwrap();
    replace(&store, &stray, vec![b'x'; crate::limits::SLOT_BYTES_MAX + 1]);
    let unlocked = Keyring::unlock(&sink, std::slice::from_ref(&alice), &job).await.unwrap();
    assert_eq!(unlocked.repository(), keyring.repository());
    // A failure of the store says nothing of the slots.
    let down = Fault::at(1).of(Operation::Get).from_then_on();
    let failing: Arc<dyn Sink> =
        Arc::new(FailingSink::over(sink.clone(), [down.with_kind(ErrorKind::Transient)]));
    let error = Keyring::unlock(&failing, std::slice::from_ref(&alice), &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[tokio::test]
async fn whose_slots_they_are_is_asked_again_where_the_store_fails() {
    let ((store, sink), (other, theirs)) = (store(), store());
    let (job, alice) = (JobContext::new(), key_file());
    Keyring::create(&sink, std::slice::from_ref(&alice), &job).await.unwrap();
    Keyring::create(&theirs, &[key_file()], &job).await.unwrap();
    for (key, bytes) in slots(&other) {
        replace(&store, &key, bytes);
    }
    // Slots of two repositories, and `config`, which tells which of them it is, cannot be read just now.
    let down = Fault::at(3).of(Operation::Get).from_then_on().with_kind(ErrorKind::Transient);
    let failing: Arc<dyn Sink> = Arc::new(FailingSink::over(sink.clone(), [down]));
    let error = Keyring::unlock(&failing, std::slice::from_ref(&alice), &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    // Where there is none, whoever fits is let in.
    Keyring::unlock(&sink, &[alice], &job).await.unwrap();
}

#[tokio::test]
async fn a_slot_s_label_is_what_a_label_may_be() {
    let (store, sink) = store();
    let recipient = key_file().with_label("alice").unwrap();
    Keyring::create(&sink, &[recipient], &JobContext::new()).await.unwrap();
    let (key, bytes) = slots(&store).remove(0);
    let name = SlotName::parse(&key).unwrap();
    let labelled = |label: &str| {
        let changed = text(&bytes).replace("\"alice\"", &serde_json::to_string(label).unwrap());
        crate::slot::document::Slot::parse(name, changed.as_bytes())
    };
    labelled(&"x".repeat(crate::limits::LABEL_BYTES_MAX)).unwrap();
    for wrong in ["a\nb", "\u{7}", &"x".repeat(crate::limits::LABEL_BYTES_MAX + 1)] {
        assert!(labelled(wrong).unwrap_err().is_corruption(), "{wrong:?}");
    }
}
