//! A stored file as `AsyncRead + AsyncSeek`.

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_core::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use super::content::ChunkStream;
use super::guard;
use super::reader::Reader;
use crate::format::chunks::StoredContent;
use crate::{Error, JobContext, Result};

/// The content of one entry of a snapshot, readable from any position.
///
/// Reading fetches and checks one chunk at a time. Errors are [`io::Error`]s that hold a
/// [`backup_core::Error`](crate::Error).
pub struct StoredFile {
    reader: Reader,
    job: JobContext,
    content: StoredContent,
    len: u64,
    position: u64,
    /// What is at hand from `position` on.
    ready: Bytes,
    pending: Option<BoxFuture<'static, Result<Bytes>>>,
}

impl StoredFile {
    pub(crate) fn new(reader: Reader, content: StoredContent, job: JobContext) -> Self {
        let len = content.len();
        let ready = match &content {
            StoredContent::Inline(bytes) => Bytes::copy_from_slice(bytes),
            _ => Bytes::new(),
        };
        Self { reader, job, content, len, position: 0, ready, pending: None }
    }

    /// Bytes of content.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    // The rest of the chunk at the position.
    fn fetch(&self) -> BoxFuture<'static, Result<Bytes>> {
        let (reader, job, content, position) =
            (self.reader.clone(), self.job.clone(), self.content.clone(), self.position);
        let guarding = job.clone();
        let fetch = async move {
            if let StoredContent::Inline(bytes) = &content {
                let start = usize::try_from(position).unwrap_or(usize::MAX);
                return Ok(Bytes::copy_from_slice(bytes.get(start..).unwrap_or_default()));
            }
            let mut chunks = ChunkStream::new(reader.clone(), &content)?;
            let start = chunks.seek(position, &job).await?;
            let chunk = chunks
                .next(&job)
                .await?
                .ok_or_else(|| Error::corruption("the chunks of a content end before the content does"))?;
            let mut bytes = Bytes::from(reader.chunk(&chunk.id, chunk.len, &job).await?);
            let skip = usize::try_from(position.saturating_sub(start)).unwrap_or(usize::MAX);
            bytes.advance(skip.min(bytes.len()));
            Ok(bytes)
        };
        Box::pin(async move { guard::run(&guarding, fetch).await })
    }
}

impl AsyncRead for StoredFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.position >= this.len || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.ready.is_empty() {
            if this.pending.is_none() {
                this.pending = Some(this.fetch());
            }
            if let Some(pending) = &mut this.pending {
                let fetched = ready!(pending.as_mut().poll(cx));
                this.pending = None;
                this.ready = fetched?;
            }
            if this.ready.is_empty() {
                return Poll::Ready(Err(Error::corruption("a chunk of a content is empty").into()));
            }
        }
        let count = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready.split_to(count));
        this.position = this.position.saturating_add(count as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for StoredFile {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let target = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let target = target
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek before the beginning"))?;
        if target != self.position {
            self.position = target;
            self.ready = Bytes::new();
            self.pending = None;
        }
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl std::fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredFile")
            .field("len", &self.len)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
