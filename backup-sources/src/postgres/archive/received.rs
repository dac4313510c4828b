//! What a receiver brings.

use async_trait::async_trait;
use backup_core::{Archived, Error, ErrorKind, JobContext, LogPiece, Result};
use bytes::Bytes;

use super::view::{Frontier, GAP};
use super::{SOURCE, WalArchive, log_name, timeline_name};
use crate::postgres::receive::{Position, ReceivedLog, Standing};
use crate::postgres::wal::{SegmentName, SegmentSize, Summary, TimelineHistory, WalFile, position};
use crate::postgres::{Lsn, Timeline};

#[async_trait]
impl ReceivedLog for WalArchive {
    async fn standing(
        &self,
        system: u64,
        history: &TimelineHistory,
        size: SegmentSize,
        job: &JobContext,
    ) -> Result<Option<Standing>> {
        let lineage = self.settle(Some(system), job).await?;
        let known = *self.size.get_or_init(|| size);
        if known != size {
            let (known, size) = (known.bytes(), size.bytes());
            let message = format!("the archive has segments of {known} bytes, and the server of {size}");
            return Err(Error::invalid_input(message));
        }
        let mut least: Option<Standing> = None;
        for view in self.views(lineage, job).await? {
            // What one place lacks is not archived.
            let Some((frontier, furthest)) = view.frontier(history, size) else { return Ok(None) };
            let frontier = self.position(lineage, frontier, job).await?;
            let furthest = self.position(lineage, furthest, job).await?;
            let standing = Standing { frontier, furthest };
            // Timelines of a history ascend: what has nothing of the youngest has none of its pieces, however far it goes on an older one.
            let order = |position: &Position| (position.timeline, position.lsn);
            let is_less = least.as_ref().is_none_or(|least| order(&frontier) < order(&least.frontier));
            least = if is_less { Some(standing) } else { least };
        }
        Ok(least)
    }

    async fn has_segment(&self, segment: SegmentName, job: &JobContext) -> Result<bool> {
        Ok(self.first_missing(&[segment], job).await?.is_none())
    }

    async fn put_segment(&self, segment: SegmentName, content: Bytes, job: &JobContext) -> Result<Archived> {
        self.put(WalFile::Segment(segment), content, None, job).await
    }

    async fn put_piece(
        &self,
        segment: SegmentName,
        offset: u64,
        content: Bytes,
        summary: &Summary,
        job: &JobContext,
    ) -> Result<Archived> {
        let lineage = self.settle(None, job).await?;
        let size = self.size.get().copied().unwrap_or_default();
        let name = log_name(lineage, WalFile::Segment(segment));
        let mut piece = LogPiece::part(SOURCE, name, offset, Some(size.bytes()), content);
        piece.position = summary.to_positions();
        piece.position.insert(position::SEGMENT_SIZE.to_owned(), size.bytes().to_string());
        Ok(self.archive(&[piece], job).await?.first().copied().unwrap_or(Archived::Stored))
    }

    async fn put_history(&self, timeline: Timeline, content: Bytes, job: &JobContext) -> Result<Archived> {
        self.put(WalFile::History(timeline), content, None, job).await
    }

    async fn put_gap(&self, timeline: Timeline, from: Lsn, reason: &str, job: &JobContext) -> Result<()> {
        let lineage = self.settle(None, job).await?;
        let name = timeline_name(lineage, timeline, format!("{GAP}{:016X}", from.get()));
        let reason: String = reason.chars().take(1000).collect();
        let piece = LogPiece::whole(SOURCE, name, Bytes::from(reason));
        match self.archive(&[piece], job).await {
            // It is recorded, in other words.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other.map(drop),
        }
    }
}

impl WalArchive {
    async fn position(&self, lineage: u64, frontier: Frontier, job: &JobContext) -> Result<Position> {
        Ok(match frontier {
            Frontier::At(timeline, lsn) => Position { timeline, lsn },
            Frontier::In(segment) => {
                let lsn = self.end_of_pieces(lineage, segment, job).await?;
                Position { timeline: segment.timeline(), lsn }
            }
        })
    }

    /// Up to where every place has the pieces of a segment.
    async fn end_of_pieces(&self, lineage: u64, segment: SegmentName, job: &JobContext) -> Result<Lsn> {
        let name = log_name(lineage, WalFile::Segment(segment));
        let size = self.size.get().copied().unwrap_or_default();
        let mut least = size.bytes();
        for place in &self.places {
            let content = place.read_log(&name, job).await?;
            least = least.min(content.map_or(0, |content| content.content.len() as u64));
        }
        Ok(segment.start(size).saturating_add(least))
    }
}
