//! Walking what a snapshot needs: its pages, and the chunks that their entries name.

use super::entries::{Expanded, Place};
use super::reader::Reader;
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::page::{ChunkBranchRow, PageRef, TreeRoot};
use crate::{Error, JobContext, Result};

/// Told of everything that a tree needs.
pub(super) trait Needs {
    /// A page. Returns whether to read it: false for one whose needs are known.
    fn page(&mut self, page: &PageRef) -> Result<bool>;

    /// A chunk of content.
    fn chunk(&mut self, chunk: &ChunkRef) -> Result<()>;

    /// Something that cannot be read. What stands behind it is not known.
    fn lost(&mut self, error: &Error);
}

/// Walks a tree. Damage goes to `needs`, everything else up.
pub(super) async fn walk(
    tree: &TreeRoot,
    reader: &Reader,
    needs: &mut (impl Needs + Send),
    job: &JobContext,
) -> Result<()> {
    let mut walk = Walk { reader, job, needs };
    let mut stack = Vec::new();
    match Place::root(tree) {
        Ok(place) => stack.push(place),
        Err(error) => walk.needs.lost(&error),
    }
    while let Some(place) = stack.pop() {
        let Some(bytes) = walk.page(&place.page).await? else { continue };
        match place.expand(&bytes) {
            Ok(Expanded::Pages(places)) => stack.extend(places.into_iter().rev()),
            Ok(Expanded::Entries(entries)) => {
                for stored in entries {
                    walk.content(&stored.content).await?;
                }
            }
            Err(error) => walk.needs.lost(&error),
        }
    }
    Ok(())
}

struct Walk<'a, N> {
    reader: &'a Reader,
    job: &'a JobContext,
    needs: &'a mut N,
}

impl<N: Needs + Send> Walk<'_, N> {
    async fn content(&mut self, content: &StoredContent) -> Result<()> {
        match content {
            StoredContent::None | StoredContent::Inline(_) => Ok(()),
            StoredContent::Chunks(chunks) => self.chunks(chunks),
            StoredContent::Paged { root: list, .. } => {
                let mut stack = vec![(list.page, list.levels)];
                while let Some((page, levels)) = stack.pop() {
                    let Some(bytes) = self.page(&page).await? else { continue };
                    let read = match levels.checked_sub(1) {
                        None => match ChunkRef::decode_page(&bytes) {
                            Ok(chunks) => self.chunks(&chunks).map(Ok)?,
                            Err(error) => Err(error),
                        },
                        Some(below) => ChunkBranchRow::decode_page(&bytes)
                            .map(|rows| stack.extend(rows.into_iter().rev().map(|row| (row.page, below)))),
                    };
                    if let Err(error) = read {
                        self.needs.lost(&error);
                    }
                }
                Ok(())
            }
        }
    }

    fn chunks(&mut self, chunks: &[ChunkRef]) -> Result<()> {
        chunks.iter().try_for_each(|chunk| self.needs.chunk(chunk))
    }

    async fn page(&mut self, page: &PageRef) -> Result<Option<Vec<u8>>> {
        self.job.check()?;
        if !self.needs.page(page)? {
            return Ok(None);
        }
        match self.reader.page(page, self.job).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_corruption() => {
                self.needs.lost(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
