//! Memory, threads and transfer rates, shared by as many jobs as hold the same handle.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::MIB;

/// Buffers of a job that do not depend on its workers: packs being put, pages, entries on their way.
const BASE_BYTES: usize = 64 * MIB;
/// Buffers of one worker: a pack, a region, a frame before and after its transforms.
const WORKER_BYTES: usize = 32 * MIB;

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
    /// One worker a processor, at most 16, and the memory that they need; 8 requests at once, no rate limit.
    pub fn new() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from).min(16);
        Self {
            workers,
            memory_bytes: BASE_BYTES.saturating_add(WORKER_BYTES.saturating_mul(workers)),
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

    /// The same pool with this budget for a job's buffers in bytes, at least [`Resources::MEMORY_BYTES_MIN`]. A small
    /// budget lowers the number of workers. The table of known chunks comes on top: about 50 bytes a chunk.
    #[must_use]
    pub fn with_memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes.max(Self::MEMORY_BYTES_MIN);
        self
    }

    /// The same pool with so many requests to a store at once, 1 to 256.
    #[must_use]
    pub fn with_requests(mut self, requests: usize) -> Self {
        self.requests = requests.clamp(1, 256);
        self
    }

    /// The least memory that a job can do with: one worker.
    pub const MEMORY_BYTES_MIN: usize = BASE_BYTES + WORKER_BYTES;

    /// Worker threads of a job: as many as were asked for and the memory allows.
    pub fn workers(&self) -> usize {
        let affordable = self.memory_bytes.saturating_sub(BASE_BYTES) / WORKER_BYTES;
        self.workers.min(affordable.max(1))
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
