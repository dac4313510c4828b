//! Pauses before something is tried again.

use std::time::Duration;

use backup_core::{Random, SystemRandom};

/// A random part of `first` doubled `times` times: full jitter, so that those who failed together do not come back
/// together.
#[cfg(feature = "object-store")]
pub(crate) fn jitter(first: Duration, times: u32) -> Duration {
    let whole = first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX));
    random_part(whole)
}

/// A random part of `whole`.
pub(crate) fn random_part(whole: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness the pause is as long as it may be.
    let part = match SystemRandom.fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    };
    whole.mul_f64(part)
}
