//! One underlying writer that is lent to one entry after the other.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use backup_core::{Error, Result};
use tokio::io::AsyncWrite;

/// Zeros to fill up with.
static ZEROS: [u8; 512] = [0; 512];

/// A writer that is here or lent.
#[derive(Debug)]
pub(super) struct Slot<W>(Arc<Mutex<Option<W>>>);

impl<W> Clone for Slot<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Slot<W> {
    pub(super) fn new(writer: W) -> Self {
        Self(Arc::new(Mutex::new(Some(writer))))
    }

    /// Takes the writer; it is an error if the entry before did not give it back.
    pub(super) fn take(&self) -> Result<W> {
        self.lock().take().ok_or_else(|| {
            Error::internal(
                "the entry before was not written in full, so nothing can follow it in this stream",
            )
        })
    }

    pub(super) fn give_back(&self, writer: W) {
        *self.lock() = Some(writer);
    }

    fn lock(&self) -> MutexGuard<'_, Option<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of one entry on its way into the lent writer, which goes back when it is shut down, and stays open.
#[derive(Debug)]
pub(super) struct Lent<W> {
    slot: Slot<W>,
    writer: Option<W>,
    /// Bytes still to come, where the length was announced.
    left: Option<u64>,
    /// Zeros that follow the content.
    padding: usize,
}

impl<W> Lent<W> {
    /// `writer` of `slot` for content of `len` bytes, if that is known, followed by `padding` zeros.
    pub(super) fn new(slot: Slot<W>, writer: W, len: Option<u64>, padding: usize) -> Self {
        Self { slot, writer: Some(writer), left: len, padding: padding.min(ZEROS.len()) }
    }
}

fn ended<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::other("this entry was ended already")))
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Lent<W> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(writer) = &mut this.writer else { return ended() };
        let bytes = match this.left {
            None => bytes,
            Some(0) if !bytes.is_empty() => {
                return Poll::Ready(Err(io::Error::other("the content is longer than was announced")));
            }
            Some(left) => {
                bytes.get(..usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())).unwrap_or_default()
            }
        };
        let len = ready!(Pin::new(writer).poll_write(context, bytes))?;
        this.left = this.left.map(|left| left.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX)));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().writer {
            Some(writer) => Pin::new(writer).poll_flush(context),
            None => ended(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left.is_some_and(|left| left > 0) {
            return Poll::Ready(Err(io::Error::other("the content is shorter than was announced")));
        }
        while this.padding > 0 {
            let Some(writer) = &mut this.writer else { return ended() };
            let zeros = ZEROS.get(..this.padding).unwrap_or_default();
            match ready!(Pin::new(writer).poll_write(context, zeros))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => this.padding = this.padding.saturating_sub(len),
            }
        }
        if let Some(writer) = this.writer.take() {
            this.slot.give_back(writer);
        }
        Poll::Ready(Ok(()))
    }
}
