//! Creating an encrypted repository, killed at every put and tried again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use backup_core::repository::{CreateOptions, Repository, peek_config};
use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{ErrorKind, GetRange, Result, Sink, SinkExt, TransformSet};
use backup_crypto::{Keyring, PassphraseCost, Recipient, list_recipients};
use backup_sinks::MemorySink;
use common::{SMALL, TestSource, job, tree};

fn recipients(names: &[&str]) -> Vec<Recipient> {
    let cost = PassphraseCost::new(8, 1, 1).unwrap();
    names.iter().map(|name| Recipient::passphrase((*name).to_owned()).unwrap().with_cost(cost)).collect()
}

/// What `init` does.
async fn init(sink: Arc<dyn Sink>, names: &[&str]) -> Result<Repository> {
    assert_eq!(peek_config(&*sink).await.unwrap_err().kind(), ErrorKind::NotFound);
    let keyring = Keyring::create(&sink, &recipients(names), &job()).await?;
    Repository::create(sink, keyring, CreateOptions { chunker: SMALL, ..Default::default() }, &job()).await
}

/// A store after a creation that was killed at a put: from then on it could not even clean up.
async fn killed(nth: u64, after_effect: bool, names: &[&str]) -> Option<MemorySink> {
    let sink = MemorySink::new();
    let fault = Fault::at(nth).of(Operation::Put).from_then_on();
    let fault = if after_effect { fault.after_effect() } else { fault };
    let deletes = Fault::at(1).of(Operation::Delete).from_then_on();
    let failing = FailingSink::new(sink.clone(), [fault, deletes]);
    init(Arc::new(failing), names).await.is_err().then_some(sink)
}

#[tokio::test]
async fn an_interrupted_creation_is_finished_by_the_next_one_with_the_same_recipients() {
    let names = ["one", "two", "three"];
    let mut points = 0;
    for nth in 1.. {
        let Some(sink) = killed(nth, false, &names).await else { break };
        points += 1;
        for after_effect in [false, true] {
            let Some(sink) = killed(nth, after_effect, &names).await else { continue };
            if peek_config(&sink).await.is_ok() {
                // The last put was done: it is a repository.
                continue;
            }
            // Interrupted again and again, at every put of the second creation.
            for again in 1.. {
                let fault = Fault::at(again).of(Operation::Put).from_then_on();
                let failing = FailingSink::over(Arc::new(sink.clone()), [fault]);
                if init(Arc::new(failing), &names).await.is_ok() || peek_config(&sink).await.is_ok() {
                    break;
                }
            }
            let sink: Arc<dyn Sink> = Arc::new(sink);
            assert_eq!(sink.list_all("keys/").await.unwrap().len(), 3, "no slot is left over");
            for name in names {
                let job = job();
                let keyring = Keyring::unlock(&sink, &recipients(&[name]), &job).await.unwrap();
                let opened = Repository::open(sink.clone(), keyring.clone(), TransformSet::builtin(), &job);
                let setup = common::Setup {
                    repository: opened.await.unwrap(),
                    protection: keyring,
                    job: job.clone(),
                };
                let source = TestSource::new(tree(1, 20, 2000));
                let id = setup.store(&source).await;
                setup.assert_restores(id, &source).await;
            }
            assert_eq!(list_recipients(&sink, &job()).await.unwrap().len(), 3);
        }
        drop(sink);
    }
    assert_eq!(points, 5, "three slots, the configuration, and the proof that it is created once");
}

#[tokio::test]
async fn what_others_left_is_not_taken_over() {
    let refused = |sink: MemorySink, names: &'static [&'static str]| async move {
        let before = common::objects(&sink).await;
        let error = init(Arc::new(sink.clone()), names).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.object().unwrap().starts_with("keys/1/"), "{error}");
        assert_eq!(common::objects(&sink).await, before);
    };
    // Another's slot, or one for somebody else among them, who would have access without being named.
    refused(killed(2, false, &["one"]).await.unwrap(), &["other"]).await;
    refused(killed(3, false, &["one", "two"]).await.unwrap(), &["one"]).await;
    refused(killed(3, false, &["one", "two"]).await.unwrap(), &["one", "three"]).await;
    // More recipients than before are named openly.
    init(Arc::new(killed(3, false, &["one", "two"]).await.unwrap()), &["one", "two", "three"]).await.unwrap();
    // Anything else in the store may depend on the slots.
    for key in ["data/00/x", "snapshots/x", "audit/0"] {
        let sink = killed(2, false, &["one"]).await.unwrap();
        sink.put(&backup_core::ObjectKey::new(key).unwrap(), bytes::Bytes::from_static(b"x")).await.unwrap();
        refused(sink, &["one"]).await;
    }
    // A damaged slot is nobody's.
    let sink = killed(2, false, &["one"]).await.unwrap();
    let (key, bytes) = common::objects(&sink).await.pop_first().unwrap();
    common::replace(&sink, &key, Some(bytes.slice(..bytes.len() - 3))).await;
    refused(sink, &["one"]).await;
}

#[tokio::test]
async fn slots_of_another_creation_that_come_late_lock_nobody_out() {
    let (ours, theirs): (Arc<dyn Sink>, Arc<dyn Sink>) =
        (Arc::new(MemorySink::new()), Arc::new(MemorySink::new()));
    init(ours.clone(), &["one"]).await.unwrap();
    // So many that some stand before the repository's own.
    init(theirs.clone(), &["one"; 16]).await.unwrap();
    for meta in theirs.list_all("keys/").await.unwrap() {
        let slot = theirs.get(&meta.key, GetRange::Full).await.unwrap().bytes;
        ours.put(&meta.key, slot).await.unwrap();
    }
    let keyring = Keyring::unlock(&ours, &recipients(&["one"]), &job()).await.unwrap();
    Repository::open(ours, keyring, TransformSet::builtin(), &job()).await.unwrap();
}

#[tokio::test]
async fn what_waits_for_a_store_that_never_answers_ends_when_it_is_cancelled() {
    let store = MemorySink::new();
    init(Arc::new(store.clone()), &["one"]).await.unwrap();
    let answering: Arc<dyn Sink> = Arc::new(store.clone());
    let keyring = Keyring::unlock(&answering, &recipients(&["one"]), &job()).await.unwrap();
    let hanging = || FailingSink::new(store.clone(), [Fault::at(1).hanging().from_then_on()]);
    let sink: Arc<dyn Sink> = Arc::new(hanging());
    let job = job();
    let (one, two) = (recipients(&["one"]), recipients(&["two"]));
    let id = list_recipients(&answering, &job).await.unwrap()[0].id;
    let all = async {
        tokio::join!(
            async { Keyring::create(&sink, &one, &job).await.err() },
            async { Keyring::unlock(&sink, &one, &job).await.err() },
            async { list_recipients(&sink, &job).await.err() },
            async { keyring.add_recipient(&sink, &two[0], &job).await.err() },
            async { keyring.remove_recipient(&sink, id, &job).await.err() },
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                job.cancellation().cancel();
            }
        )
    };
    let (a, b, c, d, e, ()) = tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    for error in [a, b, c, d, e] {
        assert_eq!(error.unwrap().kind(), ErrorKind::Cancelled);
    }
}
