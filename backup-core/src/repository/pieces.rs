//! A stored content by its pieces: for who reads ranges of it, many at once, and keeps what was read.

use std::ops::Range;

use bytes::Bytes;

use super::content::ChunkStream;
use super::guard;
use super::reader::Reader;
use crate::format::chunks::StoredContent;
use crate::{ChunkId, Error, JobContext, Result};

/// Pieces that are named at once.
const PIECES_MAX: usize = 1024;

/// Reads any pieces of one entry's content, in any order and several at once. Cheap to clone.
///
/// [`StoredFile`](super::StoredFile) is the same as a reader with a position.
///
/// ```
/// # async fn example(content: backup_core::repository::PieceReader) -> backup_core::Result<()> {
/// // What stands at byte one million?
/// let at = 1_000_000;
/// if let Some(piece) = content.pieces(at..at + 1).await?.first() {
///     let bytes = content.read(piece).await?;
///     println!("{:?}", bytes.get((at - piece.offset) as usize));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PieceReader {
    reader: Reader,
    content: StoredContent,
    job: JobContext,
    len: u64,
}

/// A part of a content that is read and checked as a whole: a chunk, or a short content in its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// Where it begins in the content.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u32,
    /// None for what stands in the entry.
    id: Option<ChunkId>,
}

impl Piece {
    /// Where it ends in the content.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

impl PieceReader {
    pub(crate) fn new(reader: Reader, content: StoredContent, job: JobContext) -> Self {
        let len = content.len();
        Self { reader, content, job, len }
    }

    /// Bytes of content.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces that hold a range of bytes, in order and without gaps: the first holds its first byte. There may be fewer
    /// than the range needs, but for a range that begins within the content at least one; ask again behind them.
    ///
    /// Fails where the list of a long content's chunks cannot be read. Dropping the future stops it.
    pub async fn pieces(&self, range: Range<u64>) -> Result<Vec<Piece>> {
        let end = range.end.min(self.len);
        if range.start >= end {
            return Ok(Vec::new());
        }
        if let StoredContent::Inline(bytes) = &self.content {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            return Ok(vec![Piece { offset: 0, len, id: None }]);
        }
        guard::run(&self.job, async {
            let mut chunks = ChunkStream::new(self.reader.clone(), &self.content)?;
            let mut offset = chunks.seek(range.start, &self.job).await?;
            let mut pieces = Vec::new();
            while offset < end && pieces.len() < PIECES_MAX {
                let Some(chunk) = chunks.next(&self.job).await? else { break };
                let piece = Piece { offset, len: chunk.len, id: Some(chunk.id) };
                offset = piece.end();
                pieces.push(piece);
            }
            if pieces.is_empty() {
                return Err(Error::corruption("the chunks of a content end before the content does"));
            }
            Ok(pieces)
        })
        .await
    }

    /// The bytes of a piece of this content, checked.
    ///
    /// An error concerns this piece alone: others can still be read. Dropping the future stops it.
    pub async fn read(&self, piece: &Piece) -> Result<Bytes> {
        guard::run(&self.job, async {
            match (&piece.id, &self.content) {
                (Some(id), _) => Ok(Bytes::from(self.reader.chunk(id, piece.len, &self.job).await?)),
                (None, StoredContent::Inline(bytes)) => Ok(Bytes::copy_from_slice(bytes)),
                (None, _) => Err(Error::invalid_input("the piece is of another content")),
            }
        })
        .await
    }
}
