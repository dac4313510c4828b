//! Memory, threads and transfer rates, shared by as many jobs as hold the same handle.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::MIB;

/// A pool of resources. Clones share it: give one to every job of a process to bound them together.
///
/// ```
/// use backup_core::Resources;
///
/// let resources = Resources::new().with_workers(2).with_memory_bytes(128 * 1024 * 1024);
/// resources.upload().set_bytes_per_second(Some(10 * 1024 * 1024));
/// ```
#[derive(Debug, Clone)]
pub struct Resources {
    workers: usize,
    memory_bytes: usize,
    requests: usize,
    upload: RateLimit,
    download: RateLimit,
}

impl Resources {
    /// One worker a processor, 128 MiB, 8 requests at once, no rate limit.
    pub fn new() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            workers: workers.min(16),
            memory_bytes: 128 * MIB,
            requests: 8,
            upload: RateLimit::default(),
            download: RateLimit::default(),
        }
    }

    /// The same pool with so many worker threads a job, 1 to 256.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers.clamp(1, 256);
        self
    }

    /// The same pool with this budget for a job's buffers in bytes, at least 48 MiB.
    #[must_use]
    pub fn with_memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes.max(48 * MIB);
        self
    }

    /// The same pool with so many requests to a store at once, 1 to 256.
    #[must_use]
    pub fn with_requests(mut self, requests: usize) -> Self {
        self.requests = requests.clamp(1, 256);
        self
    }

    /// Worker threads of a job.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Budget for a job's buffers in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Requests to a store at once.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// The limit on what is sent to stores; it can be changed while jobs run.
    pub fn upload(&self) -> &RateLimit {
        &self.upload
    }

    /// The limit on what is read from stores; it can be changed while jobs run.
    pub fn download(&self) -> &RateLimit {
        &self.download
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self::new()
    }
}

/// A transfer rate, adjustable at any time, shared by clones.
#[derive(Debug, Clone, Default)]
pub struct RateLimit(Arc<RateState>);

#[derive(Debug, Default)]
struct RateState {
    // 0: no limit.
    bytes_per_second: AtomicU64,
    // When the line is free again.
    free_at: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// Sets the limit; none lifts it.
    pub fn set_bytes_per_second(&self, limit: Option<u64>) {
        self.0.bytes_per_second.store(limit.unwrap_or(0), Ordering::Relaxed);
    }

    /// The limit.
    pub fn bytes_per_second(&self) -> Option<u64> {
        Some(self.0.bytes_per_second.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// Waits until `bytes` more may be transferred. Dropping the future gives the place in line away unused.
    pub async fn acquire(&self, bytes: u64) {
        let Some(limit) = self.bytes_per_second() else { return };
        let start = {
            let mut free_at = self.0.free_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let now = Instant::now();
            let start = free_at.filter(|at| *at > now).unwrap_or(now);
            let seconds = bytes as f64 / limit as f64;
            let cost = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(86_400));
            *free_at = start.checked_add(cost);
            start
        };
        tokio::time::sleep_until(start.into()).await;
    }
}
