//! References to content: chunks in a row, inline bytes, paged lists.

use super::codec::{Cursor, put_bytes, put_varint};
use super::page::{PageKind, TreeRoot, begin_page, page_ref, put_page_ref};
use crate::limits;
use crate::{ChunkId, Error, Result};

/// A chunk of some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its identity.
    pub id: ChunkId,
    /// Its length in bytes.
    pub len: u32,
}

impl ChunkRef {
    /// Appends the reference.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        put_varint(out, u64::from(self.len));
    }

    /// The next reference.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let id = ChunkId(cursor.array()?);
        let len = cursor.count(limits::CHUNK_BYTES_MAX, "bytes of a chunk")?;
        Ok(Self { id, len: u32::try_from(len).unwrap_or(u32::MAX) })
    }

    /// All references of a chunk-list leaf.
    pub fn decode_page(page: &[u8]) -> Result<Vec<Self>> {
        let mut cursor = Cursor::new(page);
        let count = begin_page(&mut cursor, PageKind::Chunks)?;
        let mut chunks = Vec::with_capacity(count.min(page.len() / 33));
        for _ in 0..count {
            chunks.push(Self::decode(&mut cursor)?);
        }
        cursor.finish()?;
        Ok(chunks)
    }
}

/// Where the content of a stored entry is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoredContent {
    /// The entry has none.
    #[default]
    None,
    /// In the entry itself.
    Inline(Box<[u8]>),
    /// In these chunks, one after the other.
    Chunks(Vec<ChunkRef>),
    /// In the chunks that a tree of pages lists.
    Paged {
        /// The tree.
        root: TreeRoot,
        /// Bytes of content.
        bytes: u64,
    },
}

impl StoredContent {
    /// Bytes of content.
    pub fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunks(chunks) => chunks.iter().map(|chunk| u64::from(chunk.len)).sum(),
            Self::Paged { bytes, .. } => *bytes,
        }
    }

    /// Whether there is not a byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the reference: a tag, then what it says.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => out.push(0),
            Self::Inline(bytes) => {
                out.push(1);
                put_bytes(out, bytes);
            }
            Self::Chunks(chunks) => {
                out.push(2);
                put_varint(out, chunks.len() as u64);
                for chunk in chunks {
                    chunk.encode(out);
                }
            }
            Self::Paged { root, bytes } => {
                out.push(3);
                put_varint(out, *bytes);
                put_varint(out, root.rows);
                out.push(root.levels);
                put_page_ref(out, &root.page);
            }
        }
    }

    /// The next reference.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        Ok(match cursor.byte()? {
            0 => Self::None,
            1 => Self::Inline(cursor.bytes(limits::INLINE_BYTES_MAX, "bytes of inline content")?.into()),
            2 => {
                let count = cursor.count(limits::INLINE_CHUNKS_MAX, "chunks in an entry")?;
                Self::Chunks((0..count).map(|_| ChunkRef::decode(cursor)).collect::<Result<_>>()?)
            }
            3 => {
                let bytes = cursor.varint()?;
                let rows = cursor.varint()?;
                let levels = cursor.byte()?;
                if levels > limits::PAGE_LEVELS_MAX {
                    return Err(Error::corruption("a chunk list is deeper than the format allows"));
                }
                Self::Paged { root: TreeRoot { page: page_ref(cursor)?, levels, rows }, bytes }
            }
            tag => return Err(Error::corruption(format!("content has the unknown form {tag}"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::page::finish_page;

    #[test]
    fn a_page_of_chunks_holds_as_many_as_it_says_and_not_a_byte_more() {
        let chunks: Vec<_> =
            (1..=300).map(|n| ChunkRef { id: ChunkId([n as u8; 32]), len: n * 1000 }).collect();
        let mut rows = Vec::new();
        chunks.iter().for_each(|chunk| chunk.encode(&mut rows));
        let page = |count, rows: &[u8]| finish_page(PageKind::Chunks, count, rows);
        assert_eq!(ChunkRef::decode_page(&page(300, &rows)).unwrap(), chunks);
        for (count, rows) in [
            (299, &rows[..]),
            (301, &rows),
            (300, &rows[..rows.len() - 1]),
            (300, &[&rows[..], b"\0"].concat()),
        ] {
            let read = ChunkRef::decode_page(&page(count, rows));
            assert!(read.is_err_and(|error| error.is_corruption()), "{count}");
        }
        assert!(ChunkRef::decode_page(&page(usize::MAX, &rows)).is_err());
    }
}
