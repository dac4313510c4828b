//! Copying what is missing: whole packs where nearly all of them is, and chunks out of the others.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};

use super::gaps::Gaps;
use crate::format::control::SweptName;
use crate::format::segment::IndexRow;
use crate::limits;
use crate::report::DamagedObject;
use crate::repository::backup::upload::{PUTS_MAX, Uploaded, finish_index};
use crate::repository::index::{Bits, Index, Pack};
use crate::repository::reader::Reader;
use crate::repository::segment::{SegmentBuilder, put_segment};
use crate::repository::session::Session;
use crate::repository::store::{PutCounters, Store};
use crate::repository::transfer::{Chosen, transfer};
use crate::repository::views::WriterView;
use crate::repository::{Repository, guard};
use crate::resources::Lease;
use crate::{Error, ErrorKind, JobContext, ObjectKey, Result, ShortId};

/// A pack is copied as it is where at least so many quarters of its content are missing.
const WHOLE_QUARTERS: u64 = 3;

/// Chunks, by short identity and length.
pub(in crate::repository) type Chunks = HashSet<(ShortId, u32)>;

/// Where something is copied to, in a session there.
pub(in crate::repository) struct Filling<'a> {
    pub(in crate::repository) to: &'a Repository,
    pub(in crate::repository) session: &'a Session,
    pub(in crate::repository) view: &'a WriterView,
    pub(in crate::repository) put: &'a Arc<PutCounters>,
    pub(in crate::repository) job: &'a JobContext,
}

/// What was copied.
#[derive(Debug, Default)]
pub(in crate::repository) struct Filled {
    /// Packs that were copied as they are.
    pub(in crate::repository) packs: u64,
    /// Packs of which chunks were copied.
    pub(in crate::repository) packs_in_part: u64,
    /// What could not be read, also if another place had it.
    pub(in crate::repository) damaged: Vec<DamagedObject>,
    /// What no place has.
    pub(in crate::repository) lost: Chunks,
}

impl Filling<'_> {
    /// Copies what is missing; what `from` cannot read comes from the others that it knows. Everything is named by segments
    /// of the session when this returns.
    pub(in crate::repository) async fn fill(
        &self,
        from: &Reader,
        gaps: Gaps<'_>,
        lease: Lease,
    ) -> Result<Filled> {
        let mut filled = Filled::default();
        let Gaps { missing, packs, .. } = gaps;
        let (mut whole, mut partly) = (Bits::default(), Bits::default());
        for (number, bytes) in packs {
            let record = &from.index.pack(number)?.record;
            let all: u64 = record.frames.iter().map(|frame| u64::from(frame.plain_len)).sum();
            // What is condemned or was swept there is not put there again.
            let barred = self.view.bars.contains(SweptName::of_pack(&record.digest));
            let nearly_all = bytes.saturating_mul(4) >= all.saturating_mul(WHOLE_QUARTERS);
            if nearly_all && !barred { whole.insert(number) } else { partly.insert(number) }
        }
        if !whole.is_empty() {
            filled.packs = self.copy_whole(from, &whole, &mut partly).await?;
        }
        if !partly.is_empty() {
            let index = from.index.clone();
            let wanted = move |row: &IndexRow| {
                Ok(index.bit(row.id)?.is_some_and(|at| missing.contains(at)) && is_first(&index, row)?)
            };
            self.copy_chunks(from, partly, wanted, lease, &mut filled).await?;
        }
        if !filled.lost.is_empty() {
            self.fill_lost(from.others.readers(self.job).await?, &mut filled).await?;
        }
        // What interrupted sessions left there, and was made use of.
        let used = (&self.view.reader.index, &*self.view.barred);
        let nothing = &mut Uploaded::default();
        finish_index(self.to.store(), self.session.id(), nothing, used, self.put, self.job).await?;
        Ok(filled)
    }

    /// Copies the chunks in `filled.lost` from whichever place has them.
    pub(in crate::repository) async fn fill_lost(
        &self,
        readers: &[Reader],
        filled: &mut Filled,
    ) -> Result<()> {
        for reader in readers {
            if filled.lost.is_empty() {
                break;
            }
            let lost = Arc::new(std::mem::take(&mut filled.lost));
            let mut packs = Bits::default();
            for (id, len) in lost.iter() {
                match reader.index.find(*id, *len)?.first() {
                    Some(row) => packs.insert(row.pack),
                    None => {
                        filled.lost.insert((*id, *len));
                    }
                }
            }
            let index = reader.index.clone();
            let wanted =
                move |row: &IndexRow| Ok(lost.contains(&(row.id, row.len)) && is_first(&index, row)?);
            let lease = self.job.resources().lease(self.job).await?;
            self.copy_chunks(reader, packs, wanted, lease, filled).await?;
        }
        Ok(())
    }

    async fn copy_chunks(
        &self,
        from: &Reader,
        packs: Bits,
        wanted: impl Fn(&IndexRow) -> Result<bool> + Send + Sync + 'static,
        lease: Lease,
        filled: &mut Filled,
    ) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let (store, index) = (from.store.clone(), from.index.clone());
        let chosen = Chosen { from: store, index, packs, wanted: Box::new(wanted) };
        let copied = Box::pin(transfer(self.to, chosen, self.session, lease, self.put, self.job)).await?;
        filled.packs_in_part = filled.packs_in_part.saturating_add(copied.packs);
        filled.damaged.extend(copied.damaged);
        filled.lost.extend(copied.lost);
        Ok(())
    }

    /// Copies packs as they are. What is damaged or gone here is left to be copied in part.
    async fn copy_whole(&self, from: &Reader, whole: &Bits, partly: &mut Bits) -> Result<u64> {
        let (store, session) = (self.to.store(), self.session.id());
        let (index, chosen, resources) = (from.index.clone(), whole.clone(), self.job.resources().clone());
        let by_pack = move || index.rows_by_pack(|pack| chosen.contains(pack), &resources);
        let mut by_pack = guard::blocking(by_pack).await?;
        let mut copied = 0_u64;
        let mut segment = SegmentBuilder::default();
        let mut copying = FuturesUnordered::new();
        let mut more = true;
        while more || !copying.is_empty() {
            if more && copying.len() < PUTS_MAX {
                match by_pack.next()? {
                    Some((number, rows)) => {
                        let pack = from.index.pack(number)?;
                        copying.push(async move {
                            (self.copy_pack(&from.store, &pack).await, number, pack, rows)
                        });
                    }
                    None => more = false,
                }
                continue;
            }
            let Some((done, number, pack, rows)) = copying.next().await else { continue };
            if !done? {
                partly.insert(number);
                continue;
            }
            copied = copied.saturating_add(1);
            segment.push(pack.record.clone(), rows);
            if segment.is_full() {
                put_segment(store, session, std::mem::take(&mut segment), self.put, self.job).await?;
            }
        }
        if !segment.is_empty() {
            put_segment(store, session, segment, self.put, self.job).await?;
        }
        Ok(copied)
    }

    /// Copies a pack; false if what stands in its place is not what its name says.
    async fn copy_pack(&self, from: &Store, pack: &Pack) -> Result<bool> {
        let read = read_pack(from, &pack.key, pack.record.digest, self.job);
        let Some(bytes) = read.await? else { return Ok(false) };
        match self.to.store().put(&pack.key, bytes, self.put, self.job).await {
            Ok(()) => Ok(true),
            // Something else stands there under its name: then under others.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a pack; none if it is gone, or not what its name says.
pub(in crate::repository) async fn read_pack(
    from: &Store,
    key: &ObjectKey,
    digest: [u8; 32],
    job: &JobContext,
) -> Result<Option<bytes::Bytes>> {
    let bytes = match from.get_whole(key, limits::OBJECT_BYTES_MAX, job).await {
        Ok(bytes) => bytes,
        Err(error) if is_damage(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let held = bytes.clone();
    let is_right = guard::blocking(move || Ok(<[u8; 32]>::from(Sha256::digest(&held)) == digest)).await?;
    Ok(is_right.then_some(bytes))
}

fn is_damage(error: &Error) -> bool {
    error.is_corruption() || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LimitExceeded)
}

/// Whether a chunk is copied from this place of its, of several.
fn is_first(index: &Index, row: &IndexRow) -> Result<bool> {
    Ok(index.find(row.id, row.len)?.first() == Some(row))
}
