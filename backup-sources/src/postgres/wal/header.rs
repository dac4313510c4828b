//! How a segment begins, and whether it is what its name says.

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::{SegmentName, SegmentSize, u16_at, u32_at, u64_at};
use crate::postgres::{Lsn, Timeline};

/// A page begins with the rest of a record that began before it.
pub(super) const FIRST_IS_CONTINUED: u16 = 0x0001;
/// The header is that of a segment's first page.
pub(super) const IS_LONG: u16 = 0x0002;
/// The record that would go on here was never finished: the server crashed and wrote another.
pub(super) const FIRST_OVERWRITES: u16 = 0x0008;
/// All flags that a page may have.
const FLAGS: u16 = 0x000F;

/// Bytes of the header that every page has.
pub(super) const SHORT_BYTES: usize = 24;
/// Bytes of the header of a segment's first page.
pub(super) const LONG_BYTES: usize = 40;

/// The format of a log, named after the server's major version: each has one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32")]
#[serde(try_from = "u32")]
pub struct Version(u32);

impl Version {
    /// Numbers that pages begin with, and the servers that write them.
    const MAGIC: [(u16, u32); 6] =
        [(0xD106, 13), (0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

    /// The format of the server of this major version, 13 to 18.
    pub fn of_major(major: u32) -> Option<Self> {
        Self::MAGIC.iter().find(|(_, known)| *known == major).map(|(_, major)| Self(*major))
    }

    /// The format of pages that begin with this number.
    pub fn of_magic(magic: u16) -> Option<Self> {
        Self::MAGIC.iter().find(|(known, _)| *known == magic).map(|(_, major)| Self(*major))
    }

    /// The number that pages begin with.
    pub fn magic(self) -> u16 {
        Self::MAGIC.iter().find(|(_, major)| *major == self.0).map_or(0, |(magic, _)| *magic)
    }

    /// The server's major version.
    pub const fn major(self) -> u32 {
        self.0
    }
}

impl From<Version> for u32 {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl TryFrom<u32> for Version {
    type Error = Error;

    fn try_from(major: u32) -> Result<Self> {
        Self::of_major(major).ok_or_else(|| {
            Error::invalid_input(format!("{major} is no version of PostgreSQL that is known here"))
        })
    }
}

/// What every page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) version: Version,
    pub(super) flags: u16,
    pub(super) timeline: Timeline,
    pub(super) address: Lsn,
    /// Bytes of the record that began before the page, from the page's header on.
    pub(super) remaining: u32,
}

impl PageHeader {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let cut = || Error::corruption("a page of the write-ahead log is cut short");
        let magic = u16_at(bytes, 0).ok_or_else(cut)?;
        let version = Version::of_magic(magic).ok_or_else(|| {
            let message = if magic == 0 {
                "a page of the write-ahead log has nothing in it".to_owned()
            } else {
                format!(
                    "a page begins with {magic:#06X}, as the write-ahead log of no server from 13 to 18 does"
                )
            };
            Error::corruption(message)
        })?;
        let flags = u16_at(bytes, 2).ok_or_else(cut)?;
        let timeline = Timeline::new(u32_at(bytes, 4).ok_or_else(cut)?);
        let address = Lsn::new(u64_at(bytes, 8).ok_or_else(cut)?);
        let remaining = u32_at(bytes, 16).ok_or_else(cut)?;
        if flags & !FLAGS != 0 {
            return Err(Error::corruption(format!(
                "a page of the write-ahead log has unknown flags ({flags:#06X})"
            )));
        }
        if timeline.get() == 0 {
            return Err(Error::corruption("a page of the write-ahead log has no timeline"));
        }
        Ok(Self { version, flags, timeline, address, remaining })
    }

    pub(super) fn is_long(&self) -> bool {
        self.flags & IS_LONG != 0
    }
}

/// What the first page of a segment says of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongHeader {
    /// The server's format.
    pub version: Version,
    /// The timeline on which the page was written. In the first segment of a timeline it can be that of an ancestor: what was
    /// before the switch is a copy.
    pub timeline: Timeline,
    /// Where the page stands: the start of the segment.
    pub address: Lsn,
    /// What tells the cluster from every other.
    pub system_identifier: u64,
    /// Bytes of a segment.
    pub segment_size: SegmentSize,
    /// Bytes of a page, `XLOG_BLCKSZ`: a power of two from 1 KiB to 64 KiB.
    pub page_bytes: u32,
}

impl LongHeader {
    /// Bytes of it at the start of a segment.
    pub const LEN: usize = LONG_BYTES;

    /// Reads the start of a segment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corruption`]: it is not that.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let page = PageHeader::parse(bytes)?;
        if !page.is_long() {
            return Err(Error::corruption("it does not begin as a segment of the write-ahead log does"));
        }
        let cut = || Error::corruption("a segment of the write-ahead log is cut short");
        let system_identifier = u64_at(bytes, 24).ok_or_else(cut)?;
        let segment_bytes = u32_at(bytes, 32).ok_or_else(cut)?;
        let page_bytes = u32_at(bytes, 36).ok_or_else(cut)?;
        let segment_size = SegmentSize::new(u64::from(segment_bytes))
            .map_err(|e| Error::corruption(format!("a segment says of itself: {}", e.message())))?;
        if !page_bytes.is_power_of_two() || !(1024..=65536).contains(&page_bytes) {
            let message = format!("a segment says that its pages have {page_bytes} bytes, which none has");
            return Err(Error::corruption(message));
        }
        let PageHeader { version, timeline, address, .. } = page;
        Ok(Self { version, timeline, address, system_identifier, segment_size, page_bytes })
    }

    /// An error unless a segment of this name can begin so.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corruption`], saying what differs.
    pub fn check(&self, name: SegmentName) -> Result<()> {
        let wrong =
            |what: String| Err(Error::corruption(format!("{name} is not what its name says: {what}")));
        if !name.fits(self.segment_size) {
            return wrong(format!("no segment of {} bytes has such a name", self.segment_size.bytes()));
        }
        if self.address != name.start(self.segment_size) {
            return wrong(format!("its first page belongs at {}", self.address));
        }
        // An ancestor's pages are copied into the first segment of a timeline, and ancestors have lower numbers.
        if self.timeline > name.timeline() {
            return wrong(format!("its first page is of timeline {}", self.timeline));
        }
        Ok(())
    }
}

/// Checks a whole segment against its name: its length, and what its first page says. `size` is that of the cluster, where it is known.
///
/// That the records in it are whole is for [`WalReader`](super::WalReader) to say.
///
/// # Errors
///
/// [`ErrorKind::Corruption`], naming the segment and what differs.
pub fn check_segment(bytes: &[u8], name: SegmentName, size: Option<SegmentSize>) -> Result<LongHeader> {
    let header = check_partial(bytes, name, size)?;
    if bytes.len() as u64 != header.segment_size.bytes() {
        let (len, whole) = (bytes.len(), header.segment_size.bytes());
        return Err(Error::corruption(format!("{name} has {len} bytes, and a segment there has {whole}")));
    }
    Ok(header)
}

/// The same with the beginning of a segment.
///
/// # Errors
///
/// [`ErrorKind::Corruption`], naming the segment and what differs.
pub fn check_partial(bytes: &[u8], name: SegmentName, size: Option<SegmentSize>) -> Result<LongHeader> {
    let header = LongHeader::parse(bytes)
        .map_err(|e| Error::new(ErrorKind::Corruption, format!("{name}: {}", e.message())))?;
    if let Some(size) = size.filter(|size| *size != header.segment_size) {
        let (has, wanted) = (header.segment_size.bytes(), size.bytes());
        let message = format!("{name} is of a cluster whose segments have {has} bytes, not {wanted}");
        return Err(Error::corruption(message));
    }
    header.check(name)?;
    if bytes.len() as u64 > header.segment_size.bytes() {
        return Err(Error::corruption(format!("{name} is longer than a segment there can be")));
    }
    Ok(header)
}
