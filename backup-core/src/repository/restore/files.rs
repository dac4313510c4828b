//! One entry while it is being restored, possibly by several workers at once.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::totals::Totals;
use crate::target::BlockingWriter;
use crate::{EntryName, JobContext, Skipped};

/// Opens a writer on a worker thread.
pub(crate) type OpenWriter = Box<dyn FnOnce() -> io::Result<Box<dyn BlockingWriter>> + Send>;

/// An entry being written. Opened by whoever writes first, finished by whoever writes last.
pub(crate) struct RestoringEntry {
    name: EntryName,
    len: u64,
    state: Mutex<State>,
    failed: AtomicBool,
}

struct State {
    /// Pieces not written yet, and one more until the planner has named them all.
    left: u64,
    phase: Phase,
    /// Whether any byte had to be written.
    written: bool,
}

enum Phase {
    Unopened(Option<OpenWriter>),
    Open(Box<dyn BlockingWriter>),
    /// What stands there is as it should be.
    Current(Box<dyn BlockingWriter>),
    Failed,
}

impl RestoringEntry {
    pub(crate) fn new(name: EntryName, len: u64, open: OpenWriter) -> Self {
        let state = State { left: 1, phase: Phase::Unopened(Some(open)), written: false };
        Self { name, len, state: Mutex::new(state), failed: AtomicBool::new(false) }
    }

    /// Whether it was given up: what is left of it need not even be planned.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Announces a piece that will be written or given up.
    pub(crate) fn expect_piece(&self) {
        let mut state = self.lock();
        state.left = state.left.saturating_add(1);
    }

    /// Whether the content needs no reading. Opens the entry.
    pub(crate) fn is_current(&self, totals: &Totals, job: &JobContext) -> bool {
        let mut state = self.lock();
        self.open(&mut state, totals, job);
        !matches!(state.phase, Phase::Open(_))
    }

    /// Writes a piece unless it stands there already; `same` says whether bytes are the piece's.
    pub(crate) fn write(
        &self,
        bytes: &[u8],
        offset: u64,
        compare: &mut Vec<u8>,
        totals: &Totals,
        job: &JobContext,
    ) {
        let mut state = self.lock();
        self.open(&mut state, totals, job);
        if let Phase::Open(writer) = &mut state.phase {
            let end = offset.saturating_add(bytes.len() as u64);
            if end <= writer.existing_len() {
                compare.resize(bytes.len(), 0);
                if writer.read_exact_at(compare, offset).is_ok() && compare == bytes {
                    totals.bytes_unchanged(bytes.len() as u64);
                    self.piece_done(state, totals, job);
                    return;
                }
            }
            match writer.write_all_at(bytes, offset) {
                Ok(()) => {
                    state.written = true;
                    totals.bytes_written(bytes.len() as u64);
                }
                Err(error) => self.give_up(&mut state, &error.to_string(), totals, job),
            }
        }
        self.piece_done(state, totals, job);
    }

    /// Writes pieces of these lengths, which follow each other and whose bytes are `bytes`: at once where nothing stands yet.
    pub(crate) fn write_joined(
        &self,
        bytes: &[u8],
        offset: u64,
        lens: &[usize],
        compare: &mut Vec<u8>,
        totals: &Totals,
        job: &JobContext,
    ) {
        let mut state = self.lock();
        self.open(&mut state, totals, job);
        if let Phase::Open(writer) = &mut state.phase
            && offset >= writer.existing_len()
        {
            match writer.write_all_at(bytes, offset) {
                Ok(()) => {
                    state.written = true;
                    totals.bytes_written(bytes.len() as u64);
                }
                Err(error) => self.give_up(&mut state, &error.to_string(), totals, job),
            }
            state.left = state.left.saturating_sub((lens.len() as u64).saturating_sub(1));
            return self.piece_done(state, totals, job);
        }
        drop(state);
        let (mut rest, mut at) = (bytes, offset);
        for len in lens {
            let (piece, behind) = rest.split_at(rest.len().min(*len));
            self.write(piece, at, compare, totals, job);
            at = at.saturating_add(piece.len() as u64);
            rest = behind;
        }
    }

    /// Reads what stands where a piece is to be written; whether there is as much.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> bool {
        let mut state = self.lock();
        let Phase::Open(writer) = &mut state.phase else { return false };
        let end = offset.saturating_add(buffer.len() as u64);
        end <= writer.existing_len() && writer.read_exact_at(buffer, offset).is_ok()
    }

    /// A piece of `len` bytes was found where it is to stand.
    pub(crate) fn stands(&self, len: u64, totals: &Totals, job: &JobContext) {
        totals.bytes_unchanged(len);
        self.piece_done(self.lock(), totals, job);
    }

    /// Gives the entry up: a piece of it cannot be had.
    pub(crate) fn fail_piece(&self, reason: &str, totals: &Totals, job: &JobContext) {
        let mut state = self.lock();
        self.give_up(&mut state, reason, totals, job);
        self.piece_done(state, totals, job);
    }

    /// Called once all pieces were announced, where some are under way for sure: whoever writes the last one finishes the
    /// entry, which so is open no longer than need be. False if [`all_announced`](Self::all_announced) must be called.
    pub(crate) fn leave_to_pieces(&self) -> bool {
        // Whoever holds the lock may be writing, and a planner does not wait for that.
        let Ok(mut state) = self.state.try_lock() else { return false };
        let under_way = state.left > 1;
        if under_way {
            state.left = state.left.saturating_sub(1);
        }
        under_way
    }

    /// Called once all pieces were announced; an entry without any is finished here.
    pub(crate) fn all_announced(&self, totals: &Totals, job: &JobContext) {
        let mut state = self.lock();
        // An entry without content opens here, or not at all before its first piece.
        if state.left == 1 {
            self.open(&mut state, totals, job);
        }
        self.piece_done(state, totals, job);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn open(&self, state: &mut State, totals: &Totals, job: &JobContext) {
        if let Phase::Unopened(open) = &mut state.phase
            && let Some(open) = open.take()
        {
            match open() {
                Ok(writer) if writer.is_current() => state.phase = Phase::Current(writer),
                Ok(writer) => {
                    // A longer or shorter former self changes even where every piece is equal.
                    state.written = writer.existing_len() != self.len || self.len == 0;
                    state.phase = Phase::Open(writer);
                }
                Err(error) => self.give_up(state, &error.to_string(), totals, job),
            }
        }
    }

    fn give_up(&self, state: &mut State, reason: &str, totals: &Totals, job: &JobContext) {
        self.failed.store(true, Ordering::Relaxed);
        match std::mem::replace(&mut state.phase, Phase::Failed) {
            Phase::Failed => return,
            Phase::Open(writer) => writer.abort(),
            // Nothing was touched.
            Phase::Current(_) | Phase::Unopened(_) => {}
        }
        totals.fail(Skipped::new(&self.name, reason), job);
    }

    fn piece_done(&self, mut state: std::sync::MutexGuard<'_, State>, totals: &Totals, job: &JobContext) {
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return;
        }
        let written = state.written;
        let (writer, current) = match std::mem::replace(&mut state.phase, Phase::Failed) {
            Phase::Open(writer) => (writer, false),
            Phase::Current(writer) => (writer, true),
            Phase::Failed | Phase::Unopened(_) => return,
        };
        drop(state);
        match writer.finish(self.len) {
            Ok(problems) => {
                for problem in problems {
                    totals.fail(Skipped::new(&self.name, problem), job);
                }
                if current {
                    totals.entry_unchanged(self.len);
                } else if written {
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
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Phase::Open(writer) = std::mem::replace(&mut state.phase, Phase::Failed) {
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

        fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let at = offset as usize;
            buffer.copy_from_slice(&self.0.lock().unwrap().bytes[at..at + buffer.len()]);
            Ok(())
        }

        fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
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
        assert!(matches!(entry.lock().phase, Phase::Open(_)), "nobody has said that these are all");
        entry.all_announced(&totals, &job);
        assert!(!matches!(entry.lock().phase, Phase::Open(_)), "all pieces are there");
        let written = std::mem::take(&mut *written.lock().unwrap());
        (written.bytes, written.writes)
    }

    #[test]
    fn pieces_that_follow_each_other_are_one_write_and_what_stands_there_already_is_none() {
        assert_eq!(joined(b""), (b"aaabbbccc".to_vec(), vec![(0, 9)]));
        assert_eq!(joined(b"aaaxxxccc"), (b"aaabbbccc".to_vec(), vec![(3, 3)]));
    }
}
