//! Transfer rates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A transfer rate, adjustable at any time, shared by clones.
#[derive(Debug, Clone, Default)]
pub struct RateLimit(Arc<RateState>);

#[derive(Debug, Default)]
struct RateState {
    // 0: no limit.
    bytes_per_second: AtomicU64,
    // When the line is free again.
    free_at: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// Sets the limit; none lifts it.
    pub fn set_bytes_per_second(&self, limit: Option<u64>) {
        self.0.bytes_per_second.store(limit.unwrap_or(0), Ordering::Relaxed);
    }

    /// The limit.
    pub fn bytes_per_second(&self) -> Option<u64> {
        Some(self.0.bytes_per_second.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// Waits until `bytes` more may be transferred. Dropping the future gives the place in line away unused.
    pub async fn acquire(&self, bytes: u64) {
        if let Some(start) = self.take_place(bytes) {
            tokio::time::sleep_until(start.into()).await;
        }
    }

    /// Takes a place in line for `bytes`, and says how long it is until its turn: for threads, which wait by themselves. Those
    /// that ask for little at once notice soon when the limit is changed.
    pub fn reserve(&self, bytes: u64) -> Duration {
        self.take_place(bytes).map_or(Duration::ZERO, |start| start.saturating_duration_since(Instant::now()))
    }

    fn take_place(&self, bytes: u64) -> Option<Instant> {
        let limit = self.bytes_per_second()?;
        let mut free_at = self.0.free_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        let start = free_at.filter(|at| *at > now).unwrap_or(now);
        let seconds = bytes as f64 / limit as f64;
        let cost = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(86_400));
        *free_at = start.checked_add(cost);
        Some(start)
    }
}
