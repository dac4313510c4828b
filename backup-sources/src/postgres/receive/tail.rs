//! The segment that is being received.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::postgres::Lsn;
use crate::postgres::wal::{SegmentName, SegmentSize, Summary, WalReader};

/// The bytes of a segment from its start on.
#[derive(Debug)]
pub(super) struct Tail {
    segment: SegmentName,
    size: SegmentSize,
    bytes: BytesMut,
    /// How much of it is stored, or on its way.
    handed_over: usize,
    /// When the first byte came that is not.
    waiting_since: Option<Instant>,
    reader: WalReader,
    summary: Summary,
}

/// A part of the log that is to be stored.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) segment: SegmentName,
    /// Where it begins; none for a whole segment.
    pub(super) offset: Option<u64>,
    pub(super) content: Bytes,
    pub(super) summary: Summary,
    /// Up to where all is there with it.
    pub(super) end: Lsn,
    pub(super) waiting_since: Instant,
}

impl Tail {
    /// From the start of a segment, of which everything before `stored` is stored already.
    pub(super) fn new(segment: SegmentName, size: SegmentSize, stored: Lsn) -> Self {
        let start = segment.start(size);
        let handed_over = stored.bytes_since(start).min(size.bytes());
        Self {
            segment,
            size,
            bytes: BytesMut::new(),
            handed_over: usize::try_from(handed_over).unwrap_or(usize::MAX),
            waiting_since: None,
            reader: WalReader::new(start, size),
            summary: Summary::default(),
        }
    }

    /// Where the next byte belongs.
    pub(super) fn end(&self) -> Lsn {
        self.segment.start(self.size).saturating_add(self.bytes.len() as u64)
    }

    /// When the first byte came that nobody has stored.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    /// How many bytes wait.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len().saturating_sub(self.handed_over)
    }

    /// Takes what of the bytes belongs to this segment, and what is left. A segment that is full is given out, and the next
    /// begins.
    pub(super) fn take(&mut self, mut bytes: Bytes, now: Instant) -> (Option<Part>, Bytes) {
        let whole = usize::try_from(self.size.bytes()).unwrap_or(usize::MAX);
        let taken = bytes.split_to(bytes.len().min(whole.saturating_sub(self.bytes.len())));
        let mut events = Vec::new();
        self.reader.feed(&taken, &mut events);
        events.iter().for_each(|event| self.summary.add(event));
        self.bytes.extend_from_slice(&taken);
        if self.waiting() > 0 {
            self.waiting_since.get_or_insert(now);
        }
        if self.bytes.len() < whole {
            return (None, bytes);
        }
        let end = self.end();
        let part = Part {
            segment: self.segment,
            offset: None,
            content: self.bytes.split().freeze(),
            summary: std::mem::take(&mut self.summary),
            end,
            waiting_since: self.waiting_since.take().unwrap_or(now),
        };
        self.segment = SegmentName::of(self.segment.timeline(), end, self.size);
        self.handed_over = 0;
        (Some(part), bytes)
    }

    /// What waits, as a part of the segment.
    pub(super) fn piece(&mut self) -> Option<Part> {
        let waiting_since = self.waiting_since.take()?;
        let content = self.bytes.get(self.handed_over..).filter(|content| !content.is_empty())?;
        let part = Part {
            segment: self.segment,
            offset: Some(self.handed_over as u64),
            content: Bytes::copy_from_slice(content),
            summary: self.summary.clone(),
            end: self.end(),
            waiting_since,
        };
        self.handed_over = self.bytes.len();
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::made::Made;

    #[tokio::test]
    async fn what_comes_is_given_out_once_in_pieces_and_whole() {
        let size = SegmentSize::new(1 << 20).unwrap();
        let mut made = Made::new(3, size);
        made.commit(7, 7);
        made.load();
        made.commit(8, 8);
        let all = Bytes::from(made.bytes.clone());
        let first = SegmentName::numbered(made.timeline, 3, size);
        let stored = first.start(size).saturating_add(1000);
        let mut tail = Tail::new(first, size, stored);
        let now = Instant::now();
        assert!(tail.take(all.slice(..900), now).0.is_none());
        assert_eq!((tail.waiting(), tail.waiting_since()), (0, None), "it is stored already");
        assert!(tail.piece().is_none());
        tail.take(all.slice(900..5000), now);
        let piece = tail.piece().unwrap();
        assert_eq!((piece.offset, &piece.content[..]), (Some(1000), &all[1000..5000]));
        assert_eq!(piece.end, first.start(size).saturating_add(5000));
        assert_eq!(piece.summary.xids, Some((7, 7)));
        assert!(tail.piece().is_none(), "nothing waits");
        let (whole, rest) = tail.take(all.slice(5000..), now);
        let whole = whole.unwrap();
        assert_eq!((whole.offset, &whole.content[..]), (None, &all[..1 << 20]));
        assert_eq!(whole.end, tail.end());
        tail.take(rest, now);
        let piece = tail.piece().unwrap();
        assert_eq!((piece.segment, piece.offset), (first.next(size).unwrap(), Some(0)));
        assert_eq!(piece.summary.xids, Some((8, 8)));
        assert_eq!(&piece.content[..], &all[1 << 20..]);
    }
}
