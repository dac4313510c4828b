//! Objects in the memory of this process.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use backup_core::{
    Clock, Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink, SystemClock,
    Timestamp, limits,
};
use bytes::Bytes;

/// A sink that keeps its objects in memory. Clones share them; they are gone when the last clone is.
///
/// It keeps the whole contract of [`Sink`] short of durability. Bytes are neither copied on put nor on get. Objects
/// longer than [`limits::OBJECT_BYTES_MAX`] are refused, so what a sink may hold is bounded by its callers alone in
/// the number of objects.
#[derive(Clone)]
pub struct MemorySink {
    objects: Arc<Mutex<BTreeMap<ObjectText, Stored>>>,
    clock: Arc<dyn Clock>,
}

/// A key by which the map can be searched for any text, as prefixes are.
type ObjectText = Arc<str>;

struct Stored {
    key: ObjectKey,
    bytes: Bytes,
    created: Timestamp,
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty sink whose objects are created at the times that `clock` shows: a store's clock under a test's control.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { objects: Arc::default(), clock }
    }

    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether it holds no object.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The bytes of all objects together.
    pub fn total_bytes(&self) -> u64 {
        self.lock().values().map(|stored| length(&stored.bytes)).fold(0, u64::saturating_add)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectText, Stored>> {
        // No step leaves the map half changed, so what a panicking thread held is still whole.
        self.objects.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Default for MemorySink {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink").field("objects", &self.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        if bytes.len() > limits::OBJECT_BYTES_MAX {
            let message = format!("{} bytes are more than an object may have", bytes.len());
            return Err(Error::new(ErrorKind::LimitExceeded, message).with_object(key));
        }
        let created = self.clock.now();
        let mut objects = self.lock();
        if objects.contains_key(key.as_str()) {
            return Ok(PutOutcome::AlreadyExists);
        }
        objects.insert(key.as_str().into(), Stored { key: key.clone(), bytes, created });
        Ok(PutOutcome::Created)
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let whole = self.lock().get(key.as_str()).map(|stored| stored.bytes.clone());
        let whole = whole
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such object").with_object(key))?;
        range.cut(&whole).map_err(|error| error.with_object(key))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let objects = self.lock();
        let from_start = objects.range::<str, _>((start, Bound::Unbounded));
        let below = from_start.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(below
            .map(|(_, stored)| ObjectMeta {
                key: stored.key.clone(),
                len: length(&stored.bytes),
                created: Some(stored.created),
            })
            .collect())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.lock().remove(key.as_str());
        Ok(())
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clones_share_their_objects() {
        let sink = MemorySink::new();
        let key = ObjectKey::new("a").unwrap();
        sink.clone().put(&key, "12".into()).await.unwrap();
        assert_eq!((sink.len(), sink.total_bytes()), (1, 2));
    }
}
