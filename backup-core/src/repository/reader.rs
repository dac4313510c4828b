//! What reading needs together: store, index, cache, and where to ask for what cannot be read.

use std::sync::Arc;

use super::frames::{FrameCache, read_chunk};
use super::index::Index;
use super::others::Others;
use super::store::Store;
use crate::format::page::PageRef;
use crate::{ChunkId, JobContext, Result};

/// Reads chunks and pages of one repository. Cheap to clone; clones share the cache.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) store: Store,
    pub(crate) index: Arc<Index>,
    pub(crate) cache: Arc<FrameCache>,
    pub(crate) others: Arc<Others>,
}

impl Reader {
    pub(crate) async fn chunk(&self, id: &ChunkId, len: u32, job: &JobContext) -> Result<Vec<u8>> {
        match read_chunk(&self.store, &self.index, &self.cache, id, len, job).await {
            Err(error) if self.others.are_there() => {
                Box::pin(self.others.chunk(id, len, &self.index, error, job)).await
            }
            read => read,
        }
    }

    pub(crate) async fn page(&self, page: &PageRef, job: &JobContext) -> Result<Vec<u8>> {
        self.chunk(&page.id, page.len, job).await
    }
}
