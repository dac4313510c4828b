//! Reading an object or a part of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use backup_core::{Error, ErrorKind, Fetched, GetRange, ObjectKey, Result, limits};

use super::tree::{Tree, open_object};

/// The bytes of `key` that `range` names.
pub(super) fn get(tree: &Tree, key: &ObjectKey, range: &GetRange) -> Result<Fetched> {
    let chain = tree.find(key)?;
    let opened = match chain.as_ref().and_then(|chain| chain.leaf()) {
        Some(leaf) => open_object(leaf, key.name())?,
        None => None,
    };
    let (file, object_len) =
        opened.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such object"))?;
    let range = range.resolve(object_len)?;
    let count = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    // Nothing longer is ever put, so a longer file is none of ours; its length must not decide what is allocated.
    if count > limits::OBJECT_BYTES_MAX {
        let message = format!("{count} bytes were asked of it at once; no object has that many");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let mut bytes = tree.buffers.take(count);
    read_at(&file, range.start, count, &mut bytes)?;
    Ok(Fetched { bytes: tree.buffers.lend(bytes), object_len })
}

fn read_at(mut file: &File, start: u64, count: usize, bytes: &mut Vec<u8>) -> Result<()> {
    let mut read = || {
        file.seek(SeekFrom::Start(start))?;
        file.take(count as u64).read_to_end(bytes)
    };
    match read() {
        Ok(read) if read < count => Err(Error::corruption("the file was cut short while it was being read")),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::io("the object could not be read", error)),
    }
}
