//! What reading needs together: store, index, cache.

use std::sync::Arc;

use super::frames::{FrameCache, read_chunk, read_page};
use super::index::Index;
use super::store::Store;
use crate::format::page::PageRef;
use crate::{ChunkId, JobContext, Result};

/// Reads chunks and pages of one repository. Cheap to clone; clones share the cache.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) store: Store,
    pub(crate) index: Arc<Index>,
    pub(crate) cache: Arc<FrameCache>,
}

impl Reader {
    pub(crate) async fn chunk(&self, id: &ChunkId, len: u32, job: &JobContext) -> Result<Vec<u8>> {
        read_chunk(&self.store, &self.index, &self.cache, id, len, job).await
    }

    pub(crate) async fn page(&self, page: &PageRef, job: &JobContext) -> Result<Vec<u8>> {
        read_page(&self.store, &self.index, &self.cache, page, job).await
    }
}
