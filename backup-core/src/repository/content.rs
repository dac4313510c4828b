//! The chunks of a stored content in order, however its list is kept.

use std::collections::VecDeque;

use super::reader::Reader;
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::page::{ChunkBranchRow, PageRef};
use crate::{Error, JobContext, Result};

/// Walks a chunk list, also from the middle.
#[derive(Debug)]
pub(crate) struct ChunkStream {
    reader: Reader,
    stack: Vec<(PageRef, u8)>,
    ready: VecDeque<ChunkRef>,
}

impl ChunkStream {
    /// The chunks of `content` from the first on. Inline content has none.
    pub(crate) fn new(reader: Reader, content: &StoredContent) -> Result<Self> {
        let mut stream = Self { reader, stack: Vec::new(), ready: VecDeque::new() };
        match content {
            StoredContent::None | StoredContent::Inline(_) => {}
            StoredContent::Chunks(chunks) => stream.ready.extend(chunks),
            StoredContent::Paged { root, .. } => {
                if root.levels > crate::limits::PAGE_LEVELS_MAX {
                    return Err(Error::corruption("a chunk list is deeper than the format allows"));
                }
                stream.stack.push((root.page, root.levels));
            }
        }
        Ok(stream)
    }

    /// The next chunk; none at the end.
    pub(crate) async fn next(&mut self, job: &JobContext) -> Result<Option<ChunkRef>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            let Some((page, levels)) = self.stack.pop() else { return Ok(None) };
            let bytes = self.reader.page(&page, job).await?;
            if levels == 0 {
                self.ready.extend(ChunkRef::decode_page(&bytes)?);
            } else {
                let rows = ChunkBranchRow::decode_page(&bytes)?;
                self.stack.extend(rows.into_iter().rev().map(|row| (row.page, levels.saturating_sub(1))));
            }
        }
    }

    /// Skips whole chunks until the one that holds byte `offset`; returns where the next chunk starts.
    pub(crate) async fn seek(&mut self, offset: u64, job: &JobContext) -> Result<u64> {
        let mut at = 0_u64;
        loop {
            while let Some(chunk) = self.ready.front() {
                let end = at.saturating_add(u64::from(chunk.len));
                if end > offset {
                    return Ok(at);
                }
                at = end;
                self.ready.pop_front();
            }
            let Some((page, levels)) = self.stack.pop() else { return Ok(at) };
            let bytes = self.reader.page(&page, job).await?;
            if levels == 0 {
                self.ready.extend(ChunkRef::decode_page(&bytes)?);
                continue;
            }
            let mut rows = ChunkBranchRow::decode_page(&bytes)?;
            let mut skip = 0_usize;
            for row in &rows {
                let end = at.saturating_add(row.bytes);
                if end > offset {
                    break;
                }
                at = end;
                skip = skip.saturating_add(1);
            }
            rows.drain(..skip);
            self.stack.extend(rows.into_iter().rev().map(|row| (row.page, levels.saturating_sub(1))));
        }
    }
}
