//! A source, a target, a sink and an observer that hang or panic where a test wants it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use backup_core::source::{BlockingContent, ReadAt};
use backup_core::{
    BlockingWriter, Content, Entry, Event, Fetched, Finished, GetRange, Item, JobContext, ObjectKey,
    ObjectMeta, Observer, PutOutcome, Result, Sink, Skipped, Source, SourceInfo, SourceRun, Target,
    WriteOrder, Writer,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Panic,
    Hang,
}

impl Does {
    async fn it<T>(self) -> T {
        match self {
            Self::Panic => panic!("boom"),
            Self::Hang => std::future::pending().await,
        }
    }

    fn it_blocking<T>(self) -> T {
        match self {
            Self::Panic => panic!("boom"),
            Self::Hang => loop {
                std::thread::park();
            },
        }
    }
}

/// Where in a source or target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Info,
    Begin,
    /// The second call that asks for entries.
    Next,
    Open,
    /// On a worker thread, opening, reading and ending the content; reading it at positions; on the runtime.
    ContentOpen,
    ContentRead,
    ContentFinish,
    ContentRandom,
    ContentAsync,
    Finish,
    /// In a target: announcing an entry, opening its writer, writing, ending.
    Entry,
    WriterOpen,
    WriterWrite,
    WriterFinish,
    Complete,
}

/// Yields `a`, `b`, `c` with content of `len` bytes each; something is wrong with `b` or with the whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BadSource {
    pub(crate) at: At,
    pub(crate) does: Does,
    pub(crate) len: usize,
}

#[async_trait]
impl Source for BadSource {
    fn info(&self) -> SourceInfo {
        if self.at == At::Info {
            self.does.it_blocking()
        }
        SourceInfo::new("bad", ["source"])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        if self.at == At::Begin {
            self.does.it::<()>().await;
        }
        Ok(Box::new(BadRun { source: *self, given: 0 }))
    }
}

struct BadRun {
    source: BadSource,
    given: usize,
}

#[async_trait]
impl SourceRun for BadRun {
    async fn next(&mut self, _: usize) -> Result<Vec<Item>> {
        self.given += 1;
        match self.given {
            1 => ["a", "b"].map(|n| Ok(self.entry(n)?.into())).into_iter().collect(),
            2 if self.source.at == At::Next => self.source.does.it().await,
            2 => Ok(vec![self.entry("c")?.into()]),
            _ => Ok(Vec::new()),
        }
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let BadSource { at, does, len } = self.source;
        if entry.name.as_bytes() != b"b" {
            return Ok(Content::from_bytes(super::common::noise(7, len)));
        }
        match at {
            At::Open => does.it().await,
            At::ContentRandom => Ok(Content::from_random(Arc::new(BadContent { at, does, left: len }))),
            At::ContentAsync => Ok(Content::from_async(BadContent { at, does, left: len })),
            _ => Ok(Content::blocking(move || {
                if at == At::ContentOpen {
                    does.it_blocking::<()>();
                }
                Ok(BadContent { at, does, left: len })
            })),
        }
    }

    async fn finish(&mut self) -> Result<Finished> {
        if self.source.at == At::Finish {
            self.source.does.it::<()>().await;
        }
        Ok(Finished::default())
    }
}

impl BadRun {
    fn entry(&self, name: &str) -> Result<Entry> {
        Ok(Entry::file(name)?.with_size(self.source.len as u64))
    }
}

struct BadContent {
    at: At,
    does: Does,
    left: usize,
}

impl BlockingContent for BadContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == At::ContentRead {
            self.does.it_blocking::<()>();
        }
        let count = self.left.min(buffer.len());
        buffer[..count].fill(3);
        self.left -= count;
        Ok(count)
    }

    fn finish(&mut self) -> Option<String> {
        if self.at == At::ContentFinish {
            self.does.it_blocking::<()>();
        }
        None
    }
}

impl ReadAt for BadContent {
    fn len(&self) -> u64 {
        self.left as u64
    }

    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        self.does.it_blocking()
    }
}

impl AsyncRead for BadContent {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.does {
            Does::Panic => panic!("boom"),
            Does::Hang => Poll::Pending,
        }
    }
}

/// Takes everything and keeps nothing.
#[derive(Debug)]
pub(crate) struct BadTarget {
    pub(crate) at: At,
    pub(crate) does: Does,
}

#[async_trait]
impl Target for BadTarget {
    fn order(&self) -> WriteOrder {
        WriteOrder::Any
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        self.at(At::Begin).await
    }

    async fn entry(&self, _: &Entry) -> Result<Writer> {
        self.at(At::Entry).await?;
        let (at, does) = (self.at, self.does);
        Ok(Writer::blocking(move || {
            if at == At::WriterOpen {
                does.it_blocking::<()>();
            }
            Ok(BadWriter { at, does })
        }))
    }

    async fn complete(&self, _: Vec<Entry>) -> Result<Vec<Skipped>> {
        self.at(At::Complete).await?;
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        self.at(At::Finish).await?;
        Ok(Vec::new())
    }
}

impl BadTarget {
    async fn at(&self, at: At) -> Result<()> {
        if self.at == at {
            self.does.it::<()>().await;
        }
        Ok(())
    }
}

struct BadWriter {
    at: At,
    does: Does,
}

impl BlockingWriter for BadWriter {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        if self.at == At::WriterWrite {
            self.does.it_blocking::<()>();
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: u64) -> io::Result<Vec<String>> {
        if self.at == At::WriterFinish {
            self.does.it_blocking::<()>();
        }
        Ok(Vec::new())
    }

    fn abort(self: Box<Self>) {}
}

/// Panics in every call whose key starts so.
#[derive(Debug)]
pub(crate) struct PanickingSink {
    pub(crate) inner: MemorySink,
    pub(crate) below: &'static str,
}

impl PanickingSink {
    fn look(&self, key: &str) {
        assert!(!key.starts_with(self.below), "boom");
    }
}

#[async_trait]
impl Sink for PanickingSink {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        self.look(key.as_str());
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.look(key.as_str());
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.look(prefix);
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }
}

/// Panics at every event.
#[derive(Debug)]
pub(crate) struct PanickingObserver;

impl Observer for PanickingObserver {
    fn on_event(&self, _: &Event) {
        panic!("boom");
    }
}
