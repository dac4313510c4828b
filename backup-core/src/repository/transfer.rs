//! From packs to packs: frames are fetched, opened and checked, and what is needed of them is packed anew.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, stream};

use super::backup::BackupOptions;
use super::backup::packer::{FrameTarget, Packer, SharedPages};
use super::backup::shared::Shared;
use super::backup::threads::Threads;
use super::backup::upload;
use super::frames::{missing, slice_of};
use super::index::{Bits, Index, Pack};
use super::known::KnownChunks;
use super::session::Session;
use super::store::{PutCounters, Store};
use super::{Repository, guard};
use crate::format::object::Scratch;
use crate::format::segment::IndexRow;
use crate::limits::MIB;
use crate::report::DamagedObject;
use crate::resources::Lease;
use crate::transform::{ObjectType, Transform, Zstd};
use crate::{Error, ErrorKind, GetRange, JobContext, Result, ShortId};

/// Damage that is named; the rest is found by a verification.
const DAMAGED_MAX: usize = 100;
/// Chunks that are kept in mind because they could not be read: 24 MB of them.
const LOST_MAX: usize = 1_000_000;
/// Runs that are fetched ahead.
const AHEAD: usize = 2;
/// Bytes that are fetched at once.
const RUN_BYTES: u64 = 4 * MIB as u64;

/// Says whether what a row names is copied.
pub(super) type Wanted = Box<dyn Fn(&IndexRow) -> Result<bool> + Send + Sync>;

/// What is to be copied.
pub(super) struct Chosen {
    /// Where the packs stand, and the index that knows them.
    pub(super) from: Store,
    pub(super) index: Arc<Index>,
    /// The packs that are read.
    pub(super) packs: Bits,
    /// Whether what a row of theirs names is copied.
    pub(super) wanted: Wanted,
}

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Packs that were read.
    pub(super) packs: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// What cannot be read. It stays where it is.
    pub(super) damaged: Vec<DamagedObject>,
    /// The chunks that were wanted and could not be read.
    pub(super) lost: Vec<(ShortId, u32)>,
}

/// Neighbouring frames of a pack, with what is needed of them.
#[derive(Debug)]
struct Run {
    pack: Arc<Pack>,
    range: Range<u64>,
    rows: Vec<IndexRow>,
}

impl Chosen {
    /// Cuts what is needed of a pack into runs.
    fn runs(&self, number: u32, mut rows: Vec<IndexRow>, out: &mut Vec<Run>) -> Result<()> {
        let pack = self.index.pack(number)?;
        rows.sort_unstable_by_key(|row| (row.frame, row.offset));
        for row in rows {
            if !(self.wanted)(&row)? {
                continue;
            }
            let frame = pack.frame_range(row.frame)?;
            match out.last_mut().filter(|run| Arc::ptr_eq(&run.pack, &pack)) {
                Some(run)
                    if frame.start <= run.range.end
                        && frame.end.saturating_sub(run.range.start) <= RUN_BYTES =>
                {
                    run.range.end = run.range.end.max(frame.end);
                    run.rows.push(row);
                }
                _ => out.push(Run { pack: pack.clone(), range: frame, rows: vec![row] }),
            }
        }
        Ok(())
    }
}

/// Copies into a repository, and puts packs and index segments in the name of the session.
pub(super) async fn transfer(
    to: &Repository,
    chosen: Chosen,
    session: &Session,
    lease: Lease,
    put: &Arc<PutCounters>,
    job: &JobContext,
) -> Result<Copied> {
    let store = to.store();
    let session = session.id();
    let mut copied = Copied::default();
    // Nothing that is there is known: what is given to the packers is to be stored once more, but only once.
    let nothing = Arc::new(Index::empty()?);
    let known = KnownChunks::new(nothing.clone(), Arc::default(), job.resources());
    let transforms = vec![Arc::new(Zstd::default()) as Arc<dyn Transform>];
    let (chunker, options) = (to.chunker()?, BackupOptions::default());
    let mut shared = Shared::new(store.clone(), known, chunker, transforms, job.clone(), lease, &options);
    shared.put = put.clone();
    let shared = Arc::new(shared);

    let workers = shared.lease.workers();
    let (runs_send, runs) = async_channel::bounded::<(Run, Result<bytes::Bytes>)>(1);
    let (packs_send, packs) = async_channel::bounded(1);
    let damage = Arc::new(Mutex::new(Damage::default()));
    let from = Arc::new(chosen.from.clone());
    let pages = SharedPages::new(shared.clone(), packs_send.clone());
    let mut threads = Threads::new(shared.clone(), {
        let (runs, packs) = (runs.clone(), packs.clone());
        move || {
            runs.close();
            packs.close();
        }
    });
    let left = Arc::new(AtomicUsize::new(workers));
    for number in 0..workers {
        let content = Packer::new(shared.clone(), ObjectType::Data, FrameTarget::Content, packs_send.clone());
        let worker = Worker {
            shared: shared.clone(),
            from: from.clone(),
            content,
            pages: pages.clone(),
            left: left.clone(),
            damage: damage.clone(),
            scratch: Scratch::default(),
            plain: Vec::new(),
        };
        let runs = runs.clone();
        threads.spawn(&format!("backup-transfer-{number}"), move || worker.run(&runs))?;
    }
    drop((runs, packs_send, pages));

    let feed = async {
        let (held, resources) = (chosen.index.clone(), job.resources().clone());
        let packs = chosen.packs.clone();
        let by_pack = move || held.rows_by_pack(|pack| packs.contains(pack), &resources);
        let mut by_pack = guard::blocking(by_pack).await?;
        while let Some((number, rows)) = by_pack.next()? {
            job.check()?;
            let mut of_pack = Vec::new();
            chosen.runs(number, rows, &mut of_pack)?;
            if of_pack.is_empty() {
                continue;
            }
            let record = &chosen.index.pack(number)?.record;
            copied.packs = copied.packs.saturating_add(1);
            copied.bytes = copied.bytes.saturating_add(record.object_len);
            let fetches = of_pack.into_iter().map(|run| async {
                let range = GetRange::Bounded(run.range.clone());
                match chosen.from.get(&run.pack.key, range, job).await.map_err(missing) {
                    Ok(fetched) => Ok((run, Ok(fetched.bytes))),
                    Err(error) if error.is_corruption() => Ok((run, Err(error))),
                    Err(error) => Err(error),
                }
            });
            let mut fetched = stream::iter(fetches).buffered(AHEAD);
            while let Some(run) = fetched.next().await {
                runs_send.send(run?).await.map_err(|_| Error::cancelled())?;
            }
        }
        // The workers end, and with the last of them what takes their packs.
        runs_send.close();
        Ok(())
    };
    // Whoever fails first ends the other, too.
    let both = async { tokio::try_join!(feed, upload::upload(&shared, session, packs)) };
    let ((), mut uploaded) = both.await.map_err(|error| shared.cause_of(error))?;
    threads.finish().await.map_err(|error| shared.cause_of(error))?;
    upload::finish_index(store, session, &mut uploaded, (&nothing, &Bits::default()), put, job).await?;
    let mut damage = damage.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    copied.damaged = std::mem::take(&mut damage.named);
    copied.lost = std::mem::take(&mut damage.lost);
    Ok(copied)
}

/// What could not be read.
#[derive(Debug, Default)]
struct Damage {
    named: Vec<DamagedObject>,
    lost: Vec<(ShortId, u32)>,
}

/// One thread's state.
struct Worker {
    shared: Arc<Shared>,
    /// What frames are opened with.
    from: Arc<Store>,
    content: Packer,
    pages: SharedPages,
    /// Workers that have not ended: the last one closes what all share.
    left: Arc<AtomicUsize>,
    damage: Arc<Mutex<Damage>>,
    scratch: Scratch,
    plain: Vec<u8>,
}

impl Worker {
    fn run(mut self, runs: &async_channel::Receiver<(Run, Result<bytes::Bytes>)>) -> Result<()> {
        while let Ok((run, bytes)) = runs.recv_blocking() {
            self.shared.check()?;
            match bytes {
                Ok(bytes) => self.copy(&run, &bytes)?,
                Err(error) => self.damaged(&run, &run.rows, &error)?,
            }
        }
        self.content.finish()?;
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.pages.finish() } else { Ok(()) }
    }

    fn copy(&mut self, run: &Run, bytes: &[u8]) -> Result<()> {
        for rows in run.rows.chunk_by(|one, other| one.frame == other.frame) {
            let Some(first) = rows.first() else { continue };
            self.shared.check()?;
            let range = run.pack.frame_range(first.frame)?;
            let start = usize::try_from(range.start.saturating_sub(run.range.start)).unwrap_or(usize::MAX);
            let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let stored = bytes.get(start..start.saturating_add(len)).unwrap_or_default();
            self.plain.clear();
            let opened = {
                let _processor = self.shared.job.resources().processor();
                let (scratch, plain) = (&mut self.scratch, &mut self.plain);
                run.pack.open_frame(&self.from, first.frame, stored, scratch, plain)
            };
            if let Err(error) = opened {
                self.damaged(run, rows, &error)?;
                continue;
            }
            for row in rows {
                let is_right = match slice_of(&self.plain, row) {
                    Err(error) => Err(error),
                    Ok(chunk) if run.pack.record.object_type == ObjectType::Data => {
                        Ok(self.content.add_again(row.id, chunk)?)
                    }
                    Ok(chunk) => Ok(self.pages.add_again(row.id, chunk)?),
                };
                match is_right {
                    Ok(true) => {}
                    Ok(false) => {
                        let message = "a chunk is not what its identity says";
                        self.damaged(run, &[*row], &Error::corruption(message))?;
                    }
                    Err(error) => self.damaged(run, &[*row], &error)?,
                }
            }
        }
        Ok(())
    }

    fn damaged(&self, run: &Run, rows: &[IndexRow], error: &Error) -> Result<()> {
        let mut damage = self.damage.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let object = run.pack.key.to_string();
        // Neighbouring runs of a pack that is gone would name it again and again.
        if damage.named.len() < DAMAGED_MAX && damage.named.iter().all(|named| named.object != object) {
            damage.named.push(DamagedObject { object, reason: error.message().to_owned() });
        }
        if damage.lost.len().saturating_add(rows.len()) > LOST_MAX {
            let message = format!("more than {LOST_MAX} chunks cannot be read; verify the repository first");
            return Err(Error::new(ErrorKind::Corruption, message));
        }
        damage.lost.extend(rows.iter().map(|row| (row.id, row.len)));
        Ok(())
    }
}
