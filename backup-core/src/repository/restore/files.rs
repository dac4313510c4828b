//! One entry while it is being restored, possibly by several workers at once: they write its pieces side by side.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::totals::Totals;
use crate::target::BlockingWriter;
use crate::{EntryName, JobContext, Skipped};

/// Opens a writer on a worker thread.
pub(crate) type OpenWriter = Box<dyn FnOnce() -> io::Result<Box<dyn BlockingWriter>> + Send>;

/// An entry being written. Opened by whoever writes first, finished by whoever writes last.
pub(crate) struct RestoringEntry {
    name: EntryName,
    len: u64,
    /// Pieces not written yet, and one more until the planner has named them all.
    left: AtomicU64,
    /// Whether any byte had to be written.
    written: AtomicBool,
    failed: AtomicBool,
    /// Shared by all who read and write; whoever opens, gives up or finishes the entry has it alone.
    phase: RwLock<Phase>,
}

enum Phase {
    /// In a lock only because threads share what it stands in.
    Unopened(Mutex<OpenWriter>),
    Open(Box<dyn BlockingWriter>),
    /// What stands there is as it should be.
    Current(Box<dyn BlockingWriter>),
    Failed,
}

impl RestoringEntry {
    pub(crate) fn new(name: EntryName, len: u64, open: OpenWriter) -> Self {
        Self {
            name,
            len,
            left: AtomicU64::new(1),
            written: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            phase: RwLock::new(Phase::Unopened(Mutex::new(open))),
        }
    }

    /// Whether it was given up: what is left of it need not even be planned.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Announces a piece that will be written or given up.
    pub(crate) fn expect_piece(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the content needs no reading. Opens the entry.
    pub(crate) fn is_current(&self, totals: &Totals, job: &JobContext) -> bool {
        !matches!(*self.opened(totals, job), Phase::Open(_))
    }

    /// Writes a piece unless it stands there already.
    pub(crate) fn write(
        &self,
        bytes: &[u8],
        offset: u64,
        compare: &mut Vec<u8>,
        totals: &Totals,
        job: &JobContext,
    ) {
        self.write_joined(bytes, offset, &[bytes.len()], compare, totals, job);
    }

    /// Writes pieces of these lengths, which follow each other and whose bytes are `bytes`: at once where nothing stands yet,
    /// and otherwise each unless it stands there already.
    pub(crate) fn write_joined(
        &self,
        bytes: &[u8],
        offset: u64,
        lens: &[usize],
        compare: &mut Vec<u8>,
        totals: &Totals,
        job: &JobContext,
    ) {
        let phase = self.opened(totals, job);
        let done = match &*phase {
            Phase::Open(writer) if offset >= writer.existing_len() => {
                self.put(&**writer, bytes, offset, totals)
            }
            Phase::Open(writer) => {
                let (mut rest, mut at) = (bytes, offset);
                lens.iter().try_for_each(|len| {
                    let (piece, behind) = rest.split_at(rest.len().min(*len));
                    self.put_if_differs(&**writer, piece, at, compare, totals)?;
                    at = at.saturating_add(piece.len() as u64);
                    rest = behind;
                    Ok(())
                })
            }
            _ => Ok(()),
        };
        drop(phase);
        if let Err(error) = done {
            self.give_up(&error.to_string(), totals, job);
        }
        self.pieces_done(lens.len() as u64, totals, job);
    }

    fn put_if_differs(
        &self,
        writer: &dyn BlockingWriter,
        bytes: &[u8],
        offset: u64,
        compare: &mut Vec<u8>,
        totals: &Totals,
    ) -> io::Result<()> {
        if offset.saturating_add(bytes.len() as u64) <= writer.existing_len() {
            compare.resize(bytes.len(), 0);
            if writer.read_exact_at(compare, offset).is_ok() && compare == bytes {
                totals.bytes_unchanged(bytes.len() as u64);
                return Ok(());
            }
        }
        self.put(writer, bytes, offset, totals)
    }

    fn put(&self, writer: &dyn BlockingWriter, bytes: &[u8], offset: u64, totals: &Totals) -> io::Result<()> {
        writer.write_all_at(bytes, offset)?;
        self.written.store(true, Ordering::Relaxed);
        totals.bytes_written(bytes.len() as u64);
        Ok(())
    }

    /// Reads what stands where a piece is to be written; whether there is as much.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> bool {
        let phase = self.shared();
        let Phase::Open(writer) = &*phase else { return false };
        let end = offset.saturating_add(buffer.len() as u64);
        end <= writer.existing_len() && writer.read_exact_at(buffer, offset).is_ok()
    }

    /// A piece of `len` bytes was found where it is to stand.
    pub(crate) fn stands(&self, len: u64, totals: &Totals, job: &JobContext) {
        totals.bytes_unchanged(len);
        self.pieces_done(1, totals, job);
    }

    /// Gives the entry up: a piece of it cannot be had.
    pub(crate) fn fail_piece(&self, reason: &str, totals: &Totals, job: &JobContext) {
        self.give_up(reason, totals, job);
        self.pieces_done(1, totals, job);
    }

    /// Called once all pieces were announced, where some are under way for sure: whoever writes the last one finishes the
    /// entry, which so is open no longer than need be. False if [`all_announced`](Self::all_announced) must be called.
    pub(crate) fn leave_to_pieces(&self) -> bool {
        let leave = |left: u64| left.checked_sub(1).filter(|left| *left > 0);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, leave).is_ok()
    }

    /// Called once all pieces were announced; an entry without any is finished here.
    pub(crate) fn all_announced(&self, totals: &Totals, job: &JobContext) {
        // An entry without content opens here, or not at all before its first piece.
        if self.left.load(Ordering::Acquire) == 1 {
            drop(self.opened(totals, job));
        }
        self.pieces_done(1, totals, job);
    }

    fn shared(&self) -> RwLockReadGuard<'_, Phase> {
        self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody reads or writes.
    fn alone(&self) -> RwLockWriteGuard<'_, Phase> {
        self.phase.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry once it was opened, whatever came of it.
    fn opened(&self, totals: &Totals, job: &JobContext) -> RwLockReadGuard<'_, Phase> {
        let phase = self.shared();
        if !matches!(*phase, Phase::Unopened(_)) {
            return phase;
        }
        drop(phase);
        self.open(totals, job);
        self.shared()
    }

    fn open(&self, totals: &Totals, job: &JobContext) {
        let mut phase = self.alone();
        // Another may have been faster.
        if !matches!(*phase, Phase::Unopened(_)) {
            return;
        }
        let Phase::Unopened(open) = std::mem::replace(&mut *phase, Phase::Failed) else { return };
        let open = open.into_inner().unwrap_or_else(PoisonError::into_inner);
        match open() {
            Ok(writer) if writer.is_current() => *phase = Phase::Current(writer),
            Ok(writer) => {
                // A longer or shorter former self changes even where every piece is equal.
                let changes = writer.existing_len() != self.len || self.len == 0;
                self.written.store(changes, Ordering::Relaxed);
                *phase = Phase::Open(writer);
            }
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                drop(phase);
                totals.fail(Skipped::new(&self.name, error), job);
            }
        }
    }

    fn give_up(&self, reason: &str, totals: &Totals, job: &JobContext) {
        self.failed.store(true, Ordering::Relaxed);
        let phase = std::mem::replace(&mut *self.alone(), Phase::Failed);
        match phase {
            Phase::Failed => return,
            Phase::Open(writer) => writer.abort(),
            // Nothing was touched.
            Phase::Current(_) | Phase::Unopened(_) => {}
        }
        totals.fail(Skipped::new(&self.name, reason), job);
    }

    /// So many pieces are written, stand there or are given up; after the last one the entry is finished.
    fn pieces_done(&self, pieces: u64, totals: &Totals, job: &JobContext) {
        // Whoever is last sees what all others did.
        if self.left.fetch_sub(pieces, Ordering::AcqRel) > pieces {
            return;
        }
        let phase = std::mem::replace(&mut *self.alone(), Phase::Failed);
        let (writer, current) = match phase {
            Phase::Open(writer) => (writer, false),
            Phase::Current(writer) => (writer, true),
            Phase::Failed | Phase::Unopened(_) => return,
        };
        match writer.finish(self.len) {
            Ok(problems) => {
                for problem in problems {
                    totals.fail(Skipped::new(&self.name, problem), job);
                }
                if current {
                    totals.entry_unchanged(self.len);
                } else if self.written.load(Ordering::Relaxed) {
                    totals.entry_written(&self.name);
                } else {
                    totals.entry_unchanged(0);
                }
            }
            Err(error) => totals.fail(Skipped::new(&self.name, error), job),
        }
    }
}

impl Drop for RestoringEntry {
    fn drop(&mut self) {
        // The job was stopped: what is incomplete must not pass for whole.
        let phase = self.phase.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Open(writer) = std::mem::replace(phase, Phase::Failed) {
            writer.suspend();
        }
    }
}

impl std::fmt::Debug for RestoringEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoringEntry")
            .field("name", &self.name)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What stands in a file, and where it was written to.
    #[derive(Default)]
    struct Written {
        bytes: Vec<u8>,
        writes: Vec<(u64, usize)>,
    }

    struct Noting(Arc<Mutex<Written>>, u64);

    impl BlockingWriter for Noting {
        fn existing_len(&self) -> u64 {
            self.1
        }

        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let at = offset as usize;
            buffer.copy_from_slice(&self.0.lock().unwrap().bytes[at..at + buffer.len()]);
            Ok(())
        }

        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let mut written = self.0.lock().unwrap();
            let at = offset as usize;
            let end = written.bytes.len().max(at + bytes.len());
            written.bytes.resize(end, 0);
            written.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            written.writes.push((offset, bytes.len()));
            Ok(())
        }

        fn finish(self: Box<Self>, len: u64) -> io::Result<Vec<String>> {
            assert_eq!(self.0.lock().unwrap().bytes.len() as u64, len);
            Ok(vec!["it was finished".into()])
        }

        fn abort(self: Box<Self>) {}
    }

    /// Writes three pieces at once over what stands there; the content, and the writes that it took.
    fn joined(there: &[u8]) -> (Vec<u8>, Vec<(u64, usize)>) {
        let written = Arc::new(Mutex::new(Written { bytes: there.to_vec(), writes: Vec::new() }));
        let noting = Noting(written.clone(), there.len() as u64);
        let open: OpenWriter = Box::new(move || Ok(Box::new(noting)));
        let entry = RestoringEntry::new(EntryName::new("f").unwrap(), 9, open);
        let (totals, job) = (Totals::default(), JobContext::new());
        (0..3).for_each(|_| entry.expect_piece());
        entry.write_joined(b"aaabbbccc", 0, &[3, 3, 3], &mut Vec::new(), &totals, &job);
        assert!(matches!(*entry.shared(), Phase::Open(_)), "nobody has said that these are all");
        entry.all_announced(&totals, &job);
        assert!(!matches!(*entry.shared(), Phase::Open(_)), "all pieces are there");
        let written = std::mem::take(&mut *written.lock().unwrap());
        (written.bytes, written.writes)
    }

    #[test]
    fn pieces_that_follow_each_other_are_one_write_and_what_stands_there_already_is_none() {
        assert_eq!(joined(b""), (b"aaabbbccc".to_vec(), vec![(0, 9)]));
        assert_eq!(joined(b"aaaxxxccc"), (b"aaabbbccc".to_vec(), vec![(3, 3)]));
    }
}
