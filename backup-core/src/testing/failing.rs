//! A sink that goes wrong where a test wants it to.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Fault, Manner, Operation};
use crate::{CancellationToken, Error, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use ledger::{Ledger, Overdue};

mod ledger;

/// Forwards calls, apart from those that its [`Fault`]s name. Clones share everything.
///
/// ```
/// use std::sync::Arc;
/// use backup_core::testing::{FailingSink, Fault, Operation};
/// use backup_core::{ObjectKey, Sink};
///
/// # async fn example(store: Arc<dyn Sink>) -> backup_core::Result<()> {
/// let sink = FailingSink::over(store, [Fault::at(2).of(Operation::Put)]);
/// sink.put(&ObjectKey::new("first")?, "bytes".into()).await?;
/// assert!(sink.put(&ObjectKey::new("second")?, "bytes".into()).await.is_err());
/// assert_eq!(sink.struck(), 1);
/// # Ok(())
/// # }
/// ```
pub struct FailingSink<S: ?Sized> {
    ledger: Arc<Mutex<Ledger>>,
    ended: CancellationToken,
    inner: Arc<S>,
}

impl<S> FailingSink<S> {
    /// Calls of `inner` go wrong as `faults` say.
    pub fn new(inner: S, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::over(Arc::new(inner), faults)
    }
}

impl<S: ?Sized> FailingSink<S> {
    /// Calls of a sink that others may share go wrong as `faults` say.
    pub fn over(inner: Arc<S>, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { ledger: Arc::new(Mutex::new(Ledger::new(faults))), ended: CancellationToken::new(), inner }
    }

    /// The sink within, where nothing goes wrong.
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// From now on these faults hold, counting anew. What is late stays under way.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().set_faults(faults);
    }

    /// How many faults have come about, so that a test can tell "it survived" from "it never happened".
    pub fn struck(&self) -> usize {
        self.lock().struck()
    }

    /// The keys (for listings the prefixes) of the calls that were struck, in order.
    pub fn struck_at(&self) -> Vec<String> {
        self.lock().struck_at().to_vec()
    }

    /// Returns once a call was the process's [`Last`](Manner::Last). A test drops there what uses the sink, which
    /// would wait for ever.
    ///
    /// ```
    /// use backup_core::testing::{FailingSink, Fault, Manner};
    /// use backup_core::{GetRange, ObjectKey, Sink};
    ///
    /// # async fn example(store: std::sync::Arc<dyn Sink>) -> backup_core::Result<()> {
    /// let sink = FailingSink::over(store, [Fault::at(1).in_manner(Manner::Last { after_effect: false })]);
    /// let key = ObjectKey::new("config")?;
    /// tokio::select! {
    ///     _ = sink.get(&key, GetRange::Full) => unreachable!("nobody answers"),
    ///     () = sink.ended() => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<S: Sink + ?Sized> FailingSink<S> {
    /// Lets everything that is late take effect now. What comes of it nobody hears any more.
    pub async fn settle(&self) {
        let overdue = self.lock().take_late(u64::MAX);
        self.perform(overdue).await;
    }

    async fn perform(&self, overdue: Vec<Overdue>) {
        for call in overdue {
            match call {
                Overdue::Put(key, bytes) => drop(self.inner.put(&key, bytes).await),
                Overdue::Delete(key) => drop(self.inner.delete(&key).await),
            }
        }
    }

    /// Counts a call, lets what is due happen before it, and says which fault it meets.
    async fn begin(&self, operation: Operation, key: &str) -> Option<Fault> {
        if self.ended.is_cancelled() {
            return std::future::pending().await;
        }
        let (fault, overdue) = self.lock().begin(operation, key);
        self.perform(overdue).await;
        fault
    }

    /// What a call comes to that is struck in a manner that has no result of its own.
    async fn end<T>(
        &self,
        fault: &Fault,
        key: impl fmt::Display,
        effect: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match fault.manner {
            Manner::AfterEffect => drop(effect.await?),
            Manner::Last { after_effect } => {
                if after_effect {
                    drop(effect.await);
                }
                self.ended.cancel();
                return std::future::pending().await;
            }
            Manner::Hangs => return std::future::pending().await,
            _ => {}
        }
        Err(Error::new(fault.kind, "failed on purpose").with_object(key))
    }
}

impl<S: ?Sized> Clone for FailingSink<S> {
    fn clone(&self) -> Self {
        Self { ledger: self.ledger.clone(), ended: self.ended.clone(), inner: self.inner.clone() }
    }
}

impl<S: Sink + ?Sized> fmt::Debug for FailingSink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingSink").field("ledger", &*self.lock()).field("inner", &self.inner).finish()
    }
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for FailingSink<S> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let fault = self.begin(Operation::Put, key.as_str()).await;
        match fault.as_ref().map(|fault| (fault, fault.manner)) {
            None | Some((_, Manner::Stale { .. })) => {}
            Some((_, Manner::Repeated)) => drop(self.inner.put(key, bytes.clone()).await?),
            Some((fault, Manner::CutShort)) => {
                let part = bytes.slice(..bytes.len() / 2);
                let effect = self.inner.put(key, part);
                return self.end(&fault.clone().after_effect(), key, effect).await;
            }
            Some((fault, Manner::Late { calls })) => {
                self.lock().delay(calls, Overdue::Put(key.clone(), bytes));
                return self.end(fault, key, std::future::pending()).await;
            }
            Some((fault, _)) => return self.end(fault, key, self.inner.put(key, bytes)).await,
        }
        let outcome = self.inner.put(key, bytes).await;
        if outcome.is_ok() {
            self.lock().created(key);
        }
        outcome
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let fault = self.begin(Operation::Get, key.as_str()).await;
        let call = self.inner.get(key, range);
        match fault.as_ref().map(|fault| (fault, fault.manner)) {
            None | Some((_, Manner::Stale { .. } | Manner::Repeated)) => call.await,
            Some((_, Manner::CutShort)) => {
                let mut fetched = call.await?;
                fetched.bytes.truncate(fetched.bytes.len() / 2);
                Ok(fetched)
            }
            Some((fault, _)) => self.end(fault, key, call).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let fault = self.begin(Operation::List, prefix).await;
        let call = self.inner.list(prefix, after, limit);
        match fault.as_ref().map(|fault| (fault, fault.manner)) {
            None | Some((_, Manner::Repeated)) => call.await,
            Some((_, Manner::CutShort)) => {
                let mut listed = call.await?;
                listed.truncate(listed.len() / 2);
                Ok(listed)
            }
            Some((_, Manner::Stale { calls })) => {
                let mut listed = call.await?;
                let ledger = self.lock();
                listed.retain(|meta| !ledger.is_recent(&meta.key, calls));
                Ok(listed)
            }
            Some((fault, _)) => self.end(fault, prefix, call).await,
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let fault = self.begin(Operation::Delete, key.as_str()).await;
        let call = self.inner.delete(key);
        match fault.as_ref().map(|fault| (fault, fault.manner)) {
            None | Some((_, Manner::Stale { .. })) => call.await,
            Some((_, Manner::Repeated)) => {
                call.await?;
                self.inner.delete(key).await
            }
            Some((fault, Manner::Late { calls })) => {
                self.lock().delay(calls, Overdue::Delete(key.clone()));
                self.end(fault, key, std::future::pending()).await
            }
            Some((fault, _)) => self.end(fault, key, call).await,
        }
    }
}
