//! The rows of an index that does not fit in memory: sorted in a scratch file, read page by page.

use std::path::Path;
use std::sync::Arc;

use super::PLACES_MAX;
use super::cache::Cache;
use super::filter::Filter;
use super::sorter::{ROW_BYTES, RowReader, decode, encode};
use crate::format::segment::IndexRow;
use crate::repository::scratch::ScratchFile;
use crate::{Result, ShortId};

/// Rows read at once: 4 KiB, a page of most systems.
const PAGE_ROWS: usize = 128;
const PAGE_BYTES: usize = PAGE_ROWS * ROW_BYTES;
/// Bytes of pages kept.
const CACHE_BYTES: usize = 1024 * 1024;

/// Rows sorted by chunk in a file; in memory only a filter, and the beginning of the first chunk of each page.
#[derive(Debug)]
pub(crate) struct SpilledRows {
    file: Arc<ScratchFile>,
    fences: Vec<u64>,
    filter: Filter,
    pages: Cache<Arc<[u8]>>,
}

impl SpilledRows {
    /// Writes sorted rows, of which there are at most `count`, to a file in `scratch`.
    pub(crate) fn write(
        rows: impl Iterator<Item = Result<IndexRow>>,
        count: u64,
        scratch: &Arc<Path>,
    ) -> Result<Self> {
        let mut file = ScratchFile::create(scratch)?;
        let mut filter = Filter::new(count);
        let pages = usize::try_from(count.div_ceil(PAGE_ROWS as u64)).unwrap_or(0);
        let mut fences = Vec::with_capacity(pages);
        let mut last = None;
        for row in rows {
            let row = row?;
            if last == Some(row) {
                continue;
            }
            last = Some(row);
            if file.len() % PAGE_BYTES as u64 == 0 {
                fences.push(prefix(row.id));
            }
            filter.insert(row.id);
            file.append(&encode(&row))?;
        }
        file.flush()?;
        Ok(Self { file: Arc::new(file), fences, filter, pages: Cache::new(CACHE_BYTES) })
    }

    /// How many rows there are.
    pub(crate) fn count(&self) -> u64 {
        self.file.len() / ROW_BYTES as u64
    }

    /// The same rows, for a reader of its own.
    pub(crate) fn iter(&self) -> RowReader {
        RowReader::new(self.file.clone(), 0, self.file.len())
    }

    /// The same rows without what finding them needs: enough to read them all.
    pub(super) fn without_lookup(&self) -> Self {
        Self {
            file: self.file.clone(),
            fences: Vec::new(),
            filter: Filter::new(0),
            pages: Cache::new(CACHE_BYTES),
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let fences = self.fences.capacity().saturating_mul(8);
        self.filter.bytes().saturating_add(fences).saturating_add(self.pages.bytes())
    }

    /// The places of a chunk of this length.
    pub(crate) fn find(&self, id: ShortId, len: u32) -> Result<Vec<IndexRow>> {
        let mut found = Vec::new();
        if !self.filter.may_contain(id) {
            return Ok(found);
        }
        // The chunk may begin at the end of the page before the first one that begins like it.
        let first = self.fences.partition_point(|fence| *fence < prefix(id)).saturating_sub(1);
        let candidates = self.fences.iter().skip(first).take_while(|fence| **fence <= prefix(id)).count();
        for number in first..first.saturating_add(candidates) {
            let page = self.page(number)?;
            for at in lower_bound(&page, id)..page.len() / ROW_BYTES {
                let start = at.saturating_mul(ROW_BYTES);
                let row = decode(page.get(start..).unwrap_or_default())?;
                if row.id != id || found.len() >= PLACES_MAX {
                    return Ok(found);
                }
                if row.len == len {
                    found.push(row);
                }
            }
        }
        Ok(found)
    }

    /// Where the rows of a chunk begin, counted in rows.
    pub(super) fn position(&self, id: ShortId) -> Result<Option<u64>> {
        if !self.filter.may_contain(id) {
            return Ok(None);
        }
        let first = self.fences.partition_point(|fence| *fence < prefix(id)).saturating_sub(1);
        let candidates = self.fences.iter().skip(first).take_while(|fence| **fence <= prefix(id)).count();
        for number in first..first.saturating_add(candidates) {
            let page = self.page(number)?;
            let at = lower_bound(&page, id);
            // Behind all rows of this page: they may begin the next one.
            let Some(row) = page.get(at.saturating_mul(ROW_BYTES)..).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            let found = decode(row)?.id == id;
            let before = (number as u64).saturating_mul(PAGE_ROWS as u64);
            return Ok(found.then_some(before.saturating_add(at as u64)));
        }
        Ok(None)
    }

    fn page(&self, number: usize) -> Result<Arc<[u8]>> {
        self.pages.get_or_read(number as u64, || {
            let start = (number as u64).saturating_mul(PAGE_BYTES as u64);
            let left = usize::try_from(self.file.len().saturating_sub(start)).unwrap_or(usize::MAX);
            let mut bytes = [0; PAGE_BYTES];
            let bytes = bytes.get_mut(..left.min(PAGE_BYTES)).unwrap_or_default();
            self.file.read_at(bytes, start)?;
            Ok((Arc::from(&*bytes), bytes.len()))
        })
    }
}

fn prefix(id: ShortId) -> u64 {
    (id.0 >> 64) as u64
}

fn lower_bound(page: &[u8], id: ShortId) -> usize {
    let (mut low, mut high) = (0_usize, page.len() / ROW_BYTES);
    while low < high {
        let middle = usize::midpoint(low, high);
        let start = middle.saturating_mul(ROW_BYTES);
        let bytes = page.get(start..).and_then(|rest| rest.first_chunk::<16>());
        if bytes.is_some_and(|bytes| u128::from_le_bytes(*bytes) < id.0) {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    low
}
