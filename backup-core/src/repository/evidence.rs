//! Evidence of what was done, and the ledger of what was verified when.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::keys;
use super::store::PutCounters;
use super::verify::{Slices, VerifyLevel};
use super::{Repository, guard};
use crate::format::control::Packed;
use crate::format::evidence::{EvidenceDocument, VerifiedDocument};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectMeta, Result, SinkExt, SnapshotId, Timestamp, limits};

/// The kind of evidence that a verification leaves.
const VERIFY: &str = "verify";

/// Something that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<'a, T: ?Sized> {
    /// What: `verify`, `drill`, `backup`, `forget`, `prune`, `copy`, `repair`, or a word of one's own.
    pub kind: &'a str,
    /// When it was begun.
    pub time: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Where.
    pub host: &'a str,
    /// By which program, in which version.
    pub program: &'a str,
    /// Whether it went well.
    pub passed: bool,
    /// Of a verification, how thorough it was, and which packs it took.
    pub verified: Option<(VerifyLevel, Slices)>,
    /// The job's report.
    pub report: &'a T,
}

/// Evidence as it was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// What it says.
    #[serde(flatten)]
    pub document: EvidenceDocument,
    /// When the store had it, by its clock, where known.
    pub stored: Option<Timestamp>,
}

/// When the packs of each slice were last verified, by the store's clock where it has one; none: never, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger(Vec<Option<Timestamp>>);

impl Ledger {
    /// When a slice was last verified.
    pub fn last(&self, slice: u8) -> Option<Timestamp> {
        self.0.get(usize::from(slice)).copied().flatten()
    }

    /// Since when everything is verified; none if something never was.
    pub fn everything_since(&self) -> Option<Timestamp> {
        self.0.iter().copied().min().flatten()
    }

    /// Which slices to verify next: those that were not for the longest time, `percent` hundredths of all and at least one, and all
    /// that were not since `since`.
    pub fn due(&self, percent: u8, since: Option<Timestamp>) -> Slices {
        let mut oldest: Vec<u8> = (0..=u8::MAX).collect();
        oldest.sort_by_key(|slice| (self.last(*slice), *slice));
        let count = Slices::COUNT.saturating_mul(percent.clamp(1, 100).into()).div_ceil(100);
        let is_late =
            |slice: &u8| since.is_some_and(|since| self.last(*slice).is_none_or(|last| last < since));
        let late = oldest.iter().filter(|slice| is_late(slice)).count();
        oldest.into_iter().take(count.max(late)).collect()
    }
}

impl Repository {
    /// Puts evidence. Returns its identity.
    pub async fn record<T: Serialize + Sync + ?Sized>(
        &self,
        done: &Done<'_, T>,
        job: &JobContext,
    ) -> Result<SnapshotId> {
        let report = serde_json::to_string(done.report)
            .map_err(|e| Error::internal("a report cannot be written").with_source(e))?;
        let verified = done.verified.map(|(level, slices)| VerifiedDocument {
            level,
            slices: Packed(slices.iter().map(|slice| [slice]).collect()),
        });
        guard::run(job, async move {
            let id = SnapshotId::random(&**job.random())?;
            let key = keys::evidence(done.kind, id)?;
            // What does not fit is what was named one by one; that it is not there is better than no evidence.
            let fits = report.len() <= limits::EVIDENCE_REPORT_BYTES_MAX;
            let document = EvidenceDocument {
                evidence: id,
                kind: done.kind.to_owned(),
                time: done.time,
                seconds: done.seconds,
                host: done.host.to_owned(),
                program: done.program.to_owned(),
                passed: done.passed,
                verified,
                report: if fits { report } else { r#"{"left_out":"it is too long"}"#.to_owned() },
            };
            let put = PutCounters::default();
            self.store().put_document(&key, ObjectType::Evidence, &document, &put, job).await?;
            Ok(id)
        })
        .await
    }

    /// The newest evidence, so much of it at most, the newest first; of one kind, if one is given.
    ///
    /// # Errors
    /// Those of the store, and evidence that cannot be read, by name.
    pub async fn evidence(&self, kind: Option<&str>, most: usize, job: &JobContext) -> Result<Vec<Evidence>> {
        guard::run(job, async move {
            let mut found = Vec::new();
            for meta in self.newest_evidence(kind, job).await? {
                if found.len() >= most {
                    break;
                }
                let Some(evidence) = self.read_evidence(&meta, job).await? else { continue };
                if kind.is_none_or(|kind| evidence.document.kind == kind) {
                    found.push(evidence);
                }
            }
            Ok(found)
        })
        .await
    }

    /// When which packs were last verified at this level or a deeper one, and were found whole. Only the newest
    /// [`EVIDENCE_READ_MAX`](limits::EVIDENCE_READ_MAX) verifications count, and those that can be read.
    pub async fn ledger(&self, level: VerifyLevel, job: &JobContext) -> Result<Ledger> {
        guard::run(job, async move {
            let mut last = vec![None; Slices::COUNT];
            let mut unknown: BTreeSet<u8> = (0..=u8::MAX).collect();
            let newest = self.newest_evidence(Some(VERIFY), job).await?;
            for meta in newest.into_iter().take(limits::EVIDENCE_READ_MAX) {
                if unknown.is_empty() {
                    break;
                }
                let read = passed_over(self.read_evidence(&meta, job).await)?;
                let Some(Evidence { document, stored }) = read.filter(|read| read.document.passed) else {
                    continue;
                };
                let Some(verified) = document.verified.filter(|verified| verified.level >= level) else {
                    continue;
                };
                for [slice] in verified.slices.0 {
                    if unknown.remove(&slice)
                        && let Some(entry) = last.get_mut(usize::from(slice))
                    {
                        *entry = Some(stored.unwrap_or(document.time));
                    }
                }
            }
            Ok(Ledger(last))
        })
        .await
    }

    /// When the newest verification was that found damage of which no later one says that it is gone: a look at other packs, or one
    /// that was not as thorough, says nothing about it. Only the newest [`EVIDENCE_READ_MAX`](limits::EVIDENCE_READ_MAX)
    /// verifications count, and nothing before the content of everything was found to be right.
    pub(super) async fn damage_found(&self, job: &JobContext) -> Result<Option<Timestamp>> {
        let newest =
            self.newest_evidence(Some(VERIFY), job).await?.into_iter().take(limits::EVIDENCE_READ_MAX);
        // Boxed: what borrows from a stream of futures is not `Send` otherwise.
        let reads: Vec<_> = newest
            .map(|meta| async move { passed_over(self.read_evidence(&meta, job).await) }.boxed())
            .collect();
        let reads = stream::iter(reads).buffered(job.resources().requests());
        let mut reads: Vec<Evidence> =
            reads.try_filter_map(|read| async move { Ok(read) }).try_collect().await?;
        // Of the same moment, that which found something comes last, as it cannot have been mended in between.
        let when = |read: &Evidence| read.stored.unwrap_or(read.document.time);
        reads.sort_by_key(|read| std::cmp::Reverse((when(read), !read.document.passed)));
        let mut right: Vec<Option<VerifyLevel>> = vec![None; Slices::COUNT];
        for read in reads.iter().filter(|read| read.document.kind == VERIFY) {
            if right.iter().all(|level| *level == Some(VerifyLevel::Content)) {
                break;
            }
            // A sample that found nothing says nothing about any one pack, and one that found something may be about any.
            let (level, slices) = match &read.document.verified {
                Some(verified) => {
                    (Some(verified.level), verified.slices.0.iter().map(|[slice]| *slice).collect())
                }
                None if read.document.passed => continue,
                None => (Some(VerifyLevel::Content), Slices::all()),
            };
            for slice in slices.iter() {
                let Some(right) = right.get_mut(usize::from(slice)) else { continue };
                if read.document.passed {
                    *right = (*right).max(level);
                } else if *right < level {
                    return Ok(Some(when(read)));
                }
            }
        }
        Ok(None)
    }

    /// Deletes evidence that the store had more than `keep` before `now`, but for the newest. Returns how much.
    pub(crate) async fn delete_old_evidence(
        &self,
        now: Option<Timestamp>,
        keep: Duration,
        job: &JobContext,
    ) -> Result<u64> {
        // Without the store's clock nothing is old.
        let Some(now) = now else { return Ok(0) };
        let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        let before = now.saturating_add_seconds(keep.saturating_neg());
        let verified = self.newest_evidence(Some(VERIFY), job).await?;
        let read: HashSet<_> =
            verified.into_iter().take(limits::EVIDENCE_READ_MAX).map(|meta| meta.key).collect();
        let listed = self.newest_evidence(None, job).await?.into_iter().skip(limits::EVIDENCE_READ_MAX);
        let is_old = |meta: &ObjectMeta| meta.created.is_some_and(|created| created < before);
        let old: Vec<_> = listed.filter(|meta| is_old(meta) && !read.contains(&meta.key)).collect();
        let count = old.len() as u64;
        // Boxed: what borrows from a stream of futures is not `Send` otherwise.
        let deletions: Vec<_> = old.into_iter().map(|meta| self.delete_evidence(meta, job).boxed()).collect();
        stream::iter(deletions).buffer_unordered(job.resources().requests()).try_collect::<()>().await?;
        Ok(count)
    }

    async fn delete_evidence(&self, meta: ObjectMeta, job: &JobContext) -> Result<()> {
        job.check()?;
        self.store().sink.delete(&meta.key).await
    }

    /// All evidence, or that of one kind and of others whose names begin alike, the newest first.
    async fn newest_evidence(&self, kind: Option<&str>, job: &JobContext) -> Result<Vec<ObjectMeta>> {
        job.check()?;
        let prefix = kind.map_or_else(|| keys::EVIDENCE.to_owned(), keys::evidence_of);
        let mut listed = self.store().sink.list_all(&prefix).await?;
        listed.sort_by(|a, b| (b.created, &b.key).cmp(&(a.created, &a.key)));
        Ok(listed)
    }

    async fn read_evidence(&self, meta: &ObjectMeta, job: &JobContext) -> Result<Option<Evidence>> {
        // What stands beside the kinds is of a version before there were any.
        let is_of_a_kind = meta.key.as_str().matches('/').count() == 2;
        let Some(id) = keys::id_of(&meta.key).ok().filter(|_| is_of_a_kind) else { return Ok(None) };
        let max = limits::CONTROL_BYTES_MAX;
        let read = self.store().get_document(&meta.key, ObjectType::Evidence, max, job).await;
        match read {
            Ok(EvidenceDocument { evidence, kind, .. })
                if evidence != id || keys::evidence(&kind, id)? != meta.key =>
            {
                Err(Error::corruption("is another's than its name says").with_object(&meta.key))
            }
            Ok(document) => Ok(Some(Evidence { document, stored: meta.created })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Evidence that cannot be read is none: whoever may write could put some, and nothing would be known of anything.
fn passed_over(read: Result<Option<Evidence>>) -> Result<Option<Evidence>> {
    match read {
        Err(error) if error.is_unreadable() => {
            tracing::warn!(%error, "evidence that cannot be read");
            Ok(None)
        }
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp::new(seconds, 0))
    }

    #[test]
    fn what_was_not_verified_for_longest_is_due_first() {
        let mut ledger = Ledger(vec![at(1000); Slices::COUNT]);
        ledger.0[7] = None;
        ledger.0[200] = at(10);
        assert_eq!(ledger.due(1, None).iter().collect::<Vec<_>>(), [0, 7, 200]);
        assert_eq!(ledger.due(1, Some(Timestamp::new(1000, 0))).len(), 3);
        assert_eq!(ledger.due(0, Some(Timestamp::new(1001, 0))), Slices::all());
        assert_eq!(ledger.due(100, None), Slices::all());
        assert_eq!(ledger.due(10, None).len(), 26);
        assert_eq!(ledger.everything_since(), None);
        ledger.0[7] = at(20);
        assert_eq!(ledger.everything_since(), at(10));
    }

    #[test]
    fn a_tenth_a_day_is_everything_in_ten_days() {
        let mut ledger = Ledger(vec![None; Slices::COUNT]);
        for day in 0..40 {
            for slice in ledger.due(10, None).iter() {
                ledger.0[usize::from(slice)] = at(day * 86_400);
            }
            if day >= 9 {
                let since = ledger.everything_since().unwrap();
                assert!(since >= Timestamp::new((day - 9) * 86_400, 0), "day {day}: {since}");
            }
        }
    }
}
