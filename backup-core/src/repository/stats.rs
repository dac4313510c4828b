//! Sizes and ratios of a repository.

mod history;

use super::index::Index;
use super::listing::Listing;
use super::{Repository, guard};
use crate::report::{DamagedObject, RunEstimate, StatsReport};
use crate::{JobContext, ObjectKey, Result, SnapshotInfo};

impl Repository {
    /// What the repository holds and what that takes, as far as it can be read; what cannot is named in the report.
    pub async fn stats(&self, job: &JobContext) -> Result<StatsReport> {
        guard::run(job, async move {
            let mut report = StatsReport::default();
            let damaged = |key: &ObjectKey, reason: String| DamagedObject { object: key.to_string(), reason };
            let (snapshots, failures) = self.load_snapshots(job).await?;
            report.damaged_objects =
                failures.iter().map(|(key, error)| damaged(key, error.to_string())).collect();
            for snapshot in &snapshots {
                report.snapshots = report.snapshots.saturating_add(1);
                report.bytes_logical = report.bytes_logical.saturating_add(snapshot.bytes_logical);
            }
            (report.series, report.by_data) = history::of(&snapshots);
            let mut listing = Listing::new(&*self.store().sink, "");
            while let Some(page) = listing.next().await? {
                for meta in page {
                    let kind = meta.key.as_str().split('/').next().unwrap_or_default().to_owned();
                    let entry = report.by_kind.entry(kind).or_default();
                    entry.objects = entry.objects.saturating_add(1);
                    entry.bytes_stored = entry.bytes_stored.saturating_add(meta.len);
                    report.objects = report.objects.saturating_add(1);
                    report.bytes_stored = report.bytes_stored.saturating_add(meta.len);
                }
            }
            let index = self.view(job).await?.index;
            let unreadable = index.unreadable.iter().map(|(key, reason)| damaged(key, reason.clone()));
            report.damaged_objects.extend(unreadable);
            report.bytes_unique = guard::blocking(move || bytes_unique(&index)).await?;
            if report.bytes_stored > 0 {
                report.ratio = report.bytes_logical as f64 / report.bytes_stored as f64;
            }
            Ok(report)
        })
        .await
    }
}

impl Repository {
    /// What the next run of a series will probably need: the medians of its last ones. None before there was one. It reads what a
    /// backup is about to read, too, and no more.
    ///
    /// # Errors
    /// Those of the store. Snapshots that cannot be read count for nothing.
    pub async fn estimate(
        &self,
        select: &(dyn Fn(&SnapshotInfo) -> bool + Send + Sync),
        job: &JobContext,
    ) -> Result<Option<RunEstimate>> {
        guard::run(job, async move {
            let (mut snapshots, _) = self.load_snapshots(job).await?;
            snapshots.retain(|info| select(info));
            Ok(history::next_run(&snapshots))
        })
        .await
    }
}

fn bytes_unique(index: &Index) -> Result<u64> {
    let mut bytes = 0_u64;
    let mut last = None;
    for row in index.rows() {
        let row = row?;
        if last != Some((row.id, row.len)) && index.is_data(row.pack) {
            bytes = bytes.saturating_add(u64::from(row.len));
            last = Some((row.id, row.len));
        }
    }
    Ok(bytes)
}
