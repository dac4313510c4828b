//! How much room dumps take that programs want as files.

use std::fs;
use std::path::Path;

use backup_core::{Error, ErrorKind, Result};

use crate::postgres::guarded::GuardedDirectory;

/// A directory for dumps. Blocks.
pub(super) fn new(parent: &Path) -> Result<GuardedDirectory> {
    GuardedDirectory::new(parent, "dump")
}

/// Removes it. What was done in it is done: where it stays, that is only said.
pub(super) async fn remove(scratch: GuardedDirectory) {
    let removed = tokio::task::spawn_blocking(move || scratch.remove()).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "a scratch directory was not removed");
    }
}

/// Bytes of all files below a directory. Blocks.
pub(super) fn bytes_in(directory: &Path) -> u64 {
    let mut bytes = 0_u64;
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        // What vanishes meanwhile takes no space.
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => bytes = bytes.saturating_add(metadata.len()),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Refuses what does not fit any more.
pub(super) fn check_bound(directory: &Path, bytes_max: u64) -> Result<()> {
    let bytes = bytes_in(directory);
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!(
        "the scratch directory may hold {bytes_max} bytes, and dumps take more: give it more room, or use the custom \
         format, which needs none"
    );
    Err(Error::new(ErrorKind::NoSpace, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_more_room_than_it_may_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("d")).unwrap();
        fs::write(scratch.path().join("d/file"), "12345").unwrap();
        assert_eq!(bytes_in(scratch.path()), 5);
        check_bound(scratch.path(), 5).unwrap();
        assert_eq!(check_bound(scratch.path(), 4).unwrap_err().kind(), ErrorKind::NoSpace);
    }
}
