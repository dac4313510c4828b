//! Reading an object or a part of it.

use std::fs::File;
use std::io;

use backup_core::{Error, ErrorKind, Fetched, GetRange, ObjectKey, Result, limits};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

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
    let bytes = read_at(&file, range.start, count)?;
    Ok(Fetched { bytes: bytes.into(), object_len })
}

fn read_at(file: &File, start: u64, count: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let offset = start.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        match rustix::io::pread(file, spare_capacity(&mut bytes), offset) {
            Ok(0) => return Err(Error::corruption("the file was cut short while it was being read")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("the object could not be read", io::Error::from(errno))),
        }
    }
    // More capacity may have been given than was asked for.
    bytes.truncate(count);
    Ok(bytes)
}
