//! Puts finished packs while others are being filled, and indexes what was put.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::packer::FinishedPack;
use super::shared::Shared;
use crate::format::segment::PackRecord;
use crate::repository::index::{Index, rows_of};
use crate::repository::segment::{SegmentBuilder, seal_segment};
use crate::repository::{guard, keys};
use crate::{Error, Result, SnapshotId};

/// Packs being put at once. Together with the one that waits in the channel this bounds their memory.
pub(crate) const PUTS_MAX: usize = 2;

/// Puts every pack that comes, and an index segment whenever enough rows have gathered.
pub(crate) async fn upload(
    shared: &Arc<Shared>,
    session: SnapshotId,
    packs: async_channel::Receiver<FinishedPack>,
) -> Result<SegmentBuilder> {
    let mut pending = FuturesUnordered::new();
    let mut segment = SegmentBuilder::default();
    let mut open = true;
    while open || !pending.is_empty() {
        tokio::select! {
            biased;
            put = pending.next(), if !pending.is_empty() => {
                if let Some(put) = put {
                    let (record, directory): (PackRecord, crate::format::directory::Directory) = put?;
                    let rows = rows_of(0, record.header.len() as u64, &directory);
                    segment.push(record, rows);
                    if segment.is_full() {
                        put_segment(shared, session, std::mem::take(&mut segment)).await?;
                    }
                }
            }
            next = packs.recv(), if open && pending.len() < PUTS_MAX => match next {
                Ok(pack) => pending.push(put_pack(shared, pack)),
                Err(_) => open = false,
            }
        }
    }
    Ok(segment)
}

async fn put_pack(
    shared: &Arc<Shared>,
    pack: FinishedPack,
) -> Result<(PackRecord, crate::format::directory::Directory)> {
    let FinishedPack { object_type, sealed } = pack;
    let key = keys::pack(object_type, &sealed.digest)?;
    let object_len = sealed.bytes.len() as u64;
    shared.store.put(&key, sealed.bytes.clone(), &shared.put, &shared.job).await?;
    shared.buffers.give_back(sealed.bytes);
    let frames = sealed.directory.frames.clone();
    let record = PackRecord { digest: sealed.digest, object_type, object_len, header: sealed.header, frames };
    Ok((record, sealed.directory))
}

/// Puts the last segment, with the packs that were used although no committed session had named them.
pub(crate) async fn finish_index(
    shared: &Arc<Shared>,
    session: SnapshotId,
    mut segment: SegmentBuilder,
    index: &Arc<Index>,
) -> Result<()> {
    let adopted = index.adopted();
    if !adopted.is_empty() {
        let (held, resources) = (index.clone(), shared.job.resources().clone());
        let by_pack = move || held.rows_by_pack(|pack| adopted.contains(pack), &resources);
        let mut by_pack = guard::blocking(by_pack).await?;
        while let Some((number, rows)) = by_pack.next()? {
            segment.push(index.pack(number)?.record.clone(), rows);
            if segment.is_full() {
                put_segment(shared, session, std::mem::take(&mut segment)).await?;
            }
        }
    }
    if segment.is_empty() { Ok(()) } else { put_segment(shared, session, segment).await }
}

async fn put_segment(shared: &Arc<Shared>, session: SnapshotId, segment: SegmentBuilder) -> Result<()> {
    let (store, job) = (shared.store.clone(), shared.job.clone());
    // Sorting, compressing and sealing a hundred thousand rows takes too long for the runtime's threads.
    let sealed = tokio::task::spawn_blocking(move || seal_segment(&store, session, segment, &job))
        .await
        .map_err(|e| Error::internal("the index could not be sealed").with_source(e))??;
    shared.store.put(&keys::segment(&sealed.digest)?, sealed.bytes, &shared.put, &shared.job).await
}
