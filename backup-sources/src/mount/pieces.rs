//! Pieces of contents read lately, each read once however many ask for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use backup_core::Error;
use backup_core::repository::{Piece, PieceReader};
use bytes::Bytes;
use tokio::sync::OnceCell;

/// Pieces held, however short they are.
const PIECES_MAX: usize = 8192;

/// Which piece: the inode and where it begins.
type Key = (u64, u64);
type Slot = Arc<OnceCell<Result<Bytes, Arc<Error>>>>;

/// The pieces used last, up to a number of bytes.
#[derive(Debug)]
pub(super) struct Pieces {
    held: Mutex<Held>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Held {
    pieces: HashMap<Key, HeldPiece>,
    /// When each was used last.
    order: BTreeMap<u64, Key>,
    now: u64,
    bytes: usize,
}

#[derive(Debug)]
struct HeldPiece {
    slot: Slot,
    len: usize,
    used: u64,
}

impl Pieces {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held: Mutex::default(), bytes_max }
    }

    /// Bytes that may be held.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The bytes of a piece, read where they are not at hand. A failure is not kept.
    pub(super) async fn read(
        &self,
        inode: u64,
        content: &PieceReader,
        piece: &Piece,
    ) -> Result<Bytes, Arc<Error>> {
        let key = (inode, piece.offset);
        let slot = self.slot(key, usize::try_from(piece.len).unwrap_or(usize::MAX));
        let read = slot.get_or_init(|| async { content.read(piece).await.map_err(Arc::new) }).await.clone();
        if read.is_err() {
            let mut held = self.lock();
            if held.pieces.get(&key).is_some_and(|piece| Arc::ptr_eq(&piece.slot, &slot)) {
                held.remove(key);
            }
        }
        read
    }

    /// Whether a piece is at hand or being read.
    pub(super) fn has(&self, inode: u64, piece: &Piece) -> bool {
        self.lock().pieces.contains_key(&(inode, piece.offset))
    }

    fn slot(&self, key: Key, len: usize) -> Slot {
        let mut held = self.lock();
        let now = held.now.saturating_add(1);
        held.now = now;
        if let Some(piece) = held.pieces.get_mut(&key) {
            let slot = piece.slot.clone();
            let before = std::mem::replace(&mut piece.used, now);
            held.order.remove(&before);
            held.order.insert(now, key);
            return slot;
        }
        let slot = Slot::default();
        held.pieces.insert(key, HeldPiece { slot: slot.clone(), len, used: now });
        held.order.insert(now, key);
        held.bytes = held.bytes.saturating_add(len);
        while held.pieces.len() > 1 && (held.bytes > self.bytes_max || held.pieces.len() > PIECES_MAX) {
            let Some((_, oldest)) = held.order.first_key_value() else { break };
            let oldest = *oldest;
            held.remove(oldest);
        }
        slot
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Held {
    fn remove(&mut self, key: Key) {
        if let Some(piece) = self.pieces.remove(&key) {
            self.order.remove(&piece.used);
            self.bytes = self.bytes.saturating_sub(piece.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_used_last_are_held_up_to_the_bytes() {
        let pieces = Pieces::new(100);
        let held = |offset| pieces.lock().pieces.contains_key(&(1, offset));
        (0..4).for_each(|offset| drop(pieces.slot((1, offset), 25)));
        let first = pieces.slot((1, 0), 25);
        let more = pieces.slot((1, 4), 10);
        assert_eq!((0..5).map(held).collect::<Vec<_>>(), [true, false, true, true, true]);
        assert!(Arc::ptr_eq(&first, &pieces.slot((1, 0), 25)) && !Arc::ptr_eq(&first, &more));
        drop(pieces.slot((1, 9), 1000));
        assert!(held(9) && (0..5).all(|offset| !held(offset)), "one is always held");
        drop(pieces.slot((2, 0), 1));
        let state = pieces.lock();
        assert_eq!((state.bytes, state.order.len()), (1, 1));
    }
}
