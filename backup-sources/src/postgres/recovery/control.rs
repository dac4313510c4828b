//! The little of `global/pg_control` and `backup_label` that a recovery looks at.

use std::fs;
use std::path::Path;

use backup_core::{Error, Result};

use crate::postgres::Lsn;

/// Where it stands. A directory without it is one that no server starts in.
pub(super) const PATH: &str = "global/pg_control";
/// Where the restored one waits until everything else is there.
pub(super) const WAITING: &str = "global/pg_control.restored";
/// Where the one goes that was there before.
pub(super) const FORMER: &str = "global/pg_control.before-recovery";

/// Bytes of the file that may hold something; the rest is zeros.
const USED_BYTES_MAX: usize = 512;

/// What a recovery must know of a control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control {
    /// The cluster and its copies.
    pub(super) system_identifier: u64,
}

/// Reads a control file, if its checksum fits.
pub(super) fn read(path: &Path) -> Result<Control> {
    let bytes =
        fs::read(path).map_err(|error| Error::io(format!("`{}` cannot be read", path.display()), error))?;
    parse(&bytes).ok_or_else(|| {
        Error::corruption(format!("`{}` is damaged: its checksum does not fit", path.display()))
    })
}

fn parse(bytes: &[u8]) -> Option<Control> {
    // Where the checksum stands differs between versions: it covers all that stands before it, and zeros follow it.
    let used = bytes.get(..bytes.len().min(USED_BYTES_MAX))?;
    let fits = |at: &usize| {
        let stored =
            used.get(*at..).and_then(|rest| rest.first_chunk::<4>()).map(|found| u32::from_ne_bytes(*found));
        let rest = at.checked_add(4).and_then(|after| used.get(after..));
        used.get(..*at).zip(stored).is_some_and(|(covered, stored)| crc32c::crc32c(covered) == stored)
            && rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    };
    (200..USED_BYTES_MAX).step_by(4).find(fits)?;
    let identifier = bytes.first_chunk::<8>().map(|found| u64::from_ne_bytes(*found))?;
    (identifier != 0).then_some(Control { system_identifier: identifier })
}

/// Looks whether a `backup_label` is that of a backup that begins at `start`.
pub(super) fn check_label(text: &str, start: Lsn) -> Result<()> {
    let wrong = |why: &str| {
        Error::corruption(format!("its `backup_label` {why}; a server started from it would be corrupt"))
    };
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let location = line("START WAL LOCATION").and_then(|rest| rest.split_ascii_whitespace().next());
    let location: Lsn =
        location.and_then(|lsn| lsn.parse().ok()).ok_or_else(|| wrong("does not say where replay begins"))?;
    if location != start {
        return Err(wrong(&format!("is of a backup that begins at {location}, not {start}")));
    }
    line("CHECKPOINT LOCATION").map(|_| ()).ok_or_else(|| wrong("names no checkpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_is_known_by_its_checksum() {
        for at in [288, 292, 296] {
            let mut bytes = vec![0_u8; 8192];
            bytes[..8].copy_from_slice(&7412_u64.to_ne_bytes());
            bytes[at - 4..at].copy_from_slice(b"mock");
            let crc = crc32c::crc32c(&bytes[..at]);
            bytes[at..at + 4].copy_from_slice(&crc.to_ne_bytes());
            assert_eq!(parse(&bytes), Some(Control { system_identifier: 7412 }));
            for broken in [0, 7, at - 1, at, at + 4] {
                let mut bytes = bytes.clone();
                bytes[broken] ^= 1;
                assert_eq!(parse(&bytes), None, "byte {broken}");
            }
            assert_eq!(parse(&bytes[..at]), None);
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0; 8192]), None);
    }

    #[test]
    fn a_label_of_another_backup_is_none() {
        let label =
            "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n";
        check_label(label, Lsn::new(0x200_0028)).unwrap();
        assert!(check_label(label, Lsn::new(0x300_0028)).is_err());
        assert!(check_label("", Lsn::new(0x200_0028)).is_err());
        assert!(check_label("START WAL LOCATION: 0/2000028 (file x)\n", Lsn::new(0x200_0028)).is_err());
    }
}
