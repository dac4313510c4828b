//! Creating, unlocking, adding, removing; and what is never shown.

use super::*;

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
async fn a_repository_is_created_for_as_many_recipients_as_are_allowed_and_no_more() {
    let job = JobContext::new();
    let mut recipients: Vec<_> = (0..RECIPIENTS_AT_CREATION_MAX).map(|_| key_file()).collect();
    let (held, sink) = store();
    Keyring::create(&sink, &recipients, &job).await.unwrap();
    assert_eq!(slots(&held).len(), RECIPIENTS_AT_CREATION_MAX);
    // An interrupted creation of as many is taken over, too.
    Keyring::create(&sink, &recipients, &job).await.unwrap();
    recipients.push(key_file());
    let (held, sink) = store();
    let error = Keyring::create(&sink, &recipients, &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(slots(&held).is_empty());
}

#[tokio::test]
async fn an_interrupted_creation_is_taken_over_only_if_it_meant_the_same() {
    let (job, recipients) = (JobContext::new(), [key_file()]);
    let (store, sink) = store();
    let options = |function| KeyringOptions::default().with_chunk_ids(function);
    let (one, other) = (options(ChunkIdFunction::Blake3), options(ChunkIdFunction::HmacSha256));
    let first = Keyring::create_with(&sink, &recipients, &one, &job).await.unwrap();
    let before = slots(&store);
    let error = Keyring::create_with(&sink, &recipients, &other, &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(slots(&store), before);
    let again = Keyring::create_with(&sink, &recipients, &one, &job).await.unwrap();
    assert_eq!(again.repository(), first.repository());

    // Slots that wrap different secrets are not of one creation, whoever opens them all.
    let stray = Secrets { epoch_secret: Secret::random(&SystemRandom).unwrap(), ..again.secrets(1).unwrap() };
    let name = SlotName { epoch: 1, recipient: RecipientId([7; 16]) };
    write_slot(sink.as_ref(), &stray, name, &recipients[0], &job).await.unwrap();
    let error = Keyring::create_with(&sink, &recipients, &one, &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn epochs_of_different_repositories_make_no_keyring() {
    let ((_, one), (_, other)) = (store(), store());
    let job = JobContext::new();
    let first = Keyring::create(&one, &[key_file()], &job).await.unwrap().secrets(1).unwrap();
    let second = Keyring::create(&other, &[key_file()], &job).await.unwrap().secrets(1).unwrap();
    let error = Keyring::assemble(vec![first, Secrets { epoch: 2, ..second }], 2).unwrap_err();
    assert!(error.is_corruption(), "{error}");
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

/// A store on which somebody else deletes an object just before the first deletion.
#[derive(Debug)]
struct Meanwhile(Arc<dyn Sink>, Mutex<Option<ObjectKey>>);

#[async_trait]
impl Sink for Meanwhile {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.0.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.0.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.0.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let other = self.1.lock().unwrap().take();
        if let Some(other) = other {
            self.0.delete(&other).await?;
        }
        self.0.delete(key).await
    }
}

#[tokio::test]
async fn of_two_removals_at_once_one_is_undone_where_nobody_would_be_left() {
    for third in [false, true] {
        let (store, sink) = store();
        let (job, alice) = (JobContext::new(), passphrase("alice's"));
        let keyring = Keyring::create(&sink, std::slice::from_ref(&alice), &job).await.unwrap();
        let alice_id = list_recipients(&sink, &job).await.unwrap().remove(0).id;
        let bob_id = keyring.add_recipient(&sink, &key_file(), &job).await.unwrap();
        if third {
            keyring.add_recipient(&sink, &passphrase("carol's"), &job).await.unwrap();
        }
        let bobs = SlotName { epoch: 1, recipient: bob_id }.key().unwrap();
        let racing: Arc<dyn Sink> = Arc::new(Meanwhile(sink.clone(), Mutex::new(Some(bobs))));
        let removed = keyring.remove_recipient(&racing, alice_id, &job).await;
        assert_eq!(slots(&store).len(), 1);
        assert_eq!(removed.is_ok(), third, "{removed:?}");
        assert_eq!(Keyring::unlock(&sink, &[alice], &job).await.is_ok(), !third);
    }
}

#[tokio::test]
async fn a_removal_never_puts_a_damaged_slot_back() {
    let (store, sink) = store();
    let (job, alice) = (JobContext::new(), passphrase("alice's"));
    let keyring = Keyring::create(&sink, std::slice::from_ref(&alice), &job).await.unwrap();
    let bob = keyring.add_recipient(&sink, &key_file(), &job).await.unwrap();
    // Everything but alice's slot, when it is looked at first, is read cut short.
    let fault = Fault::at(2).of(Operation::Get).in_manner(Manner::CutShort).from_then_on();
    let short: Arc<dyn Sink> = Arc::new(FailingSink::over(sink.clone(), [fault]));
    let error = keyring.remove_recipient(&short, bob, &job).await.unwrap_err();
    assert!(error.is_corruption(), "{error}");
    for (key, bytes) in slots(&store) {
        keyring.check_slot(&key, &bytes).unwrap();
    }
    Keyring::unlock(&sink, &[alice], &job).await.unwrap();
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
