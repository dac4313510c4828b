//! Restoring into a target that takes one entry after the other: archives, streams.

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::selected::{Chosen, Selected};
use super::totals::Totals;
use crate::format::chunks::StoredContent;
use crate::format::entries::StoredEntry;
use crate::repository::content::ChunkStream;
use crate::repository::reader::Reader;
use crate::repository::snapshot::Snapshot;
use crate::target::{Target, Writer};
use crate::{Error, JobContext, Result, Skipped};

/// Restores in the order of the snapshot, each entry from front to back.
pub(crate) async fn restore(
    snapshot: &Snapshot,
    target: &dyn Target,
    selected: &mut Selected<'_>,
    totals: &Totals,
    job: &JobContext,
) -> Result<()> {
    let reader = snapshot.reader(job).await?;
    while let Some(chosen) = selected.next().await? {
        match chosen {
            Chosen::Entry(stored) => restore_entry(&reader, stored, target, totals, job).await?,
            Chosen::Lost(skipped) => totals.fail(skipped, job),
        }
    }
    Ok(())
}

async fn restore_entry(
    reader: &Reader,
    stored: StoredEntry,
    target: &dyn Target,
    totals: &Totals,
    job: &JobContext,
) -> Result<()> {
    let StoredEntry { entry, content } = stored;
    // An archive announces an entry's length before its content: damage is looked for first.
    if let Err(error) = readable(reader, &content, target.needs_whole_entries(), job).await {
        if !error.is_corruption() {
            return Err(error);
        }
        totals.fail(Skipped::new(&entry.name, error), job);
        return Ok(());
    }
    match target.entry(&entry).await? {
        Writer::Skip => totals.entry_unchanged(content.len()),
        Writer::Async(mut writer) => {
            copy(reader, &content, &mut writer, totals, job).await.map_err(|e| e.with_entry(&entry.name))?;
            writer.shutdown().await.map_err(|e| Error::io("the target failed", e).with_entry(&entry.name))?;
            totals.entry_written(&entry.name);
        }
        Writer::Blocking(_) => {
            let message = "a target that takes entries one after the other gave a blocking writer";
            return Err(Error::internal(message).with_entry(&entry.name));
        }
    }
    Ok(())
}

// Content that is short is opened twice, the second time from the cache. In long content of a target that need not know,
// damage is found while it is written and fails the job: a stream with a hole would lie.
async fn readable(reader: &Reader, content: &StoredContent, whole: bool, job: &JobContext) -> Result<()> {
    if whole || matches!(content, StoredContent::Chunks(_)) {
        let mut chunks = ChunkStream::new(reader.clone(), content)?;
        while let Some(chunk) = chunks.next(job).await? {
            reader.chunk(&chunk.id, chunk.len, job).await?;
        }
    }
    Ok(())
}

async fn copy(
    reader: &Reader,
    content: &StoredContent,
    writer: &mut (impl AsyncWrite + Unpin),
    totals: &Totals,
    job: &JobContext,
) -> Result<()> {
    let failed = |e| Error::io("the target failed", e);
    if let StoredContent::Inline(bytes) = content {
        writer.write_all(bytes).await.map_err(failed)?;
        totals.bytes_written(bytes.len() as u64);
    }
    let mut chunks = ChunkStream::new(reader.clone(), content)?;
    while let Some(chunk) = chunks.next(job).await? {
        let bytes = reader.chunk(&chunk.id, chunk.len, job).await?;
        writer.write_all(&bytes).await.map_err(failed)?;
        totals.bytes_written(bytes.len() as u64);
    }
    Ok(())
}
