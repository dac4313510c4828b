//! External sorting of entries that a source yields in no order.
//!
//! Sorted runs go to an unnamed temporary file, which the system removes with the process. Nothing in it is content or
//! a secret: it holds what entry pages hold.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use crate::format::entries::{EntryPageWriter, StoredEntry};
use crate::limits;
use crate::{Error, Result};

/// Bytes of entries held before a run is written, by their encoded length.
const RUN_BYTES: usize = 16 * limits::MIB;
/// Runs merged at once; more are merged in rounds by becoming longer runs.
const RUNS_MAX: usize = 256;

/// Collects entries and gives them back in order.
#[derive(Debug, Default)]
pub(crate) struct EntrySorter {
    held: Vec<StoredEntry>,
    held_bytes: usize,
    runs: Vec<File>,
}

impl EntrySorter {
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
        let run = write_run(self.held.drain(..).map(Ok))?;
        self.held_bytes = 0;
        self.runs.push(run);
        if self.runs.len() < RUNS_MAX {
            return Ok(());
        }
        let merged = write_run(Merge::new(std::mem::take(&mut self.runs))?)?;
        self.runs.push(merged);
        Ok(())
    }

    /// Gives every entry to `take`, in order.
    pub(crate) fn finish(mut self, mut take: impl FnMut(StoredEntry) -> Result<()>) -> Result<()> {
        self.sort_held();
        if self.runs.is_empty() {
            return self.held.into_iter().try_for_each(take);
        }
        self.runs.push(write_run(self.held.drain(..).map(Ok))?);
        for entry in Merge::new(self.runs)? {
            take(entry?)?;
        }
        Ok(())
    }

    fn sort_held(&mut self) {
        self.held.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    }
}

// A run is a row of pages, each behind its length.
fn write_run(entries: impl Iterator<Item = Result<StoredEntry>>) -> Result<File> {
    let failed = |e| Error::io("the temporary file for sorting cannot be written", e);
    let file = tempfile::tempfile().map_err(|e| Error::io("no temporary file can be made for sorting", e))?;
    let mut out = BufWriter::new(file);
    let mut page = EntryPageWriter::default();
    let write = |page: &mut EntryPageWriter, out: &mut BufWriter<File>| -> Result<()> {
        if let Some((_, bytes)) = page.cut() {
            let len = u32::try_from(bytes.len()).map_err(|_| Error::internal("a page exceeds 32 bits"))?;
            out.write_all(&len.to_le_bytes()).and_then(|()| out.write_all(&bytes)).map_err(failed)?;
        }
        Ok(())
    };
    let mut last: Option<crate::EntryName> = None;
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
            write(&mut page, &mut out)?;
        }
    }
    write(&mut page, &mut out)?;
    let mut file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

struct RunReader {
    file: BufReader<File>,
    page: std::vec::IntoIter<StoredEntry>,
}

impl RunReader {
    fn next(&mut self) -> Result<Option<StoredEntry>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry));
            }
            let failed = |e| Error::io("the temporary file for sorting cannot be read", e);
            let mut len = [0; 4];
            match self.file.read_exact(&mut len) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
            let mut page = vec![0; u32::from_le_bytes(len) as usize];
            self.file.read_exact(&mut page).map_err(failed)?;
            self.page = StoredEntry::decode_page(&page)?.into_iter();
        }
    }
}

struct Merge {
    runs: Vec<RunReader>,
    heads: BinaryHeap<Reverse<(crate::EntryName, usize)>>,
    entries: Vec<Option<StoredEntry>>,
}

impl Merge {
    fn new(files: Vec<File>) -> Result<Self> {
        let runs: Vec<_> = files
            .into_iter()
            .map(|file| RunReader {
                file: BufReader::with_capacity(64 * 1024, file),
                page: Vec::new().into_iter(),
            })
            .collect();
        let mut merge = Self { entries: vec![None; runs.len()], runs, heads: BinaryHeap::new() };
        for number in 0..merge.runs.len() {
            merge.advance(number)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, number: usize) -> Result<()> {
        let (Some(run), Some(slot)) = (self.runs.get_mut(number), self.entries.get_mut(number)) else {
            return Ok(());
        };
        *slot = run.next()?;
        if let Some(entry) = slot {
            self.heads.push(Reverse((entry.entry.name.clone(), number)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<StoredEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((_, number)) = self.heads.pop()?;
        let entry = self.entries.get_mut(number)?.take()?;
        Some(self.advance(number).map(|()| entry))
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
            let mut sorter = EntrySorter::default();
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
