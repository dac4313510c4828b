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
    /// Pages to visit, the next one last, with the levels and the bytes of content below each.
    stack: Vec<(PageRef, u8, u64)>,
    ready: VecDeque<ChunkRef>,
    /// Pages that were read, for who asked for them.
    visited: Option<Vec<PageRef>>,
}

impl ChunkStream {
    /// The chunks of `content` from the first on. Inline content has none.
    pub(crate) fn new(reader: Reader, content: &StoredContent) -> Result<Self> {
        let mut stream = Self { reader, stack: Vec::new(), ready: VecDeque::new(), visited: None };
        match content {
            StoredContent::None | StoredContent::Inline(_) => {}
            StoredContent::Chunks(chunks) => stream.ready.extend(chunks),
            StoredContent::Paged { root, bytes } => {
                if root.levels > crate::limits::PAGE_LEVELS_MAX {
                    return Err(Error::corruption("a chunk list is deeper than the format allows"));
                }
                stream.stack.push((root.page, root.levels, *bytes));
            }
        }
        Ok(stream)
    }

    /// The same, remembering which pages it reads until they are [taken](Self::take_visited).
    pub(crate) fn remembering_pages(mut self) -> Self {
        self.visited = Some(Vec::new());
        self
    }

    /// The pages read since the last call.
    pub(crate) fn take_visited(&mut self) -> Vec<PageRef> {
        self.visited.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The next chunk; none at the end.
    pub(crate) async fn next(&mut self, job: &JobContext) -> Result<Option<ChunkRef>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            if !self.load(job).await? {
                return Ok(None);
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
            match self.stack.last() {
                None => return Ok(at),
                // The whole page lies before.
                Some((_, _, bytes)) if at.saturating_add(*bytes) <= offset => {
                    at = at.saturating_add(*bytes);
                    self.stack.pop();
                }
                Some(_) => {
                    self.load(job).await?;
                }
            }
        }
    }

    // Reads one page; false if there is none left. What it refers to must add up to what was said of it, and nothing in
    // it may be empty: so walking a forged list ends.
    async fn load(&mut self, job: &JobContext) -> Result<bool> {
        let Some((page, levels, expected)) = self.stack.pop() else { return Ok(false) };
        if let Some(visited) = &mut self.visited {
            visited.push(page);
        }
        let decoded = match self.reader.page(&page, job).await {
            Ok(bytes) => self.expand(&bytes, levels, expected),
            Err(error) => Err(error),
        };
        if decoded.is_err() {
            // Nobody can tell what stands behind a part that is missing.
            self.stack.clear();
        }
        decoded.map(|()| true)
    }

    fn expand(&mut self, page: &[u8], levels: u8, expected: u64) -> Result<()> {
        let mut lens = Vec::new();
        if levels == 0 {
            let chunks = ChunkRef::decode_page(page)?;
            lens.extend(chunks.iter().map(|chunk| u64::from(chunk.len)));
            self.ready.extend(chunks);
        } else {
            let rows = ChunkBranchRow::decode_page(page)?;
            lens.extend(rows.iter().map(|row| row.bytes));
            let below = rows.into_iter().rev().map(|row| (row.page, levels.saturating_sub(1), row.bytes));
            self.stack.extend(below);
        }
        let sum = lens.iter().try_fold(0_u64, |sum, len| sum.checked_add(*len));
        if sum != Some(expected) || lens.contains(&0) {
            self.ready.clear();
            return Err(Error::corruption("a list of chunks does not add up to its length"));
        }
        Ok(())
    }
}
