//! A log made by hand, for tests.

use super::{SegmentSize, Version};
use crate::postgres::{Lsn, Timeline};

pub(in crate::postgres) const SYSTEM: u64 = 7_412_000_000_000_000_001;

/// Writes records into pages as a server does.
#[derive(Debug, Clone)]
pub(in crate::postgres) struct Made {
    pub(in crate::postgres) size: SegmentSize,
    pub(in crate::postgres) start: Lsn,
    pub(in crate::postgres) bytes: Vec<u8>,
    pub(in crate::postgres) timeline: Timeline,
    pub(in crate::postgres) version: Version,
    pub(in crate::postgres) system: u64,
    previous: u64,
}

impl Made {
    /// A log from the start of segment `number` on.
    pub(in crate::postgres) fn new(number: u64, size: SegmentSize) -> Self {
        let start = Lsn::new(number * size.bytes());
        let version = Version::of_major(15).unwrap();
        Self {
            size,
            start,
            bytes: Vec::new(),
            timeline: Timeline::FIRST,
            version,
            system: SYSTEM,
            previous: 0,
        }
    }

    pub(in crate::postgres) fn at(&self) -> u64 {
        self.start.get() + self.bytes.len() as u64
    }

    /// Begins a page if one is to begin here.
    fn header(&mut self, remaining: usize, flags: u16) {
        if self.at() % 8192 != 0 {
            return;
        }
        let at = self.at();
        let long = self.size.offset_of(Lsn::new(at)) == 0;
        let flags = flags | if remaining > 0 { 1 } else { 0 } | if long { 2 } else { 0 };
        self.bytes.extend(self.version.magic().to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.get().to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend((remaining as u32).to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(self.system.to_le_bytes());
            self.bytes.extend((self.size.bytes() as u32).to_le_bytes());
            self.bytes.extend(8192_u32.to_le_bytes());
        }
    }

    /// A record; returns where it begins.
    pub(in crate::postgres) fn record(&mut self, manager: u8, info: u8, xid: u32, data: &[u8]) -> Lsn {
        while self.at() % 8 != 0 {
            self.bytes.push(0);
        }
        self.header(0, 0);
        let start = self.at();
        let mut body = if data.len() < 256 {
            vec![255, data.len() as u8]
        } else {
            let mut long = vec![254];
            long.extend((data.len() as u32).to_le_bytes());
            long
        };
        body.extend(data);
        let mut record = ((body.len() + 24) as u32).to_le_bytes().to_vec();
        record.extend(xid.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&body), &record);
        record.extend(checksum.to_le_bytes());
        record.extend(body);
        self.previous = start;
        self.raw(&record);
        Lsn::new(start)
    }

    /// Bytes that go on over pages.
    pub(in crate::postgres) fn raw(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.header(bytes.len(), 0);
            let room = 8192 - (self.at() % 8192) as usize;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.bytes.extend(now);
            bytes = rest;
        }
    }

    /// Leaves the rest of the page empty, and begins the next one after a crash in the middle of a record.
    pub(in crate::postgres) fn overwrite(&mut self) {
        self.fill_page();
        self.header(0, 8);
    }

    pub(in crate::postgres) fn fill_page(&mut self) {
        while self.at() % 8192 != 0 {
            self.bytes.push(0);
        }
    }

    pub(in crate::postgres) fn commit(&mut self, xid: u32, seconds: i64) -> Lsn {
        self.record(1, 0, xid, &(seconds * 1_000_000).to_le_bytes())
    }

    /// A record of no interest with so many bytes of data.
    pub(in crate::postgres) fn other(&mut self, len: usize) -> Lsn {
        self.record(10, 0, 0, &vec![0xAB; len])
    }

    pub(in crate::postgres) fn point(&mut self, name: &str, seconds: i64) -> Lsn {
        let mut data = (seconds * 1_000_000).to_le_bytes().to_vec();
        data.extend(name.as_bytes());
        data.resize(72, 0);
        self.record(0, 0x70, 0, &data)
    }

    /// A switch, and zeros to the end of the segment.
    pub(in crate::postgres) fn switch(&mut self) {
        self.record_without_data(0, 0x40);
        self.fill();
    }

    fn record_without_data(&mut self, manager: u8, info: u8) {
        while self.at() % 8 != 0 {
            self.bytes.push(0);
        }
        self.header(0, 0);
        let start = self.at();
        let mut record = 24_u32.to_le_bytes().to_vec();
        record.extend(0_u32.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        record.extend(crc32c::crc32c(&record).to_le_bytes());
        self.previous = start;
        self.raw(&record);
    }

    /// Zeros to the end of the segment.
    pub(in crate::postgres) fn fill(&mut self) {
        let left = self.size.bytes() - self.size.offset_of(Lsn::new(self.at()));
        let left = if left == self.size.bytes() { 0 } else { left };
        self.bytes.resize(self.bytes.len() + left as usize, 0);
    }

    /// Records up to the end of the current segment, the last of which goes on in the next.
    pub(in crate::postgres) fn load(&mut self) {
        let end = self.size.start_of(Lsn::new(self.at())).get() + self.size.bytes();
        while self.at() < end {
            self.other(3000);
        }
    }

    /// The whole segments that there are.
    pub(in crate::postgres) fn segments(&self) -> Vec<(super::SegmentName, bytes::Bytes)> {
        let first = self.size.number_of(self.start);
        let chunks = self.bytes.chunks_exact(self.size.bytes() as usize).enumerate();
        chunks
            .map(|(index, bytes)| {
                let name = super::SegmentName::numbered(self.timeline, first + index as u64, self.size);
                (name, bytes::Bytes::copy_from_slice(bytes))
            })
            .collect()
    }
}
