//! A source of entries in memory that counts what is asked of it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use backup_core::source::{BlockingContent, ContentReader, ReadAt};
use backup_core::{
    Attribute, Chunking, Content, Entry, EntryKind, EntryName, Finished, Item, JobContext, OwnerNames,
    PosixMetadata, Result, Skipped, Source, SourceInfo, SourceRun, Timestamp,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::data::{Rng, mixed, random, text};
use super::target::Collected;

/// How content is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Blocking,
    Async,
    Random,
    /// A blocking reader that fails after so many bytes.
    FailsAfter(usize),
    /// An asynchronous reader that fails after so many bytes.
    AsyncFailsAfter(usize),
    /// Cannot be opened.
    Unopenable,
    /// Read in full, with a notice at the end.
    Noticed,
}

#[derive(Debug, Clone)]
pub struct TestEntry {
    pub entry: Entry,
    pub content: Bytes,
    pub body: Body,
    pub chunking: Chunking,
    /// What the source says can differ from the parent's.
    pub changed: Option<Vec<Range<u64>>>,
}

impl TestEntry {
    pub fn file(name: &str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let entry = Entry::file(name).unwrap().with_size(content.len() as u64);
        Self { entry, content, body: Body::Blocking, chunking: Chunking::ContentDefined, changed: None }
    }

    pub fn other(entry: Entry) -> Self {
        Self {
            entry,
            content: Bytes::new(),
            body: Body::Blocking,
            chunking: Chunking::ContentDefined,
            changed: None,
        }
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub fn fixed(mut self, bytes: u32) -> Self {
        self.chunking = Chunking::Fixed { bytes };
        self
    }

    /// With a stamp of its content, so that it counts as unchanged while the content is the same.
    pub fn stamped(mut self) -> Self {
        let stamp = blake3::hash(&self.content);
        self.entry = self.entry.with_stamp(&stamp.as_bytes()[..8]);
        self
    }

    pub fn changed_in(mut self, ranges: &[Range<u64>]) -> Self {
        self.changed = Some(ranges.to_vec());
        self
    }

    pub fn sized(mut self, size: Option<u64>) -> Self {
        self.entry.size = size;
        self
    }

    /// With the size that its content has.
    pub fn sized_as_is(self) -> Self {
        let len = self.entry.kind.has_content().then_some(self.content.len() as u64);
        self.sized(len)
    }

    fn content(&self, read: &Arc<AtomicU64>) -> Content {
        let bytes =
            Counted { rest: self.content.clone(), read: read.clone(), fails_after: None, notice: None };
        let content = match self.body {
            Body::Blocking => Content::blocking(move || Ok(bytes)),
            Body::Noticed => {
                Content::blocking(move || Ok(Counted { notice: Some("changed while read".into()), ..bytes }))
            }
            Body::FailsAfter(after) => {
                Content::blocking(move || Ok(Counted { fails_after: Some(after), ..bytes }))
            }
            Body::Async => Content::from_async(bytes),
            Body::AsyncFailsAfter(after) => {
                Content::from_async(Counted { fails_after: Some(after), ..bytes })
            }
            Body::Unopenable => {
                Content::blocking(|| Err::<Counted, _>(io::ErrorKind::PermissionDenied.into()))
            }
            Body::Random => Content::from_random(Arc::new(bytes)),
        };
        let changed = self.changed.clone().map(Into::into);
        Content { chunking: self.chunking, changed, ..content }
    }
}

struct Counted {
    rest: Bytes,
    read: Arc<AtomicU64>,
    fails_after: Option<usize>,
    notice: Option<String>,
}

impl Counted {
    fn take(&mut self, room: usize) -> io::Result<Bytes> {
        let mut count = room.min(self.rest.len());
        if let Some(left) = &mut self.fails_after {
            if *left == 0 {
                return Err(io::Error::other("the disk is broken here"));
            }
            count = count.min(*left);
            *left -= count;
        }
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(self.rest.split_to(count))
    }
}

impl BlockingContent for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.take(buffer.len())?;
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let end = usize::try_from(bytes).unwrap().min(self.rest.len());
        drop(self.rest.split_to(end));
        Ok(())
    }

    fn finish(&mut self) -> Option<String> {
        self.notice.take()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Odd pieces, so that nothing relies on round ones.
        let part = self.take(buffer.remaining().min(100_003))?;
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.rest.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let part = self.rest.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// What happened in the runs of a source.
#[derive(Debug, Default)]
pub struct Run {
    pub events: Mutex<Vec<String>>,
    pub opened: AtomicU64,
    pub read: Arc<AtomicU64>,
}

/// Yields entries from memory.
#[derive(Debug, Clone)]
pub struct TestSource {
    pub entries: Vec<TestEntry>,
    pub trailing: Vec<TestEntry>,
    pub skipped: Vec<Skipped>,
    pub position: Vec<(String, String)>,
    pub owners: OwnerNames,
    pub unsorted: bool,
    /// Entries given at once, at most.
    pub batch: usize,
    pub run: Arc<Run>,
}

impl TestSource {
    /// Sorts the entries first.
    pub fn new(mut entries: Vec<TestEntry>) -> Self {
        entries.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
        Self {
            entries,
            trailing: Vec::new(),
            skipped: Vec::new(),
            position: Vec::new(),
            owners: OwnerNames::default(),
            unsorted: false,
            batch: usize::MAX,
            run: Arc::default(),
        }
    }

    /// The same in the order of `seed`.
    pub fn shuffled(mut self, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        for at in (1..self.entries.len()).rev() {
            self.entries.swap(at, rng.below(at as u64 + 1) as usize);
        }
        self.unsorted = true;
        self
    }

    pub fn with_trailing(mut self, trailing: Vec<TestEntry>) -> Self {
        self.trailing = trailing;
        self
    }

    pub fn opened(&self) -> u64 {
        self.run.opened.load(Ordering::Relaxed)
    }

    pub fn bytes_read(&self) -> u64 {
        self.run.read.load(Ordering::Relaxed)
    }

    /// What a restore must give back.
    pub fn expected(&self) -> BTreeMap<EntryName, Collected> {
        let all = self.entries.iter().chain(&self.trailing);
        all.map(|test| {
            let mut entry = test.entry.clone();
            let has_content = entry.kind.has_content();
            entry.size = has_content.then_some(test.content.len() as u64);
            let content = if has_content { test.content.to_vec() } else { Vec::new() };
            (entry.name.clone(), Collected { entry, content, whole: true })
        })
        .collect()
    }
}

#[async_trait]
impl Source for TestSource {
    fn info(&self) -> SourceInfo {
        let info = SourceInfo::new("test", ["memory"]);
        if self.unsorted { info.unsorted() } else { info }
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(TestRun { source: self.clone(), next: 0 }))
    }
}

struct TestRun {
    source: TestSource,
    next: usize,
}

#[async_trait]
impl SourceRun for TestRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        // A real source waits for something here.
        tokio::task::yield_now().await;
        let end = (self.next + max.min(self.source.batch)).min(self.source.entries.len());
        let items = self.source.entries[self.next..end].iter().map(|test| test.entry.clone().into());
        let mut items: Vec<Item> = items.collect();
        self.next = end;
        if items.len() < max {
            items.extend(self.source.skipped.drain(..).map(Item::Skipped));
        }
        Ok(items)
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        self.source.run.opened.fetch_add(1, Ordering::Relaxed);
        let entries = &self.source.entries;
        // Some sources of these tests say that they sort and do not.
        let found = entries.binary_search_by(|test| test.entry.name.cmp(&entry.name)).ok();
        let at = found.or_else(|| entries.iter().position(|test| test.entry.name == entry.name));
        Ok(entries[at.unwrap()].content(&self.source.run.read))
    }

    async fn finish(&mut self) -> Result<Finished> {
        let read = &self.source.run.read;
        let trailing = self.source.trailing.iter().map(|test| (test.entry.clone(), test.content(read)));
        Ok(Finished {
            trailing: trailing.collect(),
            position: self.source.position.clone(),
            owners: self.source.owners.clone(),
            ..Finished::default()
        })
    }
}

/// Several thousand chunks at the least lengths, far more than the least memory for an index holds. Two files depend on
/// `changed`.
pub fn many_chunks(changed: u64) -> TestSource {
    let files = (0..30).map(|number| {
        let seed = if number == 7 { changed } else { number };
        TestEntry::file(&format!("f{number:02}"), random(seed, 20_000 + number as usize * 100)).stamped()
    });
    let long = TestEntry::file("long", text(changed, 300_000)).stamped();
    TestSource::new(files.chain([long]).collect())
}

/// A tree of `count` entries of every kind, with contents of up to `max` bytes.
pub fn tree(seed: u64, count: usize, max: usize) -> Vec<TestEntry> {
    let mut rng = Rng::new(seed);
    let mut entries = BTreeMap::new();
    let mut files: Vec<EntryName> = Vec::new();
    for number in 0..count {
        let depth = rng.below(4);
        let mut name = String::new();
        for _ in 0..depth {
            name.push_str(&format!("d{}/", rng.below(3)));
        }
        name.push_str(&format!("e{number}"));
        let posix = PosixMetadata {
            mode: rng.below(0o10000) as u32,
            uid: rng.next() as u32,
            gid: rng.next() as u32,
            modified: Timestamp::new(rng.next() as i64 >> 20, rng.below(1_000_000_000) as u32),
        };
        let kind = match rng.below(12) {
            0 => EntryKind::Directory,
            1 => EntryKind::Symlink { target: random(rng.next(), rng.below(40) as usize).into() },
            2 if !files.is_empty() => {
                EntryKind::HardLink { to: files[rng.below(files.len() as u64) as usize].clone() }
            }
            3 => EntryKind::Fifo,
            4 => EntryKind::CharDevice { device: (rng.next() as u32, 3) },
            _ => EntryKind::File,
        };
        let mut entry = Entry::new(&name, kind.clone()).unwrap();
        if rng.below(5) > 0 {
            entry = entry.with_posix(posix);
        }
        if rng.below(4) == 0 {
            let value = random(rng.next(), rng.below(300) as usize);
            entry.attributes.push(Attribute { name: (*b"xattr:user.x").into(), value: value.into() });
        }
        entry.sparse = rng.below(9) == 0;
        let mut test = TestEntry::other(entry);
        if kind == EntryKind::File {
            files.push(test.entry.name.clone());
            // Lengths around every limit that matters, and anything between.
            let len = match rng.below(8) {
                0 => 0,
                1 => 1,
                2 => 95 + rng.below(4) as usize,
                3 => rng.below(300) as usize,
                _ => rng.below(max as u64 + 1) as usize,
            };
            let content = match rng.below(4) {
                0 => random(rng.next(), len),
                1 => text(rng.next(), len),
                2 => text(7, len),
                _ => mixed(rng.next(), len),
            };
            test.content = content.into();
            test.body = [Body::Blocking, Body::Async, Body::Random][rng.below(3) as usize];
            test.chunking = match rng.below(3) {
                0 => Chunking::Fixed { bytes: 4096 },
                _ => Chunking::ContentDefined,
            };
            test.entry.size = match rng.below(5) {
                0 => None,
                // A wrong size is a hint that did not hold.
                1 => Some(rng.below(2 * max as u64)),
                _ => Some(test.content.len() as u64),
            };
            if rng.below(2) == 0 {
                test = test.stamped();
            }
        }
        entries.insert(test.entry.name.clone(), test);
    }
    entries.into_values().collect()
}
