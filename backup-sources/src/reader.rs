//! Any asynchronous reader as a source of one entry.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use backup_core::{
    Content, Entry, Error, ErrorKind, Finished, Item, JobContext, Result, Source, SourceInfo, SourceRun,
};
use tokio::io::{AsyncRead, ReadBuf};

type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// Whatever a reader yields, as one entry. It can be run once, because a reader can be read once.
///
/// If the reader fails, the run fails, so that there is no snapshot.
///
/// ```
/// use backup_sources::ReaderSource;
///
/// let source = ReaderSource::new("notes.txt", &b"some text"[..])?;
/// # Ok::<(), backup_core::Error>(())
/// ```
pub struct ReaderSource {
    entry: Entry,
    reader: Mutex<Option<Reader>>,
}

impl ReaderSource {
    /// An entry `name` with all that `reader` yields.
    ///
    /// # Errors
    ///
    /// `name` is not the name of an entry.
    pub fn new(name: impl AsRef<[u8]>, reader: impl AsyncRead + Send + 'static) -> Result<Self> {
        Self::with_entry(Entry::file(name)?, reader)
    }

    /// `entry` with all that `reader` yields.
    ///
    /// # Errors
    ///
    /// `entry` is of a kind without content.
    pub fn with_entry(entry: Entry, reader: impl AsyncRead + Send + 'static) -> Result<Self> {
        if !entry.kind.has_content() {
            return Err(Error::invalid_input("only a file has content to read").with_entry(&entry.name));
        }
        Ok(Self { entry, reader: Mutex::new(Some(Box::pin(reader))) })
    }
}

impl fmt::Debug for ReaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderSource").field("entry", &self.entry).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for ReaderSource {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("reader", [self.entry.name.to_string()])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        let reader = lock(&self.reader).take();
        let reader = reader.ok_or_else(|| {
            let message = "the reader was read by an earlier run; make a new source for each run";
            Error::invalid_input(message).with_entry(&self.entry.name)
        })?;
        let failure = Arc::default();
        Ok(Box::new(OneEntryRun::new(
            self.entry.clone(),
            Watched { reader, failure: Arc::clone(&failure) },
            failure,
        )))
    }
}

/// Why content broke off, once it did.
pub(crate) type Failure = Arc<Mutex<Option<String>>>;

/// A run that yields one entry and fails at its end if its content broke off.
pub(crate) struct OneEntryRun<R> {
    entry: Option<Entry>,
    reader: Mutex<Option<R>>,
    failure: Failure,
}

impl<R: AsyncRead + Send + 'static> OneEntryRun<R> {
    pub(crate) fn new(entry: Entry, reader: R, failure: Failure) -> Self {
        Self { entry: Some(entry), reader: Mutex::new(Some(reader)), failure }
    }
}

#[async_trait]
impl<R: AsyncRead + Send + 'static> SourceRun for OneEntryRun<R> {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        Ok(self.entry.take().map(Item::Entry).into_iter().collect())
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let reader = lock(&self.reader).take();
        let reader = reader.ok_or_else(|| {
            Error::invalid_input("this content can be read once only").with_entry(&entry.name)
        })?;
        Ok(Content::from_async(reader))
    }

    async fn finish(&mut self) -> Result<Finished> {
        match lock(&self.failure).take() {
            // A snapshot of nothing but a part of one entry would only look like one.
            Some(why) => Err(Error::new(ErrorKind::Io, why)),
            None => Ok(Finished::default()),
        }
    }
}

/// Remembers that reading failed.
struct Watched {
    reader: Reader,
    failure: Failure,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(this.reader.as_mut().poll_read(context, buffer));
        if let Err(error) = &read {
            *lock(&this.failure) = Some(format!("the reader failed: {error}"));
        }
        Poll::Ready(read)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
