//! Bringing logs to another place of the repository.

use futures_util::{StreamExt, stream};

use super::listed::Listed;
use crate::format::control::SweptName;
use crate::format::log::LogKey;
use crate::report::{DamagedObject, ReplicateReport};
use crate::repository::control::Bars;
use crate::repository::{Repository, guard, keys};
use crate::{Archived, JobContext, LogPiece, ObjectKey, ObjectMeta, Result, SinkExt, limits};

impl Repository {
    /// Brings to another place of the same repository what it lacks of the logs that are archived here: whole segments, and pieces of
    /// those that are still growing. What a collection has swept there does not come back.
    ///
    /// # Errors
    /// Those of both stores. What is damaged here, or differs there, is named in the report. Cancellation: what was brought stays.
    pub async fn replicate_log_to(&self, place: &Repository, job: &JobContext) -> Result<ReplicateReport> {
        guard::run(job, async move {
            self.check_place(place)?;
            let mut report = ReplicateReport::default();
            for lineage in self.log_lineages(job).await? {
                let there = place.list_lineage(&lineage, job).await?;
                let own = self.list_lineage(&lineage, job).await?;
                // After its objects: what is swept there meanwhile is barred then.
                let bars = place.bars_of_log(job).await?;
                let missing: Vec<&ObjectMeta> = missing(&own, &there, &bars).collect();
                let mut brought = stream::iter(
                    missing.into_iter().map(|meta| self.bring_log(meta, place, job)).collect::<Vec<_>>(),
                )
                .buffered(limits::LOG_AT_ONCE_MAX);
                while let Some(brought) = brought.next().await {
                    match brought {
                        Ok(bytes) if bytes > 0 => {
                            report.log_objects_copied = report.log_objects_copied.saturating_add(1);
                            report.bytes_copied = report.bytes_copied.saturating_add(bytes);
                        }
                        Ok(_) => {}
                        Err((key, error))
                            if error.is_corruption() || error.kind() == crate::ErrorKind::AlreadyExists =>
                        {
                            let (object, reason) = (key.to_string(), error.to_string());
                            report.damaged_objects.push(DamagedObject { object, reason });
                        }
                        Err((_, error)) => return Err(error),
                    }
                }
            }
            Ok(report)
        })
        .await
    }

    /// The bytes that were stored there.
    async fn bring_log(
        &self,
        meta: &ObjectMeta,
        place: &Repository,
        job: &JobContext,
    ) -> std::result::Result<u64, (ObjectKey, crate::Error)> {
        let with_key = |error| (meta.key.clone(), error);
        let Some((head, content)) = self.log_object(&meta.key, job).await.map_err(with_key)? else {
            return Ok(0);
        };
        let piece = LogPiece {
            name: head.name(),
            source: head.source,
            offset: head.offset,
            segment_bytes: head.segment_bytes,
            position: head.position,
            content,
        };
        let archived = place.archive(std::slice::from_ref(&piece), job).await.map_err(with_key)?;
        Ok(if archived == [Archived::Stored] { meta.len } else { 0 })
    }

    pub(super) async fn bars_of_log(&self, job: &JobContext) -> Result<Bars> {
        let mut control = self.store().sink.list_all(keys::COLLECTIONS).await?;
        control.extend(self.store().sink.list_all(keys::DIGESTS).await?);
        let control = self.read_control(&control, job).await?;
        self.bars(&control, job).await
    }
}

/// What one place has of a lineage, and another neither has nor had.
fn missing<'a>(own: &'a Listed, there: &'a Listed, bars: &'a Bars) -> impl Iterator<Item = &'a ObjectMeta> {
    let nothing_barred = |_: &ObjectKey| false;
    own.counting_all()
        .filter(move |(name, offset, _)| {
            let first = LogKey { name: (*name).clone(), offset: *offset, n: 0 };
            let was_there = first.key().is_ok_and(|key| bars.contains(SweptName::of_log(&key)));
            let is_whole_there = there.counting(name, None, nothing_barred).is_some();
            let is_there = there.counting(name, *offset, nothing_barred).is_some();
            let is_whole_here = offset.is_some() && own.counting(name, None, nothing_barred).is_some();
            !was_there && !is_whole_there && !is_there && !is_whole_here
        })
        .map(|(_, _, meta)| meta)
}
