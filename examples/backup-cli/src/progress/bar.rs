//! A bar on a terminal.

use std::sync::{Arc, Mutex};

use backup_core::{Event, Observer};
use indicatif::{ProgressBar, ProgressStyle};

use super::Meter;

#[derive(Debug)]
pub(super) struct Bar {
    meter: Arc<Meter>,
    bar: ProgressBar,
    phase: Mutex<&'static str>,
}

impl Bar {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        let bar = ProgressBar::new_spinner();
        // The template is fixed; if it were wrong, the default style would do.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self { meter, bar, phase: Mutex::new("") }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Bar {
    fn on_event(&self, event: &Event) {
        let mut phase = self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Phase { name } => {
                *phase = name;
                self.bar.set_message((*name).to_owned());
                self.bar.tick();
            }
            Event::Progress(progress) => {
                self.bar.set_message(format!("{}  {}", *phase, self.meter.read(progress)));
                self.bar.tick();
            }
            _ => {}
        }
    }
}
