//! Copying snapshots into another repository, under other keys and with other chunks.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use super::backup::BackupOptions;
use super::{Repository, guard, keys};
use crate::report::{CopiedSnapshot, CopyReport, DamagedObject};
use crate::{Error, JobContext, Origin, Result, SinkExt, SnapshotId, SnapshotInfo};

impl Repository {
    /// Copies snapshots into another repository, in the order given, which best is that of their age: what follows then costs
    /// what changed. Take them from a [listing](Self::snapshots).
    ///
    /// Everything is read, checked, and stored as a backup stores it. A copy has an identity of its own and says where it comes
    /// from ([`SnapshotInfo::origin`]), so that retention counts it by its original's time. What is there already, also if it
    /// is forgotten and has not expired, is not copied again. A snapshot of which something cannot be read is copied without it and
    /// so is partial; one whose entries cannot be read is named, and the others are copied.
    ///
    /// # Errors
    /// Those of both stores. Cancellation: snapshots that were copied stay.
    ///
    /// ```no_run
    /// # use backup_core::{JobContext, Repository, Result};
    /// # async fn example(repository: Repository, elsewhere: Repository) -> Result<()> {
    /// let job = JobContext::new();
    /// let report = repository.copy_to(&elsewhere, &repository.snapshots(&job).await?, &job).await?;
    /// println!("{} copied, {} were there", report.copied.len(), report.already_there);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn copy_to(
        &self,
        to: &Repository,
        snapshots: &[SnapshotInfo],
        job: &JobContext,
    ) -> Result<CopyReport> {
        let started = Instant::now();
        if to.id() == self.id() {
            return Err(Error::invalid_input("a repository cannot be copied into itself"));
        }
        let there = to.copies_of(self, snapshots, job).await?;
        let mut report = CopyReport::default();
        for info in snapshots {
            if there.contains(&info.id) {
                report.already_there = report.already_there.saturating_add(1);
                continue;
            }
            let options = BackupOptions::copy_of(self.id(), info);
            let copied =
                async { to.backup(&self.snapshot(info.id, job).await?.source(), &options, job).await };
            match copied.await {
                Ok(copied) => {
                    report.bytes_read = report.bytes_read.saturating_add(copied.bytes_read);
                    report.bytes_copied = report.bytes_copied.saturating_add(copied.bytes_stored);
                    report.copied.extend(copied.snapshot.map(|copy| CopiedSnapshot {
                        snapshot: info.id,
                        copy,
                        outcome: copied.outcome,
                        skipped: copied.skipped,
                    }));
                }
                Err(error) if error.is_corruption() => {
                    let object = format!("snapshots/{}", info.id);
                    report.damaged_objects.push(DamagedObject { object, reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        report.duration_seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Which of these snapshots of another repository have a copy in this one, be it forgotten, that has not expired. A snapshot that
    /// was repaired and its original, which may have been healed since, are two, and told apart by their tags.
    pub async fn copies_of(
        &self,
        other: &Repository,
        snapshots: &[SnapshotInfo],
        job: &JobContext,
    ) -> Result<BTreeSet<SnapshotId>> {
        guard::run(job, async move {
            let listed = self.store().sink.list_all(keys::SNAPSHOTS).await?;
            let (copies, _) = self.load_listed(listed, job).await?;
            let control = self.listed_control(job).await?;
            let copies = copies.into_iter().filter(|info| !control.has_expired(info.id));
            let of = |Origin { repository, snapshot, .. }, info: &SnapshotInfo| {
                (repository, snapshot, info.tags.clone())
            };
            let there: HashSet<_> = copies.filter_map(|info| Some(of(info.origin?, &info))).collect();
            let is_there = |info: &SnapshotInfo| there.contains(&of(info.origin_of_copy(other.id()), info));
            Ok(snapshots.iter().filter(|info| is_there(info)).map(|info| info.id).collect())
        })
        .await
    }
}
