//! A line every few seconds, for logs.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::{Event, Observer};

use super::Meter;
use crate::human;

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Plain {
    meter: Arc<Meter>,
    next: Mutex<Option<Instant>>,
}

impl Plain {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { meter, next: Mutex::new(None) }
    }

    fn due(&self) -> bool {
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let due = next.is_none_or(|next| now >= next);
        if due {
            *next = now.checked_add(EVERY);
        }
        due
    }
}

impl Observer for Plain {
    fn on_event(&self, event: &Event) {
        let line = match event {
            Event::Phase { name } => format!("phase: {name}"),
            Event::Progress(progress) => {
                let reading = self.meter.read(progress);
                if !self.due() {
                    return;
                }
                reading.to_string()
            }
            Event::ObjectDamaged { key, reason } => format!("damaged: {key}: {}", human::name(reason)),
            Event::Alert { subject, message } => format!("attention: {subject}: {message}"),
            // Skipped items are named with the result.
            _ => return,
        };
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}
