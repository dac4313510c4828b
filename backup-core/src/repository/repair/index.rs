//! Rebuilding the index from packs.

use super::super::index::{self, rows_of};
use super::super::listing::Listing;
use super::super::segment::{SegmentBuilder, put_segment};
use super::super::session::{Decided, Session};
use super::super::store::PutCounters;
use super::super::{Repository, guard, keys};
use crate::format::control::SweptName;
use crate::report::{DamagedObject, RepairReport};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectKey, Result, SinkExt};

impl Repository {
    /// Indexes every pack that no readable index segment of a committed session names, then deletes the segments that
    /// cannot be read.
    ///
    /// With `dry_run` it only says what it would do. Cancellation: what was indexed by then stays; run it again.
    pub async fn repair_index(&self, dry_run: bool, job: &JobContext) -> Result<RepairReport> {
        guard::run(job, async move {
            if dry_run {
                return self.index_packs(None, &PutCounters::default(), job).await.map(|(report, _)| report);
            }
            let (store, put) = (self.store(), PutCounters::default());
            let session = Session::open(store, "repair", false, "", &put, job).await?;
            let work = async {
                let (report, unreadable) = self.index_packs(Some(&session), &put, job).await?;
                // The session's outcome: from here on its segments count.
                if session.decide(self, &put, job).await? == Decided::Fenced {
                    let message = "the repair was shut out, as if it had stopped; run it again";
                    return Err(Error::new(ErrorKind::Transient, message));
                }
                for key in &unreadable {
                    store.sink.delete(key).await.map_err(|e| e.with_object(key))?;
                }
                Ok(report)
            };
            session.alive(store, &put, job, work).await
        })
        .await
    }

    /// Indexes packs for a session, or only says which. Returns the segments that cannot be read, too.
    async fn index_packs(
        &self,
        session: Option<&Session>,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<(RepairReport, Vec<ObjectKey>)> {
        let store = self.store();
        let mut report = RepairReport::default();
        // What was condemned or swept is not named anew.
        let control = self.read_control(&store.sink.list_all(keys::CONTROL).await?, job).await?;
        let bars = self.bars(&control, job).await?;
        let committed = self.committed_sessions(job).await?;
        self.release_large_index().await;
        let index = index::Index::load(store, &committed, job).await?;
        let mut segment = SegmentBuilder::default();
        for (prefix, object_type) in [(keys::META, ObjectType::Meta), (keys::DATA, ObjectType::Data)] {
            let mut listing = Listing::new(&*store.sink, prefix);
            while let Some(page) = listing.next().await? {
                for meta in page {
                    job.check()?;
                    let key = meta.key.clone();
                    let read = match keys::digest_of(&key) {
                        // What only unfinished sessions name may lose its name with them.
                        Ok(digest) if index.number_of(&digest)?.is_some_and(|n| index.is_committed(n)) => {
                            continue;
                        }
                        Ok(digest) if bars.contains(SweptName::of_pack(&digest)) => continue,
                        Ok(digest) => index::read_directory(store, object_type, digest, meta, job).await,
                        Err(error) => Err(error),
                    };
                    match read {
                        Ok((record, directory)) => {
                            report.rebuilt = report.rebuilt.saturating_add(1);
                            let rows = rows_of(0, record.header.len() as u64, &directory);
                            segment.push(record, rows);
                        }
                        Err(error) if error.is_corruption() || error.kind() == ErrorKind::Unsupported => {
                            report.lost.push(DamagedObject {
                                object: key.to_string(),
                                reason: error.message().to_owned(),
                            });
                        }
                        Err(error) => return Err(error),
                    }
                    if segment.is_full() {
                        let full = std::mem::take(&mut segment);
                        if let Some(session) = session {
                            put_segment(store, session.id(), full, put, job).await?;
                        }
                    }
                }
            }
        }
        if let Some(session) = session
            && !segment.is_empty()
        {
            put_segment(store, session.id(), segment, put, job).await?;
        }
        Ok((report, index.unreadable.into_iter().map(|(key, _)| key).collect()))
    }
}
