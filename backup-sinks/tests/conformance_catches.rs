//! The conformance suite is worth something: it rejects sinks with the faults that real stores have had.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::testing::sink::conformance;
use backup_core::{
    Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink, Timestamp,
};
use backup_sinks::MemorySink;
use bytes::Bytes;

/// One way of breaking the contract.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    IgnoresTheCondition,
    SaysCreatedForTheSameBytes,
    ComparesBeforeItPuts,
    LosesTheTailOfLargeObjects,
    RefusesEmptyObjects,
    LowersLetters,
    ClampsRanges,
    RefusesLongSuffixes,
    ReadsSuffixZeroAsEverything,
    TellsTheLengthOfThePart,
    AnswersMissingWithNothing,
    SaysIoForMissing,
    RefusesToDeleteMissing,
    DeletesWhatIsBelow,
    KeepsDeleted,
    ListsDirectoriesFirst,
    ListsFromAfterOn,
    TakesPrefixesForDirectories,
    ListsAThousandAtMost,
    IgnoresTheLimit,
    ForgetsLengths,
    ChangesTimes,
    ListsLate,
    WritesInPieces,
}

const BUGS: [Bug; 24] = [
    Bug::IgnoresTheCondition,
    Bug::SaysCreatedForTheSameBytes,
    Bug::ComparesBeforeItPuts,
    Bug::LosesTheTailOfLargeObjects,
    Bug::RefusesEmptyObjects,
    Bug::LowersLetters,
    Bug::ClampsRanges,
    Bug::RefusesLongSuffixes,
    Bug::ReadsSuffixZeroAsEverything,
    Bug::TellsTheLengthOfThePart,
    Bug::AnswersMissingWithNothing,
    Bug::SaysIoForMissing,
    Bug::RefusesToDeleteMissing,
    Bug::DeletesWhatIsBelow,
    Bug::KeepsDeleted,
    Bug::ListsDirectoriesFirst,
    Bug::ListsFromAfterOn,
    Bug::TakesPrefixesForDirectories,
    Bug::ListsAThousandAtMost,
    Bug::IgnoresTheLimit,
    Bug::ForgetsLengths,
    Bug::ChangesTimes,
    Bug::ListsLate,
    Bug::WritesInPieces,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_is_found() {
    for bug in BUGS {
        let sink = Broken { bug, inner: MemorySink::new() };
        let found = conformance(Arc::new(sink)).await;
        let error = found.expect_err(&format!("{bug:?} passed the suite"));
        println!("{bug:?}: {error}");
    }
}

#[derive(Debug)]
struct Broken {
    bug: Bug,
    inner: MemorySink,
}

#[async_trait]
impl Sink for Broken {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let there = self.inner.get(key, GetRange::Full).await.ok();
        match self.bug {
            Bug::IgnoresTheCondition => self.inner.delete(key).await?,
            Bug::SaysCreatedForTheSameBytes if there.as_ref().is_some_and(|there| there.bytes == bytes) => {
                return Ok(PutOutcome::Created);
            }
            Bug::ComparesBeforeItPuts if there.is_none() => {
                tokio::task::yield_now().await;
                self.inner.delete(key).await?;
            }
            Bug::LosesTheTailOfLargeObjects => {
                let kept = bytes.len().min(16 << 20);
                return self.inner.put(key, bytes.slice(..kept)).await;
            }
            Bug::RefusesEmptyObjects if bytes.is_empty() => return Err(Error::invalid_input("it is empty")),
            Bug::LowersLetters => {
                let lower = ObjectKey::new(key.as_str().to_ascii_lowercase())?;
                return self.inner.put(&lower, bytes).await;
            }
            Bug::WritesInPieces if there.is_none() && bytes.len() > 1 => {
                self.inner.put(key, bytes.slice(..1)).await?;
                tokio::task::yield_now().await;
                self.inner.delete(key).await?;
            }
            _ => {}
        }
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let mut fetched = match self.inner.get(key, GetRange::Full).await {
            Ok(fetched) => fetched,
            Err(_) if self.bug == Bug::AnswersMissingWithNothing => {
                return Ok(Fetched { bytes: Bytes::new(), object_len: 0 });
            }
            Err(error) if self.bug == Bug::SaysIoForMissing => return Err(error.with_kind(ErrorKind::Io)),
            Err(error) => return Err(error),
        };
        let len = fetched.object_len;
        let range = match (self.bug, range) {
            (Bug::ClampsRanges, GetRange::Bounded(range)) => {
                GetRange::Bounded(range.start.min(len)..range.end.min(len))
            }
            (Bug::RefusesLongSuffixes, GetRange::Suffix(count)) if count > len => GetRange::Bounded(0..count),
            (Bug::ReadsSuffixZeroAsEverything, GetRange::Suffix(0)) => GetRange::Full,
            (_, range) => range,
        };
        let range = range.resolve(len)?;
        fetched.bytes = fetched.bytes.slice(range.start as usize..range.end as usize);
        if self.bug == Bug::TellsTheLengthOfThePart {
            fetched.object_len = range.end - range.start;
        }
        Ok(fetched)
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let limit = match self.bug {
            Bug::ListsAThousandAtMost => limit.min(1000),
            Bug::IgnoresTheLimit => usize::MAX,
            _ => limit,
        };
        let mut all = self.inner.list("", None, usize::MAX).await?;
        match self.bug {
            Bug::ListsDirectoriesFirst => all.sort_by_key(|meta| meta.key.as_str().replace('/', "\0")),
            Bug::ForgetsLengths => all.iter_mut().for_each(|meta| meta.len = 0),
            Bug::ChangesTimes => {
                all.iter_mut().for_each(|meta| meta.created = Some(std::time::SystemTime::now().into()))
            }
            Bug::ListsLate => {
                let now = Timestamp::from(std::time::SystemTime::now());
                all.retain(|meta| meta.created.unwrap().saturating_add_seconds(1) < now);
            }
            _ => {}
        }
        let fits = |meta: &ObjectMeta| {
            let key = meta.key.as_str();
            let begins = key.starts_with(prefix);
            let directory = prefix.ends_with('/') || key == prefix || key.starts_with(&format!("{prefix}/"));
            begins && (self.bug != Bug::TakesPrefixesForDirectories || directory)
        };
        let later = |meta: &ObjectMeta| match after {
            Some(after) if self.bug == Bug::ListsFromAfterOn => meta.key >= *after,
            Some(after) => meta.key > *after,
            None => true,
        };
        Ok(all.into_iter().filter(fits).filter(later).take(limit).collect())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        match self.bug {
            Bug::RefusesToDeleteMissing => self.inner.get(key, GetRange::Full).await.map(|_| ())?,
            Bug::DeletesWhatIsBelow => {
                for meta in self.inner.list(&format!("{key}/"), None, usize::MAX).await? {
                    self.inner.delete(&meta.key).await?;
                }
            }
            Bug::KeepsDeleted => return Ok(()),
            _ => {}
        }
        self.inner.delete(key).await
    }
}
