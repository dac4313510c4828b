//! Waiting until the log that a backup needs is archived.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, JobContext, Result};
use tokio::time::Instant;

use crate::postgres::wal::{SegmentName, SegmentSize};

/// How long after the first question the archive is asked again, and each time twice as long, up to the longest: the last segment is
/// most often there soon, and questions far away cost.
const FIRST_TICK: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 50 });
const LONGEST_TICK: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 500 });
/// Segments that are asked for at once; a backup that ran for days needs many.
const ASKED_MAX: usize = 256;

/// Who knows which segments of the log are archived.
///
/// ```
/// use async_trait::async_trait;
/// use backup_core::Result;
/// use backup_sources::postgres::physical::ArchivedSegments;
/// use backup_sources::postgres::wal::SegmentName;
///
/// /// Segments that `archive_command` copies to a directory.
/// #[derive(Debug)]
/// struct Directory(std::path::PathBuf);
///
/// #[async_trait]
/// impl ArchivedSegments for Directory {
///     async fn missing(&self, _system_identifier: u64, segments: &[SegmentName]) -> Result<Option<SegmentName>> {
///         Ok(segments.iter().find(|name| !self.0.join(name.to_string()).exists()).copied())
///     }
/// }
/// ```
#[async_trait]
pub trait ArchivedSegments: fmt::Debug + Send + Sync + 'static {
    /// The first of these segments, which ascend, that is not durably archived, whole and with the header of the cluster of
    /// this identifier; none if all are. Asked again until it is none or the waiting ends.
    ///
    /// # Errors
    ///
    /// The archive cannot tell. One that [is retryable](Error::is_retryable) is asked again; another fails the backup.
    async fn missing(&self, system_identifier: u64, segments: &[SegmentName]) -> Result<Option<SegmentName>>;
}

/// Waits until all segments from `first` to `last` are archived, or `patience` ends.
pub(super) async fn wait(
    archive: &dyn ArchivedSegments,
    system_identifier: u64,
    (first, last): (SegmentName, SegmentName),
    size: SegmentSize,
    patience: Duration,
    job: &JobContext,
) -> Result<()> {
    let deadline = Instant::now().checked_add(patience);
    let mut next = Some(first);
    let mut tick = FIRST_TICK;
    while let Some(first) = next.filter(|first| *first <= last) {
        let segments: Vec<SegmentName> = std::iter::successors(Some(first), |name| name.next(size))
            .take_while(|name| *name <= last)
            .take(ASKED_MAX)
            .collect();
        let asked = job.until_cancelled(archive.missing(system_identifier, &segments)).await;
        let missing = match asked {
            Ok(None) => {
                next = segments.last().and_then(|name| name.next(size));
                continue;
            }
            Ok(Some(missing)) => {
                // What stands before it need not be asked for again.
                next = Some(missing.max(first).min(last));
                format!("the segment {missing} is not archived")
            }
            Err(error) if error.is_retryable() => error.to_string(),
            Err(error) => return Err(error),
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let message = format!(
                "the backup needs the log from {first} to {last}, and after {} seconds {missing}: nobody could start from it. \
                 Look at pg_stat_archiver and at who receives the log; of a standby, the last segment comes when the primary \
                 has filled it, or after pg_switch_wal() there",
                patience.as_secs()
            );
            return Err(Error::new(ErrorKind::Transient, message));
        }
        job.until_cancelled(async {
            tokio::time::sleep(tick).await;
            Ok(())
        })
        .await?;
        tick = tick.saturating_mul(2).min(LONGEST_TICK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// An archive that gets one segment more each time it is asked.
    #[derive(Debug)]
    struct Growing(Mutex<u64>);

    #[async_trait]
    impl ArchivedSegments for Growing {
        async fn missing(&self, _: u64, segments: &[SegmentName]) -> Result<Option<SegmentName>> {
            let mut there = self.0.lock().unwrap();
            *there += 1;
            let size = SegmentSize::default();
            Ok(segments.iter().find(|name| name.number(size) > *there).copied())
        }
    }

    fn range(first: u64, last: u64) -> (SegmentName, SegmentName) {
        let name =
            |number| SegmentName::numbered(crate::postgres::Timeline::FIRST, number, SegmentSize::default());
        (name(first), name(last))
    }

    #[tokio::test]
    async fn trap_34_a_backup_waits_for_every_segment_and_not_for_ever() {
        let (job, size) = (JobContext::new(), SegmentSize::default());
        let archive = Growing(Mutex::new(0));
        wait(&archive, 7, range(3, 700), size, Duration::from_secs(3600), &job).await.unwrap();
        assert!(*archive.0.lock().unwrap() >= 700);
        let archive = Growing(Mutex::new(0));
        let error =
            wait(&archive, 7, range(3, 700), size, Duration::from_millis(20), &job).await.unwrap_err();
        assert!(error.is_retryable() && error.message().contains("is not archived"), "{error}");
        job.cancellation().cancel();
        let error =
            wait(&archive, 7, range(3, 700), size, Duration::from_millis(20), &job).await.unwrap_err();
        assert!(error.is_cancelled());
    }
}
