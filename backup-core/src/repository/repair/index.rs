//! Rebuilding the index from packs.

use super::super::index::{self, rows_of};
use super::super::listing::Listing;
use super::super::segment::{SegmentBuilder, seal_segment};
use super::super::store::PutCounters;
use super::super::{Repository, guard, keys};
use crate::format::document::SessionDocument;
use crate::report::{DamagedObject, RepairReport};
use crate::transform::ObjectType;
use crate::{ErrorKind, JobContext, Result, SnapshotId};

impl Repository {
    /// Indexes every pack that no readable index segment names, then deletes the segments that cannot be read.
    ///
    /// With `dry_run` it only says what it would do. Cancellation: what was indexed by then stays; run it again.
    pub async fn repair_index(&self, dry_run: bool, job: &JobContext) -> Result<RepairReport> {
        guard::run(job, async move {
            let store = self.store();
            let put = PutCounters::default();
            let session = SnapshotId::random(&**job.random())?;
            let document =
                SessionDocument { session, opened: job.now(), host: String::new(), purpose: "repair".into() };
            if !dry_run {
                store
                    .put_document(&keys::session(session)?, ObjectType::Session, &document, &put, job)
                    .await?;
            }
            if !dry_run {
                self.check_no_collection().await?;
            }
            let mut report = RepairReport::default();
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
                            Ok(digest) if index.number_of(&digest)?.is_some() => continue,
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
                            if !dry_run {
                                self.put_repaired(session, full, &put, job).await?;
                            }
                        }
                    }
                }
            }
            if dry_run {
                return Ok(report);
            }
            if !segment.is_empty() {
                self.put_repaired(session, segment, &put, job).await?;
            }
            // The session's outcome: from here on its segments count.
            let decision = keys::decision(session)?;
            store.put_document(&decision, ObjectType::Session, &document, &put, job).await?;
            for (key, _) in &index.unreadable {
                store.sink.delete(key).await.map_err(|e| e.with_object(key))?;
            }
            Ok(report)
        })
        .await
    }

    async fn put_repaired(
        &self,
        session: SnapshotId,
        segment: SegmentBuilder,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<()> {
        let sealed = seal_segment(self.store(), session, segment, job)?;
        self.store().put(&keys::segment(&sealed.digest)?, sealed.bytes, put, job).await
    }
}
