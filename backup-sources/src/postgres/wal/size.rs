//! How long the segments of a cluster are.

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::postgres::Lsn;

const MIB: u64 = 1024 * 1024;

/// Bytes of one segment of a cluster's log: a power of two from 1 MiB to 1 GiB, as `initdb --wal-segsize` sets it.
///
/// ```
/// use backup_sources::postgres::wal::SegmentSize;
///
/// assert_eq!(SegmentSize::default().bytes(), 16 * 1024 * 1024);
/// assert!(SegmentSize::new(5_000_000).is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// Segments of so many bytes.
    ///
    /// # Errors
    ///
    /// It is no size that a segment can have.
    pub fn new(bytes: u64) -> Result<Self> {
        let fits = bytes.is_power_of_two() && (MIB..=1024 * MIB).contains(&bytes);
        u32::try_from(bytes).ok().filter(|_| fits).map(Self).ok_or_else(|| {
            let message =
                format!("{bytes} bytes are no size of a segment: a power of two from 1 MiB to 1 GiB is");
            Error::invalid_input(message)
        })
    }

    /// Bytes of one segment.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The number of the segment that a position lies in, counted from the log's beginning.
    pub const fn number_of(self, lsn: Lsn) -> u64 {
        lsn.get() >> self.0.trailing_zeros()
    }

    /// How far a position lies in its segment.
    pub const fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.get() & (self.bytes().saturating_sub(1))
    }

    /// Where the segment of a position begins.
    #[must_use]
    pub const fn start_of(self, lsn: Lsn) -> Lsn {
        Lsn::new(lsn.get() & !(self.bytes().saturating_sub(1)))
    }

    /// Segments that share the first 16 digits of their names: 4 GiB of log.
    pub const fn per_log(self) -> u64 {
        (1_u64 << 32) >> self.0.trailing_zeros()
    }
}

/// 16 MiB, as clusters have it unless they were told otherwise.
impl Default for SegmentSize {
    fn default() -> Self {
        Self(16 << 20)
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = Error;

    fn try_from(bytes: u64) -> Result<Self> {
        Self::new(bytes)
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> Self {
        size.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_between_a_mebibyte_and_a_gibibyte() {
        for exponent in 20..=30 {
            let size = SegmentSize::new(1 << exponent).unwrap();
            assert_eq!(size.per_log() * size.bytes(), 1 << 32);
        }
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 1 << 31, 1 << 52, u64::MAX] {
            assert!(SegmentSize::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn a_position_lies_in_one_segment() {
        let size = SegmentSize::default();
        let lsn = Lsn::new(0x2_0300_1234);
        assert_eq!(size.number_of(lsn), 0x203);
        assert_eq!(size.offset_of(lsn), 0x1234);
        assert_eq!(size.start_of(lsn), Lsn::new(0x2_0300_0000));
    }
}
