//! Writing packs anew of which little is needed, so that a collection can free them.
//!
//! A session like a writer's, which makes no snapshot: it stores what is needed of these packs once more, in packs of its
//! own. Nothing is deleted here. Of two places of a chunk the next collection keeps the one in the fuller pack.

mod wasted;

pub(super) use wasted::Wasted;

use std::sync::Arc;

use super::CollectOptions;
use super::roots::Survey;
use crate::format::segment::IndexRow;
use crate::observer::Event;
use crate::report::CollectReport;
use crate::repository::Repository;
use crate::repository::index::Bits;
use crate::repository::session::{Decided, Session};
use crate::repository::store::PutCounters;
use crate::repository::transfer::{Chosen, transfer};
use crate::{Error, ErrorKind, JobContext, Result, Timestamp};

/// Which packs are written anew, of which only a part is needed, or which are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepackOptions {
    /// How many hundredths of what is stored may be needed by nobody. Where it is more, packs are written anew without that,
    /// those first of which it is the largest share.
    pub max_unused_percent: u8,
    /// Bytes of packs that one call reads for this, about; what is left is for the next one.
    pub max_bytes: u64,
}

impl Default for RepackOptions {
    /// Five hundredths, and no limit.
    fn default() -> Self {
        Self { max_unused_percent: 5, max_bytes: u64::MAX }
    }
}

impl RepackOptions {
    /// Nothing is written anew.
    pub const NEVER: Self = Self { max_unused_percent: 100, max_bytes: 0 };
}

impl Repository {
    /// Stores once more what is needed of these packs. Returns whether anything was stored.
    pub(super) async fn repack(
        &self,
        packs: &[[u8; 32]],
        now: Option<Timestamp>,
        options: &CollectOptions,
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<bool> {
        job.emit(&Event::Phase { name: "repack" });
        let (store, put) = (self.store(), Arc::new(PutCounters::default()));
        // Before the session is registered, as a backup does.
        let lease = job.resources().lease(job).await?;
        let session = Session::open(store, "repack", false, &options.host, &put, job).await?;
        let work = Box::pin(async {
            // What is needed is asked once more: only what is listed after the session was opened may be relied upon.
            let Some(survey) = self.survey(now, &[], report, job).await? else { return Ok(false) };
            let Survey { index, kept, needed, .. } = survey;
            let mut emptied = Bits::default();
            for digest in packs {
                if let Some(number) = index.number_of(digest)?.filter(|number| kept.packs.contains(*number)) {
                    emptied.insert(number);
                }
            }
            let (known, leaving, needed) = (index.clone(), emptied.clone(), needed.chunks);
            // What is needed, and has no place in a pack that is kept.
            let wanted = move |row: &IndexRow| {
                if !known.bit(row.id)?.is_some_and(|at| needed.contains(at)) {
                    return Ok(false);
                }
                let stays = |pack: u32| kept.packs.contains(pack) && !leaving.contains(pack);
                Ok(!known.find(row.id, row.len)?.iter().any(|place| stays(place.pack)))
            };
            let chosen = Chosen { from: store.clone(), index, packs: emptied, wanted: Box::new(wanted) };
            let copied = transfer(self, chosen, &session, lease, &put, job).await?;
            report.packs_repacked = report.packs_repacked.saturating_add(copied.packs);
            report.bytes_repacked = report.bytes_repacked.saturating_add(copied.bytes);
            report.damaged_objects.extend(copied.damaged);
            if put.objects() <= 1 {
                return Ok(false);
            }
            match session.decide(self, &put, job).await? {
                Decided::Committed => Ok(true),
                Decided::Fenced => {
                    let message =
                        "what was written anew was shut out, as if it had stopped; it can be done again";
                    Err(Error::new(ErrorKind::Transient, message))
                }
            }
        });
        let done = session.alive(store, &put, job, work).await;
        if put.objects() <= 1 {
            session.withdraw(store).await;
        }
        done
    }
}
