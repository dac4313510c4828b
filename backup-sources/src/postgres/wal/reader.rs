//! Reading records out of pages.

use serde::{Deserialize, Serialize};

use super::header::{FIRST_IS_CONTINUED, FIRST_OVERWRITES, LONG_BYTES, PageHeader, SHORT_BYTES};
use super::records::{self, HEADER_BYTES};
use super::{LongHeader, SegmentSize, Version, WalEvent, u32_at, u64_at};
use crate::postgres::{Lsn, Timeline};

/// What is kept of a record to see what it says. Of a longer one the rest counts for its checksum only.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Longest record that a server writes.
const RECORD_BYTES_MAX: u32 = 1020 * 1024 * 1024;
/// What records begin at multiples of.
const ALIGNMENT: u64 = 8;
/// Bytes of a page, unless the first page of a segment says otherwise.
const PAGE_BYTES: u32 = 8192;

/// Where a log that was read ends, and why nothing after it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalEnd {
    /// Where the first record begins that is not whole.
    pub at: Lsn,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads the records of a log, given its bytes in their order in parts of any length.
///
/// It begins at the start of a segment, and what is left there of a record that began before is passed over. Every record's checksum
/// is looked at. Where something is no record the log ends: the reader says so, and takes nothing more.
/// It keeps at most 256 KiB.
///
/// ```
/// use backup_sources::postgres::wal::{SegmentSize, WalReader};
/// use backup_sources::postgres::Lsn;
///
/// let size = SegmentSize::default();
/// let mut reader = WalReader::new(Lsn::new(size.bytes()), size);
/// let mut events = Vec::new();
/// reader.feed(&[0; 100], &mut events);
/// assert_eq!(reader.end().map(|end| end.at), Some(Lsn::new(size.bytes())));
/// ```
#[derive(Debug)]
pub struct WalReader {
    size: SegmentSize,
    /// Where the next byte stands.
    at: Lsn,
    page_bytes: u32,
    version: Option<Version>,
    timeline: Option<Timeline>,
    header: Vec<u8>,
    /// Memory of the record before.
    spare: Vec<u8>,
    state: State,
    /// Where the last whole record ended.
    valid_to: Lsn,
    end: Option<WalEnd>,
}

#[derive(Debug)]
enum State {
    /// At the beginning, where a record from before may go on.
    First,
    /// Between records: at the next multiple of eight something begins.
    Between,
    /// Passing over so many bytes of a record that is not wanted.
    Passing(u32),
    /// In a record.
    Record(Partial),
    /// After a switch: on to the next segment.
    Switched,
}

/// A record as far as it has been read.
#[derive(Debug)]
struct Partial {
    start: Lsn,
    /// Its length, once that has been read.
    total: Option<u32>,
    read: u32,
    kept: Vec<u8>,
    /// The checksum of what follows the header.
    checksum: u32,
}

impl WalReader {
    /// A reader of a log from `start` on, which is the start of a segment or, if what is before it was read, of a page.
    pub fn new(start: Lsn, size: SegmentSize) -> Self {
        Self {
            size,
            at: start,
            page_bytes: PAGE_BYTES,
            version: None,
            timeline: None,
            header: Vec::with_capacity(LONG_BYTES),
            spare: Vec::with_capacity(HEADER_BYTES),
            state: State::First,
            valid_to: start,
            end: None,
        }
    }

    /// Where the next byte stands.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// Where the last whole record ended.
    pub fn valid_to(&self) -> Lsn {
        self.valid_to
    }

    /// The timeline of the last page.
    pub fn timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// Where the log ends, if it does.
    pub fn end(&self) -> Option<&WalEnd> {
        self.end.as_ref()
    }

    /// Takes the next bytes, and puts to `events` what records end in them. After the log's [end](Self::end) they are ignored.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<WalEvent>) {
        while !bytes.is_empty() && self.end.is_none() {
            let page = u64::from(self.page_bytes);
            let in_page = self.at.get().checked_rem(page).unwrap_or_default();
            let taken = if matches!(self.state, State::Switched) && self.size.offset_of(self.at) != 0 {
                // Pages after a switch are empty and have no headers: on to the segment's end.
                self.left_of_segment(bytes.len())
            } else if in_page == 0 || !self.header.is_empty() {
                self.take_header(bytes)
            } else {
                let left = usize::try_from(page.saturating_sub(in_page)).unwrap_or(usize::MAX);
                let (now, _) = bytes.split_at(left.min(bytes.len()));
                self.take(now, events)
            };
            self.at = self.at.saturating_add(taken as u64);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    fn stop(&mut self, reason: impl Into<String>) {
        let at = match &self.state {
            State::Record(partial) => partial.start,
            _ if !self.header.is_empty() => Lsn::new(self.at.get().saturating_sub(self.header.len() as u64)),
            _ => self.at,
        };
        self.end = Some(WalEnd { at, reason: reason.into() });
    }

    fn take_header(&mut self, bytes: &[u8]) -> usize {
        let start = Lsn::new(self.at.get().saturating_sub(self.header.len() as u64));
        let is_first = self.size.offset_of(start) == 0;
        let wanted = if is_first { LONG_BYTES } else { SHORT_BYTES };
        let (now, _) = bytes.split_at(wanted.saturating_sub(self.header.len()).min(bytes.len()));
        self.header.extend_from_slice(now);
        if self.header.len() < wanted {
            return now.len();
        }
        let header = std::mem::take(&mut self.header);
        if let Err(reason) = self.page(&header, start, is_first) {
            self.header = header;
            self.at = self.at.saturating_add(now.len() as u64);
            self.stop(reason);
            // It counts as not taken: what it is begins where the page does.
            self.at = start;
            return 0;
        }
        now.len()
    }

    fn page(&mut self, bytes: &[u8], start: Lsn, is_first: bool) -> Result<(), String> {
        let header = PageHeader::parse(bytes).map_err(|error| error.message().to_owned())?;
        if header.address != start {
            return Err(format!("the page at {start} says that it belongs at {}", header.address));
        }
        if header.is_long() != is_first {
            return Err(format!(
                "the page at {start} begins as only the first of a segment does, or does not"
            ));
        }
        if is_first {
            let long = LongHeader::parse(bytes).map_err(|error| error.message().to_owned())?;
            if long.segment_size != self.size {
                return Err(format!("the segment at {start} is of a cluster with another size of segments"));
            }
            self.page_bytes = long.page_bytes;
        }
        if self.timeline.is_some_and(|before| header.timeline < before) {
            return Err(format!("the page at {start} is of timeline {}, an older one", header.timeline));
        }
        self.version = Some(header.version);
        self.timeline = Some(header.timeline);
        let continued = header.flags & FIRST_IS_CONTINUED != 0;
        match &self.state {
            State::Record(partial) => {
                if header.flags & FIRST_OVERWRITES != 0 {
                    // The server crashed in the middle of that record, and nothing of it counts.
                    self.state = State::Between;
                    return Ok(());
                }
                let left = partial.total.map(|total| total.saturating_sub(partial.read));
                // The length stands on the page where a record begins, so it is known here.
                if !continued || Some(header.remaining) != left {
                    return Err(format!("the record at {} does not go on at {start}", partial.start));
                }
            }
            State::Passing(left) if !continued || header.remaining != *left => {
                if header.flags & FIRST_OVERWRITES == 0 {
                    return Err(format!("what began before does not go on at {start}"));
                }
                self.state = State::Between;
            }
            State::Passing(_) => {}
            State::First | State::Switched if continued && matches!(self.state, State::First) => {
                self.state = State::Passing(header.remaining);
            }
            State::First | State::Between | State::Switched => {
                if continued {
                    return Err(format!("the page at {start} goes on with a record that did not begin"));
                }
                self.state = State::Between;
            }
        }
        Ok(())
    }

    /// Takes some of these bytes, all of which are of one page.
    fn take(&mut self, bytes: &[u8], events: &mut Vec<WalEvent>) -> usize {
        match &mut self.state {
            // Both are left with a page's header: whoever begins elsewhere can make nothing of what follows.
            State::First | State::Switched => {
                self.stop("reading begins in the middle of a page");
                0
            }
            State::Passing(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                if *left == 0 {
                    self.state = State::Between;
                    self.valid_to = aligned(self.at.saturating_add(taken as u64));
                }
                taken
            }
            State::Between => {
                let off = self.at.get() & ALIGNMENT.saturating_sub(1);
                if off != 0 {
                    let pad = usize::try_from(ALIGNMENT.saturating_sub(off)).unwrap_or_default();
                    return pad.min(bytes.len());
                }
                let mut kept = std::mem::take(&mut self.spare);
                kept.clear();
                self.state =
                    State::Record(Partial { start: self.at, total: None, read: 0, kept, checksum: 0 });
                0
            }
            State::Record(partial) => {
                let taken = partial.take(bytes);
                match partial.state() {
                    Ok(false) => {}
                    Ok(true) => {
                        let end = aligned(self.at.saturating_add(taken as u64));
                        self.finish(end, events);
                    }
                    Err(reason) => {
                        self.stop(reason);
                        return 0;
                    }
                }
                taken
            }
        }
    }

    fn left_of_segment(&self, available: usize) -> usize {
        let left = self.size.bytes().saturating_sub(self.size.offset_of(self.at));
        available.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn finish(&mut self, end: Lsn, events: &mut Vec<WalEvent>) {
        let State::Record(partial) = std::mem::replace(&mut self.state, State::Between) else { return };
        let Some(version) = self.version else { return };
        self.valid_to = end;
        if records::is_switch(&partial.kept) {
            self.state = State::Switched;
        }
        let record = records::of_bytes(&partial.kept, version);
        self.spare = partial.kept;
        events.push(WalEvent { lsn: partial.start, end, record });
    }
}

/// Where the record after one that ends here begins, or the page in which it does.
fn aligned(end: Lsn) -> Lsn {
    let mask = ALIGNMENT.saturating_sub(1);
    Lsn::new(end.get().saturating_add(mask) & !mask)
}

impl Partial {
    /// Takes what of these bytes is the record's.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0_usize;
        loop {
            let bytes = bytes.get(taken..).unwrap_or_default();
            // Until the header is there, byte by byte would do; then all that there is.
            let wanted = match self.total {
                None => 4_u32.saturating_sub(self.read),
                Some(total) if self.read < HEADER_BYTES as u32 => {
                    (HEADER_BYTES as u32).min(total).saturating_sub(self.read)
                }
                Some(total) => total.saturating_sub(self.read),
            };
            let now = bytes.get(..bytes.len().min(wanted as usize)).unwrap_or_default();
            if now.is_empty() {
                return taken;
            }
            if self.read >= HEADER_BYTES as u32 {
                self.checksum = crc32c::crc32c_append(self.checksum, now);
            }
            // What most records have after their headers counts for the checksum only.
            let is_wanted = self.read < HEADER_BYTES as u32 || records::says_more(&self.kept);
            let room = if is_wanted { KEPT_BYTES_MAX.saturating_sub(self.kept.len()) } else { 0 };
            self.kept.extend_from_slice(now.get(..now.len().min(room)).unwrap_or_default());
            self.read = self.read.saturating_add(u32::try_from(now.len()).unwrap_or(u32::MAX));
            taken = taken.saturating_add(now.len());
            if self.read == 4 {
                self.total = u32_at(&self.kept, 0);
                if self.is_no_length() {
                    return taken;
                }
            }
        }
    }

    fn is_no_length(&self) -> bool {
        self.total.is_some_and(|total| !(HEADER_BYTES as u32..=RECORD_BYTES_MAX).contains(&total))
    }

    /// Whether it is whole.
    fn state(&self) -> Result<bool, String> {
        let start = self.start;
        if self.is_no_length() {
            return Err(match self.total {
                Some(0) => format!("nothing was written at {start}"),
                Some(total) => format!("no record has {total} bytes, as the one at {start} would"),
                None => String::new(),
            });
        }
        if self.read >= HEADER_BYTES as u32
            && u64_at(&self.kept, 8).is_none_or(|before| before >= start.get())
        {
            return Err(format!("the record at {start} says that it follows a later one"));
        }
        if self.total != Some(self.read) {
            return Ok(false);
        }
        let (header, stored) = (self.kept.get(..20).unwrap_or_default(), u32_at(&self.kept, 20));
        if stored != Some(crc32c::crc32c_append(self.checksum, header)) {
            return Err(format!("the record at {start} does not have its checksum"));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
