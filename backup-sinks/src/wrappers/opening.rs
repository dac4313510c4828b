//! What opening a repository asks for, asked at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::limits::{CONTROL_BYTES_MAX, LIST_PAGE_OBJECTS_MAX};
use backup_core::{Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;
use futures_util::future::join_all;

const CONFIG: &str = "config";
const KEYS: &str = "keys/";
/// Slots that are asked for before they are known to be there.
const EXPECTED_MAX: usize = 16;

/// Answers what opening a repository asks for one after the other, `config`, the names of the key slots and the slots, from
/// a single round of requests.
///
/// For sinks that are far away, where each question costs a round trip. The slots are those that are expected because they
/// were there last time: [`slots`](Self::slots) says which to expect the next time. Nothing is older than the first
/// question: with the first that is none of these, or a put or a deletion of one, the answers are forgotten and all goes to
/// the inner sink, except that `config`, which is created once and never changes, stays known.
///
/// # Errors
/// Those of the inner sink: an expected slot that cannot be had is asked for again when it is really wanted.
///
/// Cancellation: a dropped first question is asked anew.
pub struct Opening<S: ?Sized> {
    expected: Vec<ObjectKey>,
    /// One asks; those who come meanwhile wait for the answers.
    asking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    inner: Arc<S>,
}

#[derive(Default)]
struct State {
    config: Option<Fetched>,
    answers: Answers,
    slots: Vec<ObjectKey>,
}

#[derive(Default)]
enum Answers {
    #[default]
    Unasked,
    Known {
        slots: Option<Vec<ObjectMeta>>,
        objects: BTreeMap<ObjectKey, Fetched>,
    },
    Over,
}

impl<S: Sink + ?Sized> Opening<S> {
    /// Over `inner`; `expected` are the slots that were there last time, of which the first sixteen count.
    pub fn over(inner: Arc<S>, expected: impl IntoIterator<Item = ObjectKey>) -> Self {
        let expected = expected.into_iter().filter(|key| key.as_str().starts_with(KEYS)).take(EXPECTED_MAX);
        let expected = expected.collect();
        Self { expected, asking: tokio::sync::Mutex::default(), state: Mutex::default(), inner }
    }

    /// The slots that were listed, to expect the next time; none before the opening.
    pub fn slots(&self) -> Vec<ObjectKey> {
        self.state().slots.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self) {
        let _asking = self.asking.lock().await;
        if !matches!(self.state().answers, Answers::Unasked) {
            return;
        }
        let Ok(config) = ObjectKey::new(CONFIG) else { return };
        // More than that no object of these has; of one that is longer a part comes, which is not kept.
        let most = || GetRange::Suffix(u64::try_from(CONTROL_BYTES_MAX).unwrap_or(u64::MAX));
        let keys = [&config].into_iter().chain(&self.expected);
        let objects = join_all(keys.map(|key| self.inner.get(key, most())));
        let (slots, objects) =
            futures_util::join!(self.inner.list(KEYS, None, LIST_PAGE_OBJECTS_MAX), objects);
        // What failed is asked for again by who wants it, who then hears why.
        let mut objects = objects.into_iter().map(|found| found.ok().filter(is_whole));
        let mut state = self.state();
        state.config = objects.next().flatten();
        let found = self.expected.iter().zip(objects);
        let objects = found.filter_map(|(key, found)| Some((key.clone(), found?))).collect();
        let slots = slots.ok().filter(|page| page.len() < LIST_PAGE_OBJECTS_MAX);
        state.slots = slots.iter().flatten().map(|meta| meta.key.clone()).take(EXPECTED_MAX).collect();
        state.answers = Answers::Known { slots, objects };
    }

    fn known(&self, key: &ObjectKey) -> Option<Fetched> {
        let state = self.state();
        match &state.answers {
            _ if key.as_str() == CONFIG => state.config.clone(),
            Answers::Known { objects, .. } => objects.get(key).cloned(),
            Answers::Unasked | Answers::Over => None,
        }
    }

    fn is_over(&self) {
        self.state().answers = Answers::Over;
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for Opening<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.is_over();
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        if key.as_str() != CONFIG && !key.as_str().starts_with(KEYS) {
            self.is_over();
            return self.inner.get(key, range).await;
        }
        self.ask().await;
        match self.known(key) {
            Some(whole) => range.cut(&whole.bytes).map_err(|error| error.with_object(key)),
            None => self.inner.get(key, range).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        if prefix != KEYS {
            self.is_over();
            return self.inner.list(prefix, after, limit).await;
        }
        self.ask().await;
        let known = match &self.state().answers {
            Answers::Known { slots, .. } => slots.clone(),
            Answers::Unasked | Answers::Over => None,
        };
        match known {
            Some(slots) => {
                Ok(slots.into_iter().filter(|meta| after.is_none_or(|a| meta.key > *a)).take(limit).collect())
            }
            None => self.inner.list(prefix, after, limit).await,
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.is_over();
        self.inner.delete(key).await
    }
}

fn is_whole(found: &Fetched) -> bool {
    u64::try_from(found.bytes.len()) == Ok(found.object_len)
}

impl<S: Sink + ?Sized> fmt::Debug for Opening<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("inner", &self.inner).finish_non_exhaustive()
    }
}
