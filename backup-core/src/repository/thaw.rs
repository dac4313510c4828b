//! Asking for the packs that a restore needs, where the store keeps them in a class from which they cannot be read at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::content::ChunkStream;
use super::restore::{Chosen, Selected};
use super::snapshot::Snapshot;
use super::{Repository, Selection, guard};
use crate::observer::Event;
use crate::report::ThawReport;
use crate::thaw::{Readiness, Thaw, ThawSpeed};
use crate::{ErrorKind, GetRange, JobContext, ObjectKey, Result};

/// What takes hours is not asked for more often.
const POLL_MIN: Duration = Duration::from_millis(10);

/// What to ask for, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct ThawOptions {
    /// Of which entries.
    pub select: Selection,
    /// For how many days it is to stay readable.
    pub days: u32,
    /// How much it may cost.
    pub speed: ThawSpeed,
    /// How long to wait until all of it can be read. After that a later call goes on.
    pub wait: Duration,
    /// How often to ask how far it is.
    pub poll: Duration,
}

impl Default for ThawOptions {
    /// Everything, for three days, at the usual cost, without waiting.
    fn default() -> Self {
        Self {
            select: Selection::All,
            days: 3,
            speed: ThawSpeed::default(),
            wait: Duration::ZERO,
            poll: Duration::from_secs(300),
        }
    }
}

impl Repository {
    /// Asks `thaw`, which must be of this repository's place, for every pack that the selected entries need, and waits. Only packs of content
    /// can be where they cannot be read: what lists them is read here. A pack counts as ready when a byte of it could be read.
    ///
    /// # Errors
    /// Those of the store. Cancellation: what was asked for stays asked for.
    pub async fn thaw(
        &self,
        snapshot: &Snapshot,
        thaw: &dyn Thaw,
        options: &ThawOptions,
        job: &JobContext,
    ) -> Result<ThawReport> {
        guard::run(job, async move {
            self.check_own(snapshot)?;
            let started = Instant::now();
            job.emit(&Event::Phase { name: "plan" });
            let mut report = ThawReport::default();
            // A store is asked again and again, and not without end at once.
            let poll = options.poll.max(POLL_MIN);
            let mut pending = needed(snapshot, &options.select, job).await?;
            report.objects = pending.len() as u64;
            report.bytes = pending.iter().map(|(_, bytes)| bytes).sum();
            job.emit(&Event::Phase { name: "wait" });
            loop {
                pending = self.still_cold(pending, thaw, options, job).await?;
                report.waiting = pending.len() as u64;
                report.bytes_waiting = pending.iter().map(|(_, bytes)| bytes).sum();
                let over = started.elapsed().saturating_add(poll) > options.wait;
                if pending.is_empty() || over {
                    break;
                }
                tokio::time::sleep(poll).await;
            }
            report.duration_seconds = started.elapsed().as_secs_f64();
            Ok(report)
        })
        .await
    }

    async fn still_cold(
        &self,
        pending: Vec<(ObjectKey, u64)>,
        thaw: &dyn Thaw,
        options: &ThawOptions,
        job: &JobContext,
    ) -> Result<Vec<(ObjectKey, u64)>> {
        // Boxed: what borrows from a stream of futures is not `Send` otherwise.
        let asked: Vec<_> =
            pending.into_iter().map(|pack| self.ask(pack, thaw, options, job).boxed()).collect();
        let asked = stream::iter(asked).buffered(job.resources().requests());
        let left: Vec<Option<(ObjectKey, u64)>> = asked.try_collect().await?;
        Ok(left.into_iter().flatten().collect())
    }

    /// The pack again, if it cannot be read yet.
    async fn ask(
        &self,
        (key, bytes): (ObjectKey, u64),
        thaw: &dyn Thaw,
        options: &ThawOptions,
        job: &JobContext,
    ) -> Result<Option<(ObjectKey, u64)>> {
        job.check()?;
        let asked = thaw.thaw(&key, options.days.max(1), options.speed).await;
        if asked.map_err(|error| error.with_object(&key))? == Readiness::UnderWay {
            return Ok(Some((key, bytes)));
        }
        // What it says is not what it does everywhere.
        match self.store().get(&key, GetRange::Bounded(0..1), job).await {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Cold => Ok(Some((key, bytes))),
            Err(error) => Err(error),
        }
    }
}

/// The packs that the content of the selected entries is in, with their lengths. What is in none is the restore's to name.
async fn needed(snapshot: &Snapshot, select: &Selection, job: &JobContext) -> Result<Vec<(ObjectKey, u64)>> {
    let snapshot = &snapshot.through_one_view(job).await?;
    let reader = snapshot.reader(job).await?;
    let mut packs: BTreeMap<u32, (ObjectKey, u64)> = BTreeMap::new();
    let mut selected = Selected::new(snapshot, select, job).await?;
    while let Some(chosen) = selected.next().await? {
        let Chosen::Entry(stored) = chosen else { continue };
        let mut chunks = ChunkStream::new(reader.clone(), &stored.content)?;
        loop {
            match chunks.next(job).await {
                Ok(None) => break,
                Ok(Some(chunk)) => {
                    let rows = reader.index.find(chunk.id.short(), chunk.len)?;
                    // A restore reads the first of its places, too.
                    if let Some(row) = rows.first()
                        && !packs.contains_key(&row.pack)
                    {
                        let pack = reader.index.pack(row.pack)?;
                        packs.insert(row.pack, (pack.key.clone(), pack.record.object_len));
                    }
                }
                Err(error) if error.is_corruption() => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(packs.into_values().collect())
}
