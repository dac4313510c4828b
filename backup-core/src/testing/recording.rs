//! A sink that remembers every call, for tests that assert what was asked of a store and not only what came of it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};

/// Calls that are remembered; those beyond it are not.
pub const CALLS_MAX: usize = 1 << 20;

/// One of the four calls of a [`Sink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Sink::put`]
    Put,
    /// [`Sink::get`]
    Get,
    /// [`Sink::list`]
    List,
    /// [`Sink::delete`]
    Delete,
}

/// A call and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which call.
    pub operation: Operation,
    /// The object's key; for a listing the prefix.
    pub key: String,
    /// What part was asked for, of a get.
    pub range: Option<GetRange>,
    /// Bytes given to a put or returned by a get; objects returned by a listing.
    pub amount: u64,
    /// What a successful put did.
    pub outcome: Option<PutOutcome>,
    /// How it ended; none while it is under way or if its future was dropped.
    pub result: Option<std::result::Result<(), ErrorKind>>,
}

/// Forwards every call and remembers it, in the order in which the calls began.
///
/// ```
/// use backup_core::testing::{Operation, RecordingSink};
/// # async fn example(store: std::sync::Arc<dyn backup_core::Sink>) {
/// let sink = RecordingSink::over(store);
/// // ... let something use a clone of `sink` ...
/// assert_eq!(sink.count(Operation::Put), 0);
/// # }
/// ```
pub struct RecordingSink<S: ?Sized> {
    calls: Arc<Mutex<Vec<Call>>>,
    inner: Arc<S>,
}

impl<S> RecordingSink<S> {
    /// Records the calls of `inner`.
    pub fn new(inner: S) -> Self {
        Self::over(Arc::new(inner))
    }
}

impl<S: ?Sized> RecordingSink<S> {
    /// Records the calls of a sink that others may share.
    pub fn over(inner: Arc<S>) -> Self {
        Self { calls: Arc::default(), inner }
    }

    /// The sink within; calls made there directly are not recorded.
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// The calls so far, forgotten by the recorder. Calls that are under way will have no result.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.lock())
    }

    /// How many calls of this kind there were.
    pub fn count(&self, operation: Operation) -> usize {
        self.lock().iter().filter(|call| call.operation == operation).count()
    }

    /// The bytes of all puts that created an object.
    pub fn bytes_created(&self) -> u64 {
        let calls = self.lock();
        let created = calls.iter().filter(|call| call.outcome == Some(PutOutcome::Created));
        created.map(|call| call.amount).fold(0, u64::saturating_add)
    }

    /// The keys of all puts that created an object, in the order in which the puts began.
    pub fn keys_created(&self) -> Vec<String> {
        let calls = self.lock();
        let created = calls.iter().filter(|call| call.outcome == Some(PutOutcome::Created));
        created.map(|call| call.key.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Remembers the beginning of a call; the number by which its end is reported.
    fn begin(&self, operation: Operation, key: &str, range: Option<GetRange>, amount: u64) -> usize {
        let mut calls = self.lock();
        let number = calls.len();
        if number < CALLS_MAX {
            calls.push(Call { operation, key: key.to_owned(), range, amount, outcome: None, result: None });
        }
        number
    }

    fn end<T>(&self, number: usize, result: &Result<T>, describe: impl FnOnce(&mut Call, &T)) {
        if let Some(call) = self.lock().get_mut(number) {
            call.result = Some(result.as_ref().map(|_| ()).map_err(|error| error.kind()));
            if let Ok(value) = result {
                describe(call, value);
            }
        }
    }
}

impl<S: ?Sized> Clone for RecordingSink<S> {
    fn clone(&self) -> Self {
        Self { calls: Arc::clone(&self.calls), inner: Arc::clone(&self.inner) }
    }
}

impl<S: Sink + ?Sized> fmt::Debug for RecordingSink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingSink")
            .field("calls", &self.lock().len())
            .field("inner", &self.inner)
            .finish()
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for RecordingSink<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let number = self.begin(Operation::Put, key.as_str(), None, count(bytes.len()));
        let result = self.inner.put(key, bytes).await;
        self.end(number, &result, |call, outcome| call.outcome = Some(*outcome));
        result
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let number = self.begin(Operation::Get, key.as_str(), Some(range.clone()), 0);
        let result = self.inner.get(key, range).await;
        self.end(number, &result, |call, fetched| call.amount = count(fetched.bytes.len()));
        result
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let number = self.begin(Operation::List, prefix, None, 0);
        let result = self.inner.list(prefix, after, limit).await;
        self.end(number, &result, |call, listed| call.amount = count(listed.len()));
        result
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let number = self.begin(Operation::Delete, key.as_str(), None, 0);
        let result = self.inner.delete(key).await;
        self.end(number, &result, |_, ()| {});
        result
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
