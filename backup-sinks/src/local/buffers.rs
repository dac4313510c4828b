//! Memory for large reads, used again and again.
//!
//! What is read on one thread is freed on another, which allocators answer by keeping much more than is in use; and fresh
//! memory costs the system as much as copying into it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

/// Smaller reads are left to the allocator.
const POOLED_BYTES_MIN: usize = 128 * 1024;
/// Capacity kept at most while nobody uses it.
const KEPT_BYTES_MAX: usize = 40 * 1024 * 1024;
/// Capacities are multiples of this, so that reads of about one length use one buffer.
const STEP_BYTES: usize = 1024 * 1024;

/// Buffers that nobody uses now.
#[derive(Debug, Default, Clone)]
pub(super) struct ReadBuffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl ReadBuffers {
    /// An empty buffer with room for `count` bytes.
    pub(super) fn take(&self, count: usize) -> Vec<u8> {
        if count < POOLED_BYTES_MIN {
            return Vec::with_capacity(count);
        }
        let mut kept = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let fitting = kept.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= count);
        match fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(at, _)| at) {
            Some(at) => kept.swap_remove(at),
            None => Vec::with_capacity(count.next_multiple_of(STEP_BYTES)),
        }
    }

    /// The bytes, whose memory comes back when the last clone of them is dropped.
    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.len() < POOLED_BYTES_MIN {
            return buffer.into();
        }
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.push(buffer);
        // What was not used for longest goes first.
        let mut bytes: usize = kept.iter().map(Vec::capacity).sum();
        while bytes > KEPT_BYTES_MAX && !kept.is_empty() {
            bytes = bytes.saturating_sub(kept.remove(0).capacity());
        }
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: ReadBuffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &ReadBuffers, count: usize, byte: u8) -> Bytes {
        let mut buffer = buffers.take(count);
        buffer.resize(count, byte);
        buffers.lend(buffer)
    }

    #[test]
    fn memory_is_used_again_only_after_the_last_clone_is_gone() {
        let buffers = ReadBuffers::default();
        let first = filled(&buffers, 300_000, 1);
        let place = first.as_ptr();
        let clone = first.slice(100..200);
        drop(first);
        let second = filled(&buffers, 300_000, 2);
        assert_ne!(second.as_ptr(), place);
        assert!(clone.iter().all(|byte| *byte == 1));
        drop(clone);
        assert_eq!(filled(&buffers, 400_000, 3).as_ptr(), place);
    }

    #[test]
    fn no_more_is_kept_than_is_stated() {
        let buffers = ReadBuffers::default();
        let many: Vec<_> = (0..10).map(|_| filled(&buffers, 17 << 20, 1)).collect();
        drop(many);
        let kept: usize = buffers.0.lock().unwrap().iter().map(Vec::capacity).sum();
        assert!((17 << 20..=KEPT_BYTES_MAX).contains(&kept), "{kept}");
    }
}
