//! What a sink that goes wrong remembers: its faults, what was created lately, what is late.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::{Fault, Operation};
use crate::ObjectKey;

/// Creations that are remembered for stale listings.
const CREATED_MAX: usize = 4096;
/// Calls that may be under way late; what is delayed beyond that is lost.
const LATE_MAX: usize = 4096;
/// Keys of struck calls that are remembered.
const STRUCK_MAX: usize = 4096;

/// A call that is still to have its effect.
#[derive(Debug)]
pub(super) enum Overdue {
    Put(ObjectKey, Bytes),
    Delete(ObjectKey),
}

/// The memory of a sink that goes wrong.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Each fault with the number of calls that it counted.
    faults: Vec<(Fault, u64)>,
    /// All calls so far.
    calls: u64,
    struck_at: Vec<String>,
    /// The calls that created something lately, and what.
    created: VecDeque<(u64, ObjectKey)>,
    /// By which call the effect is due.
    late: Vec<(u64, Overdue)>,
}

impl Ledger {
    pub(super) fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let mut ledger = Self::default();
        ledger.set_faults(faults);
        ledger
    }

    pub(super) fn set_faults(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults = faults.into_iter().map(|fault| (fault, 0)).collect();
        self.struck_at.clear();
    }

    pub(super) fn struck(&self) -> usize {
        self.faults.iter().filter(|(fault, seen)| *seen >= fault.nth).count()
    }

    pub(super) fn struck_at(&self) -> &[String] {
        &self.struck_at
    }

    /// Counts the call and says which fault it meets and what is due before it.
    pub(super) fn begin(&mut self, operation: Operation, key: &str) -> (Option<Fault>, Vec<Overdue>) {
        self.calls = self.calls.saturating_add(1);
        let mut struck = None;
        for (fault, seen) in self.faults.iter_mut().filter(|(fault, _)| fault.counts(operation, key)) {
            *seen = seen.saturating_add(1);
            if struck.is_none() && fault.strikes(*seen) {
                struck = Some(fault.clone());
            }
        }
        if struck.is_some() && self.struck_at.len() < STRUCK_MAX {
            self.struck_at.push(key.to_owned());
        }
        (struck, self.take_late(self.calls))
    }

    /// What is due when the call of this number begins.
    pub(super) fn take_late(&mut self, call: u64) -> Vec<Overdue> {
        let (due, waiting) = std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= call);
        self.late = waiting;
        due.into_iter().map(|(_, overdue): (u64, Overdue)| overdue).collect()
    }

    pub(super) fn delay(&mut self, calls: u64, overdue: Overdue) {
        if self.late.len() < LATE_MAX {
            self.late.push((self.calls.saturating_add(calls).saturating_add(1), overdue));
        }
    }

    pub(super) fn created(&mut self, key: &ObjectKey) {
        if self.created.len() >= CREATED_MAX {
            self.created.pop_front();
        }
        self.created.push_back((self.calls, key.clone()));
    }

    /// Whether `key` was created by one of the last `calls` calls before this one.
    pub(super) fn is_recent(&self, key: &ObjectKey, calls: u64) -> bool {
        let since = self.calls.saturating_sub(calls);
        self.created.iter().rev().take_while(|(call, _)| *call >= since).any(|(_, recent)| recent == key)
    }
}
