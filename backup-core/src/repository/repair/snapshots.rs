//! Storing damaged snapshots again, without what is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{BackupOptions, ParentChoice, Repository, VerifyLevel, VerifyOptions, guard};
use crate::report::{DamagedObject, RepairReport, RepairedSnapshot};
use crate::{JobContext, Result, SnapshotId};

/// The tag of a snapshot that stands for a damaged one; its value is the other's identity.
const REPAIRED_TAG: &str = "repaired";

impl Repository {
    /// Stores each damaged snapshot again, without the entries that cannot be read; those are named as lost, and as skipped in
    /// the new snapshot, which is partial. It has the time and everything else of the original, and the tag `repaired` with
    /// the original's identity.
    ///
    /// The originals stay until they are forgotten: what is lost here may still come from elsewhere, say, from the copy of a
    /// pack. Of one that has been stored again before, nothing is done or reported. First everything in the
    /// repository is read, and then the snapshots that are damaged. Run [`repair_index`](Self::repair_index) before: what only the
    /// index lacks is not lost.
    ///
    /// With `dry_run` it only says what it would do. Cancellation: what was stored again by then stays; run it again.
    pub async fn repair_snapshots(&self, dry_run: bool, job: &JobContext) -> Result<RepairReport> {
        let options = VerifyOptions { level: VerifyLevel::Content, sample_percent: None };
        let found = self.verify(&options, job).await?;
        guard::run(job, async move {
            let readable = self.readable_snapshots(job).await?;
            let repaired: BTreeSet<&String> =
                readable.iter().filter_map(|info| info.tags.get(REPAIRED_TAG)).collect();
            let mut damaged: BTreeMap<SnapshotId, Vec<DamagedObject>> = BTreeMap::new();
            for entry in found.damaged_entries {
                if repaired.contains(&entry.snapshot.to_string()) {
                    continue;
                }
                let reason = match entry.name.is_empty() {
                    true => entry.reason,
                    false => format!("{}: {}", entry.name, entry.reason),
                };
                let object = format!("snapshots/{}", entry.snapshot);
                damaged.entry(entry.snapshot).or_default().push(DamagedObject { object, reason });
            }
            let mut report = RepairReport::default();
            for (id, mut lost) in damaged {
                job.check()?;
                report.lost.append(&mut lost);
                if readable.iter().any(|info| info.id == id)
                    && let Some(snapshot) = self.store_again(id, dry_run, job).await?
                {
                    report.rebuilt = report.rebuilt.saturating_add(1);
                    report.snapshots.push(snapshot);
                }
            }
            Ok(report)
        })
        .await
    }

    // None if nothing of it can be listed.
    async fn store_again(
        &self,
        id: SnapshotId,
        dry_run: bool,
        job: &JobContext,
    ) -> Result<Option<RepairedSnapshot>> {
        let original = self.snapshot(id, job).await?;
        let mut entries = original.entries(None, job).await?;
        loop {
            match entries.next().await {
                Ok(Some(_)) => break,
                Ok(None) => return Ok(None),
                Err(error) if error.is_corruption() => {}
                Err(error) => return Err(error),
            }
        }
        let mut options = BackupOptions::copy_of(original.info());
        options.tags.insert(REPAIRED_TAG.to_owned(), id.to_string());
        // Nothing is taken over unread: that it was named once does not say that it is there.
        options.parent = ParentChoice::None;
        options.dry_run = dry_run;
        let report = self.backup(&original.source().passing_over_pages(), &options, job).await?;
        Ok(Some(RepairedSnapshot { original: id, repaired: report.snapshot }))
    }
}
