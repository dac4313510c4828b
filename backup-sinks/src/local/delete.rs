//! Deleting an object, durably, and the directories that it leaves empty.

use std::io;

use backup_core::{Error, ObjectKey, Result};

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
        // A directory holds other objects, and a name that is too long none.
        Err(error) if is_no_object(&error) => return Ok(()),
        Err(error) => return Err(Error::io("the object could not be deleted", error)),
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

/// Whether the name cannot be that of an object.
fn is_no_object(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::InvalidFilename)
}
