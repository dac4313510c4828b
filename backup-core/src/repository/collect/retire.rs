//! Forgetting what is over: digests first, then the files that they stand for.

use std::time::Duration;

use super::CollectOptions;
use super::number::Begun;
use crate::format::control::{DigestDocument, Packed, Verdict};
use crate::limits;
use crate::report::CollectReport;
use crate::repository::control::Control;
use crate::repository::keys::ControlKey;
use crate::repository::session::files_of;
use crate::repository::store::PutCounters;
use crate::repository::{Repository, keys};
use crate::transform::ObjectType;
use crate::{JobContext, ObjectKey, Result, SnapshotId};

impl Repository {
    /// Deletes what may be deleted, folds what is final into digests, and deletes the files that these stand for. Whatever
    /// is left the next collection takes up.
    pub(super) async fn retire(
        &self,
        begun: &Begun,
        options: &CollectOptions,
        report: &mut CollectReport,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<()> {
        let control = self.listed_control(job).await?;
        let swept = self.delete_swept(&control, begun, options, report, job).await?;
        let held = self.held(&control, begun.now, job).await?;
        let expired: Vec<SnapshotId> = control
            .forgotten
            .keys()
            .copied()
            .filter(|id| control.has_expired(*id) && !held.contains(id) && !control.is_digested(*id))
            .collect();
        let mut finished = control.finished();
        while control.collections.get(&finished).is_some_and(|collection| {
            let decision = collection.decision.as_ref().map(|decision| decision.decision);
            decision == Some(Verdict::Abandoned) || swept.collections.contains(&finished)
        }) {
            finished = finished.saturating_add(1);
        }
        if finished > control.finished() || !expired.is_empty() {
            // Also of those that cannot be finished yet: their names are deleted, and stay barred in any case.
            let names = match finished > control.finished() {
                true => swept.names.iter().map(|name| name.0).collect(),
                false => Vec::new(),
            };
            let ids = expired.iter().map(|id| *id.as_bytes()).collect();
            self.put_digests(finished, ids, names, put, job).await?;
        }
        self.merge_digests(put, job).await?;
        self.tidy(begun, put, job).await
    }

    /// Puts digests: what the finished collections swept before it is said that they are finished.
    async fn put_digests(
        &self,
        finished: u64,
        mut expired: Vec<[u8; 16]>,
        mut swept: Vec<[u8; 16]>,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<()> {
        expired.sort_unstable();
        swept.sort_unstable();
        let (mut expired, mut swept) = (&expired[..], &swept[..]);
        loop {
            let (some, rest) = expired.split_at_checked(limits::DIGEST_NAMES).unwrap_or((expired, &[]));
            let room = limits::DIGEST_NAMES.saturating_sub(some.len());
            let (names, left) = swept.split_at_checked(room).unwrap_or((swept, &[]));
            (expired, swept) = (rest, left);
            let last = expired.is_empty() && swept.is_empty();
            let document = DigestDocument {
                finished: if last { finished } else { 0 },
                expired: Packed(some.to_vec()),
                swept: Packed(names.to_vec()),
            };
            let key = ControlKey::Digest(SnapshotId::random(&**job.random())?).key()?;
            self.store().put_document(&key, ObjectType::Collection, &document, put, job).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Makes few digests of many: new ones are there before the old ones go.
    async fn merge_digests(&self, put: &PutCounters, job: &JobContext) -> Result<()> {
        let control = self.listed_control(job).await?;
        if control.listing.digests.len() <= limits::DIGESTS_MAX {
            return Ok(());
        }
        let all = control.merged_digest();
        // As many as are full stay as they are, more or less; it is the small ones that get fewer.
        let full = all.expired.0.len().saturating_add(all.swept.0.len()) / limits::DIGEST_NAMES;
        if full.saturating_mul(2) > control.listing.digests.len() {
            return Ok(());
        }
        self.put_digests(all.finished, all.expired.0, all.swept.0, put, job).await?;
        for digest in &control.listing.digests {
            self.delete(ControlKey::Digest(*digest).key()?).await?;
        }
        Ok(())
    }

    /// Deletes files that digests stand for, and what decided sessions left behind.
    async fn tidy(&self, begun: &Begun, put: &PutCounters, job: &JobContext) -> Result<()> {
        let control = self.listed_control(job).await?;
        let finished = control.finished();
        // Sessions that were registered before the digests may have listed neither them nor, in a moment, the collections.
        let waited = self.wait_for_sessions(begun, Duration::ZERO, put, job).await?.is_empty();
        for (number, listed) in control.listing.collections.range(..finished) {
            let decision = ControlKey::CollectionDecision(*number).key()?;
            if !waited && !self.was_abandoned(*number, job).await? {
                continue;
            }
            // What says what was condemned goes first, what says what came of it last.
            if listed.condemned {
                self.delete(ControlKey::CollectionCondemned(*number).key()?).await?;
            }
            for part in &listed.parts {
                self.delete(ControlKey::CollectionPart(*number, *part).key()?).await?;
            }
            if listed.open {
                self.delete(ControlKey::CollectionOpen(*number).key()?).await?;
            }
            if listed.decision {
                self.delete(decision).await?;
            }
        }
        self.tidy_expired(&control, job).await?;
        self.tidy_decided(&control, job).await
    }

    async fn was_abandoned(&self, number: u64, job: &JobContext) -> Result<bool> {
        let key = ControlKey::CollectionDecision(number);
        let read: Option<crate::format::control::DecisionDocument> =
            crate::repository::control::get(self.store(), key, job).await?;
        Ok(read.is_some_and(|decision| decision.decision == Verdict::Abandoned))
    }

    /// Deletes the files of snapshots that digests call expired.
    async fn tidy_expired(&self, control: &Control, job: &JobContext) -> Result<()> {
        let there = self.list_snapshot_ids(job).await?;
        for id in there.keys().filter(|id| control.is_digested(**id)) {
            self.delete(keys::snapshot(*id)?).await?;
            self.forget_document(*id);
        }
        for (id, tombstones) in control.listing.tombstones.iter().filter(|(id, _)| control.is_digested(**id))
        {
            for (number, tombstone) in tombstones {
                if tombstone.open {
                    self.delete(ControlKey::Tombstone(*id, *number).key()?).await?;
                }
                if tombstone.fate {
                    self.delete(ControlKey::Fate(*id, *number).key()?).await?;
                }
            }
        }
        for id in control.listing.confirmed.iter().filter(|id| control.is_digested(**id)) {
            self.delete(ControlKey::Confirmed(*id).key()?).await?;
        }
        for (id, holds) in control.listing.holds.iter().filter(|(id, _)| control.is_digested(**id)) {
            for hold in holds {
                self.delete(ControlKey::Hold(*id, *hold).key()?).await?;
            }
        }
        Ok(())
    }

    /// Deletes what decided sessions left behind, but for decisions.
    async fn tidy_decided(&self, control: &Control, job: &JobContext) -> Result<()> {
        let outcomes = self.list_snapshot_ids(job).await?;
        for (id, session) in &control.listing.sessions {
            if session.decision || outcomes.contains_key(id) || control.is_digested(*id) {
                for name in files_of(*id, session.open, &session.beats) {
                    self.delete(name.key()?).await?;
                }
            }
        }
        Ok(())
    }

    async fn delete(&self, key: ObjectKey) -> Result<()> {
        self.store().sink.delete(&key).await.map_err(|e| e.with_object(&key))
    }
}
