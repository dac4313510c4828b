//! A tar stream as a target.

mod header;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{
    Entry, EntryKind, Error, JobContext, OwnerNames, Result, Skipped, Target, WriteOrder, Writer,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::lent::{Lent, Slot};

/// Sockets that are named in the report; there is no end to them otherwise.
const SKIPPED_MAX: usize = 10_000;

/// Writes a tar archive: POSIX.1-2001 (`pax`), which every tar of today reads.
///
/// Names and content of any length, owners with their names, hard links, nanosecond times, extended attributes (as
/// `SCHILY.xattr`, for `tar --xattrs`) and access control lists (as `SCHILY.acl`, for `tar --acls`) are kept. Inode flags have no place in an archive. Holes are written as zeros; sockets cannot stand in an archive and are reported.
pub struct TarTarget<W> {
    slot: Slot<W>,
    skipped: Mutex<Vec<Skipped>>,
    names: Mutex<OwnerNames>,
}

impl<W: AsyncWrite + Unpin + Send + 'static> TarTarget<W> {
    /// An archive on `writer`, which should be buffered: headers are small.
    pub fn new(writer: W) -> Self {
        Self { slot: Slot::new(writer), skipped: Mutex::default(), names: Mutex::default() }
    }

    /// The writer, once the restore has ended.
    pub fn into_inner(self) -> Result<W> {
        self.slot.take()
    }
}

impl<W> fmt::Debug for TarTarget<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarTarget").finish_non_exhaustive()
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send + 'static> Target for TarTarget<W> {
    fn order(&self) -> WriteOrder {
        WriteOrder::Sequential
    }

    fn needs_whole_entries(&self) -> bool {
        true
    }

    fn owner_names(&self, names: &OwnerNames) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names.clone();
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        Ok(())
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        if entry.kind == EntryKind::Socket {
            let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
            if skipped.len() < SKIPPED_MAX {
                skipped.push(Skipped::new(&entry.name, "a socket cannot stand in a tar archive"));
            }
            return Ok(Writer::Skip);
        }
        let len = match (entry.kind.has_content(), entry.size) {
            (false, _) => 0,
            (true, Some(len)) => len,
            (true, None) => {
                let message = "a tar archive needs the length of a file before its content";
                return Err(Error::invalid_input(message).with_entry(&entry.name));
            }
        };
        let header = {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            header::header(entry, len, &names)
        };
        let mut writer = self.slot.take()?;
        let failed = |error| Error::io("the archive cannot be written", error).with_entry(&entry.name);
        writer.write_all(&header).await.map_err(failed)?;
        let padding = usize::try_from(len.wrapping_neg() & 511).unwrap_or_default();
        Ok(Writer::Async(Box::pin(Lent::new(self.slot.clone(), writer, Some(len), padding))))
    }

    async fn complete(&self, _: Vec<Entry>) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        let mut writer = self.slot.take()?;
        let failed = |error| Error::io("the end of the archive cannot be written", error);
        writer.write_all(&[0; 1024]).await.map_err(failed)?;
        writer.flush().await.map_err(failed)?;
        self.slot.give_back(writer);
        Ok(std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
