//! Merging index segments: few of many, and without the packs that were swept.

use std::collections::HashSet;

use super::control::{Bars, Control};
use super::index::Segment;
use super::keys::ControlKey;
use super::lane::Lane;
use super::segment::{SegmentBuilder, put_segment_on};
use super::session::{Decided, Session, files_of};
use super::store::PutCounters;
use super::{Repository, guard, keys};
use crate::format::control::SweptName;
use crate::report::CompactReport;
use crate::{Error, ErrorKind, JobContext, ObjectMeta, Result, SinkExt, SnapshotId, limits};

/// Segments of fewer rows are merged when there are [`SMALL_MAX`] of them.
const SMALL_ROWS: usize = limits::SEGMENT_ROWS_TARGET / 2;
/// Small segments that do no harm.
const SMALL_MAX: usize = 16;

/// What one segment says, as far as the choice of what to merge needs it.
#[derive(Debug)]
struct Looked {
    meta: ObjectMeta,
    digest: [u8; 32],
    session: SnapshotId,
    supersedes: Vec<[u8; 32]>,
    rows: usize,
    /// It names packs that were swept, and perhaps no others.
    names_swept: bool,
    names_others: bool,
}

impl Repository {
    /// Writes small index segments anew as few large ones, and those that name packs which were swept without these; then
    /// deletes what they replace, and what sessions that were shut out left in the index. Does nothing where there is
    /// little to be gained.
    ///
    /// One segment at a time is in memory. Cancellation: what was written serves nobody and is removed by a later
    /// collection; what is there stays valid.
    pub async fn compact_index(&self, job: &JobContext) -> Result<CompactReport> {
        guard::run(job, self.compact_without(Vec::new(), job)).await
    }

    /// The same, without packs of these names: nobody is to look for anything in them any longer.
    pub(super) async fn compact_without(
        &self,
        names: Vec<SweptName>,
        job: &JobContext,
    ) -> Result<CompactReport> {
        let (store, put) = (self.store(), PutCounters::default());
        let session = Session::open(store, "merge", false, "", &put, job).await?;
        let work = Box::pin(self.compact(&session, names, &put, job));
        let done = session.alive(store, &put, job, work).await;
        if put.objects() <= 1 {
            session.withdraw(store).await;
        }
        done
    }

    async fn compact(
        &self,
        session: &Session,
        names: Vec<SweptName>,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<CompactReport> {
        let store = self.store();
        let mut report = CompactReport::default();
        // Decisions before segments: a decided session has put all that it ever puts.
        let outcomes = store.sink.list_all(keys::SNAPSHOTS).await?;
        self.load_listed(outcomes.clone(), job).await?;
        let control = self.listed_control(job).await?;
        let listed = store.sink.list_all(keys::INDEX).await?;
        let mut bars = self.bars(&control.sweeping(), job).await?;
        bars.extend(names);
        let committed = self.committed_among(&outcomes, &control);
        let lane = Lane::start()?;
        let mut looked = Vec::new();
        let mut named: HashSet<SweptName> = HashSet::new();
        let mut all_read = true;
        for meta in listed {
            let Some(segment) = self.segment(&meta, &lane, job).await? else {
                all_read = false;
                continue;
            };
            let is_committed = committed.contains(&segment.head.session);
            let (mut names_swept, mut names_others) = (false, false);
            segment.each_pack(|record| {
                let name = SweptName::of_pack(&record.digest);
                let swept = bars.contains(name);
                names_swept |= swept;
                names_others |= !swept;
                if is_committed {
                    named.insert(name);
                }
                Ok(())
            })?;
            let mut rows = 0_usize;
            segment.each_row(|_| {
                rows = rows.saturating_add(1);
                Ok(())
            })?;
            let Segment { digest, head, .. } = segment;
            let (session, supersedes) = (head.session, head.supersedes);
            looked.push(Looked { meta, digest, session, supersedes, rows, names_swept, names_others });
        }
        report.segments_before = looked.len() as u64;
        let valid = |looked: &Looked| committed.contains(&looked.session);
        let superseded: HashSet<[u8; 32]> =
            looked.iter().filter(|l| valid(l)).flat_map(|l| l.supersedes.iter().copied()).collect();
        // Nothing is to be written for one that names nothing that is there.
        let (gone, rest): (Vec<Looked>, Vec<Looked>) = looked.into_iter().partition(|looked| {
            superseded.contains(&looked.digest) || (looked.names_swept && !looked.names_others)
        });
        let (current, others): (Vec<Looked>, Vec<Looked>) = rest.into_iter().partition(valid);
        let small = current.iter().filter(|looked| looked.rows < SMALL_ROWS).count();
        let chosen: Vec<&Looked> = current
            .iter()
            .filter(|looked| looked.names_swept || (looked.rows < SMALL_ROWS && small >= SMALL_MAX))
            .collect();
        if !chosen.is_empty() {
            report.segments_written = self.merge_segments(session, &chosen, &bars, &lane, put, job).await?;
            if session.decide(self, put, job).await? == Decided::Fenced {
                let message =
                    "the merge was shut out, as if it had stopped; it can be done again at any time";
                return Err(Error::new(ErrorKind::Transient, message));
            }
        }
        let mut deleted: Vec<&Looked> = gone.iter().chain(chosen.iter().copied()).collect();
        // Those of sessions that were shut out go when all that they name is named by others, or gone.
        for looked in others.iter().filter(|looked| self.is_fenced(looked.session, &control)) {
            let Some(segment) = self.segment(&looked.meta, &lane, job).await? else { continue };
            let mut is_needed = false;
            segment.each_pack(|record| {
                let name = SweptName::of_pack(&record.digest);
                is_needed |= !named.contains(&name) && !bars.contains(name);
                Ok(())
            })?;
            if !is_needed {
                deleted.push(looked);
            }
        }
        for looked in &deleted {
            store.sink.delete(&looked.meta.key).await.map_err(|e| e.with_object(&looked.meta.key))?;
        }
        report.segments_deleted = deleted.len() as u64;
        // Of whom one is that cannot be read nobody knows: all decisions stay.
        if !all_read {
            return Ok(report);
        }
        let deleted: HashSet<[u8; 32]> = deleted.iter().map(|looked| looked.digest).collect();
        let left = gone.iter().chain(&current).chain(&others);
        let left = left.filter(|looked| !deleted.contains(&looked.digest));
        let with_segments: HashSet<SnapshotId> = left.map(|looked| looked.session).collect();
        // Not those of sessions that were shut out: without its fence such a session could still decide.
        for (id, _) in control.decided.iter().filter(|(_, committed)| **committed) {
            if !with_segments.contains(id) {
                let listed = control.listing.sessions.get(id);
                let files = listed.into_iter().flat_map(|s| files_of(*id, s.open, &s.beats));
                // The decision last: without it the session would be one that nobody has decided.
                for name in files.chain([ControlKey::SessionDecision(*id)]) {
                    let key = name.key()?;
                    store.sink.delete(&key).await.map_err(|e| e.with_object(&key))?;
                }
            }
        }
        Ok(report)
    }

    fn is_fenced(&self, session: SnapshotId, control: &Control) -> bool {
        control.decided.get(&session) == Some(&false) || self.held_fences().contains(&session)
    }

    /// A listed segment; none if it is gone or damaged. What a damaged one says the packs say, too.
    async fn segment(&self, meta: &ObjectMeta, lane: &Lane, job: &JobContext) -> Result<Option<Segment>> {
        let store = self.store();
        let Ok(digest) = keys::digest_of(&meta.key) else { return Ok(None) };
        let bytes = match store.get_whole(&meta.key, limits::OBJECT_BYTES_MAX, job).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_corruption() || error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (opening, key) = (store.clone(), meta.key.clone());
        let open = move || Segment::open(&opening, digest, &bytes).map_err(|e| e.with_object(&key));
        match lane.run(open).await {
            Ok(segment) => Ok(Some(segment)),
            Err(error) if error.is_corruption() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what these segments name, but for what was swept. Returns how many segments that makes.
    async fn merge_segments(
        &self,
        session: &Session,
        chosen: &[&Looked],
        bars: &Bars,
        lane: &Lane,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<u64> {
        let store = self.store();
        let mut written = 0_u64;
        let mut builder = SegmentBuilder::default();
        let mut taken: HashSet<SweptName> = HashSet::new();
        for looked in chosen {
            job.check()?;
            let Some(segment) = self.segment(&looked.meta, lane, job).await? else {
                let message = "was there a moment ago and is gone, or damaged";
                return Err(Error::new(ErrorKind::Transient, message).with_object(&looked.meta.key));
            };
            let mut packs = Vec::new();
            segment.each_pack(|record| {
                let name = SweptName::of_pack(&record.digest);
                let wanted = !bars.contains(name) && taken.insert(name);
                packs.push(wanted.then_some((record, Vec::new())));
                Ok(())
            })?;
            segment.each_row(|row| {
                if let Some(Some((_, rows))) = packs.get_mut(row.pack as usize) {
                    rows.push(row);
                }
                Ok(())
            })?;
            drop(segment);
            for (record, rows) in packs.into_iter().flatten() {
                builder.push(record, rows);
                if builder.is_full() {
                    let full = std::mem::take(&mut builder);
                    put_segment_on(lane, store, session.id(), full, put, job).await?;
                    written = written.saturating_add(1);
                }
            }
        }
        builder.supersede(chosen.iter().map(|looked| looked.digest).collect());
        put_segment_on(lane, store, session.id(), builder, put, job).await?;
        Ok(written.saturating_add(1))
    }
}
