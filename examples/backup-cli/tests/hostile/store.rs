//! Stores that answer what they were not asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use backup_core::{ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;

use crate::case::Verdict::{Named, Refused, Restored};
use crate::case::{Case, Verify, case};
use crate::forge::{FORGED, Forge, file};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    RepeatsPages,
    NeverEnds,
    ListsBackwards,
    ListsOthers,
    LongPages,
    Shorter,
    Longer,
    ClaimsLength,
    Others,
    ClaimsListedLength,
}

#[derive(Debug)]
struct Liar {
    inner: Arc<dyn Sink>,
    lie: Lie,
    counter: AtomicU64,
}

fn meta(key: String) -> ObjectMeta {
    ObjectMeta { key: ObjectKey::new(key).unwrap(), len: 100, created: None }
}

#[async_trait]
impl Sink for Liar {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let mut fetched = self.inner.get(key, range).await?;
        let is_pack = key.as_str().starts_with("data/") || key.as_str().starts_with("meta/");
        match self.lie {
            Lie::Shorter if is_pack => fetched.bytes.truncate(fetched.bytes.len() / 2),
            Lie::Longer if is_pack => fetched.bytes = [fetched.bytes.clone(), fetched.bytes].concat().into(),
            Lie::ClaimsLength if is_pack => fetched.object_len = u64::MAX,
            Lie::Others if is_pack => fetched.bytes = vec![7; fetched.bytes.len()].into(),
            _ => {}
        }
        Ok(fetched)
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        if prefix != "snapshots/" {
            return self.inner.list(prefix, after, limit).await;
        }
        let name = |n: u64| meta(format!("{prefix}{n:032x}"));
        Ok(match self.lie {
            Lie::RepeatsPages => (0..limit as u64).map(name).collect(),
            Lie::NeverEnds => {
                let start = self.counter.fetch_add(limit as u64, Ordering::Relaxed);
                (start..start + limit as u64).map(name).collect()
            }
            Lie::ListsBackwards => (0..5).rev().map(name).collect(),
            Lie::ListsOthers => vec![meta("config".into()), meta("data/ab/abcd".into())],
            Lie::LongPages => (0..100_000).map(name).collect(),
            Lie::ClaimsListedLength => {
                let mut page = self.inner.list(prefix, after, limit).await?;
                page.iter_mut().for_each(|meta| meta.len = u64::MAX);
                page
            }
            _ => self.inner.list(prefix, after, limit).await?,
        })
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }
}

macro_rules! liar {
    ($lie:ident) => {
        |inner| Arc::new(Liar { inner, lie: Lie::$lie, counter: AtomicU64::new(0) })
    };
}

fn one(f: &mut Forge) {
    assert!(!FORGED.to_string().is_empty());
    f.entries(vec![file("file")]);
}

pub fn cases() -> Vec<Case> {
    let asked = Refused(ErrorKind::Io, "was not asked for");
    let lost = Named(&[("", "")]);
    let listed = |case: Case| case.verify(Verify::Refused).honest_is_lost();
    vec![
        listed(
            case("repeats a page", "a listing that gives the same page over and over", one, asked)
                .store(liar!(RepeatsPages)),
        ),
        listed(
            case(
                "never ends",
                "a listing of snapshots that never ends",
                one,
                Refused(ErrorKind::LimitExceeded, "lists more than"),
            )
            .store(liar!(NeverEnds)),
        ),
        listed(case("lists backwards", "a listing out of order", one, asked).store(liar!(ListsBackwards))),
        listed(
            case("lists others", "a listing of keys outside of the prefix", one, asked)
                .store(liar!(ListsOthers)),
        ),
        listed(
            case("long pages", "a page of a listing far longer than was asked for", one, asked)
                .store(liar!(LongPages)),
        ),
        case("shorter", "a get that returns less than was asked for", one, lost)
            .damaged()
            .store(liar!(Shorter))
            .honest_is_lost(),
        case("longer", "a get that returns more than was asked for", one, lost)
            .damaged()
            .store(liar!(Longer))
            .honest_is_lost(),
        case("claims a length", "a get that claims that the object has 2^64 bytes", one, Restored)
            .verify(Verify::Refused)
            .store(liar!(ClaimsLength)),
        case("other bytes", "a get that returns other bytes", one, lost)
            .damaged()
            .store(liar!(Others))
            .honest_is_lost(),
        case("listed length", "a listing that claims that objects have 2^64 bytes", one, Restored)
            .store(liar!(ClaimsListedLength)),
    ]
}
