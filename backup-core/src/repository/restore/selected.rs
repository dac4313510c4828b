//! The selected entries of a snapshot. Of hard links to a file that is not selected, the first one stands for the file.

use std::collections::HashMap;

use super::{Selection, unreadable_page};
use crate::format::entries::StoredEntry;
use crate::repository::entries::{EntryStream, find_entry};
use crate::repository::reader::Reader;
use crate::repository::snapshot::Snapshot;
use crate::{EntryKind, EntryName, JobContext, Result, Skipped};

/// Files beyond the selection whose first selected link is remembered. Links to further ones are restored as files of
/// their own, which costs nothing but the link.
const FILES_MAX: usize = 128 * 1024;

/// Walks the selected entries.
#[derive(Debug)]
pub(crate) struct Selected<'a> {
    snapshot: &'a Snapshot,
    select: &'a Selection,
    job: &'a JobContext,
    entries: EntryStream,
    /// For looking up single names.
    reader: Reader,
    /// By file beyond the selection: the link that stands for it.
    files: HashMap<EntryName, EntryName>,
    overflowed: bool,
}

/// What stands next in the selection.
#[derive(Debug)]
pub(crate) enum Chosen {
    /// An entry, as it is to be restored.
    Entry(StoredEntry),
    /// Something selected that cannot be restored.
    Lost(Skipped),
}

impl<'a> Selected<'a> {
    pub(crate) async fn new(
        snapshot: &'a Snapshot,
        select: &'a Selection,
        job: &'a JobContext,
    ) -> Result<Self> {
        let reader = snapshot.reader(job).await?;
        let entries = EntryStream::new(reader.clone(), snapshot.roots(), None, job.clone());
        Ok(Self { snapshot, select, job, entries, reader, files: HashMap::new(), overflowed: false })
    }

    /// The next of the selection; none at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Chosen>> {
        loop {
            self.job.check()?;
            match self.entries.next().await {
                Ok(None) => return Ok(None),
                Ok(Some(stored)) if self.select.selects(&stored.entry) => {
                    return self.resolve(stored).await.map(Some);
                }
                Ok(Some(_)) => {}
                Err(error) if error.is_corruption() => {
                    return Ok(Some(Chosen::Lost(unreadable_page(&error))));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn resolve(&mut self, mut stored: StoredEntry) -> Result<Chosen> {
        let EntryKind::HardLink { to } = &mut stored.entry.kind else { return Ok(Chosen::Entry(stored)) };
        if let Some(file) = self.files.get(to) {
            *to = file.clone();
            return Ok(Chosen::Entry(stored));
        }
        let file = match self.beyond(to).await {
            Ok(None) => return Ok(Chosen::Entry(stored)),
            Ok(Some(file)) => file,
            Err(error) if error.is_corruption() => {
                let why = format!("the file `{to}`, to which it is a link, cannot be read: {error}");
                return Ok(Chosen::Lost(Skipped::new(&stored.entry.name, why)));
            }
            Err(error) => return Err(error),
        };
        if self.files.len() < FILES_MAX {
            self.files.insert(to.clone(), stored.entry.name.clone());
        } else {
            self.overflowed = true;
        }
        // All names of a file have its metadata and its content.
        let StoredEntry { mut entry, content } = file;
        entry.name = stored.entry.name;
        Ok(Chosen::Entry(StoredEntry { entry, content }))
    }

    /// The link to make for a selected link, once all files stand: none where it stands for the file itself.
    pub(crate) async fn link(&self, mut link: crate::Entry) -> Result<Option<crate::Entry>> {
        let EntryKind::HardLink { to } = &mut link.kind else { return Ok(None) };
        match self.files.get(to) {
            Some(file) if *file == link.name => return Ok(None),
            Some(file) => *to = file.clone(),
            None if self.overflowed => match self.beyond(to).await {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(None),
                // The first walk has named it.
                Err(error) if error.is_corruption() => return Ok(None),
                Err(error) => return Err(error),
            },
            None => {}
        }
        Ok(Some(link))
    }

    // The file of this name, if it is in the snapshot and not in the selection.
    async fn beyond(&self, name: &EntryName) -> Result<Option<StoredEntry>> {
        if self.select.selects_name(name) == Some(true) {
            return Ok(None);
        }
        for root in self.snapshot.roots() {
            if let Some(file) = find_entry(&self.reader, &root, name, self.job).await? {
                let is_link = matches!(file.entry.kind, EntryKind::HardLink { .. });
                return Ok((!is_link && !self.select.selects(&file.entry)).then_some(file));
            }
        }
        Ok(None)
    }
}
