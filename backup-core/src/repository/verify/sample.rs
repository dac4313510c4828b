//! Chooses a sample.

use super::{Slices, VerifyOptions};
use crate::{JobContext, Result};

/// Chooses a sample.
#[derive(Debug)]
pub(super) struct Dice {
    threshold: Option<u64>,
    slices: Option<Slices>,
    stream: blake3::OutputReader,
}

impl Dice {
    pub(super) fn new(options: &VerifyOptions, job: &JobContext) -> Result<Self> {
        let mut seed = [0; 32];
        job.random().fill(&mut seed)?;
        let threshold = options
            .sample_percent
            .filter(|percent| *percent < 100.0)
            .map(|p| (p / 100.0 * u64::MAX as f64) as u64);
        let slices = options.slices;
        Ok(Self { threshold, slices, stream: blake3::Hasher::new_keyed(&seed).finalize_xof() })
    }

    /// Whether the next one is chosen, an object of this name.
    pub(super) fn chooses(&mut self, digest: &[u8; 32]) -> bool {
        let [first, ..] = *digest;
        if self.slices.is_some_and(|slices| !slices.contains(first)) {
            return false;
        }
        let Some(threshold) = self.threshold else { return true };
        let mut bytes = [0; 8];
        self.stream.fill(&mut bytes);
        u64::from_le_bytes(bytes) < threshold
    }
}
