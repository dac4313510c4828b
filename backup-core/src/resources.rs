//! Memory, threads, requests and transfer rates, shared by as many jobs as hold the same handle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::SemaphorePermit;

use crate::limits::MIB;
use crate::{JobContext, Result};

mod pool;
mod rate;

pub(crate) use pool::{Lease, Processor};
pub use rate::RateLimit;

/// Buffers of a job that do not depend on its workers: packs being put, pages, entries on their way.
const BASE_BYTES: usize = 64 * MIB;
/// Buffers of one worker: a pack, a region, a frame before and after its transforms.
const WORKER_BYTES: usize = 32 * MIB;
/// Memory for an index unless told otherwise: one to two million chunks.
const INDEX_BYTES: usize = 64 * MIB;

/// A pool of resources. Clones share it: give one to every job of a process, and together they keep within it.
///
/// - **Memory**: a job starts once there is enough for it with one worker, and takes what is free for more. Jobs that
///   find none wait, in the order in which they came. So a job must not start another one on the same pool and wait for
///   it, as a source that backs something up in its `begin` would.
/// - **Processors**: of the threads of all jobs no more compute at once than the pool has workers.
/// - **Requests** to stores and **transfer rates** count over all jobs.
///
/// ```
/// use backup_core::{JobContext, Resources};
///
/// // Two jobs at once, each with up to two workers; together they send no more than 10 MiB a second.
/// let resources = Resources::new().with_workers(2).with_memory_bytes(256 * 1024 * 1024);
/// resources.upload().set_bytes_per_second(Some(10 * 1024 * 1024));
/// let files = JobContext::new().with_resources(resources.clone());
/// let database = JobContext::new().with_resources(resources);
/// ```
#[derive(Debug, Clone)]
pub struct Resources {
    workers: usize,
    memory_bytes: usize,
    requests: usize,
    index_bytes: usize,
    scratch: Arc<Path>,
    pool: Arc<pool::Pool>,
    upload: RateLimit,
    download: RateLimit,
}

impl Resources {
    /// One worker a processor, at most 16, and the memory that one job needs for them; 8 requests at once, no rate limit.
    /// Scratch files go to the system's directory for temporary files.
    pub fn new() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from).min(16);
        let memory_bytes = BASE_BYTES.saturating_add(WORKER_BYTES.saturating_mul(workers));
        let requests = 8;
        Self {
            workers,
            memory_bytes,
            requests,
            index_bytes: INDEX_BYTES,
            scratch: std::env::temp_dir().into(),
            pool: Arc::new(pool::Pool::new(workers, memory_bytes, requests)),
            upload: RateLimit::default(),
            download: RateLimit::default(),
        }
    }

    /// A pool with so many workers, 1 to 256. Like every such change this makes a new pool: change first, then share.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers.clamp(1, 256);
        self.renew()
    }

    /// A pool with this budget for the buffers of its jobs in bytes, at least [`Resources::MEMORY_BYTES_MIN`]. A small
    /// budget lowers the number of workers. What is known of a repository's chunks comes on top: see
    /// [`with_index_bytes`](Resources::with_index_bytes).
    #[must_use]
    pub fn with_memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes.max(Self::MEMORY_BYTES_MIN);
        self.renew()
    }

    /// A pool with so many requests to stores at once, 1 to 256.
    #[must_use]
    pub fn with_requests(mut self, requests: usize) -> Self {
        self.requests = requests.clamp(1, 256);
        self.renew()
    }

    /// The same pool with this much memory for the index of a repository, at least [`Resources::INDEX_BYTES_MIN`]; 64 MiB
    /// unless told otherwise. A chunk takes 32 bytes, a pack about one KiB. An index that needs more is spilled: it is
    /// sorted in scratch files and read from one, and 2 bytes a chunk stay in memory, 200 MiB for a hundred million. A
    /// backup takes up to half as much again for the chunks that it stores itself, and beyond that 2 bytes a chunk.
    #[must_use]
    pub fn with_index_bytes(mut self, bytes: usize) -> Self {
        self.index_bytes = bytes.max(Self::INDEX_BYTES_MIN);
        self
    }

    /// The same pool with scratch files in this directory: what does not fit in memory is sorted and kept there, in files
    /// without a name that end with the process. They hold keyed hashes, the names and attributes of a source's entries if
    /// it yields them unsorted, and neither keys nor content.
    ///
    /// Choose one on a disk. In a file system in memory, which `/tmp` is on many systems, what is spilled takes memory
    /// after all: 32 bytes a chunk and as many again while an index is sorted.
    #[must_use]
    pub fn with_scratch_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.scratch = directory.into().into();
        self
    }

    fn renew(mut self) -> Self {
        self.pool = Arc::new(pool::Pool::new(self.workers, self.memory_bytes, self.requests));
        self
    }

    /// The least memory that a job can do with: one worker.
    pub const MEMORY_BYTES_MIN: usize = BASE_BYTES + WORKER_BYTES;

    /// The least memory for an index.
    pub const INDEX_BYTES_MIN: usize = 16 * 1024;

    /// Worker threads of a job that has the pool to itself: as many as were asked for and the memory allows.
    pub fn workers(&self) -> usize {
        let affordable = self.memory_bytes.saturating_sub(BASE_BYTES) / WORKER_BYTES;
        self.workers.min(affordable.max(1))
    }

    /// Budget for the buffers of all jobs in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Requests to stores at once.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Memory for the index of a repository in bytes.
    pub fn index_bytes(&self) -> usize {
        self.index_bytes
    }

    /// Where scratch files go.
    pub fn scratch_directory(&self) -> &Path {
        &self.scratch
    }

    /// The limit on what is sent to stores; it can be changed while jobs run.
    pub fn upload(&self) -> &RateLimit {
        &self.upload
    }

    /// The limit on what is read from stores; it can be changed while jobs run.
    pub fn download(&self) -> &RateLimit {
        &self.download
    }

    /// A job's memory and workers. Waits while others have them; ends with an error when the job is cancelled.
    pub(crate) async fn lease(&self, job: &JobContext) -> Result<Lease> {
        self.pool.lease(self.workers, job).await
    }

    /// The right to have a request under way. Must not be held while waiting for another.
    pub(crate) async fn request(&self) -> Result<SemaphorePermit<'_>> {
        self.pool.request().await
    }

    /// The right to compute on this thread. Must not be held over input or output.
    pub(crate) fn processor(&self) -> Processor<'_> {
        self.pool.processor()
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self::new()
    }
}
