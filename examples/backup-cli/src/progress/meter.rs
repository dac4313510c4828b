//! From counters to percent, rate and time left.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use backup_core::Progress;
use serde::Serialize;

use crate::human;

/// How fast the shown rate follows the real one.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Follows the counters of a job.
#[derive(Debug, Default)]
pub struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bytes_total: Option<u64>,
    entries_total: Option<u64>,
    last: Option<(Instant, u64)>,
    rate: Option<f64>,
}

/// What can be shown of a moment of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// How much is done, 0 to 100, where the total is known.
    pub percent: Option<f64>,
    /// Bytes dealt with.
    pub bytes_done: u64,
    /// Bytes in all, where known.
    pub bytes_total: Option<u64>,
    /// Entries dealt with.
    pub entries_done: u64,
    /// Entries in all, where known.
    pub entries_total: Option<u64>,
    /// Bytes sent to the repository.
    pub bytes_stored: u64,
    /// The recent rate.
    pub bytes_per_second: Option<f64>,
    /// Seconds left at that rate, where the total is known.
    pub eta_seconds: Option<f64>,
    /// What is being read, or else the entry dealt with last.
    pub current: Option<String>,
}

impl Meter {
    /// Sets totals that the job itself does not know.
    pub fn estimate(&self, entries: u64, bytes: u64) {
        let mut state = self.state();
        state.bytes_total = Some(bytes);
        state.entries_total = Some(entries);
    }

    /// Forgets everything, for the next job.
    pub fn reset(&self) {
        *self.state() = State::default();
    }

    /// Takes new counters.
    pub fn read(&self, progress: &Progress) -> Reading {
        self.read_at(progress, Instant::now())
    }

    fn read_at(&self, progress: &Progress, now: Instant) -> Reading {
        let mut state = self.state();
        state.follow(progress.bytes_done, now);
        // An estimate may turn out too low: what is done is never more than everything.
        let bytes_total =
            progress.bytes_total.or(state.bytes_total).map(|total| total.max(progress.bytes_done));
        let entries_total =
            progress.entries_total.or(state.entries_total).map(|total| total.max(progress.entries_done));
        let part = match (bytes_total, entries_total) {
            (Some(bytes), _) if bytes > 0 => Some(progress.bytes_done as f64 / bytes as f64),
            (_, Some(entries)) if entries > 0 => Some(progress.entries_done as f64 / entries as f64),
            _ => None,
        };
        let left = bytes_total.map(|total| total.saturating_sub(progress.bytes_done) as f64);
        Reading {
            percent: part.map(|part| (part * 1000.0).floor() / 10.0),
            bytes_done: progress.bytes_done,
            bytes_total,
            entries_done: progress.entries_done,
            entries_total,
            bytes_stored: progress.bytes_stored,
            bytes_per_second: state.rate,
            eta_seconds: left
                .zip(state.rate.filter(|rate| *rate > 1.0))
                .map(|(left, rate)| (left / rate).round()),
            current: progress.current.clone(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// An exponential average, so that one fast moment does not promise a fast end.
    fn follow(&mut self, done: u64, now: Instant) {
        let Some((then, before)) = self.last.filter(|(_, before)| *before <= done) else {
            self.last = Some((now, done));
            return;
        };
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds < 0.05 {
            return;
        }
        let rate = done.saturating_sub(before) as f64 / seconds;
        let weight = 1.0 - (-seconds / RATE_WINDOW.as_secs_f64()).exp();
        self.rate = Some(self.rate.map_or(rate, |old| old + (rate - old) * weight));
        self.last = Some((now, done));
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(percent) = self.percent {
            write!(f, "{percent:5.1}%  ")?;
        }
        write!(f, "{}", human::bytes(self.bytes_done))?;
        if let Some(total) = self.bytes_total {
            write!(f, " of {}", human::bytes(total))?;
        }
        write!(f, "  {}", human::count(self.entries_done, "entry", "entries"))?;
        if let Some(rate) = self.bytes_per_second {
            write!(f, "  {}/s", human::bytes(rate as u64))?;
        }
        if let Some(eta) = self.eta_seconds {
            write!(f, "  ETA {}", human::duration(Duration::from_secs(eta as u64)))?;
        }
        if let Some(current) = &self.current {
            write!(f, "  {}", human::name(current))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_percent_and_time_left_follow_the_counters() {
        let meter = Meter::default();
        let start = Instant::now();
        let progress = |bytes_done| Progress { bytes_done, bytes_total: Some(1000), ..Progress::default() };
        assert_eq!(meter.read_at(&progress(0), start).bytes_per_second, None);
        let reading = meter.read_at(&progress(250), start + Duration::from_secs(1));
        assert_eq!(reading.percent, Some(25.0));
        assert_eq!(reading.bytes_per_second, Some(250.0));
        assert_eq!(reading.eta_seconds, Some(3.0));
        // A new job starts over instead of going backwards.
        assert_eq!(meter.read_at(&progress(0), start + Duration::from_secs(2)).bytes_per_second, Some(250.0));
    }

    #[test]
    fn an_estimate_that_is_too_low_never_shows_more_than_everything() {
        let meter = Meter::default();
        meter.estimate(1, 10);
        let reading = meter.read(&Progress { bytes_done: 20, entries_done: 2, ..Progress::default() });
        assert_eq!(
            (reading.percent, reading.bytes_total, reading.entries_total),
            (Some(100.0), Some(20), Some(2))
        );
        meter.reset();
        assert_eq!(meter.read(&Progress::default()).percent, None);
    }
}
