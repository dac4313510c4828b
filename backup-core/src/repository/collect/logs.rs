//! Which objects of logs nothing needs: pieces of segments that are there as a whole, and what is older than any moment that
//! is to be recovered.

use std::collections::BTreeMap;

use crate::format::log::LogKey;
use crate::log::position;
use crate::repository::listing::Listing;
use crate::repository::{Repository, keys};
use crate::{
    JobContext, LogName, LogRetention, ObjectKey, ObjectMeta, Outcome, Result, SnapshotId, SnapshotInfo,
    Timestamp,
};

/// Segments are archived side by side, so that one may be there somewhat earlier than the one before it.
const OUT_OF_ORDER_SECONDS: i64 = 3600;

/// What a snapshot needs of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogNeed {
    pub(super) id: SnapshotId,
    lineage: String,
    timeline: String,
    first: String,
    last: String,
    /// Whether anybody can go on from the snapshot by the log.
    leads: bool,
    /// When the store first had the snapshot.
    stored: Option<Timestamp>,
}

impl LogNeed {
    /// None of a snapshot that needs no log.
    pub(super) fn of(info: &SnapshotInfo) -> Option<Self> {
        let of = |name: &str| info.position.get(name).cloned();
        Some(Self {
            id: info.id,
            lineage: of(position::LINEAGE)?,
            timeline: of(position::TIMELINE)?,
            first: of(position::FIRST)?,
            last: of(position::LAST)?,
            leads: info.outcome == Outcome::Complete || of(position::MISSING_FILES).is_some_and(|n| n == "0"),
            stored: info.stored,
        })
    }

    /// Whether the snapshot is of no use without this segment, or whatever is named after it.
    fn includes(&self, name: &LogName) -> bool {
        let segment = name.segment.get(..self.first.len()).unwrap_or(&name.segment);
        (&self.lineage, &self.timeline) == (&name.lineage, &name.timeline)
            && (self.first.as_str()..=self.last.as_str()).contains(&segment)
    }

    /// Whether the segment is one of those that the snapshot needs, or of those after them.
    pub(super) fn reaches(&self, key: &ObjectKey) -> bool {
        LogKey::parse(key).is_none_or(|LogKey { name, .. }| {
            let after = name.timeline == self.timeline && name.segment >= self.first;
            name.lineage == self.lineage && (after || self.includes(&name))
        })
    }
}

/// An object of a log that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnneededLog {
    pub(super) key: ObjectKey,
    pub(super) len: u64,
}

impl Repository {
    /// The objects of logs that neither these snapshots nor the retention need. Without one only what stands there twice is unneeded.
    pub(super) async fn unneeded_logs(
        &self,
        needs: &[LogNeed],
        retention: Option<LogRetention>,
        now: Option<Timestamp>,
        job: &JobContext,
    ) -> Result<Vec<UnneededLog>> {
        let mut unneeded = Vec::new();
        let mut lineage = Lineage::default();
        let mut listing = Listing::new(&*self.store().sink, keys::LOGS);
        while let Some(page) = listing.next().await? {
            job.check()?;
            for meta in page {
                // What is not named like a part of a log is nobody's, and stays.
                let Some(key) = LogKey::parse(&meta.key) else { continue };
                if lineage.name.as_ref() != Some(&key.name.lineage) {
                    std::mem::take(&mut lineage).judge(needs, retention, now, &mut unneeded);
                    lineage.name = Some(key.name.lineage.clone());
                }
                lineage.objects.entry(key.name).or_default().push((key.offset, key.n, meta));
            }
        }
        lineage.judge(needs, retention, now, &mut unneeded);
        Ok(unneeded)
    }
}

/// The objects of one lineage.
#[derive(Debug, Default)]
struct Lineage {
    name: Option<String>,
    /// Of each segment: where a piece starts, which of several objects of a name it is, and the object.
    objects: BTreeMap<LogName, Vec<(Option<u64>, u32, ObjectMeta)>>,
}

impl Lineage {
    fn judge(
        self,
        needs: &[LogNeed],
        retention: Option<LogRetention>,
        now: Option<Timestamp>,
        unneeded: &mut Vec<UnneededLog>,
    ) {
        let Some(lineage) = &self.name else { return };
        let needs: Vec<&LogNeed> = needs.iter().filter(|need| need.lineage == *lineage).collect();
        let bound = retention.zip(now).and_then(|(retention, now)| self.bound(&needs, retention, now));
        for (name, objects) in &self.objects {
            let goes = bound.as_ref().is_some_and(|bound| {
                bound.is_before(name, objects) && !needs.iter().any(|need| need.includes(name))
            });
            let is_whole = objects.iter().any(|(offset, _, _)| offset.is_none());
            for (offset, n, meta) in objects {
                let counts = !objects.iter().any(|(other, higher, _)| other == offset && higher > n);
                let is_piece_of_whole = is_whole && offset.is_some();
                if goes || !counts || is_piece_of_whole {
                    unneeded.push(UnneededLog { key: meta.key.clone(), len: meta.len });
                }
            }
        }
    }

    /// Where what must be kept of this lineage begins; none where everything must.
    fn bound<'a>(&self, needs: &[&'a LogNeed], retention: LogRetention, now: Timestamp) -> Option<Bound<'a>> {
        let within = i64::try_from(retention.within.as_secs()).unwrap_or(i64::MAX);
        let since = now.saturating_add_seconds(within.saturating_neg());
        let leading = needs.iter().filter(|need| need.leads);
        let older = leading.filter(|need| need.stored.is_some_and(|stored| stored <= since));
        let base = older.max_by_key(|need| need.stored)?;
        // When the first segment that the base needs was archived: what was archived later may be needed to go on from it, on
        // whatever timeline.
        let name = LogName::new(&base.lineage, &base.timeline, &base.first);
        let begun = self.objects.get(&name)?.iter().filter_map(|(_, _, meta)| meta.created).min()?;
        Some(Bound { base, archived: begun.min(since).saturating_add_seconds(-OUT_OF_ORDER_SECONDS) })
    }
}

/// What is before it is needed by no moment that is to be recovered.
#[derive(Debug)]
struct Bound<'a> {
    /// The newest snapshot that is older than all of these moments, and leads to them.
    base: &'a LogNeed,
    archived: Timestamp,
}

impl Bound<'_> {
    fn is_before(&self, name: &LogName, objects: &[(Option<u64>, u32, ObjectMeta)]) -> bool {
        // Not named after a segment: it says how timelines belong together, and is small.
        if name.segment.len() < self.base.first.len() {
            return false;
        }
        // Also where all was brought from another place at once, and times tell nothing apart.
        if name.timeline == self.base.timeline {
            return name.segment < self.base.first;
        }
        let archived = objects.iter().map(|(_, _, meta)| meta.created).collect::<Option<Vec<_>>>();
        let latest = archived.and_then(|archived| archived.into_iter().max());
        latest.is_some_and(|latest| latest < self.archived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DAY: i64 = 86_400;

    fn object(text: &str, day: i64) -> ObjectMeta {
        ObjectMeta {
            key: ObjectKey::new(format!("logs/7412/{text}")).unwrap(),
            len: 1,
            created: Some(Timestamp::new(day * DAY, 0)),
        }
    }

    fn need(first: &str, last: &str, day: i64) -> LogNeed {
        LogNeed {
            id: SnapshotId::from_bytes([day as u8; 16]),
            lineage: "7412".into(),
            timeline: "1".into(),
            first: first.into(),
            last: last.into(),
            leads: true,
            stored: Some(Timestamp::new(day * DAY, 0)),
        }
    }

    fn judged(objects: &[ObjectMeta], needs: &[LogNeed], within: Option<u64>, today: i64) -> Vec<String> {
        let mut lineage = Lineage { name: Some("7412".into()), ..Lineage::default() };
        for meta in objects {
            let key = LogKey::parse(&meta.key).unwrap();
            lineage.objects.entry(key.name).or_default().push((key.offset, key.n, meta.clone()));
        }
        let retention = within.map(|days| LogRetention { within: Duration::from_secs(days * DAY as u64) });
        let mut unneeded = Vec::new();
        lineage.judge(needs, retention, Some(Timestamp::new(today * DAY, 0)), &mut unneeded);
        unneeded.into_iter().map(|log| log.key.as_str().trim_start_matches("logs/7412/").to_owned()).collect()
    }

    fn a_segment_a_day(days: i64) -> Vec<ObjectMeta> {
        (0..days).map(|day| object(&format!("1/{day:04}/0"), day)).collect()
    }

    #[test]
    fn the_base_before_the_first_moment_keeps_what_leads_from_it() {
        let log = a_segment_a_day(30);
        let needs = [need("0003", "0004", 4), need("0010", "0011", 11), need("0020", "0021", 21)];
        // Moments of the last seven days: from day 22 on, which the base of day 21 leads to.
        let gone = judged(&log, &needs, Some(7), 29);
        let kept: Vec<i64> = (0..30).filter(|day| !gone.contains(&format!("1/{day:04}/0"))).collect();
        let expected: Vec<i64> = [3, 4, 10, 11].into_iter().chain(20..30).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn without_an_older_base_nothing_goes_and_without_a_retention_neither() {
        let log = a_segment_a_day(30);
        assert_eq!(judged(&log, &[need("0025", "0026", 26)], Some(7), 29), [""; 0]);
        assert_eq!(judged(&log, &[], Some(7), 29), [""; 0]);
        assert_eq!(judged(&log, &[need("0003", "0004", 4)], None, 29), [""; 0]);
        // Of a base whose own first segment is gone nobody knows what leads from it.
        assert_eq!(judged(&log[5..], &[need("0003", "0004", 4)], Some(7), 29), [""; 0]);
    }

    #[test]
    fn a_snapshot_that_lacks_files_is_no_base_and_keeps_what_it_needs() {
        let log = a_segment_a_day(30);
        let broken = LogNeed { leads: false, ..need("0020", "0021", 21) };
        let needs = [need("0003", "0004", 4), need("0010", "0011", 11), broken];
        // Moments of the last seven days are recovered from the base of day 11; what the broken one has is kept, too.
        let gone = judged(&log, &needs, Some(7), 29);
        let kept: Vec<i64> = (0..30).filter(|day| !gone.contains(&format!("1/{day:04}/0"))).collect();
        let expected: Vec<i64> = [3, 4].into_iter().chain(10..30).collect();
        assert_eq!(kept, expected);
        let broken = LogNeed { leads: false, ..need("0020", "0021", 21) };
        assert_eq!(judged(&log, &[broken], Some(7), 29), [""; 0]);
    }

    #[test]
    fn other_timelines_count_by_when_they_were_archived() {
        let mut log = a_segment_a_day(10);
        log.extend([object("2/0005/0", 4), object("2/0011/0", 12), object("2/2.h/0", 1)]);
        let gone = judged(&log, &[need("0008", "0008", 8)], Some(2), 20);
        assert!(gone.contains(&"2/0005/0".to_owned()), "{gone:?}");
        assert!(!gone.contains(&"2/0011/0".to_owned()) && !gone.contains(&"2/2.h/0".to_owned()), "{gone:?}");
    }

    #[test]
    fn what_is_there_twice_goes_always() {
        let log = [
            object("1/0001.0000000000000000/0", 1),
            object("1/0001/0", 1),
            object("1/0001/1", 1),
            object("1/0002.0000000000000000/0", 1),
        ];
        assert_eq!(judged(&log, &[], None, 1), ["1/0001.0000000000000000/0", "1/0001/0"]);
    }
}
