//! What an archive has for a recovery: segments, histories, and what happens in them.

use std::collections::BTreeMap;

use backup_core::{Error, JobContext, LogOutline, Result};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::view::View;
use super::{WalArchive, log_name};
use crate::postgres::Lsn;
use crate::postgres::recovery::{LogGap, LogInventory, LogSegment, SegmentFacts};
use crate::postgres::wal::{SegmentName, SegmentSize, Summary, WalFile, check_partial, check_segment};

/// Segments that are looked into side by side; of those that are read, each is in memory as a whole.
const AT_ONCE: usize = 8;

/// How thoroughly an archive is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogLook {
    /// What segments say of themselves is read, their bytes are not.
    Outlines,
    /// Every segment is read: one that is damaged, or of another cluster, is found now and not when a server asks for it.
    Contents,
}

impl WalArchive {
    /// What is archived of the cluster, for a [plan](crate::postgres::recovery::RecoveryPlan): all segments by name, and of those that
    /// have something from `from` on what happens in them.
    ///
    /// # Errors
    ///
    /// Those of the places. Damage is none: it is in what is returned. Cancellation: nothing is changed.
    pub async fn inventory(&self, from: Lsn, look: LogLook, job: &JobContext) -> Result<LogInventory> {
        self.inventory_with_ends(from, look, &[], job).await
    }

    /// The same with [where transactions end](SegmentFacts::ended_at) in the segments `closely`, where their contents are looked at: for
    /// a recovery to a transaction, the [last segments](crate::postgres::recovery::BaseBackup::last_segment) of the base backups.
    ///
    /// # Errors
    ///
    /// As [`inventory`](Self::inventory).
    pub async fn inventory_with_ends(
        &self,
        from: Lsn,
        look: LogLook,
        closely: &[SegmentName],
        job: &JobContext,
    ) -> Result<LogInventory> {
        let mut inventory = LogInventory::default();
        let Some(lineage) = self.system_identifier(job).await? else { return Ok(inventory) };
        let view = self.view(lineage, job).await?;
        let Some(size) = self.size_for(lineage, &view, job).await? else { return Ok(inventory) };
        for (timeline, there) in &view.timelines {
            if there.has_history {
                self.add_history(&mut inventory, lineage, size, *timeline, job).await?;
            }
            let log = inventory.lineage(lineage, size);
            for gap in &there.gaps {
                let reason = "a receiver recorded that it was lost".to_owned();
                log.gaps.push(LogGap { timeline: *timeline, from: *gap, to: None, reason });
            }
        }
        let listed: Vec<(SegmentName, bool)> = view
            .timelines
            .values()
            .flat_map(|there| there.segments.iter().map(|(name, listed)| (*name, listed.is_whole)))
            .collect();
        let looked = listed.into_iter().map(|(name, is_whole)| async move {
            let segment = if name.end(size) <= from {
                if is_whole { LogSegment::whole() } else { LogSegment::beginning(0) }
            } else {
                let ends = closely.contains(&name);
                self.look_into((lineage, name, size), look, ends, job).await?
            };
            Ok::<_, Error>((name, segment))
        });
        let found: BTreeMap<SegmentName, LogSegment> =
            stream::iter(looked).buffer_unordered(AT_ONCE).try_collect().await?;
        for (name, segment) in found {
            inventory.add_segment(lineage, size, name, segment);
        }
        Ok(inventory)
    }

    /// The first of these segments, which ascend, that is not whole in every place; none if all are.
    ///
    /// # Errors
    ///
    /// Those of the places.
    pub async fn first_missing(
        &self,
        segments: &[SegmentName],
        job: &JobContext,
    ) -> Result<Option<SegmentName>> {
        let (Some(lineage), Some(first)) = (self.system_identifier(job).await?, segments.first()) else {
            return Ok(segments.first().copied());
        };
        let views = self.views(lineage, job).await?;
        let is_missing = |segment: &&SegmentName| views.iter().any(|view| !view.is_whole(**segment));
        let missing = segments.iter().find(is_missing).copied();
        tracing::debug!(%first, ?missing, "segments that a backup needs");
        Ok(missing)
    }

    async fn size_for(&self, lineage: u64, view: &View, job: &JobContext) -> Result<Option<SegmentSize>> {
        match self.segment_size(lineage, view, job).await {
            // The segment that was asked is damaged: another one says it, too, or nothing does.
            Err(error) if error.is_corruption() => Ok(Some(SegmentSize::default())),
            other => other,
        }
    }

    async fn add_history(
        &self,
        inventory: &mut LogInventory,
        lineage: u64,
        size: SegmentSize,
        timeline: crate::postgres::Timeline,
        job: &JobContext,
    ) -> Result<()> {
        match self.read(&log_name(lineage, WalFile::History(timeline)), job).await {
            Ok(Some(content)) => {
                inventory.add_history(lineage, size, timeline, &String::from_utf8_lossy(&content.content));
            }
            Ok(None) => {}
            Err(error) if error.is_corruption() => {
                inventory.add_damaged_history(lineage, size, timeline, error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn look_into(
        &self,
        (lineage, name, size): (u64, SegmentName, SegmentSize),
        look: LogLook,
        ends: bool,
        job: &JobContext,
    ) -> Result<LogSegment> {
        let looked = match look {
            LogLook::Outlines => self.outlined(lineage, name, job).await,
            LogLook::Contents => self.read_through((lineage, name, size), ends, job).await,
        };
        match looked {
            Err(error) if error.is_corruption() => Ok(LogSegment::damaged(error.to_string())),
            other => other,
        }
    }

    async fn outlined(&self, lineage: u64, name: SegmentName, job: &JobContext) -> Result<LogSegment> {
        let log = log_name(lineage, WalFile::Segment(name));
        let (mut best, mut failure): (Option<LogOutline>, _) = (None, None);
        for place in self.places() {
            match place.outline_log(&log, job).await {
                Ok(Some(outline)) => {
                    if best.as_ref().is_none_or(|best| best.bytes < outline.bytes) {
                        best = Some(outline);
                    }
                }
                Ok(None) => {}
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
            }
            if best.as_ref().is_some_and(LogOutline::is_whole) {
                break;
            }
        }
        match (best, failure) {
            (Some(outline), failure) if outline.is_whole() || failure.is_none() => {
                let summary = Summary::of_positions(&outline.position);
                let segment = if outline.is_whole() {
                    LogSegment::whole()
                } else {
                    LogSegment::beginning(outline.bytes)
                };
                Ok(segment.with_facts(SegmentFacts::from(&summary)))
            }
            (_, Some(error)) => Err(error),
            (_, None) => Ok(LogSegment::damaged("it is listed and cannot be found")),
        }
    }

    async fn read_through(
        &self,
        (lineage, name, size): (u64, SegmentName, SegmentSize),
        ends: bool,
        job: &JobContext,
    ) -> Result<LogSegment> {
        let Some(content) = self.read(&log_name(lineage, WalFile::Segment(name)), job).await? else {
            return Ok(LogSegment::damaged("it is listed and cannot be found"));
        };
        let bytes = content.content;
        let is_whole = bytes.len() as u64 == size.bytes();
        let reading = tokio::task::spawn_blocking(move || {
            let header = match is_whole {
                true => check_segment(&bytes, name, Some(size))?,
                false => check_partial(&bytes, name, Some(size))?,
            };
            if header.system_identifier != lineage {
                let message = format!("{name} is of the cluster {}", header.system_identifier);
                return Err(Error::corruption(message));
            }
            let segment =
                if is_whole { LogSegment::whole() } else { LogSegment::beginning(bytes.len() as u64) };
            let mut facts = SegmentFacts::from(&Summary::of_segment(&bytes, name, size));
            if ends {
                facts.ended_at = Summary::ends_in(&bytes, name, size);
            }
            Ok(segment.with_facts(facts))
        });
        reading.await.map_err(|e| Error::internal("a segment could not be read").with_source(e))?
    }
}
