//! What goes on while a file is fetched.

use std::sync::Mutex;

use async_trait::async_trait;
use backup_core::{GetRange, ObjectKey, ObjectMeta, PutOutcome, TransformSet};

use super::*;

/// A store in which somebody else archives a segment to its end as soon as its beginning was read, and before anybody lists what is there.
#[derive(Debug)]
struct Completing {
    inner: MemorySink,
    segment: String,
    was_read: Mutex<bool>,
    other: Mutex<Option<(WalArchive, (SegmentName, Bytes))>>,
}

#[async_trait]
impl Sink for Completing {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<backup_core::Fetched> {
        let found = self.inner.get(key, range).await?;
        if key.as_str().contains(&self.segment) {
            *self.was_read.lock().unwrap() = true;
        }
        Ok(found)
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let is_due = *self.was_read.lock().unwrap() && !prefix.contains(&self.segment);
        let other = if is_due { self.other.lock().unwrap().take() } else { None };
        if let Some((archive, segment)) = other {
            put(&archive, &segment).await?;
        }
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn a_segment_that_is_completed_while_it_is_fetched_is_no_damage() {
    let store = MemorySink::new();
    let archive = WalArchive::new(vec![repository_on(Arc::new(store.clone())).await]).unwrap();
    let [first, second] = <[_; 2]>::try_from(segments(2)).unwrap();
    put(&archive, &first).await.unwrap();
    let summary = Summary::of_segment(&second.1[..300_000], second.0, size());
    archive.put_piece(second.0, 0, second.1.slice(..300_000), &summary, &job()).await.unwrap();

    let sink = Arc::new(Completing {
        inner: store,
        segment: second.0.to_string(),
        was_read: Mutex::new(false),
        other: Mutex::new(Some((archive, second.clone()))),
    });
    let protection = Arc::new(Unprotected::new(RepositoryId([7; 16])));
    let opened = Repository::open(sink.clone(), protection, TransformSet::default(), &job()).await.unwrap();
    let fetching = WalArchive::new(vec![opened]).unwrap();
    let fetched = get(&fetching, &second.0.to_string()).await.unwrap();
    assert!(sink.other.lock().unwrap().is_none(), "the other one came between");
    assert_eq!(fetched, Fetched::Found(second.1));
}

#[tokio::test]
async fn a_segment_whose_end_is_lost_is_damage() {
    let archive = archive().await;
    let [first, second] = <[_; 2]>::try_from(segments(2)).unwrap();
    put(&archive, &first).await.unwrap();
    let summary = Summary::of_segment(&second.1[..300_000], second.0, size());
    archive.put_piece(second.0, 0, second.1.slice(..300_000), &summary, &job()).await.unwrap();
    let mut end = log_name(SYSTEM, WalFile::Segment(second.0));
    end.segment.push_str(COMPLETE);
    let end = LogPiece::whole(SOURCE, end, Bytes::from(MIB.to_string()));
    archive.places()[0].archive(&[end], &job()).await.unwrap();
    let error = get(&archive, &second.0.to_string()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(error.to_string().contains("only its beginning can be read"), "{error}");
}
