//! The plan of a recovery: what it takes, and the proof that it can work.

use std::time::Duration;

use backup_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::history::Leg;
use super::inventory::LogSegment;
use super::path::LogPath;
use super::place::why_not_made;
use super::{BaseBackup, LogInventory, Place, PlaceSurvey, RecoveryTarget, Refusal, Refused, StopAt};
use crate::postgres::wal::{MadeTablespace, SegmentName};
use crate::postgres::{Lsn, Timeline};

/// Segments of log that a recovering server keeps on disk at once: what `max_wal_size` lets be, and some more.
const SEGMENTS_KEPT: u64 = 128;

/// Bytes that stand between the end of a record and the next one's beginning at most, where a page begins between them.
const PAGE_HEADER_BYTES: u64 = 64;

/// What a plan is made from.
#[derive(Debug, Clone)]
pub struct PlanRequest<'a> {
    /// The base backups to choose from: the newest that leads to the target is taken. One alone, if there is to be no choice.
    pub bases: &'a [BaseBackup],
    /// What the archive has.
    pub inventory: &'a LogInventory,
    /// The moment.
    pub target: &'a RecoveryTarget,
    /// Where to, as it looks now. Without, a plan says only whether the recovery can work at all.
    pub place: Option<&'a PlaceSurvey>,
    /// The major version of the server's programs, where they are known.
    pub programs: Option<u32>,
    /// Whether the server is to go on as a standby.
    pub standby: bool,
    /// Whether a target is taken on trust where nobody has looked into the segments that would prove it. The server still refuses to
    /// come up if it does not meet it.
    pub allow_unproven: bool,
    /// For the estimate.
    pub speed: Speed,
}

/// How fast the parts of a recovery are, for an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// Bytes of files that are restored in a second.
    pub files: u64,
    /// Bytes of log that are replayed in a second.
    pub log: u64,
}

impl Default for Speed {
    fn default() -> Self {
        Self { files: 200 << 20, log: 48 << 20 }
    }
}

/// How a recovery goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    /// The base backup.
    pub base: BaseBackup,
    /// The moment.
    pub target: RecoveryTarget,
    /// The timeline on which it lies.
    pub timeline: Timeline,
    /// The way there, from the base backup's timeline on.
    pub legs: Vec<Leg>,
    /// The segments that are replayed, in order: runs that follow each other on one timeline.
    pub segments: Vec<SegmentRun>,
    /// What proves that the target is reached.
    pub reached: Reached,
    /// Tablespaces that the log makes on the way, as far as anybody has looked: the server writes into their directories, wherever the rest of
    /// the cluster is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made_tablespaces: Vec<MadeTablespace>,
    /// Whether the server goes on as a standby.
    pub standby: bool,
    /// Where to.
    pub place: Option<Place>,
    /// Bytes of files.
    pub file_bytes: u64,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Bytes of space that it takes.
    pub space: u64,
    /// How long it will take, about.
    pub estimate: Duration,
    /// What whoever decides should know.
    pub notes: Vec<String>,
}

/// Segments of one timeline that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRun {
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
}

/// How it is known that a target is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The segment in which replay stops.
    pub segment: SegmentName,
    /// Replay has got at least here when it is done.
    pub at_least: Lsn,
    /// What the archive knows that proves it; none if it is taken on trust.
    pub proof: Option<String>,
}

impl RecoveryPlan {
    /// Makes a plan. It changes nothing, and looks at directories only where a place is given and the log makes a tablespace.
    ///
    /// # Errors
    ///
    /// The recovery cannot work; all reasons that were found, of the base backup that came nearest.
    pub fn make(request: &PlanRequest<'_>) -> Result<Self, Refused> {
        if let Err(error) = request.target.check() {
            let why = error.to_string();
            return Err(Refused { base: None, reasons: vec![Refusal::BadTarget { why }] });
        }
        // Newest first, and by time: timelines of other branches may have higher numbers and older content.
        let mut bases: Vec<&BaseBackup> = request.bases.iter().collect();
        bases.sort_by_key(|base| std::cmp::Reverse((base.stop_time, base.stop_lsn)));
        let mut nearest: Option<Refused> = None;
        for base in bases {
            match Self::from_base(request, base) {
                Ok(plan) => return Ok(plan),
                Err(reasons) => {
                    let early = |refused: &Refused| {
                        refused.reasons.iter().any(|reason| matches!(reason, Refusal::BeforeBackupEnd { .. }))
                    };
                    // The newest that is not merely too new tells most.
                    if nearest.as_ref().is_none_or(early) {
                        nearest = Some(Refused { base: Some(base.id.clone()), reasons });
                    }
                }
            }
        }
        Err(nearest.unwrap_or(Refused { base: None, reasons: vec![Refusal::NoBase] }))
    }

    fn from_base(request: &PlanRequest<'_>, base: &BaseBackup) -> Result<Self, Vec<Refusal>> {
        let mut reasons = Vec::new();
        if let Some(found) = request.programs.filter(|found| *found != base.major_version()) {
            reasons.push(Refusal::WrongVersion { wanted: base.major_version(), found });
        }
        let way = match Way::find(request, base) {
            Ok(way) => Some(way),
            Err(found) => {
                reasons.extend(found);
                None
            }
        };
        let segments =
            way.as_ref().map_or(0, |way| way.last.saturating_sub(way.path.first).saturating_add(1));
        let log_bytes = segments.saturating_mul(base.segment_size.bytes());
        let kept = segments.min(SEGMENTS_KEPT).saturating_mul(base.segment_size.bytes());
        let space = base.bytes.saturating_add(kept);
        if let Some(survey) = request.place {
            reasons.extend(survey.refusals(base, space));
            reasons.extend(way.iter().flat_map(|way| &way.made).filter_map(|made| {
                let directory = std::path::PathBuf::from(&made.directory);
                let why = why_not_made(&directory)?.to_owned();
                Some(Refusal::TablespaceMade { oid: made.oid, directory, at: made.lsn, why })
            }));
        }
        let Some(mut way) = way.filter(|_| reasons.is_empty()) else { return Err(reasons) };
        if base.damaged_pages > 0 {
            way.notes
                .push(format!("{} pages were damaged already when they were backed up", base.damaged_pages));
        }
        let seconds = |bytes: u64, speed: u64| Duration::from_secs(bytes.div_ceil(speed.max(1)));
        let estimate =
            seconds(base.bytes, request.speed.files).saturating_add(seconds(log_bytes, request.speed.log));
        Ok(Self {
            base: base.clone(),
            target: request.target.clone(),
            timeline: way.path.timeline,
            segments: way.runs(),
            legs: way.path.legs,
            reached: way.reached,
            made_tablespaces: way.made,
            standby: request.standby,
            place: request.place.map(|survey| survey.place.clone()),
            file_bytes: base.bytes,
            log_bytes,
            space,
            estimate,
            notes: way.notes,
        })
    }
}

/// The way to a target, proven.
struct Way<'a> {
    path: LogPath<'a>,
    last: u64,
    reached: Reached,
    made: Vec<MadeTablespace>,
    notes: Vec<String>,
}

/// Where a target was found.
struct Found {
    /// The last segment that is needed.
    last: u64,
    /// Replay gets at least here.
    at_least: Lsn,
    proof: Option<String>,
}

impl<'a> Way<'a> {
    fn find(request: &PlanRequest<'a>, base: &BaseBackup) -> Result<Self, Vec<Refusal>> {
        let found: Vec<u64> = request.inventory.lineages.keys().copied().collect();
        let lineage = request.inventory.lineages.get(&base.system_identifier);
        let lineage =
            lineage.ok_or_else(|| vec![Refusal::WrongLineage { wanted: base.system_identifier, found }])?;
        if lineage.segment_size != base.segment_size {
            let (wanted, found) = (base.segment_size.bytes(), lineage.segment_size.bytes());
            return Err(vec![Refusal::WrongSegmentSize { wanted, found }]);
        }
        let path = LogPath::find(lineage, base, request.target.timeline).map_err(|refusal| vec![refusal])?;
        if request.standby
            && request.target.timeline == super::TargetTimeline::Latest
            && let Some(jump) = path.jump()
        {
            return Err(vec![jump]);
        }
        let mut notes = Vec::new();
        let search = Search { path: &path, base, request };
        let found = match search.target(&mut notes) {
            Ok(found) => found,
            Err(refusal) => {
                // A gap on the way tells more than that the target was not found behind it.
                let stop = base.segment_size.number_of(Lsn::new(base.stop_lsn.get().saturating_sub(1)));
                let known = path.next_present(stop).map_or(stop, |_| search.present_end().max(stop));
                let mut reasons = match refusal {
                    Refusal::BeforeBackupEnd { .. } => Vec::new(),
                    _ => path.obstacles(known, base.stop_lsn),
                };
                reasons.push(refusal);
                return Err(reasons);
            }
        };
        let obstacles = path.obstacles(found.last, found.at_least.max(base.stop_lsn));
        if !obstacles.is_empty() {
            return Err(obstacles);
        }
        let reached =
            Reached { segment: path.name(found.last), at_least: found.at_least, proof: found.proof };
        if reached.proof.is_none() {
            notes.push(format!("that {} is reached is not proven", request.target));
        }
        let made = search.made(found.last);
        if let Some(first) = made.first() {
            notes.push(format!(
                "the log makes a tablespace in `{}`, and the server will write there",
                first.directory
            ));
        }
        Ok(Self { last: found.last, path, reached, made, notes })
    }

    fn runs(&self) -> Vec<SegmentRun> {
        let mut runs: Vec<SegmentRun> = Vec::new();
        for number in self.path.first..=self.last {
            let name = self.path.name(number);
            match runs.last_mut().filter(|run| run.last.timeline() == name.timeline()) {
                Some(run) => run.last = name,
                None => runs.push(SegmentRun { first: name, last: name }),
            }
        }
        runs
    }
}

struct Search<'a, 'b> {
    path: &'b LogPath<'a>,
    base: &'b BaseBackup,
    request: &'b PlanRequest<'a>,
}

impl<'a> Search<'a, '_> {
    fn stop_number(&self) -> u64 {
        self.base.segment_size.number_of(Lsn::new(self.base.stop_lsn.get().saturating_sub(1)))
    }

    /// The number of the last segment of the way that is archived, gaps or not.
    fn present_end(&self) -> u64 {
        let mut end = self.path.first;
        let mut next = self.path.next_present(end);
        while let Some(number) = next {
            end = self.path.contiguous_end(number).unwrap_or(number);
            next = end.checked_add(1).and_then(|after| self.path.next_present(after));
        }
        end
    }

    /// The tablespaces that replay makes, up to the segment `last`; of its last part some may come after the target.
    fn made(&self, last: u64) -> Vec<MadeTablespace> {
        let until = match &self.request.target.stop {
            StopAt::Lsn(lsn) => Some(*lsn),
            StopAt::Immediate => Some(self.base.stop_lsn),
            _ => None,
        };
        let segments = (self.path.first..=last).filter_map(|number| self.path.segment(number));
        let made = segments.filter_map(|segment| segment.facts.as_ref()).flat_map(|facts| &facts.tablespaces);
        let is_replayed = |made: &&MadeTablespace| {
            made.lsn >= self.base.start_lsn && until.is_none_or(|until| made.lsn <= until)
        };
        made.filter(is_replayed).cloned().collect()
    }

    fn early(&self) -> Refusal {
        Refusal::BeforeBackupEnd {
            target: self.request.target.to_string(),
            stop: self.base.stop_lsn,
            time: self.base.stop_time,
        }
    }

    fn target(&self, notes: &mut Vec<String>) -> Result<Found, Refusal> {
        let stop = self.base.stop_lsn;
        match &self.request.target.stop {
            StopAt::Immediate => Ok(Found {
                last: self.stop_number(),
                at_least: stop,
                proof: Some("the base backup's last segment is archived".to_owned()),
            }),
            StopAt::Latest => self.latest(),
            StopAt::Lsn(lsn) if *lsn < stop => Err(self.early()),
            StopAt::Lsn(lsn) => self.position(*lsn),
            StopAt::Time(time) if *time < self.base.stop_time => Err(self.early()),
            StopAt::Time(time) => {
                let inclusive = self.request.target.inclusive;
                let beyond = |last: Timestamp| if inclusive { last > *time } else { last >= *time };
                let found = self.in_facts(|_, segment| {
                    let last = segment.facts.as_ref()?.last_time.filter(|last| beyond(*last))?;
                    Some((None, format!("a transaction ended at {last}")))
                })?;
                // Replay stops before that transaction's end, which may be the first record of its segment.
                let before = Lsn::new(found.at_least.get().saturating_sub(self.base.segment_size.bytes()));
                Ok(Found { at_least: before.max(self.base.stop_lsn), ..found })
            }
            StopAt::Xid(xid) => {
                // What the server compares has no epoch.
                let number = u32::try_from(*xid & u64::from(u32::MAX)).unwrap_or_default();
                self.in_facts(|_, segment| {
                    let facts = segment.facts.as_ref()?;
                    let early = facts.ended_at.get(&number).filter(|lsn| **lsn < stop).copied();
                    let ends = || (early, format!("the transaction {number} ends in it"));
                    facts.ended.contains(number).then(ends)
                })
            }
            StopAt::Name(name) => {
                let points = || self.archived().filter_map(|(_, segment)| segment.facts.as_ref());
                let of_name =
                    points().flat_map(|facts| &facts.restore_points).filter(|point| point.name == *name);
                if of_name.filter(|point| point.lsn >= self.base.start_lsn).count() > 1 {
                    notes.push(format!(
                        "several restore points are called `{name}`; replay stops at the first"
                    ));
                }
                self.in_facts(|_, segment| {
                    let points = &segment.facts.as_ref()?.restore_points;
                    let found = points
                        .iter()
                        .find(|point| point.name == *name && point.lsn >= self.base.start_lsn)?;
                    Some((Some(found.lsn), format!("the restore point stands at {}", found.lsn)))
                })
            }
        }
    }

    fn latest(&self) -> Result<Found, Refusal> {
        let first = self.path.first;
        let end = self.path.contiguous_end(first);
        let end = end.ok_or_else(|| self.path.missing(first, self.gap_end(first)))?;
        let after = end.saturating_add(1);
        if self.path.next_present(after).is_some() {
            return Err(self.path.missing(after, self.gap_end(after)));
        }
        if end < self.stop_number() {
            return Err(self.path.missing(after, self.stop_number()));
        }
        let valid_to = self.path.segment(end).and_then(|segment| segment.facts.as_ref()?.valid_to);
        let start = self.path.name(end).start(self.base.segment_size);
        let at_least = valid_to.unwrap_or(start).max(self.base.stop_lsn);
        Ok(Found {
            last: end,
            at_least,
            proof: Some(format!("the log is archived up to {}", self.path.name(end))),
        })
    }

    /// The last missing segment of the gap that begins at `first`.
    fn gap_end(&self, first: u64) -> u64 {
        let next = self.path.next_present(first).map(|next| next.saturating_sub(1));
        next.unwrap_or_else(|| self.stop_number().max(first))
    }

    /// A position is met by the first record that begins there or later.
    fn position(&self, lsn: Lsn) -> Result<Found, Refusal> {
        let size = self.base.segment_size;
        let from = size.number_of(lsn).max(self.stop_number());
        // Without what is replayed only if it is asked for inclusively; and a position may lie in the header of a page.
        let at_least = Lsn::new(lsn.get().saturating_sub(PAGE_HEADER_BYTES)).max(self.base.stop_lsn);
        let mut unknown = None;
        let mut number = from;
        while let Some(segment) = self.path.segment(number) {
            match segment.facts.as_ref().map(|facts| facts.valid_to) {
                Some(Some(end)) if end > lsn => {
                    let proof = Some(format!("the log has whole records up to {end}"));
                    return Ok(Found { last: number, at_least, proof });
                }
                Some(_) => {}
                // Whatever comes after the position's own segment begins after the position.
                None if number > from => {
                    let proof = Some(format!("the log goes on in {}", self.path.name(number)));
                    return Ok(Found { last: number, at_least, proof });
                }
                None => unknown = Some(number),
            }
            let Some(next) = number.checked_add(1) else { break };
            number = next;
        }
        match unknown {
            Some(number) => self.unproven(number, at_least),
            None => Err(self.not_reached()),
        }
    }

    /// The archived segments of the way, up to the first gap.
    fn archived(&self) -> impl Iterator<Item = (u64, &'a LogSegment)> {
        let numbers = self.path.first..;
        numbers.map_while(|number| self.path.segment(number).map(|segment| (number, segment)))
    }

    /// The first segment whose facts answer.
    fn in_facts(
        &self,
        ask: impl Fn(u64, &LogSegment) -> Option<(Option<Lsn>, String)>,
    ) -> Result<Found, Refusal> {
        let mut unknown = None;
        let mut end = None;
        for (number, segment) in self.archived() {
            end = Some(number);
            if segment.facts.is_none() {
                unknown = unknown.or(Some(number));
                continue;
            }
            if let Some((lsn, proof)) = ask(number, segment) {
                if number < self.stop_number() || lsn.is_some_and(|lsn| lsn < self.base.stop_lsn) {
                    return Err(self.early());
                }
                let start = self.path.name(number).start(self.base.segment_size);
                // It might also be met in a segment before, into which nobody has looked.
                let start = if unknown.is_some() { self.base.stop_lsn } else { start };
                let at_least = lsn.unwrap_or(start).max(self.base.stop_lsn);
                let proof = Some(format!("{proof}, in {}", self.path.name(number)));
                return Ok(Found { last: number, at_least, proof });
            }
        }
        match (unknown, end) {
            (Some(unknown), Some(end)) if self.request.allow_unproven => {
                Ok(Found { last: end.max(unknown), at_least: self.base.stop_lsn, proof: None })
            }
            (Some(unknown), _) => self.unproven(unknown, self.base.stop_lsn),
            (None, _) => Err(self.not_reached()),
        }
    }

    fn unproven(&self, number: u64, at_least: Lsn) -> Result<Found, Refusal> {
        match self.request.allow_unproven {
            true => Ok(Found { last: number, at_least, proof: None }),
            false => Err(Refusal::NotProven {
                target: self.request.target.to_string(),
                segment: self.path.name(number),
            }),
        }
    }

    fn not_reached(&self) -> Refusal {
        let mut end = None;
        let mut time: Option<Timestamp> = None;
        for (number, segment) in self.archived() {
            end = Some(self.path.name(number).end(self.base.segment_size));
            time = time.max(segment.facts.as_ref().and_then(|facts| facts.last_time));
        }
        Refusal::NotReached { target: self.request.target.to_string(), end, time }
    }
}
