//! Where a recovery has `global/pg_control`, and what it looks at in there and in `backup_label`.

use std::fs;
use std::path::Path;

use backup_core::{Error, Result};

use crate::postgres::Lsn;
use crate::postgres::physical::{BackupLabel, ControlFile};

/// Where it stands. A directory without it is one that no server starts in.
pub(super) const PATH: &str = "global/pg_control";
/// Where the restored one waits until everything else is there.
pub(super) const WAITING: &str = "global/pg_control.restored";
/// Where the one goes that was there before.
pub(super) const FORMER: &str = "global/pg_control.before-recovery";

/// Reads a control file.
pub(super) fn read(path: &Path) -> Result<ControlFile> {
    let bytes =
        fs::read(path).map_err(|error| Error::io(format!("`{}` cannot be read", path.display()), error))?;
    ControlFile::parse(&bytes)
}

/// Looks whether a `backup_label` is that of a backup that begins at `start`.
pub(super) fn check_label(text: &str, start: Lsn) -> Result<()> {
    let label = BackupLabel::parse(text)?;
    if label.start == start {
        return Ok(());
    }
    let message = format!(
        "it is of a backup that begins at {}, not {start}; a server started from it would be corrupt",
        label.start
    );
    Err(Error::corruption(message).with_entry("backup_label"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_another_backup_is_none() {
        let label =
            "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n";
        check_label(label, Lsn::new(0x200_0028)).unwrap();
        assert!(check_label(label, Lsn::new(0x300_0028)).is_err());
        assert!(check_label("", Lsn::new(0x200_0028)).is_err());
    }
}
