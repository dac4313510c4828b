//! `global/pg_control`, as PostgreSQL 13 to 18 write it (`catalog/pg_control.h`).

use backup_core::{Error, ErrorKind, Result};

use crate::postgres::wal::SegmentSize;
use crate::postgres::{Lsn, Timeline};

/// Where the checksum stands: before 18, and since, when one more byte came before it.
const CRC_AT: [usize; 2] = [288, 292];
/// The versions of the file: 13 to 16, 17, 18.
const VERSIONS: [u32; 3] = [1300, 1700, 1800];
/// What `floatFormat` holds on every machine that writes numbers as this one does.
const FLOAT: f64 = 1_234_567.0;

/// What `global/pg_control` says of a cluster.
///
/// ```no_run
/// use backup_sources::postgres::physical::ControlFile;
///
/// let bytes = std::fs::read("/var/lib/postgresql/17/main/global/pg_control")?;
/// println!("{}", ControlFile::parse(&bytes)?.system_identifier);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlFile {
    /// What tells this cluster and its copies from every other.
    pub system_identifier: u64,
    /// The version of the file.
    pub version: u32,
    /// The version of the catalogue, which is in the names of the directories in tablespaces.
    pub catalog_version: u32,
    /// The state of the server: 1 and 2 shut down, 6 in production, 5 in recovery ..., as `DBState` counts.
    pub state: u32,
    /// Where the latest checkpoint stands in the log.
    pub checkpoint: Lsn,
    /// Where replay begins from it.
    pub checkpoint_redo: Lsn,
    /// The timeline that it stands on.
    pub checkpoint_timeline: Timeline,
    /// Seconds since 1970 at which it was made.
    pub checkpoint_time: i64,
    /// How far a standby must replay before its files are consistent; `0/0` on a primary.
    pub min_recovery_point: Lsn,
    /// The timeline of that; 0 on a primary.
    pub min_recovery_timeline: u32,
    /// Bytes of a page.
    pub block_bytes: u32,
    /// Pages of one segment file of a relation.
    pub segment_blocks: u32,
    /// The length of segments of the write-ahead log.
    pub wal_segment_size: SegmentSize,
    /// Whether pages have checksums.
    pub data_checksums: bool,
}

impl ControlFile {
    /// Bytes of the file.
    pub const BYTES: usize = 8192;

    /// Reads what stands in the file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corruption`] if its checksum does not fit: it is damaged, or was read in the middle of a write.
    /// [`ErrorKind::Unsupported`] if it is of another version of PostgreSQL, or of a machine of another byte order.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let version = u32_at(bytes, 8)?;
        if !VERSIONS.contains(&version) {
            let message = if VERSIONS.contains(&version.swap_bytes()) {
                "it was written by a machine of another byte order".to_owned()
            } else {
                format!("it has the version {version}; PostgreSQL 13 to 18 write {VERSIONS:?}")
            };
            return Err(Error::new(ErrorKind::Unsupported, message).with_entry("global/pg_control"));
        }
        let [older, newer] = CRC_AT;
        let crc_at = if version >= 1800 { newer } else { older };
        let claimed = u32_at(bytes, crc_at)?;
        if bytes.get(..crc_at).is_none_or(|covered| crc32c::crc32c(covered) != claimed) {
            let message = "its checksum does not fit: it is damaged, or was read in the middle of a write";
            return Err(Error::corruption(message).with_entry("global/pg_control"));
        }
        if u64_at(bytes, 208)? != FLOAT.to_bits() {
            let message = "it was written by a machine with other floating-point numbers";
            return Err(Error::new(ErrorKind::Unsupported, message).with_entry("global/pg_control"));
        }
        let lsn = |at| u64_at(bytes, at).map(Lsn::new);
        Ok(Self {
            system_identifier: u64_at(bytes, 0)?,
            version,
            catalog_version: u32_at(bytes, 12)?,
            state: u32_at(bytes, 16)?,
            checkpoint: lsn(32)?,
            checkpoint_redo: lsn(40)?,
            checkpoint_timeline: Timeline::new(u32_at(bytes, 48)?),
            checkpoint_time: u64_at(bytes, 104)?.cast_signed(),
            min_recovery_point: lsn(136)?,
            min_recovery_timeline: u32_at(bytes, 144)?,
            block_bytes: u32_at(bytes, 216)?,
            segment_blocks: u32_at(bytes, 220)?,
            wal_segment_size: SegmentSize::new(u64::from(u32_at(bytes, 228)?))?,
            data_checksums: u32_at(bytes, 252)? != 0,
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied();
    found.ok_or_else(|| {
        let message = format!("it has {} bytes, which are too few", bytes.len());
        Error::corruption(message).with_entry("global/pg_control")
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::postgres::physical) fn written(version: u32) -> Vec<u8> {
        let mut file = vec![0; ControlFile::BYTES];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &7_412_u64.to_ne_bytes());
        put(8, &version.to_ne_bytes());
        put(48, &3_u32.to_ne_bytes());
        put(208, &FLOAT.to_bits().to_ne_bytes());
        put(216, &8192_u32.to_ne_bytes());
        put(220, &131_072_u32.to_ne_bytes());
        put(228, &(16_u32 << 20).to_ne_bytes());
        put(252, &1_u32.to_ne_bytes());
        let at = if version == 1800 { 292 } else { 288 };
        let crc = crc32c::crc32c(&file[..at]);
        file[at..at + 4].copy_from_slice(&crc.to_ne_bytes());
        file
    }

    #[test]
    fn a_torn_or_foreign_file_is_refused() {
        for version in VERSIONS {
            let mut file = written(version);
            let control = ControlFile::parse(&file).unwrap();
            assert_eq!((control.system_identifier, control.checkpoint_timeline.get()), (7412, 3));
            assert!(control.data_checksums);
            file[100] ^= 1;
            assert!(ControlFile::parse(&file).unwrap_err().is_corruption());
        }
        for len in 0..300 {
            assert!(ControlFile::parse(&written(1300)[..len.min(290)]).is_err(), "{len} bytes");
        }
        assert_eq!(ControlFile::parse(&written(1100)).unwrap_err().kind(), ErrorKind::Unsupported);
        let foreign = 1300_u32.swap_bytes();
        let error = ControlFile::parse(&written(foreign)).unwrap_err();
        assert!(error.to_string().contains("byte order"), "{error}");
    }
}
