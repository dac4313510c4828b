//! What several jobs draw on at once: memory by admission, processors and requests by permits.

use std::sync::{Arc, Condvar, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::{BASE_BYTES, WORKER_BYTES};
use crate::limits::MIB;
use crate::{Error, JobContext, Result};

/// The shared part of [`Resources`](super::Resources).
#[derive(Debug)]
pub(super) struct Pool {
    /// Jobs are admitted in the order in which they came: a big one is not overtaken for ever by small ones.
    gate: tokio::sync::Mutex<()>,
    /// Counts MiB.
    memory: Arc<Semaphore>,
    requests: Semaphore,
    processors: Processors,
}

impl Pool {
    pub(super) fn new(workers: usize, memory_bytes: usize, requests: usize) -> Self {
        Self {
            gate: tokio::sync::Mutex::default(),
            memory: Arc::new(Semaphore::new((memory_bytes / MIB).min(Semaphore::MAX_PERMITS))),
            requests: Semaphore::new(requests),
            processors: Processors { free: Mutex::new(workers), freed: Condvar::new() },
        }
    }

    /// Waits for the memory of a job with one worker, then takes as much more as is free for up to `workers`.
    pub(super) async fn lease(&self, workers: usize, job: &JobContext) -> Result<Lease> {
        let admitted = async {
            let _gate = self.gate.lock().await;
            let memory = self.memory.clone().acquire_many_owned(mib(BASE_BYTES + WORKER_BYTES)).await;
            let mut memory = memory.map_err(|_| Error::internal("a pool of resources was closed"))?;
            let mut granted = 1;
            while granted < workers
                && let Ok(more) = self.memory.clone().try_acquire_many_owned(mib(WORKER_BYTES))
            {
                memory.merge(more);
                granted += 1;
            }
            Ok(Lease { workers: granted, _memory: memory })
        };
        tokio::select! {
            lease = admitted => lease,
            () = job.cancellation().cancelled() => Err(Error::cancelled()),
        }
    }

    pub(super) async fn request(&self) -> Result<SemaphorePermit<'_>> {
        self.requests.acquire().await.map_err(|_| Error::internal("a pool of resources was closed"))
    }

    pub(super) fn processor(&self) -> Processor<'_> {
        self.processors.take()
    }
}

/// A job's share of memory; it goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    workers: usize,
    _memory: OwnedSemaphorePermit,
}

impl Lease {
    /// Worker threads that the job may have.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }
}

fn mib(bytes: usize) -> u32 {
    u32::try_from(bytes / MIB).unwrap_or(u32::MAX)
}

/// Counts threads that compute, in the calling threads themselves.
#[derive(Debug)]
struct Processors {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Processors {
    fn take(&self) -> Processor<'_> {
        let free = self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Held over computation only, never over input or output, so this wait is one of milliseconds.
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(|p| p.into_inner());
        *free = free.saturating_sub(1);
        Processor(self)
    }
}

/// The right to compute; it goes back when this is dropped.
pub(crate) struct Processor<'a>(&'a Processors);

impl Drop for Processor<'_> {
    fn drop(&mut self) {
        let mut free = self.0.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *free = free.saturating_add(1);
        drop(free);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn small() -> super::super::Resources {
        // Two workers of one job, or one worker of each of one and a half jobs.
        super::super::Resources::new().with_workers(2).with_memory_bytes(BASE_BYTES + 2 * WORKER_BYTES)
    }

    #[tokio::test]
    async fn a_job_waits_for_memory_and_gets_what_is_free() {
        let job = JobContext::new().with_resources(small());
        let first = job.resources().lease(&job).await.unwrap();
        assert_eq!(first.workers(), 2);
        let second = job.resources().lease(&job);
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await.unwrap().workers(), 2);
    }

    #[tokio::test]
    async fn jobs_share_memory_where_there_is_enough() {
        let resources = small().with_memory_bytes(2 * BASE_BYTES + 3 * WORKER_BYTES);
        let job = JobContext::new().with_resources(resources);
        let first = job.resources().lease(&job).await.unwrap();
        let second = job.resources().lease(&job.clone()).await.unwrap();
        assert_eq!((first.workers(), second.workers()), (2, 1));
    }

    #[tokio::test]
    async fn a_waiting_job_can_be_cancelled_and_blocks_nobody() {
        let job = JobContext::new().with_resources(small());
        let first = job.resources().lease(&job).await.unwrap();
        let other = JobContext::new().with_resources(job.resources().clone());
        {
            let waiting = other.resources().lease(&other);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            other.cancellation().cancel();
            assert!(waiting.await.unwrap_err().is_cancelled());
        }
        drop(first);
        assert_eq!(job.resources().lease(&job).await.unwrap().workers(), 2);
    }

    #[test]
    fn no_more_threads_compute_at_once_than_there_are_workers() {
        let resources = small();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _processor = resources.processor();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
    }
}
