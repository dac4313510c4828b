//! Sizes and ratios of a repository.

use std::collections::HashSet;

use super::{Repository, guard};
use crate::report::StatsReport;
use crate::transform::ObjectType;
use crate::{JobContext, Result, SinkExt};

impl Repository {
    /// What the repository holds and what that takes.
    pub async fn stats(&self, job: &JobContext) -> Result<StatsReport> {
        guard::run(job, async move {
            let mut report = StatsReport::default();
            for snapshot in self.readable_snapshots(job).await? {
                report.snapshots = report.snapshots.saturating_add(1);
                report.bytes_logical = report.bytes_logical.saturating_add(snapshot.bytes_logical);
            }
            for meta in self.store().sink.list_all("").await? {
                let kind = meta.key.as_str().split('/').next().unwrap_or_default().to_owned();
                let entry = report.by_kind.entry(kind).or_default();
                entry.objects = entry.objects.saturating_add(1);
                entry.bytes_stored = entry.bytes_stored.saturating_add(meta.len);
                report.objects = report.objects.saturating_add(1);
                report.bytes_stored = report.bytes_stored.saturating_add(meta.len);
            }
            let index = self.view(job).await?.index;
            let data: HashSet<u32> = (0..)
                .zip(&index.packs)
                .filter(|(_, pack)| pack.record.object_type == ObjectType::Data)
                .map(|(number, _)| number)
                .collect();
            let mut last = None;
            for row in index.rows() {
                if last != Some((row.id, row.len)) && data.contains(&row.pack) {
                    report.bytes_unique = report.bytes_unique.saturating_add(u64::from(row.len));
                    last = Some((row.id, row.len));
                }
            }
            if report.bytes_stored > 0 {
                report.ratio = report.bytes_logical as f64 / report.bytes_stored as f64;
            }
            Ok(report)
        })
        .await
    }
}
