//! The probe accepts what creates objects once, and names the lie of what does not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::testing::{FailingSink, Fault, Operation, RecordingSink};
use backup_core::{ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use backup_sinks::{LocalSink, MemorySink, probe};
use bytes::Bytes;

/// How a store lies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    /// It replaces objects, and says so.
    Replaces,
    /// It replaces objects and denies it.
    ReplacesSecretly,
    /// It leaves the object alone, but says that it created it.
    AlwaysCreated,
    /// It looks first and creates then, so that racers do not see each other.
    LooksFirst,
    /// It lists what was there a while ago: nothing.
    ListsNothing,
    /// It keeps what was deleted.
    NeverDeletes,
    /// It answers with other bytes of the object.
    IgnoresRanges,
}

#[derive(Debug)]
struct Liar(MemorySink, Lie);

#[async_trait]
impl Sink for Liar {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let there = self.0.get(key, GetRange::Full).await.is_ok();
        match self.1 {
            Lie::Replaces | Lie::ReplacesSecretly => {
                self.0.delete(key).await?;
                self.0.put(key, bytes).await?;
                let denied = there && self.1 == Lie::ReplacesSecretly;
                Ok(if denied { PutOutcome::AlreadyExists } else { PutOutcome::Created })
            }
            Lie::AlwaysCreated => self.0.put(key, bytes).await.map(|_| PutOutcome::Created),
            Lie::LooksFirst if !there => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                self.0.delete(key).await?;
                self.0.put(key, bytes).await?;
                Ok(PutOutcome::Created)
            }
            _ => self.0.put(key, bytes).await,
        }
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let range = if self.1 == Lie::IgnoresRanges { GetRange::Full } else { range };
        self.0.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        if self.1 == Lie::ListsNothing { Ok(Vec::new()) } else { self.0.list(prefix, after, limit).await }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        if self.1 == Lie::NeverDeletes { Ok(()) } else { self.0.delete(key).await }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn honest_stores_pass_and_are_left_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let sinks: [Arc<dyn Sink>; 2] =
        [Arc::new(MemorySink::new()), Arc::new(LocalSink::open(directory.path()).unwrap())];
    for sink in sinks {
        let recorder = RecordingSink::over(sink);
        let sink: Arc<dyn Sink> = Arc::new(recorder.clone());
        probe(&sink).await.unwrap();
        assert!(sink.list("", None, 1).await.unwrap().is_empty());
        // One create twice, and sixteen at once with one winner.
        let puts: Vec<_> =
            recorder.calls().into_iter().filter(|call| call.operation == Operation::Put).collect();
        assert_eq!(puts.len(), 18);
        let race: Vec<_> = puts.iter().filter(|call| call.key.ends_with("race")).collect();
        let won = race.iter().filter(|call| call.outcome == Some(PutOutcome::Created)).count();
        assert_eq!((race.len(), won), (16, 1));
    }
}

#[tokio::test]
async fn every_lie_is_found_and_named() {
    for (lie, words) in [
        (Lie::Replaces, "replaced an object although asked to create it only if there is none"),
        (Lie::ReplacesSecretly, "replaced an object although asked to create it only if there is none"),
        (Lie::AlwaysCreated, "says that it created an object which was there already"),
        (Lie::LooksFirst, "told 16 of 16 callers at once that they created the same object"),
        (Lie::ListsNothing, "does not list what was just created"),
        (Lie::NeverDeletes, "still shows what was deleted"),
        (Lie::IgnoresRanges, "returns other bytes of an object than were asked for"),
    ] {
        let sink: Arc<dyn Sink> = Arc::new(Liar(MemorySink::new(), lie));
        let error = probe(&sink).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{lie:?}: {error}");
        assert!(error.message().contains(words), "{lie:?}: {error}");
        assert!(error.message().contains("cannot hold a repository"), "{error}");
    }
}

#[tokio::test]
async fn failures_are_not_taken_for_lies() {
    for operation in [Operation::Put, Operation::Get, Operation::List] {
        for kind in [ErrorKind::Denied, ErrorKind::Transient, ErrorKind::NoSpace] {
            let fault = Fault::at(1).of(operation).with_kind(kind);
            let sink: Arc<dyn Sink> = Arc::new(FailingSink::new(MemorySink::new(), [fault]));
            assert_eq!(probe(&sink).await.unwrap_err().kind(), kind, "{operation:?}");
        }
    }
    // Who may add but not delete has chosen well.
    let fault = Fault::at(1).of(Operation::Delete).from_then_on().with_kind(ErrorKind::Denied);
    let sink: Arc<dyn Sink> = Arc::new(FailingSink::new(MemorySink::new(), [fault]));
    probe(&sink).await.unwrap();
}
