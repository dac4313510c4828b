//! Sorting rows that may be more than memory should hold: runs are sorted in memory, written to a scratch file, merged.

use std::path::Path;
use std::sync::Arc;

use crate::format::codec::Cursor;
use crate::format::segment::IndexRow;
use crate::repository::merge::Merge;
use crate::repository::scratch::ScratchFile;
use crate::{Result, ShortId};

/// Bytes of a row in a scratch file, and in memory.
pub(super) const ROW_BYTES: usize = 32;
/// Bytes read from a run at once.
const READ_BYTES: usize = 64 * 1024;
/// Runs merged at once; more are merged in rounds by becoming one long run. Together with [`READ_BYTES`] this bounds the
/// memory of a merge to 8 MiB.
const RUNS_MAX: usize = 128;

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By chunk: the order of an index.
    Chunk,
    /// By pack, and within it by place: the order of reading packs from front to back.
    Pack,
}

type Key = (u128, u128);

impl Order {
    fn key(self) -> fn(&IndexRow) -> Key {
        match self {
            Self::Chunk => |row| (row.id.0, place(row)),
            Self::Pack => |row| (place(row), row.id.0),
        }
    }
}

fn place(row: &IndexRow) -> u128 {
    [row.pack, row.frame, row.offset, row.len]
        .into_iter()
        .fold(0, |place, part| place << 32 | u128::from(part))
}

/// Collects rows and gives them back in order.
#[derive(Debug)]
pub(super) struct RowSorter {
    order: Order,
    scratch: Arc<Path>,
    rows_max: usize,
    held: Vec<IndexRow>,
    /// Runs that are whole.
    runs: Vec<RowReader>,
    /// The file that runs are being written to, and where they stand in it.
    file: Option<ScratchFile>,
    pending: Vec<(u64, u64)>,
    count: u64,
}

impl RowSorter {
    /// A sorter that holds `bytes_max` bytes of rows before it writes a run to a file in `scratch`.
    pub(super) fn new(order: Order, bytes_max: usize, scratch: Arc<Path>) -> Self {
        Self {
            order,
            scratch,
            rows_max: (bytes_max / ROW_BYTES).max(1),
            held: Vec::new(),
            runs: Vec::new(),
            file: None,
            pending: Vec::new(),
            count: 0,
        }
    }

    /// Bytes of rows in memory.
    pub(super) fn bytes(&self) -> usize {
        self.held.len().saturating_mul(ROW_BYTES)
    }

    /// Rows so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn push(&mut self, row: IndexRow) -> Result<()> {
        if self.held.len() == self.held.capacity() {
            // In small steps: doubling would take the most memory just when there is least to spare.
            let step = (self.held.len() / 4).max(4096).min(self.rows_max.saturating_sub(self.held.len()));
            self.held.reserve_exact(step.max(1));
        }
        self.held.push(row);
        self.count = self.count.saturating_add(1);
        if self.held.len() >= self.rows_max { self.write_run() } else { Ok(()) }
    }

    /// Adds rows, in their own memory if there are none yet.
    pub(super) fn push_all(&mut self, rows: Vec<IndexRow>) -> Result<()> {
        if !self.held.is_empty() || rows.len() >= self.rows_max {
            return rows.into_iter().try_for_each(|row| self.push(row));
        }
        self.count = self.count.saturating_add(rows.len() as u64);
        self.held = rows;
        Ok(())
    }

    /// Adds rows that are sorted already.
    pub(super) fn push_run(&mut self, run: RowReader) -> Result<()> {
        self.count = self.count.saturating_add(run.rows_left());
        self.runs.push(run);
        self.merge_if_many()
    }

    /// Writes what is held as a sorted run.
    pub(super) fn write_run(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.sort_held();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => ScratchFile::create(&self.scratch)?,
        };
        let start = file.len();
        for row in self.held.drain(..) {
            file.append(&encode(&row))?;
        }
        self.pending.push((start, file.len()));
        self.file = Some(file);
        self.merge_if_many()
    }

    /// The rows in memory, sorted, if no run was written.
    pub(super) fn take_resident(&mut self) -> Option<Vec<IndexRow>> {
        if !self.runs.is_empty() || !self.pending.is_empty() {
            return None;
        }
        self.sort_held();
        Some(std::mem::take(&mut self.held))
    }

    /// All rows in order.
    pub(super) fn finish(mut self) -> Result<SortedRows> {
        if let Some(rows) = self.take_resident() {
            return Ok(SortedRows::Held(rows.into_iter()));
        }
        self.write_run()?;
        self.held = Vec::new();
        self.close_file()?;
        Ok(SortedRows::Merged(Merge::new(self.runs, self.order.key())?))
    }

    fn merge_if_many(&mut self) -> Result<()> {
        if self.runs.len().saturating_add(self.pending.len()) < RUNS_MAX {
            return Ok(());
        }
        self.close_file()?;
        let mut merged = ScratchFile::create(&self.scratch)?;
        for row in Merge::new(std::mem::take(&mut self.runs), self.order.key())? {
            merged.append(&encode(&row?))?;
        }
        merged.flush()?;
        let end = merged.len();
        self.runs.push(RowReader::new(Arc::new(merged), 0, end));
        Ok(())
    }

    fn close_file(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.flush()?;
        let file = Arc::new(file);
        let pending = self.pending.drain(..);
        self.runs.extend(pending.map(|(start, end)| RowReader::new(file.clone(), start, end)));
        Ok(())
    }

    fn sort_held(&mut self) {
        match self.order {
            // The order that rows have of themselves.
            Order::Chunk => self.held.sort_unstable(),
            Order::Pack => self.held.sort_unstable_by_key(self.order.key()),
        }
    }
}

/// Rows in order, from memory or from scratch files.
#[derive(Debug)]
pub(super) enum SortedRows {
    Held(std::vec::IntoIter<IndexRow>),
    Merged(Merge<RowReader, IndexRow, Key>),
}

impl Iterator for SortedRows {
    type Item = Result<IndexRow>;

    fn next(&mut self) -> Option<Result<IndexRow>> {
        match self {
            Self::Held(rows) => rows.next().map(Ok),
            Self::Merged(rows) => rows.next(),
        }
    }
}

/// Reads rows of a scratch file from front to back.
#[derive(Debug)]
pub(crate) struct RowReader {
    file: Arc<ScratchFile>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    position: usize,
}

impl RowReader {
    /// The rows in the bytes `start..end` of a file.
    pub(super) fn new(file: Arc<ScratchFile>, start: u64, end: u64) -> Self {
        Self { file, at: start, end, buffer: Vec::new(), position: 0 }
    }

    // Those that are not in the buffer yet.
    fn rows_left(&self) -> u64 {
        self.end.saturating_sub(self.at) / ROW_BYTES as u64
    }

    fn fill(&mut self) -> Result<bool> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.buffer.resize(left.min(READ_BYTES), 0);
        self.position = 0;
        self.file.read_at(&mut self.buffer, self.at)?;
        self.at = self.at.saturating_add(self.buffer.len() as u64);
        Ok(!self.buffer.is_empty())
    }
}

impl Iterator for RowReader {
    type Item = Result<IndexRow>;

    fn next(&mut self) -> Option<Result<IndexRow>> {
        if self.position >= self.buffer.len() {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.at = self.end;
                    self.buffer.clear();
                    return Some(Err(error));
                }
            }
        }
        let start = self.position;
        self.position = start.saturating_add(ROW_BYTES);
        Some(decode(self.buffer.get(start..self.position).unwrap_or_default()))
    }
}

/// A row as it stands in scratch files.
pub(super) fn encode(row: &IndexRow) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    let (id, place) = bytes.split_at_mut(16);
    id.copy_from_slice(&row.id.0.to_le_bytes());
    for (to, from) in place.chunks_exact_mut(4).zip([row.pack, row.frame, row.offset, row.len]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}

/// The row in the first bytes of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<IndexRow> {
    let mut cursor = Cursor::new(bytes);
    Ok(IndexRow {
        id: ShortId(u128::from_le_bytes(cursor.array()?)),
        pack: cursor.u32()?,
        frame: cursor.u32()?,
        offset: cursor.u32()?,
        len: cursor.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shuffled(count: u32) -> impl Iterator<Item = IndexRow> {
        (0..count).map(move |number| {
            let number = (u64::from(number) * 7919 % u64::from(count)) as u32;
            IndexRow {
                id: ShortId(u128::from(number / 3) << 100),
                pack: number % 97,
                frame: number % 5,
                offset: number,
                len: 1 + number % 2,
            }
        })
    }

    #[test]
    fn rows_come_back_sorted_through_one_or_more_rounds_of_merging() {
        for order in [Order::Chunk, Order::Pack] {
            for (count, runs) in [(0, 0), (99, 0), (1000, 10), (100 * 300, 300)] {
                let mut sorter = RowSorter::new(order, 100 * ROW_BYTES, std::env::temp_dir().into());
                shuffled(count).for_each(|row| sorter.push(row).unwrap());
                let left = sorter.runs.len() + sorter.pending.len();
                assert!(left <= RUNS_MAX && (left == runs || runs > RUNS_MAX), "{left} runs");
                assert_eq!(sorter.count(), u64::from(count));
                let sorted: Vec<_> = sorter.finish().unwrap().collect::<Result<_>>().unwrap();
                let mut expected: Vec<_> = shuffled(count).collect();
                expected.sort_by_key(order.key());
                assert_eq!(sorted, expected);
            }
        }
    }

    #[test]
    fn the_order_of_chunks_is_the_order_that_rows_have_of_themselves() {
        let (mut by_key, mut plain): (Vec<_>, Vec<_>) = (shuffled(1000).collect(), shuffled(1000).collect());
        by_key.sort_by_key(Order::Chunk.key());
        plain.sort();
        assert_eq!(by_key, plain);
    }
}
