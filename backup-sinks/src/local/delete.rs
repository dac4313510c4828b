//! Deleting an object, durably, and the directories that it leaves empty.

use std::io;

use backup_core::{Error, ErrorKind, ObjectKey, Result};

use super::tree::{PERMANENT_LEVELS, Tree};

/// Deletes `key` if it exists.
pub(super) fn delete(tree: &Tree, key: &ObjectKey) -> Result<()> {
    let Some(chain) = tree.find(key)? else { return Ok(()) };
    let Some(leaf) = chain.leaf() else { return Ok(()) };
    match tree.disk.remove_file(leaf, key.name()) {
        // A key slot that was deleted must not come back with the power.
        Ok(()) => tree
            .disk
            .sync_directory(leaf)
            .map_err(|error| Error::io("the deletion could not be made durable", error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // A directory of that name holds other objects; there is no object of this name.
        Err(error) if is_directory(&error) => return Ok(()),
        Err(error) => {
            let kind = Error::io("", io::Error::from(error.kind())).kind();
            let kind = if kind == ErrorKind::NotFound { ErrorKind::Io } else { kind };
            return Err(Error::io("the object could not be deleted", error).with_kind(kind));
        }
    }
    // Directories of sessions and the like go with their last object; one that is not empty refuses.
    for pair in chain.directories().windows(2).skip(PERMANENT_LEVELS).rev() {
        let [parent, child] = pair else { continue };
        let name = child.path().rsplit('/').next().unwrap_or_default();
        if tree.disk.remove_directory(parent, name).is_err() {
            break;
        }
    }
    Ok(())
}

/// Linux says that the name is a directory, POSIX that the operation is not permitted.
fn is_directory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::IsADirectory
}
