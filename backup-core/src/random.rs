//! Where salts and identifiers come from.

use std::fmt;
use std::sync::Mutex;

use crate::{Error, ErrorKind, Result};

/// A source of unpredictable bytes. The engine's middle layers have no ambient randomness: they are given this.
pub trait Random: fmt::Debug + Send + Sync + 'static {
    /// Fills `bytes`, or fails; it never returns predictable bytes as if they were random.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes)
            .map_err(|e| Error::new(ErrorKind::Io, format!("the system's random generator failed: {e}")))
    }
}

/// A reproducible stream for tests: same seed, same bytes. Never for real data: salts must not repeat.
#[derive(Debug)]
pub struct SeededRandom(Mutex<blake3::OutputReader>);

impl SeededRandom {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("backup-core 2026 seeded randomness for tests");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new(hasher.finalize_xof()))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).fill(bytes);
        Ok(())
    }
}
