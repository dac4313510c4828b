//! Creating an object: temporary file, fsync, atomic publication, fsync of the directories.

use std::io;

use backup_core::{Error, ErrorKind, ObjectKey, PutOutcome, Result, limits};

use super::temporary::Temporary;
use super::tree::{Chain, Tree, open_object};

/// How often the directories are made anew when deletes in other processes take them away while they are empty.
const ATTEMPTS: usize = 64;

/// Creates `key` with `bytes` unless it exists; either way the object is durable afterwards.
pub(super) fn put(tree: &Tree, key: &ObjectKey, bytes: &[u8]) -> Result<PutOutcome> {
    if bytes.len() > limits::OBJECT_BYTES_MAX {
        let message = format!("{} bytes are more than an object may have", bytes.len());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    // A repeated put should not write its bytes a second time only to throw them away.
    if let Some(chain) = tree.find(key)?
        && make_existing_durable(tree, &chain, key)?
    {
        return Ok(PutOutcome::AlreadyExists);
    }
    let mut temporary = Temporary::write(tree, bytes)?;
    for _ in 0..ATTEMPTS {
        let chain = match tree.make(key) {
            Ok(chain) => chain,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let Some(leaf) = chain.leaf() else { break };
        match temporary.publish(leaf, key.name()) {
            Ok(()) => {
                let synced = tree.sync(&chain);
                return synced.map(|()| PutOutcome::Created).map_err(sync_error);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if make_existing_durable(tree, &chain, key)? {
                    return Ok(PutOutcome::AlreadyExists);
                }
                refuse_other_things(&chain, key)?;
            }
            // The directory was removed since it was opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let message = "the store's directories are on different file systems; give it one of its own";
                return Err(Error::io(message, error));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
                return Err(Error::io("the name is too long for this file system", error)
                    .with_kind(ErrorKind::InvalidInput));
            }
            Err(error) => return Err(Error::io("the object could not be given its name", error)),
        }
    }
    Err(Error::new(ErrorKind::Transient, "its directory or the object itself kept vanishing; try again"))
}

/// Whether the object exists; if so, it is durable afterwards: its creator may have died before it synced anything.
fn make_existing_durable(tree: &Tree, chain: &Chain, key: &ObjectKey) -> Result<bool> {
    let Some(leaf) = chain.leaf() else { return Ok(false) };
    let Some((file, _)) = open_object(leaf, key.name())? else { return Ok(false) };
    tree.disk.sync_file(leaf, key.name(), &file).map_err(sync_error)?;
    tree.sync(chain).map_err(sync_error)?;
    Ok(true)
}

/// An error if something that is no object bears the name: then trying again is in vain.
fn refuse_other_things(chain: &Chain, key: &ObjectKey) -> Result<()> {
    let Some(leaf) = chain.leaf() else { return Ok(()) };
    let stat = rustix::fs::statat(leaf.file(), key.name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    match stat.map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode)) {
        Ok(rustix::fs::FileType::RegularFile) | Err(_) => Ok(()),
        Ok(_) => {
            Err(Error::invalid_input("a directory or another special file stands where the object should be"))
        }
    }
}

fn sync_error(error: io::Error) -> Error {
    Error::io("the object could not be made durable", error)
}
