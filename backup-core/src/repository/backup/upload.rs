//! Puts finished packs while others are being filled, and indexes what was put.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::packer::FinishedPack;
use super::shared::Shared;
use crate::format::segment::PackRecord;
use crate::repository::index::{Bits, Index, rows_of};
use crate::repository::segment::{SegmentBuilder, put_segment};
use crate::repository::store::{PutCounters, Store};
use crate::repository::{guard, keys};
use crate::{JobContext, Result, SnapshotId};

/// Packs being put at once. Together with the one that waits in the channel this bounds their memory.
pub(crate) const PUTS_MAX: usize = 2;

/// What was put.
#[derive(Debug, Default)]
pub(crate) struct Uploaded {
    /// What no segment names yet.
    segment: SegmentBuilder,
    /// The packs, by name.
    pub(crate) packs: Vec<[u8; 32]>,
}

/// Puts every pack that comes, and an index segment whenever enough rows have gathered.
pub(crate) async fn upload(
    shared: &Arc<Shared>,
    session: SnapshotId,
    packs: async_channel::Receiver<FinishedPack>,
) -> Result<Uploaded> {
    let mut pending = FuturesUnordered::new();
    let mut uploaded = Uploaded::default();
    let mut open = true;
    while open || !pending.is_empty() {
        tokio::select! {
            biased;
            put = pending.next(), if !pending.is_empty() => {
                if let Some(put) = put {
                    let (record, directory): (PackRecord, crate::format::directory::Directory) = put?;
                    let rows = rows_of(0, record.header.len() as u64, &directory);
                    uploaded.packs.push(record.digest);
                    uploaded.segment.push(record, rows);
                    if uploaded.segment.is_full() {
                        let segment = std::mem::take(&mut uploaded.segment);
                        put_segment(&shared.store, session, segment, &shared.put, &shared.job).await?;
                    }
                }
            }
            next = packs.recv(), if open && pending.len() < PUTS_MAX => match next {
                Ok(pack) => pending.push(put_pack(shared, pack)),
                Err(_) => open = false,
            }
        }
    }
    Ok(uploaded)
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
    store: &Store,
    session: SnapshotId,
    uploaded: &mut Uploaded,
    (index, barred): (&Arc<Index>, &Bits),
    put: &PutCounters,
    job: &JobContext,
) -> Result<()> {
    let mut segment = std::mem::take(&mut uploaded.segment);
    let adopted = index.adopted(barred);
    if !adopted.is_empty() {
        let (held, resources) = (index.clone(), job.resources().clone());
        let by_pack = move || held.rows_by_pack(|pack| adopted.contains(pack), &resources);
        let mut by_pack = guard::blocking(by_pack).await?;
        while let Some((number, rows)) = by_pack.next()? {
            segment.push(index.pack(number)?.record.clone(), rows);
            if segment.is_full() {
                put_segment(store, session, std::mem::take(&mut segment), put, job).await?;
            }
        }
    }
    if segment.is_empty() { Ok(()) } else { put_segment(store, session, segment, put, job).await }
}
