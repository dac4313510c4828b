//! Building trees of pages: rows go in, pages come out, cut where their content says so.
//!
//! A cut depends on the row at it and on nothing before the page, so a change moves no cut but those around it, and
//! equal runs of rows give equal pages in every snapshot.

use crate::format::chunks::{ChunkRef, StoredContent};
use crate::format::entries::{EntryPageWriter, StoredEntry};
use crate::format::page::{ChunkBranchRow, EntryBranchRow, PageKind, PageRef, TreeRoot, finish_page};
use crate::limits;
use crate::{ChunkId, EntryName, Error, Result};

/// Receives finished pages; stores those that the repository lacks.
pub(crate) trait PageSink {
    fn put_page(&mut self, page: &[u8]) -> Result<PageRef>;
}

/// One in so many names ends a page of entries, which then has some twenty: a change of one entry in a hundred, evenly
/// spread, writes one page in six again. Larger pages would be written nearly all; of smaller ones the references would
/// weigh more than what they spare.
const ENTRY_CUT_MASK: u64 = 0x7;
/// One in so many chunks ends a page of a chunk list.
const CHUNK_CUT_MASK: u64 = 0xff;
/// Chunks of at most so many bytes are pages of databases, and change by the percent, spread over the whole file. With some nine of them in
/// a page of the list, a change of one in twenty writes a third of the list again, and one of a hundredth a tenth; with some
/// hundreds it would be all of it, which took as much as the changed pages themselves. Of still fewer the references would weigh
/// more than what they spare.
const SHORT_CHUNK_BYTES: u32 = 32 * 1024;
/// One in so many of those ends a page of a chunk list.
const SHORT_CHUNK_CUT_MASK: u64 = 0x3;
/// Rows that such a page has at least.
const SHORT_CHUNK_ROWS_MIN: usize = 6;
/// One in so many pages ends a branch.
const BRANCH_CUT_MASK: u64 = 0x7f;
/// Rows that a page of a chunk list or a branch has at least, unless it is the last.
const ROWS_MIN: usize = 16;

/// Builds a tree of sorted entries.
#[derive(Debug, Default)]
pub(crate) struct EntryTreeBuilder {
    leaf: EntryPageWriter,
    branches: Branches<EntryBranchRow>,
    last: Option<EntryName>,
    rows: u64,
}

impl EntryTreeBuilder {
    /// Adds the next entry.
    pub(crate) fn push(&mut self, stored: &StoredEntry, pages: &mut dyn PageSink) -> Result<()> {
        let name = &stored.entry.name;
        match self.last.as_ref().map(|last| last.cmp(name)) {
            None | Some(std::cmp::Ordering::Less) => {}
            Some(std::cmp::Ordering::Equal) => {
                return Err(Error::invalid_input("the source yielded this name twice").with_entry(name));
            }
            Some(std::cmp::Ordering::Greater) => {
                let message = "the source yielded this name out of order although it says that it sorts";
                return Err(Error::invalid_input(message).with_entry(name));
            }
        }
        self.leaf.push(stored);
        self.rows = self.rows.saturating_add(1);
        self.last = Some(name.clone());
        if self.leaf.is_full()
            || (self.leaf.len() >= limits::PAGE_BYTES_MIN && name_hash(name.as_bytes()) & ENTRY_CUT_MASK == 0)
        {
            self.cut_leaf(pages)?;
        }
        Ok(())
    }

    /// Ends the tree; none if it is empty.
    pub(crate) fn finish(mut self, pages: &mut dyn PageSink) -> Result<Option<TreeRoot>> {
        self.cut_leaf(pages)?;
        self.branches.finish(self.rows, pages)
    }

    fn cut_leaf(&mut self, pages: &mut dyn PageSink) -> Result<()> {
        let rows = self.leaf.count() as u64;
        if let Some((first, page)) = self.leaf.cut() {
            let page = pages.put_page(&page)?;
            self.branches.push(0, EntryBranchRow { first, page, rows }, pages)?;
        }
        Ok(())
    }
}

/// Builds the reference to some content from its chunks: in the entry while they are few, in a tree when they are many.
#[derive(Debug, Default)]
pub(crate) struct ChunkListBuilder {
    pending: Vec<ChunkRef>,
    branches: Branches<ChunkBranchRow>,
    rows: u64,
    bytes: u64,
    paged: bool,
}

impl ChunkListBuilder {
    /// Adds the next chunk.
    pub(crate) fn push(&mut self, chunk: ChunkRef, pages: &mut dyn PageSink) -> Result<()> {
        self.rows = self.rows.saturating_add(1);
        self.bytes = self.bytes.saturating_add(u64::from(chunk.len));
        self.pending.push(chunk);
        if !self.paged && self.pending.len() > limits::INLINE_CHUNKS_MAX {
            self.paged = true;
            for chunk in std::mem::take(&mut self.pending) {
                self.push_paged(chunk, pages)?;
            }
            return Ok(());
        }
        if self.paged
            && let Some(chunk) = self.pending.pop()
        {
            self.push_paged(chunk, pages)?;
        }
        Ok(())
    }

    /// Ends the list.
    pub(crate) fn finish(mut self, pages: &mut dyn PageSink) -> Result<StoredContent> {
        if !self.paged {
            return Ok(StoredContent::Chunks(self.pending));
        }
        self.cut_leaf(pages)?;
        let root = self.branches.finish(self.rows, pages)?;
        let root = root.ok_or_else(|| Error::internal("a long chunk list has no root"))?;
        Ok(StoredContent::Paged { root, bytes: self.bytes })
    }

    fn push_paged(&mut self, chunk: ChunkRef, pages: &mut dyn PageSink) -> Result<()> {
        self.pending.push(chunk);
        let (rows_min, mask) = if chunk.len <= SHORT_CHUNK_BYTES {
            (SHORT_CHUNK_ROWS_MIN, SHORT_CHUNK_CUT_MASK)
        } else {
            (ROWS_MIN, CHUNK_CUT_MASK)
        };
        let enough = self.pending.len() >= rows_min && id_hash(&chunk.id) & mask == 0;
        if enough || self.pending.len() >= 1024 { self.cut_leaf(pages) } else { Ok(()) }
    }

    fn cut_leaf(&mut self, pages: &mut dyn PageSink) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(self.pending.len() * 36);
        self.pending.iter().for_each(|chunk| chunk.encode(&mut rows));
        let page = pages.put_page(&finish_page(PageKind::Chunks, self.pending.len(), &rows))?;
        let bytes = self.pending.iter().map(|chunk| u64::from(chunk.len)).sum();
        let row = ChunkBranchRow { page, rows: self.pending.len() as u64, bytes };
        self.pending.clear();
        self.branches.push(0, row, pages)
    }
}

/// The levels above the leaves.
#[derive(Debug)]
struct Branches<R> {
    levels: Vec<Level<R>>,
}

#[derive(Debug)]
struct Level<R> {
    rows: Vec<R>,
    bytes: usize,
    cut: bool,
}

trait BranchRow: Clone {
    const KIND: PageKind;
    fn page(&self) -> PageRef;
    fn encode(&self, out: &mut Vec<u8>);
    /// The row that stands for a page of `rows`.
    fn summary(rows: &[Self], page: PageRef) -> Option<Self>;
}

impl<R> Default for Branches<R> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<R: BranchRow> Branches<R> {
    fn push(&mut self, level: usize, row: R, pages: &mut dyn PageSink) -> Result<()> {
        if level > usize::from(limits::PAGE_LEVELS_MAX) {
            return Err(Error::new(
                crate::ErrorKind::LimitExceeded,
                "the tree of pages would be deeper than the format allows",
            ));
        }
        if self.levels.len() <= level {
            self.levels.push(Level { rows: Vec::new(), bytes: 0, cut: false });
        }
        let Some(here) = self.levels.get_mut(level) else {
            return Err(Error::internal("a level of the page tree is missing"));
        };
        let mut encoded = Vec::new();
        row.encode(&mut encoded);
        here.bytes = here.bytes.saturating_add(encoded.len());
        let hash = id_hash(&row.page().id);
        here.rows.push(row);
        let enough = here.rows.len() >= ROWS_MIN && hash & BRANCH_CUT_MASK == 0;
        // Two rows at least, or a tree of very long names would never narrow.
        if enough || (here.bytes >= limits::PAGE_BYTES_MAX && here.rows.len() >= 2) {
            self.cut(level, pages)?;
        }
        Ok(())
    }

    fn cut(&mut self, level: usize, pages: &mut dyn PageSink) -> Result<()> {
        let Some(here) = self.levels.get_mut(level) else { return Ok(()) };
        let rows = std::mem::take(&mut here.rows);
        here.bytes = 0;
        here.cut = true;
        let mut encoded = Vec::new();
        rows.iter().for_each(|row| row.encode(&mut encoded));
        let page = pages.put_page(&finish_page(R::KIND, rows.len(), &encoded))?;
        match R::summary(&rows, page) {
            Some(row) => self.push(level.saturating_add(1), row, pages),
            None => Ok(()),
        }
    }

    fn finish(mut self, rows: u64, pages: &mut dyn PageSink) -> Result<Option<TreeRoot>> {
        let mut level = 0;
        while let Some(here) = self.levels.get(level) {
            match (&here.rows[..], here.cut) {
                ([root], false) => {
                    let levels = u8::try_from(level).unwrap_or(u8::MAX);
                    return Ok(Some(TreeRoot { page: root.page(), levels, rows }));
                }
                ([], _) => {}
                _ => self.cut(level, pages)?,
            }
            level += 1;
        }
        Ok(None)
    }
}

impl BranchRow for EntryBranchRow {
    const KIND: PageKind = PageKind::EntryBranch;

    fn page(&self) -> PageRef {
        self.page
    }

    fn encode(&self, out: &mut Vec<u8>) {
        Self::encode(self, out);
    }

    fn summary(rows: &[Self], page: PageRef) -> Option<Self> {
        let first = rows.first()?.first.clone();
        Some(Self { first, page, rows: rows.iter().map(|row| row.rows).sum() })
    }
}

impl BranchRow for ChunkBranchRow {
    const KIND: PageKind = PageKind::ChunkBranch;

    fn page(&self) -> PageRef {
        self.page
    }

    fn encode(&self, out: &mut Vec<u8>) {
        Self::encode(self, out);
    }

    fn summary(rows: &[Self], page: PageRef) -> Option<Self> {
        let bytes = rows.iter().map(|row| row.bytes).sum();
        Some(Self { page, rows: rows.iter().map(|row| row.rows).sum(), bytes })
    }
}

// FNV-1a with a final mix: only its spread matters, readers never compute it.
fn name_hash(name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

fn id_hash(id: &ChunkId) -> u64 {
    id.0.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Pages {
        pages: HashMap<[u8; 32], Vec<u8>>,
        put: usize,
    }

    impl PageSink for Pages {
        fn put_page(&mut self, page: &[u8]) -> Result<PageRef> {
            let id = *blake3::hash(page).as_bytes();
            if self.pages.insert(id, page.to_vec()).is_none() {
                self.put += page.len();
            }
            Ok(PageRef { id: ChunkId(id), len: page.len() as u32 })
        }
    }

    impl Pages {
        fn entries(&self, page: PageRef, levels: u8, out: &mut Vec<StoredEntry>) {
            let bytes = &self.pages[&page.id.0];
            if levels == 0 {
                out.extend(StoredEntry::decode_page(bytes).unwrap());
                return;
            }
            for row in EntryBranchRow::decode_page(bytes).unwrap() {
                let start = out.len();
                self.entries(row.page, levels - 1, out);
                assert_eq!(out[start].entry.name, row.first);
                assert_eq!((out.len() - start) as u64, row.rows);
            }
        }

        fn chunks(&self, page: PageRef, levels: u8, out: &mut Vec<ChunkRef>) {
            let bytes = &self.pages[&page.id.0];
            if levels == 0 {
                out.extend(ChunkRef::decode_page(bytes).unwrap());
                return;
            }
            for row in ChunkBranchRow::decode_page(bytes).unwrap() {
                self.chunks(row.page, levels - 1, out);
            }
        }
    }

    fn stored(number: usize, size: u8) -> StoredEntry {
        let entry = Entry::file(format!("directory/file-{number:07}")).unwrap().with_size(1);
        StoredEntry { entry, content: StoredContent::Inline([size].into()) }
    }

    fn build(entries: &[StoredEntry], pages: &mut Pages) -> Option<TreeRoot> {
        let mut builder = EntryTreeBuilder::default();
        entries.iter().for_each(|entry| builder.push(entry, pages).unwrap());
        builder.finish(pages).unwrap()
    }

    #[test]
    fn a_tree_holds_what_went_in_and_one_change_rewrites_little_of_it() {
        let mut pages = Pages::default();
        for count in [0, 1, 2, 100, 100_000] {
            let entries: Vec<_> = (0..count).map(|number| stored(number, 0)).collect();
            let mut back = Vec::new();
            match build(&entries, &mut pages) {
                None => assert_eq!(count, 0),
                Some(root) => {
                    assert_eq!(root.rows, count as u64);
                    pages.entries(root.page, root.levels, &mut back);
                }
            }
            assert_eq!(back, entries);
        }
        let mut changed: Vec<_> = (0..100_000).map(|number| stored(number, 0)).collect();
        changed[50_000] = stored(50_000, 1);
        changed.remove(70_000);
        let before = pages.put;
        build(&changed, &mut pages);
        assert!(pages.put - before < 300_000, "{} bytes of pages for two changes", pages.put - before);
    }

    #[test]
    fn changes_all_over_a_list_of_pages_rewrite_a_part_of_it() {
        let list = |changed: u32, generation: u32, pages: &mut Pages| {
            let mut builder = ChunkListBuilder::default();
            for number in 0..100_000_u32 {
                // Which change is random enough: the hash of their number says.
                let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
                let is_changed = u32::from(hash[0]) * 256 + u32::from(hash[1]) < changed * 655;
                let seed = if is_changed { [number, generation] } else { [number, 0] };
                let id = blake3::hash(&seed.map(u32::to_le_bytes).concat());
                builder.push(ChunkRef { id: ChunkId(*id.as_bytes()), len: 8192 }, pages).unwrap();
            }
            builder.finish(pages).unwrap();
            std::mem::take(&mut pages.put)
        };
        let mut pages = Pages::default();
        let whole = list(0, 0, &mut pages);
        let [five, one] = [(5, 1), (1, 2)].map(|(percent, generation)| list(percent, generation, &mut pages));
        println!("{whole} bytes, {five} after 5%, {one} after 1%");
        assert!(whole < 100_000 * 40, "{whole} bytes");
        assert!(five * 100 < whole * 55 && one * 100 < whole * 30, "{five} and {one} of {whole} bytes");
    }

    #[test]
    fn a_long_chunk_list_survives_and_one_change_rewrites_little_of_it() {
        let mut pages = Pages::default();
        let id = |number: u32| ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let mut chunks: Vec<_> =
            (0..200_000).map(|number| ChunkRef { id: id(number), len: number }).collect();
        for round in 0..2 {
            let before = pages.put;
            let mut builder = ChunkListBuilder::default();
            chunks.iter().for_each(|chunk| builder.push(*chunk, &mut pages).unwrap());
            let StoredContent::Paged { root, bytes } = builder.finish(&mut pages).unwrap() else {
                panic!("not paged")
            };
            let mut back = Vec::new();
            pages.chunks(root.page, root.levels, &mut back);
            assert_eq!(back, chunks);
            assert_eq!(bytes, chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>());
            assert!(round == 0 || pages.put - before < 100_000, "{}", pages.put - before);
            chunks[100_000] = ChunkRef { id: id(999_999_999), len: 7 };
        }
    }

    #[test]
    fn names_out_of_order_or_twice_are_refused() {
        for (first, second) in [(2, 1), (1, 1)] {
            let mut builder = EntryTreeBuilder::default();
            let mut pages = Pages::default();
            builder.push(&stored(first, 0), &mut pages).unwrap();
            assert!(builder.push(&stored(second, 0), &mut pages).is_err());
        }
    }
}
