//! External sorting of entries that a source yields in no order.
//!
//! Sorted runs go to scratch files. Nothing in them is content or a secret: they hold what entry pages hold.

use std::path::Path;
use std::sync::Arc;

use crate::format::entries::{EntryPageWriter, StoredEntry};
use crate::limits;
use crate::repository::merge::Merge;
use crate::repository::scratch::ScratchFile;
use crate::{EntryName, Error, Result};

/// Bytes of entries held before a run is written, by their encoded length.
const RUN_BYTES: usize = 16 * limits::MIB;
/// Runs merged at once; more are merged in rounds by becoming longer runs.
const RUNS_MAX: usize = 256;

/// Collects entries and gives them back in order.
#[derive(Debug)]
pub(crate) struct EntrySorter {
    scratch: Arc<Path>,
    held: Vec<StoredEntry>,
    held_bytes: usize,
    runs: Vec<ScratchFile>,
}

impl EntrySorter {
    /// A sorter with its runs in the directory `scratch`.
    pub(crate) fn new(scratch: &Path) -> Self {
        Self { scratch: scratch.into(), held: Vec::new(), held_bytes: 0, runs: Vec::new() }
    }

    pub(crate) fn push(&mut self, entry: StoredEntry) -> Result<()> {
        let chunks = match &entry.content {
            crate::format::chunks::StoredContent::Chunks(chunks) => chunks.len().saturating_mul(40),
            _ => 0,
        };
        self.held_bytes =
            self.held_bytes.saturating_add(200 + entry.entry.name.as_bytes().len()).saturating_add(chunks);
        self.held.push(entry);
        if self.held_bytes < RUN_BYTES {
            return Ok(());
        }
        self.sort_held();
        let run = write_run(&self.scratch, self.held.drain(..).map(Ok))?;
        self.held_bytes = 0;
        self.runs.push(run);
        if self.runs.len() < RUNS_MAX {
            return Ok(());
        }
        let merged = write_run(&self.scratch, merge(std::mem::take(&mut self.runs))?)?;
        self.runs.push(merged);
        Ok(())
    }

    /// Gives every entry to `take`, in order.
    pub(crate) fn finish(mut self, mut take: impl FnMut(StoredEntry) -> Result<()>) -> Result<()> {
        self.sort_held();
        if self.runs.is_empty() {
            return self.held.into_iter().try_for_each(take);
        }
        self.runs.push(write_run(&self.scratch, self.held.drain(..).map(Ok))?);
        for entry in merge(self.runs)? {
            take(entry?)?;
        }
        Ok(())
    }

    fn sort_held(&mut self) {
        self.held.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    }
}

// A run is a row of pages, each behind its length.
fn write_run(scratch: &Arc<Path>, entries: impl Iterator<Item = Result<StoredEntry>>) -> Result<ScratchFile> {
    let mut file = ScratchFile::create(scratch)?;
    let mut page = EntryPageWriter::default();
    let write = |page: &mut EntryPageWriter, file: &mut ScratchFile| -> Result<()> {
        if let Some((_, bytes)) = page.cut() {
            let len = u32::try_from(bytes.len()).map_err(|_| Error::internal("a page exceeds 32 bits"))?;
            file.append(&len.to_le_bytes())?;
            file.append(&bytes)?;
        }
        Ok(())
    };
    let mut last: Option<EntryName> = None;
    for entry in entries {
        let entry = entry?;
        if last.as_ref() == Some(&entry.entry.name) {
            return Err(
                Error::invalid_input("the source yielded this name twice").with_entry(&entry.entry.name)
            );
        }
        page.push(&entry);
        last = Some(entry.entry.name);
        if page.len() >= 32 * 1024 || page.is_full() {
            write(&mut page, &mut file)?;
        }
    }
    write(&mut page, &mut file)?;
    file.flush()?;
    Ok(file)
}

fn merge(runs: Vec<ScratchFile>) -> Result<Merge<RunReader, StoredEntry, EntryName>> {
    let read = |file| RunReader { file, at: 0, page: Vec::new().into_iter() };
    Merge::new(runs.into_iter().map(read).collect(), |entry| entry.entry.name.clone())
}

struct RunReader {
    file: ScratchFile,
    at: u64,
    page: std::vec::IntoIter<StoredEntry>,
}

impl RunReader {
    fn read_page(&mut self) -> Result<()> {
        let mut len = [0; 4];
        self.file.read_at(&mut len, self.at)?;
        let mut page = vec![0; u32::from_le_bytes(len) as usize];
        self.at = self.at.saturating_add(4);
        self.file.read_at(&mut page, self.at)?;
        self.at = self.at.saturating_add(page.len() as u64);
        self.page = StoredEntry::decode_page(&page)?.into_iter();
        Ok(())
    }
}

impl Iterator for RunReader {
    type Item = Result<StoredEntry>;

    fn next(&mut self) -> Option<Result<StoredEntry>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            if self.at >= self.file.len() {
                return None;
            }
            if let Err(error) = self.read_page() {
                self.at = self.file.len();
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use crate::format::chunks::StoredContent;

    #[test]
    fn entries_in_any_order_come_back_sorted_also_through_temporary_files() {
        for count in [0_u64, 1, 1000, 200_000] {
            let mut sorter = EntrySorter::new(&std::env::temp_dir());
            for number in 0..count {
                let shuffled = number.wrapping_mul(7919) % count;
                let entry = Entry::file(format!("{shuffled:09}")).unwrap();
                sorter.push(StoredEntry { entry, content: StoredContent::Inline([1].into()) }).unwrap();
            }
            assert_eq!(sorter.runs.is_empty(), count < 1001);
            let mut next = 0;
            sorter
                .finish(|entry| {
                    assert_eq!(entry.entry.name.to_string(), format!("{next:09}"));
                    next += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(next, count);
        }
    }
}
