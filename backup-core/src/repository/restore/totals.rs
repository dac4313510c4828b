//! What a restore has done so far.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::observer::Event;
use crate::report::{RestoreReport, SkippedItems};
use crate::{JobContext, Progress, Skipped};

/// Shared by the planner and the workers.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    entries_total: AtomicU64,
    bytes_total: AtomicU64,
    entries_written: AtomicU64,
    entries_unchanged: AtomicU64,
    bytes_written: AtomicU64,
    bytes_unchanged: AtomicU64,
    hard_links: AtomicU64,
    failed: Mutex<SkippedItems>,
    current: Mutex<Option<String>>,
}

impl Totals {
    pub(crate) fn expect(&self, entries: u64, bytes: u64) {
        self.entries_total.store(entries, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn entry_written(&self, name: &crate::EntryName) {
        let done = self.entries_written.fetch_add(1, Ordering::Relaxed);
        if done.is_multiple_of(256) {
            *self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(name.to_string());
        }
    }

    pub(crate) fn entry_unchanged(&self, bytes: u64) {
        self.entries_unchanged.fetch_add(1, Ordering::Relaxed);
        self.bytes_unchanged.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_written(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_unchanged(&self, bytes: u64) {
        self.bytes_unchanged.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn hard_link(&self) {
        self.hard_links.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hard_links(&self) -> u64 {
        self.hard_links.load(Ordering::Relaxed)
    }

    pub(crate) fn fail(&self, item: Skipped, job: &JobContext) {
        job.emit(&Event::Skipped(item.clone()));
        self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(item);
    }

    pub(crate) fn emit(&self, job: &JobContext) {
        let known = |total: &AtomicU64| Some(total.load(Ordering::Relaxed)).filter(|total| *total > 0);
        let sum = |a: &AtomicU64, b: &AtomicU64| {
            a.load(Ordering::Relaxed).saturating_add(b.load(Ordering::Relaxed))
        };
        job.emit(&Event::Progress(Progress {
            entries_done: sum(&self.entries_written, &self.entries_unchanged),
            entries_total: known(&self.entries_total),
            bytes_done: sum(&self.bytes_written, &self.bytes_unchanged),
            bytes_total: known(&self.bytes_total),
            bytes_stored: 0,
            current: self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone(),
        }));
    }

    pub(crate) fn report(&self, notes: Vec<String>, elapsed: Duration) -> RestoreReport {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RestoreReport {
            entries_written: load(&self.entries_written),
            entries_unchanged: load(&self.entries_unchanged),
            bytes_written: load(&self.bytes_written),
            bytes_unchanged: load(&self.bytes_unchanged),
            failed: std::mem::take(&mut *self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())),
            notes,
            safety_snapshot: None,
            duration_seconds: elapsed.as_secs_f64(),
        }
    }
}
