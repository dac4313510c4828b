//! Marks by which a sink knows its own objects again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use backup_core::{ObjectKey, Random, Result, SystemRandom};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Puts of unknown outcome that are remembered; the oldest is forgotten beyond that.
const ABANDONED_MAX: usize = 1024;

/// Puts that ended without anyone knowing whether they made their object.
#[derive(Debug, Default)]
pub(super) struct Abandoned(VecDeque<(ObjectKey, [u8; 32], String)>);

/// The marks under which one put's requests may have made the object. Unless it is settled, dropping it remembers them
/// for the next put of the same bytes, which then continues this one.
#[derive(Debug)]
pub(super) struct Marks<'a> {
    abandoned: &'a Mutex<Abandoned>,
    key: &'a ObjectKey,
    bytes: Bytes,
    marks: Vec<String>,
    sent: bool,
}

impl<'a> Marks<'a> {
    /// A new mark, with those of earlier puts of the same object that nobody else continues.
    pub(super) fn begin(abandoned: &'a Mutex<Abandoned>, key: &'a ObjectKey, bytes: &Bytes) -> Result<Self> {
        let mut marks = take(abandoned, key, bytes);
        let sent = !marks.is_empty();
        if !sent {
            let mut random = [0; 16];
            SystemRandom.fill(&mut random)?;
            marks.push(hex::encode(random));
        }
        Ok(Self { abandoned, key, bytes: bytes.clone(), marks, sent })
    }

    /// The mark to send. From now on its outcome is unknown.
    pub(super) fn send(&mut self) -> String {
        self.sent = true;
        self.marks.first().cloned().unwrap_or_default()
    }

    /// Whether an object with this mark was made by this put.
    pub(super) fn owns(&self, mark: &str) -> bool {
        self.marks.iter().any(|own| own == mark)
    }

    /// The outcome is known.
    pub(super) fn settle(&mut self) {
        self.sent = false;
    }
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        if !self.sent {
            return;
        }
        let digest = digest(&self.bytes);
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        for mark in self.marks.drain(..) {
            abandoned.0.push_back((self.key.clone(), digest, mark));
        }
        let excess = abandoned.0.len().saturating_sub(ABANDONED_MAX);
        abandoned.0.drain(..excess);
    }
}

fn take(abandoned: &Mutex<Abandoned>, key: &ObjectKey, bytes: &Bytes) -> Vec<String> {
    let lock = || abandoned.lock().unwrap_or_else(PoisonError::into_inner);
    if !lock().0.iter().any(|(of, _, _)| of == key) {
        return Vec::new();
    }
    // Hashed without holding the lock, and only where it matters.
    let digest = digest(bytes);
    let mut marks = Vec::new();
    lock().0.retain(|(of, of_bytes, mark)| {
        let same = of == key && *of_bytes == digest;
        if same {
            marks.push(mark.clone());
        }
        !same
    });
    marks
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
