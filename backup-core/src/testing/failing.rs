//! A sink that fails where a test wants it to, before or after the call had its effect.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::Operation;
use crate::{Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};

/// Which calls fail, and how.
///
/// ```
/// use backup_core::testing::{Fault, Operation};
/// use backup_core::ErrorKind;
///
/// // From its third put on, the store is full.
/// let full = Fault::at(3).of(Operation::Put).with_kind(ErrorKind::NoSpace).from_then_on();
/// // The answer to the first put below `snapshots/` is lost.
/// let lost = Fault::at(1).of(Operation::Put).below("snapshots/").after_effect();
/// # let _ = (full, lost);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    nth: u64,
    operation: Option<Operation>,
    prefix: String,
    after_effect: bool,
    from_then_on: bool,
    kind: Option<ErrorKind>,
}

impl Fault {
    /// The `nth` call fails, counting from 1, with [`ErrorKind::Transient`] and without effect.
    pub fn at(nth: u64) -> Self {
        Self {
            nth,
            operation: None,
            prefix: String::new(),
            after_effect: false,
            from_then_on: false,
            kind: Some(ErrorKind::Transient),
        }
    }

    /// Counts and fails only these calls.
    #[must_use]
    pub fn of(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Counts and fails only calls whose key (for a listing: whose prefix) starts so.
    #[must_use]
    pub fn below(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The call has its effect, but the caller is told that it failed: an answer that was lost.
    #[must_use]
    pub fn after_effect(mut self) -> Self {
        self.after_effect = true;
        self
    }

    /// All later ones fail, too.
    #[must_use]
    pub fn from_then_on(mut self) -> Self {
        self.from_then_on = true;
        self
    }

    /// Fails with an error of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// The call does not fail: it never ends, so that a test can drop it there.
    #[must_use]
    pub fn hanging(mut self) -> Self {
        self.kind = None;
        self
    }

    fn matches(&self, operation: Operation, key: &str) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation) && key.starts_with(&self.prefix)
    }
}

/// Forwards calls, apart from those that its [`Fault`]s name.
pub struct FailingSink<S: ?Sized> {
    /// Each fault with the number of calls that it counted.
    faults: Arc<Mutex<Vec<(Fault, u64)>>>,
    inner: Arc<S>,
}

impl<S> FailingSink<S> {
    /// Calls of `inner` fail as `faults` say.
    pub fn new(inner: S, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::over(Arc::new(inner), faults)
    }
}

impl<S: ?Sized> FailingSink<S> {
    /// Calls of a sink that others may share fail as `faults` say.
    pub fn over(inner: Arc<S>, faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().map(|fault| (fault, 0)).collect();
        Self { faults: Arc::new(Mutex::new(faults)), inner }
    }

    /// The sink within, which does not fail.
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// From now on these faults hold, counting anew.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.lock() = faults.into_iter().map(|fault| (fault, 0)).collect();
    }

    /// How many faults have come about, so that a test can tell "it survived" from "it never happened".
    pub fn struck(&self) -> usize {
        self.lock().iter().filter(|(fault, seen)| *seen >= fault.nth).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Fault, u64)>> {
        self.faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts the call and says which fault it meets.
    fn next(&self, operation: Operation, key: &str) -> Option<Fault> {
        let mut struck = None;
        for (fault, seen) in self.lock().iter_mut().filter(|(fault, _)| fault.matches(operation, key)) {
            *seen = seen.saturating_add(1);
            if struck.is_none() && (*seen == fault.nth || (fault.from_then_on && *seen > fault.nth)) {
                struck = Some(fault.clone());
            }
        }
        struck
    }

    async fn forward<T>(
        &self,
        operation: Operation,
        key: &str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(fault) = self.next(operation, key) else { return call.await };
        if fault.after_effect {
            call.await?;
        }
        match fault.kind {
            Some(kind) => Err(Error::new(kind, "failed on purpose").with_object(key)),
            None => std::future::pending().await,
        }
    }
}

impl<S: ?Sized> Clone for FailingSink<S> {
    fn clone(&self) -> Self {
        Self { faults: Arc::clone(&self.faults), inner: Arc::clone(&self.inner) }
    }
}

impl<S: Sink + ?Sized> fmt::Debug for FailingSink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingSink").field("faults", &*self.lock()).field("inner", &self.inner).finish()
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for FailingSink<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.forward(Operation::Put, key.as_str(), self.inner.put(key, bytes)).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.forward(Operation::Get, key.as_str(), self.inner.get(key, range)).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.forward(Operation::List, prefix, self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.forward(Operation::Delete, key.as_str(), self.inner.delete(key)).await
    }
}
