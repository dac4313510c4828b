//! Pages: the nodes of the trees in which entries and long chunk lists are kept.
//!
//! A tree's leaves hold rows; its branches hold references to pages one level below. A page is stored as a chunk of a
//! meta pack and named by its chunk id, so equal pages are stored once, whichever snapshot they belong to.

use serde::{Deserialize, Serialize};

use super::codec::{Cursor, put_bytes, put_varint};
use crate::limits;
use crate::{ChunkId, EntryName, Error, Result};

/// What a page holds; its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// Entries.
    Entries = 1,
    /// References to entry pages, with the first name below each.
    EntryBranch = 2,
    /// Chunks of one content.
    Chunks = 3,
    /// References to chunk-list pages, with the bytes of content below each.
    ChunkBranch = 4,
}

/// A reference to a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// Its identity.
    #[serde(with = "hex_id")]
    pub id: ChunkId,
    /// Its length in bytes.
    pub len: u32,
}

/// The root of a tree of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FlatRoot")]
pub struct TreeRoot {
    /// The page at the top.
    #[serde(flatten)]
    pub page: PageRef,
    /// Branches between the root and the leaves: 0 where the root is a leaf.
    pub levels: u8,
    /// Rows in all leaves.
    pub rows: u64,
}

/// As it is read: what is flattened would be held in memory first, with whatever else stands there.
#[derive(Deserialize)]
struct FlatRoot {
    #[serde(with = "hex_id")]
    id: ChunkId,
    len: u32,
    levels: u8,
    rows: u64,
}

impl From<FlatRoot> for TreeRoot {
    fn from(root: FlatRoot) -> Self {
        let FlatRoot { id, len, levels, rows } = root;
        Self { page: PageRef { id, len }, levels, rows }
    }
}

/// One reference in a branch of an entry tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryBranchRow {
    /// The first name below the page.
    pub first: EntryName,
    /// The page.
    pub page: PageRef,
    /// Entries below it.
    pub rows: u64,
}

/// One reference in a branch of a chunk list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkBranchRow {
    /// The page.
    pub page: PageRef,
    /// Chunks below it.
    pub rows: u64,
    /// Bytes of content below it.
    pub bytes: u64,
}

/// Starts reading a page, which must be of `kind`; returns the number of its rows.
pub fn begin_page(cursor: &mut Cursor<'_>, kind: PageKind) -> Result<usize> {
    let found = cursor.byte()?;
    if found != kind as u8 {
        return Err(Error::corruption(format!(
            "a page of kind {found} stands where kind {} belongs",
            kind as u8
        )));
    }
    // Every row takes at least one byte.
    cursor.count(cursor.remaining().min(limits::PAGE_ROWS_MAX), "rows of a page")
}

/// The page of `kind` with `count` rows that are encoded in `rows`.
pub fn finish_page(kind: PageKind, count: usize, rows: &[u8]) -> Vec<u8> {
    let mut page = Vec::with_capacity(rows.len() + 6);
    page.push(kind as u8);
    put_varint(&mut page, count as u64);
    page.extend_from_slice(rows);
    page
}

pub(crate) fn put_page_ref(out: &mut Vec<u8>, page: &PageRef) {
    out.extend_from_slice(&page.id.0);
    put_varint(out, u64::from(page.len));
}

pub(crate) fn page_ref(cursor: &mut Cursor<'_>) -> Result<PageRef> {
    let id = ChunkId(cursor.array()?);
    let len = cursor.count(limits::CHUNK_BYTES_MAX, "bytes of a page")?;
    Ok(PageRef { id, len: u32::try_from(len).unwrap_or(u32::MAX) })
}

impl EntryBranchRow {
    /// Appends the row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.first.as_bytes());
        put_page_ref(out, &self.page);
        put_varint(out, self.rows);
    }

    /// All rows of a branch page; the first names ascend.
    pub fn decode_page(page: &[u8]) -> Result<Vec<Self>> {
        let mut cursor = Cursor::new(page);
        let count = begin_page(&mut cursor, PageKind::EntryBranch)?;
        let mut rows: Vec<Self> = Vec::new();
        for _ in 0..count {
            let name = cursor.bytes(limits::NAME_BYTES_MAX, "bytes of a name")?;
            let first = EntryName::new(name).map_err(|e| Error::corruption(e.message()))?;
            if rows.last().is_some_and(|last| last.first >= first) {
                return Err(Error::corruption("the pages of a branch are out of order"));
            }
            rows.push(Self { first, page: page_ref(&mut cursor)?, rows: cursor.varint()? });
        }
        cursor.finish()?;
        Ok(rows)
    }
}

impl ChunkBranchRow {
    /// Appends the row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_page_ref(out, &self.page);
        put_varint(out, self.rows);
        put_varint(out, self.bytes);
    }

    /// All rows of a branch page.
    pub fn decode_page(page: &[u8]) -> Result<Vec<Self>> {
        let mut cursor = Cursor::new(page);
        let count = begin_page(&mut cursor, PageKind::ChunkBranch)?;
        let mut rows = Vec::new();
        for _ in 0..count {
            rows.push(Self { page: page_ref(&mut cursor)?, rows: cursor.varint()?, bytes: cursor.varint()? });
        }
        cursor.finish()?;
        Ok(rows)
    }
}

pub(super) mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::ChunkId;

    pub(in crate::format) fn serialize<S: Serializer>(
        id: &ChunkId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(in crate::format) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ChunkId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut id = [0; 32];
        hex::decode_to_slice(&text, &mut id).map_err(serde::de::Error::custom)?;
        Ok(ChunkId(id))
    }
}
