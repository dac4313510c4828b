//! Several callers at once.

use std::sync::Arc;

use super::{Place, expect};
use crate::testing::broken;
use crate::{Error, ErrorKind, GetRange, ObjectKey, PutOutcome, Result, Sink};

/// Callers that race.
const RACERS: u8 = 16;

/// Races that are held.
const ROUNDS: usize = 8;

pub(super) async fn laws(place: &Place) -> Result<()> {
    for round in 0..ROUNDS {
        // Now and then in a directory that is new as well.
        let name = if round % 2 == 0 { format!("flat-{round}") } else { format!("new-{round}/a/b/object") };
        one_winner(place, &place.key(&name)?).await?;
    }
    Ok(())
}

/// Everyone puts bytes of their own; meanwhile a reader must see nothing or all of one racer's.
async fn one_winner(place: &Place, key: &ObjectKey) -> Result<()> {
    // Dropping the set stops the reader when a racer fails.
    let mut reader = tokio::task::JoinSet::new();
    reader.spawn(read_until_there(Arc::clone(&place.sink), key.clone()));
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let (sink, key) = (Arc::clone(&place.sink), key.clone());
            tokio::spawn(async move { put_and_look(&*sink, &key, racer).await })
        })
        .collect();
    let mut created = Vec::new();
    let mut seen = Vec::new();
    for racer in racers {
        let (winner, there) = racer.await.map_err(ended_abnormally)??;
        created.extend(winner);
        seen.push(there);
    }
    expect("of several racing puts of one key exactly one says Created", &created.len(), &1)?;
    let winner = created.first().copied();
    let same = seen.iter().all(|there| Some(*there) == winner);
    expect("after a race everyone reads the winner's bytes", &same, &true)?;
    match reader.join_next().await {
        Some(read) => read.map_err(ended_abnormally)?,
        None => Ok(()),
    }
}

/// The racer's number if it won, and whose bytes it read then.
async fn put_and_look(sink: &dyn Sink, key: &ObjectKey, racer: u8) -> Result<(Option<u8>, u8)> {
    let outcome = sink.put(key, vec![racer; length_of(racer)].into()).await?;
    let there = sink.get(key, GetRange::Full).await;
    let there = there.map_err(|error| broken("after a put returned, a get sees the object", error))?;
    let listed = sink.list(key.as_str(), None, 1).await?;
    let len = listed.first().filter(|meta| meta.key == *key).map(|meta| meta.len);
    expect("after a put returned, a listing sees the whole object", &len, &Some(there.object_len))?;
    Ok(((outcome == PutOutcome::Created).then_some(racer), whose(&there.bytes)?))
}

async fn read_until_there(sink: Arc<dyn Sink>, key: ObjectKey) -> Result<()> {
    loop {
        match sink.get(&key, GetRange::Full).await {
            Ok(there) => return whose(&there.bytes).map(|_| ()),
            Err(error) if error.kind() == ErrorKind::NotFound => tokio::task::yield_now().await,
            Err(error) => {
                return Err(broken("while a put is under way, a get says NotFound or reads all", error));
            }
        }
    }
}

/// Whose object these bytes are, if they are one racer's whole object.
fn whose(bytes: &[u8]) -> Result<u8> {
    let racer = bytes.first().copied().unwrap_or_default();
    let whole = bytes.len() == length_of(racer) && bytes.iter().all(|byte| *byte == racer);
    expect("a put creates the whole object or nothing", &whole, &true)?;
    Ok(racer)
}

/// Different lengths, so that a mixture of two objects shows.
fn length_of(racer: u8) -> usize {
    100_000_usize.saturating_add(usize::from(racer))
}

fn ended_abnormally(error: tokio::task::JoinError) -> Error {
    broken("a call ends without a panic", error)
}
