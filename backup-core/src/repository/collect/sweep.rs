//! Deleting what a decision permits to delete.

use std::collections::{BTreeSet, HashSet};

use futures_util::{StreamExt, stream};

use super::CollectOptions;
use super::number::Begun;
use crate::format::control::SweptName;
use crate::report::CollectReport;
use crate::repository::control::Control;
use crate::repository::keys::ControlKey;
use crate::repository::listing::Listing;
use crate::repository::{Repository, keys};
use crate::{JobContext, ObjectKey, Result, SinkExt};

/// Collections whose swept names are all deleted, and these names.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) collections: BTreeSet<u64>,
    pub(super) names: HashSet<SweptName>,
}

impl Repository {
    /// Deletes what unfinished collections sweep, as far as its time has come, and what reappeared of what ever was swept.
    pub(super) async fn delete_swept(
        &self,
        control: &Control,
        begun: &Begun,
        options: &CollectOptions,
        report: &mut CollectReport,
        job: &JobContext,
    ) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut waiting = HashSet::new();
        for (number, collection) in control.collections.iter().filter(|(_, collection)| collection.sweeps()) {
            let due = self.grace_is_over(*number, begun, options).await?;
            let names = if due { &mut swept.names } else { &mut waiting };
            let mut rescued: HashSet<SweptName> = HashSet::new();
            let Some(decision) = &collection.decision else { continue };
            rescued.extend(decision.rescued.swept());
            for (part, digest) in (0_u32..).zip(&decision.parts.0) {
                if let Some(part) = self.read_part(*number, part, digest, job).await? {
                    names.extend(part.swept().filter(|name| !rescued.contains(name)));
                }
            }
            if due {
                swept.collections.insert(*number);
            }
        }
        let ever = control.swept_ever();
        let mut doomed: Vec<(ObjectKey, u64)> = Vec::new();
        for pack in self.list_packs(job).await? {
            let name = SweptName::of_pack(&pack.digest);
            if swept.names.contains(&name) || ever.was_swept(name) {
                doomed.push((keys::pack(pack.object_type, &pack.digest)?, pack.len));
            } else if waiting.contains(&name) {
                report.packs_waiting = report.packs_waiting.saturating_add(1);
            }
        }
        let mut logs = Listing::new(&*self.store().sink, keys::LOGS);
        while let Some(page) = logs.next().await? {
            for meta in page {
                let name = SweptName::of_log(&meta.key);
                if swept.names.contains(&name) || ever.was_swept(name) {
                    doomed.push((meta.key, meta.len));
                }
            }
        }
        let sink = &self.store().sink;
        let deletes = doomed.into_iter().map(|(key, len)| async move {
            job.check()?;
            let _request = job.resources().request().await?;
            sink.delete(&key).await.map_err(|e| e.with_object(&key)).map(|()| len)
        });
        let mut deletes = stream::iter(deletes).buffer_unordered(job.resources().requests());
        while let Some(deleted) = deletes.next().await {
            report.bytes_freed = report.bytes_freed.saturating_add(deleted?);
            report.objects_deleted = report.objects_deleted.saturating_add(1);
        }
        Ok(swept)
    }

    /// Whether readers have had their time since a collection decided.
    async fn grace_is_over(&self, number: u64, begun: &Begun, options: &CollectOptions) -> Result<bool> {
        if options.grace.is_zero() {
            return Ok(true);
        }
        let key = ControlKey::CollectionDecision(number).key()?;
        let listed = self.store().sink.list_all(key.as_str()).await?;
        let decided = listed.into_iter().find(|meta| meta.key == key).and_then(|meta| meta.created);
        let grace = i64::try_from(options.grace.as_secs()).unwrap_or(i64::MAX);
        // A store without times gives nobody time.
        let ends = decided.map(|decided| decided.saturating_add_seconds(grace));
        Ok(ends.zip(begun.now).is_none_or(|(ends, now)| now >= ends))
    }
}
