//! Whether content elsewhere is what a snapshot has, by the identities of its chunks: nothing but lists is fetched.

use std::sync::Arc;

use super::content::ChunkStream;
use super::guard;
use super::snapshot::Snapshot;
use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::entries::StoredEntry;
use crate::limits;
use crate::protection::Protection;
use crate::source::ReadAt;
use crate::{Error, JobContext, Result};

/// Bytes compared between two looks at whether the job was cancelled.
const BATCH_BYTES: u64 = 8 * limits::MIB as u64;

impl Snapshot {
    /// Whether `content` is that of a stored entry of this snapshot. It is read beside the runtime's threads up to the
    /// first difference; what cannot be read differs.
    ///
    /// # Errors
    ///
    /// Lists of chunks cannot be read, or the job was cancelled.
    pub async fn has_content(
        &self,
        stored: &StoredEntry,
        content: Arc<dyn ReadAt>,
        job: &JobContext,
    ) -> Result<bool> {
        guard::run(job, async move {
            if content.len() != stored.content.len() {
                return Ok(false);
            }
            if let StoredContent::Inline(bytes) = &stored.content {
                let bytes = bytes.clone();
                let same = move || {
                    let mut found = vec![0; bytes.len()];
                    Ok(content.read_exact_at(&mut found, 0).is_ok() && found == *bytes)
                };
                return guard::blocking(same).await;
            }
            let reader = self.reader(job).await?;
            let mut chunks = ChunkStream::new(reader.clone(), &stored.content)?;
            let mut at = 0_u64;
            loop {
                job.check()?;
                let (mut batch, mut bytes) = (Vec::new(), 0_u64);
                while bytes < BATCH_BYTES
                    && let Some(chunk) = chunks.next(job).await?
                {
                    bytes = bytes.saturating_add(u64::from(chunk.len));
                    batch.push(chunk);
                }
                if batch.is_empty() {
                    return Ok(true);
                }
                let (content, job) = (content.clone(), job.clone());
                let protection = reader.store.protection.clone();
                let same = guard::blocking(move || {
                    let _processor = job.resources().processor();
                    Ok(are_at(&batch, &*content, at, &*protection))
                });
                if !same.await? {
                    return Ok(false);
                }
                at = at
                    .checked_add(bytes)
                    .ok_or_else(|| Error::corruption("a list of chunks is longer than any file"))?;
            }
        })
        .await
    }
}

/// Whether these chunks stand in `content`, one after the other, from `at` on.
fn are_at(chunks: &[ChunkRef], content: &dyn ReadAt, mut at: u64, protection: &dyn Protection) -> bool {
    let mut found = Vec::new();
    chunks.iter().all(|chunk| {
        found.resize(chunk.len as usize, 0);
        let read = content.read_exact_at(&mut found, at).is_ok();
        at = at.saturating_add(u64::from(chunk.len));
        read && protection.chunk_id(&found) == chunk.id
    })
}
