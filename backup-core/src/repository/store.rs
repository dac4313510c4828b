//! The sink as the engine uses it: counted, rate limited, and opened with the repository's protection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::format::document;
use crate::observer::Event;
use crate::transform::{ObjectType, TransformSet};
use crate::{
    Error, ErrorKind, Fetched, GetRange, JobContext, ObjectKey, Protection, PutOutcome, Result, Sink, SinkExt,
};

/// A sink with what is needed to read and write sealed objects. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) protection: Arc<dyn Protection>,
    pub(crate) transforms: TransformSet,
}

/// What a job has put.
#[derive(Debug, Default)]
pub(crate) struct PutCounters {
    bytes: AtomicU64,
    objects: AtomicU64,
}

impl PutCounters {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }
}

impl Store {
    /// A fresh salt.
    pub(crate) fn salt(job: &JobContext) -> Result<[u8; 32]> {
        let mut salt = [0; 32];
        job.random().fill(&mut salt)?;
        Ok(salt)
    }

    /// Puts an object whose key nobody else can choose; finding the same bytes there is a success.
    pub(crate) async fn put(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<()> {
        job.check()?;
        let len = bytes.len() as u64;
        job.resources().upload().acquire(len).await;
        let _request = job.resources().request().await?;
        self.sink.put_or_same(key, bytes).await.map_err(|e| e.with_object(key))?;
        put.bytes.fetch_add(len, Ordering::Relaxed);
        put.objects.fetch_add(1, Ordering::Relaxed);
        job.emit(&Event::ObjectStored { key: key.to_string(), bytes: len });
        Ok(())
    }

    /// Proves that the sink creates once: what stands there is put once more. A store that claims to have made it again would
    /// overwrite snapshots, too.
    pub(crate) async fn check_creates_once(&self, key: &ObjectKey, bytes: Bytes) -> Result<()> {
        if self.sink.put(key, bytes).await.map_err(|e| e.with_object(key))? == PutOutcome::Created {
            let message = "the store overwrites objects although asked to create them only; it cannot hold a repository";
            return Err(Error::new(ErrorKind::Unsupported, message).with_object(key));
        }
        Ok(())
    }

    /// Reads a part of an object.
    pub(crate) async fn get(&self, key: &ObjectKey, range: GetRange, job: &JobContext) -> Result<Fetched> {
        job.check()?;
        let request = job.resources().request().await?;
        let fetched = self.sink.get(key, range).await.map_err(|e| e.with_object(key))?;
        drop(request);
        job.resources().download().acquire(fetched.bytes.len() as u64).await;
        Ok(fetched)
    }

    /// Reads a whole object of at most `max` bytes.
    pub(crate) async fn get_whole(&self, key: &ObjectKey, max: usize, job: &JobContext) -> Result<Bytes> {
        job.check()?;
        let request = job.resources().request().await?;
        let bytes = self.sink.get_whole(key, max).await.map_err(|e| e.with_object(key))?;
        drop(request);
        job.resources().download().acquire(bytes.len() as u64).await;
        Ok(bytes)
    }

    /// Seals and puts a document.
    pub(crate) async fn put_document<T: Serialize + Sync>(
        &self,
        key: &ObjectKey,
        object_type: ObjectType,
        value: &T,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<()> {
        let bytes = document::seal(&*self.protection, object_type, Self::salt(job)?, value)?;
        self.put(key, bytes, put, job).await
    }

    /// Reads and opens a document.
    pub(crate) async fn get_document<T: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        object_type: ObjectType,
        max: usize,
        job: &JobContext,
    ) -> Result<T> {
        let bytes = self.get_whole(key, max, job).await?;
        document::open(&*self.protection, object_type, &bytes).map_err(|e| e.with_object(key))
    }
}
