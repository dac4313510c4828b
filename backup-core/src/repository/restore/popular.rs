//! Small chunks that many entries have, like licences: read once in a while, not once a window.
//!
//! Each small chunk that is planned is remembered for a while. An entry that needs it again, in a later window, is given what the
//! earlier one reads: no frame is fetched and opened for it. Later windows wait for earlier ones and never the other way
//! round, so somebody always goes on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex};

use crate::ChunkId;
use crate::format::chunks::ChunkRef;

/// Longer chunks are read again: they pay for it themselves.
const CHUNK_BYTES_MAX: u32 = 64 * 1024;
/// Plaintext of what is remembered at most.
const REMEMBERED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How many are remembered at most: forged ones can be a byte long.
const REMEMBERED_MAX: usize = 16 * 1024;

/// A chunk that one window reads for others, too.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Awaited,
    There(Arc<[u8]>),
    Damaged(String),
    /// Who was to read it did not: it was not needed there after all.
    Unread,
}

/// What came of a chunk that somebody else was to read.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its bytes, which were compared with its identity.
    Bytes(Arc<[u8]>),
    /// Why it could not be read there.
    Damaged(String),
    /// It was not read.
    Nothing,
}

impl Shared {
    /// Waits for what comes of it. Blocking; who is to read it stands before whoever waits.
    pub(crate) fn wait(&self) -> Found {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        loop {
            match &*state {
                State::Awaited => {}
                State::There(bytes) => return Found::Bytes(bytes.clone()),
                State::Damaged(reason) => return Found::Damaged(reason.clone()),
                State::Unread => return Found::Nothing,
            }
            state = self.settled.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn settle(&self, becomes: State) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if matches!(&*state, State::Awaited) {
            *state = becomes;
            self.settled.notify_all();
        }
    }
}

/// The duty to read a chunk for others. Whoever drops it without a word has not read it.
#[derive(Debug)]
pub(crate) struct Reading(Arc<Shared>);

impl Reading {
    /// These are its bytes. Nothing is copied if nobody asks any more.
    pub(crate) fn is(&self, bytes: &[u8]) {
        if Arc::strong_count(&self.0) > 1 {
            self.0.settle(State::There(bytes.into()));
        }
    }

    /// It cannot be read here.
    pub(crate) fn is_damaged(&self, reason: &str) {
        self.0.settle(State::Damaged(reason.to_owned()));
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.settle(State::Unread);
    }
}

/// Who reads a chunk.
#[derive(Debug)]
pub(crate) enum Reader {
    /// Whoever plans it now; others may rely upon it.
    Here(Option<Reading>),
    /// Somebody before.
    Before(Arc<Shared>),
}

/// The small chunks that were planned lately.
#[derive(Debug, Default)]
pub(crate) struct Popular {
    chunks: HashMap<ChunkId, Remembered>,
    /// By when they were asked for last.
    order: BTreeMap<u64, ChunkId>,
    clock: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Remembered {
    shared: Arc<Shared>,
    asked: u64,
    len: u32,
}

impl Popular {
    /// Who reads this chunk.
    pub(crate) fn reader(&mut self, chunk: &ChunkRef) -> Reader {
        if chunk.len > CHUNK_BYTES_MAX {
            return Reader::Here(None);
        }
        self.clock = self.clock.saturating_add(1);
        if let Some(known) = self.chunks.get_mut(&chunk.id) {
            self.order.remove(&known.asked);
            known.asked = self.clock;
            self.order.insert(self.clock, chunk.id);
            return Reader::Before(known.shared.clone());
        }
        let shared = Arc::new(Shared::default());
        self.order.insert(self.clock, chunk.id);
        self.bytes = self.bytes.saturating_add(chunk.len.into());
        self.chunks
            .insert(chunk.id, Remembered { shared: shared.clone(), asked: self.clock, len: chunk.len });
        while (self.bytes > REMEMBERED_BYTES_MAX || self.chunks.len() > REMEMBERED_MAX)
            && let Some((_, oldest)) = self.order.pop_first()
        {
            if let Some(gone) = self.chunks.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(gone.len.into());
            }
        }
        Reader::Here(Some(Reading(shared)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u32, len: u32) -> ChunkRef {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        ChunkRef { id: ChunkId(id), len }
    }

    fn reads(popular: &mut Popular, number: u32, len: u32) -> Reading {
        match popular.reader(&chunk(number, len)) {
            Reader::Here(Some(reading)) => reading,
            other => panic!("{other:?}"),
        }
    }

    fn before(popular: &mut Popular, number: u32, len: u32) -> Option<Arc<Shared>> {
        match popular.reader(&chunk(number, len)) {
            Reader::Before(shared) => Some(shared),
            Reader::Here(_) => None,
        }
    }

    #[test]
    fn the_first_reads_and_the_others_wait_for_what_comes_of_it() {
        let mut popular = Popular::default();
        let reading = reads(&mut popular, 1, 5);
        let shared = before(&mut popular, 1, 5).unwrap();
        let waiting =
            std::thread::spawn(move || matches!(shared.wait(), Found::Bytes(bytes) if *bytes == *b"bytes"));
        reading.is(b"bytes");
        assert!(waiting.join().unwrap());
        drop(reading);
        assert!(
            matches!(before(&mut popular, 1, 5).unwrap().wait(), Found::Bytes(_)),
            "what is settled stays"
        );

        reads(&mut popular, 2, 5).is_damaged("why");
        assert!(matches!(before(&mut popular, 2, 5).unwrap().wait(), Found::Damaged(why) if why == "why"));
        drop(reads(&mut popular, 3, 5));
        assert!(
            matches!(before(&mut popular, 3, 5).unwrap().wait(), Found::Nothing),
            "nobody waits for ever"
        );
        assert!(matches!(popular.reader(&chunk(4, CHUNK_BYTES_MAX + 1)), Reader::Here(None)));
    }

    #[test]
    fn what_is_asked_for_again_and_again_stays_within_the_bound() {
        let mut popular = Popular::default();
        drop(reads(&mut popular, 0, 1000));
        for number in 1..10_000 {
            drop(reads(&mut popular, number, 10_000));
            assert!(before(&mut popular, 0, 1000).is_some(), "the licence goes on");
            assert!(popular.bytes <= REMEMBERED_BYTES_MAX);
            assert_eq!(popular.chunks.len(), popular.order.len());
        }
        assert!(before(&mut popular, 1, 10_000).is_none(), "what nobody asked for is forgotten");
        for number in 0..100_000 {
            drop(popular.reader(&chunk(1_000_000 + number, 1)));
        }
        assert_eq!(popular.chunks.len(), REMEMBERED_MAX);
    }
}
