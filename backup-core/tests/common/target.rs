//! Targets in memory: one that takes entries in any order, one that wants them one after the other.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use backup_core::{
    BlockingWriter, Entry, EntryKind, EntryName, JobContext, Result, Skipped, Target, WriteOrder, Writer,
};
use tokio::io::AsyncWrite;

/// An entry as restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    pub entry: Entry,
    pub content: Vec<u8>,
    /// Whether the writer was told that it has everything.
    pub whole: bool,
}

type Entries = Arc<Mutex<BTreeMap<EntryName, Collected>>>;

/// Collects entries in memory.
#[derive(Debug, Clone, Default)]
pub struct CollectingTarget {
    entries: Entries,
    pub log: Arc<Mutex<Vec<String>>>,
    pub gate: Arc<Gate>,
}

/// Counts writes, and holds them up from one on.
#[derive(Debug, Default)]
pub struct Gate {
    /// Writes so far, and the one that waits until the gate is opened.
    state: Mutex<(i64, Option<i64>)>,
    opened: Condvar,
}

impl Gate {
    /// The `nth` write and all after it wait.
    pub fn close_at(&self, nth: i64) {
        self.state.lock().unwrap().1 = Some(nth);
    }

    pub fn open(&self) {
        self.state.lock().unwrap().1 = None;
        self.opened.notify_all();
    }

    /// Writes that came, also those that wait.
    pub fn passed(&self) -> i64 {
        self.state.lock().unwrap().0
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        let own = state.0;
        while state.1.is_some_and(|nth| own >= nth) {
            state = self.opened.wait(state).unwrap();
        }
    }
}

impl CollectingTarget {
    pub fn take(&self) -> BTreeMap<EntryName, Collected> {
        std::mem::take(&mut *self.entries.lock().unwrap())
    }

    /// Fills the place of an earlier restore.
    pub fn put(&self, entries: BTreeMap<EntryName, Collected>) {
        *self.entries.lock().unwrap() = entries;
    }
}

#[async_trait]
impl Target for CollectingTarget {
    fn order(&self) -> WriteOrder {
        WriteOrder::Any
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        self.log.lock().unwrap().push("begin".into());
        Ok(())
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        assert!(!matches!(entry.kind, EntryKind::HardLink { .. }), "hard links come when all is written");
        let (entries, gate, entry) = (self.entries.clone(), self.gate.clone(), entry.clone());
        Ok(Writer::blocking(move || {
            let collected = Collected { entry: entry.clone(), content: Vec::new(), whole: false };
            let before = entries.lock().unwrap().insert(entry.name.clone(), collected);
            let existing = before.map(|before| before.content).unwrap_or_default();
            Ok(CollectingWriter { entries, gate, name: entry.name, existing })
        }))
    }

    async fn complete(&self, entries: Vec<Entry>) -> Result<Vec<Skipped>> {
        for entry in entries {
            self.log.lock().unwrap().push(format!("complete {}", entry.name));
            let mut held = self.entries.lock().unwrap();
            if matches!(entry.kind, EntryKind::HardLink { .. }) {
                let collected = Collected { entry: entry.clone(), content: Vec::new(), whole: true };
                assert!(held.insert(entry.name, collected).is_none());
            } else {
                assert!(held[&entry.name].whole);
            }
        }
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        self.log.lock().unwrap().push("finish".into());
        Ok(Vec::new())
    }
}

struct CollectingWriter {
    entries: Entries,
    gate: Arc<Gate>,
    name: EntryName,
    existing: Vec<u8>,
}

impl CollectingWriter {
    fn change(&self, change: impl FnOnce(&mut Collected)) {
        change(self.entries.lock().unwrap().get_mut(&self.name).unwrap());
    }
}

impl BlockingWriter for CollectingWriter {
    fn existing_len(&self) -> u64 {
        self.existing.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.existing[start..start + buffer.len()]);
        // What is left alone must be there.
        let bytes = buffer.to_vec();
        self.write_all_at(&bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate.pass();
        let start = offset as usize;
        self.change(|collected| {
            assert!(!collected.whole);
            let len = collected.content.len().max(start + bytes.len());
            collected.content.resize(len, 0);
            collected.content[start..start + bytes.len()].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn finish(self: Box<Self>, len: u64) -> io::Result<Vec<String>> {
        self.change(|collected| {
            assert_eq!(collected.content.len() as u64, len, "every byte was written");
            collected.whole = true;
        });
        Ok(Vec::new())
    }

    fn abort(self: Box<Self>) {
        self.entries.lock().unwrap().remove(&self.name);
    }
}

/// Takes one entry after the other.
#[derive(Debug, Clone, Default)]
pub struct SequentialTarget {
    pub entries: Arc<Mutex<Vec<Collected>>>,
}

#[async_trait]
impl Target for SequentialTarget {
    fn order(&self) -> WriteOrder {
        WriteOrder::Sequential
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        Ok(())
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        let mut entries = self.entries.lock().unwrap();
        assert!(entries.last().is_none_or(|last| last.whole), "one after the other");
        entries.push(Collected { entry: entry.clone(), content: Vec::new(), whole: false });
        Ok(Writer::Async(Box::pin(SequentialWriter(self.entries.clone()))))
    }

    async fn complete(&self, _: Vec<Entry>) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }
}

struct SequentialWriter(Arc<Mutex<Vec<Collected>>>);

impl AsyncWrite for SequentialWriter {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().last_mut().unwrap().content.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().last_mut().unwrap().whole = true;
        Poll::Ready(Ok(()))
    }
}
