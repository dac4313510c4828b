//! Whether a store does what everything rests on.

use std::sync::Arc;

use backup_core::{Error, ErrorKind, GetRange, ObjectKey, PutOutcome, Random, Result, Sink, SystemRandom};
use bytes::Bytes;
use tokio::task::JoinSet;

/// Callers that create one object at once.
const RACERS: u8 = 16;
/// Bytes of an object of the probe.
const BYTES: usize = 512;

/// Tries a store: creates an object, and again with other bytes, and another one by sixteen callers at once; reads,
/// lists and deletes.
///
/// A store that replaces objects although asked to create them only, or tells more than one caller that it was the one,
/// is refused with [`ErrorKind::Unsupported`], and the message says what it did: backups in it could be overwritten by
/// mistake or on purpose. Everything else that fails is returned as it is. The keys start with `control/probe-` and
/// something random; what cannot be deleted stays there and harms nobody. Dropping the future may leave some, too.
///
/// It can find a lie, not prove honesty: a race is won by chance. About forty requests.
pub async fn probe(sink: &Arc<dyn Sink>) -> Result<()> {
    let mut random = [0; 16];
    SystemRandom.fill(&mut random)?;
    let below = format!("control/probe-{}", hex::encode(random));
    let (twice, race) = (ObjectKey::new(format!("{below}-twice"))?, ObjectKey::new(format!("{below}-race"))?);
    let found = async {
        create_twice(&**sink, &twice).await?;
        create_at_once(sink, &race).await?;
        list(&**sink, &below, &[&race, &twice]).await
    };
    let found = found.await;
    // What was found counts more than what could not be cleared away.
    let cleared = match (sink.delete(&twice).await, sink.delete(&race).await) {
        (Ok(()), Ok(())) => deleted(&**sink, &below, &twice).await,
        // Credentials that may add but not delete are a good choice.
        (Err(e), _) | (_, Err(e)) if e.kind() == ErrorKind::Denied => Ok(()),
        (Err(e), _) | (_, Err(e)) => Err(e),
    };
    found.and(cleared)
}

async fn create_twice(sink: &dyn Sink, key: &ObjectKey) -> Result<()> {
    let (first, other) = (bytes_of(0), bytes_of(1));
    let outcome = sink.put(key, first.clone()).await?;
    let again = sink.put(key, other).await?;
    let there = sink.get(key, GetRange::Full).await?.bytes;
    if there != first {
        return Err(lie("replaced an object although asked to create it only if there is none"));
    }
    match (outcome, again) {
        (PutOutcome::Created, PutOutcome::AlreadyExists) => {}
        (PutOutcome::Created, PutOutcome::Created) => {
            return Err(lie("says that it created an object which was there already"));
        }
        (PutOutcome::AlreadyExists, _) => return Err(lie("says that an object was there which was not")),
    }
    let part = sink.get(key, GetRange::Bounded(3..9)).await?;
    if Some(&*part.bytes) != first.get(3..9) || part.object_len != count(&first) {
        return Err(lie("returns other bytes of an object than were asked for"));
    }
    Ok(())
}

async fn create_at_once(sink: &Arc<dyn Sink>, key: &ObjectKey) -> Result<()> {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let (sink, key) = (Arc::clone(sink), key.clone());
        racers.spawn(async move { sink.put(&key, bytes_of(racer)).await.map(|outcome| (racer, outcome)) });
    }
    // All of them are waited for, also when one failed: a put that is given up may still land after the object is deleted.
    let mut created = Vec::new();
    let mut failed = None;
    while let Some(racer) = racers.join_next().await {
        match racer.map_err(|e| Error::internal("a task of the probe failed").with_source(e)).flatten() {
            Ok((racer, PutOutcome::Created)) => created.push(racer),
            Ok((_, PutOutcome::AlreadyExists)) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let there = sink.get(key, GetRange::Full).await?.bytes;
    match *created.as_slice() {
        [winner] if there == bytes_of(winner) => Ok(()),
        [_] => Err(lie("replaced an object that another caller had just created")),
        ref several => Err(lie(&format!(
            "told {} of {RACERS} callers at once that they created the same object",
            several.len()
        ))),
    }
}

async fn list(sink: &dyn Sink, below: &str, expected: &[&ObjectKey]) -> Result<()> {
    let listed = sink.list(below, None, 10).await?;
    let keys: Vec<&ObjectKey> = listed.iter().map(|meta| &meta.key).collect();
    if keys == expected { Ok(()) } else { Err(lie("does not list what was just created")) }
}

async fn deleted(sink: &dyn Sink, below: &str, key: &ObjectKey) -> Result<()> {
    let gone = match sink.get(key, GetRange::Full).await {
        Ok(_) => false,
        Err(e) if e.kind() == ErrorKind::NotFound => true,
        // Nothing is known of the object.
        Err(e) => return Err(e),
    };
    if gone && sink.list(below, None, 10).await?.is_empty() {
        return Ok(());
    }
    Err(lie("still shows what was deleted"))
}

fn lie(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the store {what}; it cannot hold a repository"))
}

fn bytes_of(racer: u8) -> Bytes {
    vec![racer; BYTES].into()
}

fn count(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
