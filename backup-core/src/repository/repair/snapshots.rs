//! Storing damaged snapshots again, without what is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{BackupOptions, ParentChoice, Repository, VerifyLevel, VerifyOptions, guard};
use crate::report::{DamagedObject, RepairReport, RepairedSnapshot};
use crate::{JobContext, Result, SnapshotId};

/// The tag of a snapshot that stands for a damaged one; its value is the other's identity.
pub(in crate::repository) const REPAIRED_TAG: &str = "repaired";

/// What came of storing a snapshot again.
enum Again {
    /// Nothing is lost: this time everything could be read.
    Whole,
    /// Nothing of it can be listed.
    Nothing,
    Stored(RepairedSnapshot),
}

impl Repository {
    /// Stores each damaged snapshot again, without the entries that cannot be read; those are named as lost, and as skipped in
    /// the new snapshot, which is partial. It has the time and everything else of the original, and the tag `repaired` with
    /// the original's identity.
    ///
    /// The originals stay until they are forgotten: what is lost here may still come from elsewhere, say, from the copy of a
    /// pack. Of one that has been stored again before, nothing is done or reported. First everything in the
    /// repository is read, and then, twice, the snapshots that are damaged: what was merely misread is not lost.
    ///
    /// With `dry_run` it only says what it would do. Cancellation: what was stored again by then stays; run it again.
    pub async fn repair_snapshots(&self, dry_run: bool, job: &JobContext) -> Result<RepairReport> {
        let options = VerifyOptions { level: VerifyLevel::Content, ..VerifyOptions::default() };
        let found = self.verify(&options, job).await?;
        let alone = &self.alone();
        guard::run(job, async move {
            // What no index segment names is there all the same.
            alone.full_view(job).await?;
            let readable = alone.readable_snapshots(job).await?;
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
                let again = match readable.iter().any(|info| info.id == id) {
                    true => alone.store_again(id, dry_run, job).await?,
                    false => Again::Nothing,
                };
                match again {
                    Again::Whole => continue,
                    Again::Nothing => {}
                    Again::Stored(snapshot) => {
                        report.rebuilt = report.rebuilt.saturating_add(1);
                        report.snapshots.push(snapshot);
                    }
                }
                report.lost.append(&mut lost);
            }
            Ok(report)
        })
        .await
    }

    async fn store_again(&self, id: SnapshotId, dry_run: bool, job: &JobContext) -> Result<Again> {
        let original = self.snapshot(id, job).await?;
        let mut entries = original.entries(None, job).await?;
        loop {
            match entries.next().await {
                Ok(Some(_)) => break,
                Ok(None) => return Ok(Again::Nothing),
                Err(error) if error.is_corruption() => {}
                Err(error) => return Err(error),
            }
        }
        let mut info = original.info().clone();
        info.stored = self.list_snapshot_ids(job).await?.get(&id).and_then(|meta| meta.created);
        let mut options = BackupOptions::copy_of(self.id(), &info);
        options.tags.insert(REPAIRED_TAG.to_owned(), id.to_string());
        // Nothing is taken over unread: that it was named once does not say that it is there.
        options.parent = ParentChoice::None;
        let source = original.source().passing_over_pages();
        // A second look first: what was misread once is not lost, and needs no snapshot to stand for it.
        options.dry_run = true;
        let found = self.backup(&source, &options, job).await?;
        if found.skipped.count() <= original.info().skipped.len() as u64 {
            return Ok(Again::Whole);
        }
        options.dry_run = false;
        let stored = if dry_run { None } else { self.backup(&source, &options, job).await?.snapshot };
        Ok(Again::Stored(RepairedSnapshot { original: id, repaired: stored }))
    }
}
