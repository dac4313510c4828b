//! Progress on standard error: a bar, lines, or JSON.

mod bar;
mod json;
mod meter;
mod plain;

use std::sync::Arc;

use backup_core::Observer;
use backup_core::observer::NoObserver;

pub use self::meter::{Meter, Reading};
use crate::args::ProgressMode;

/// How a run shows its progress.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Receives the events of jobs.
    pub observer: Arc<dyn Observer>,
    /// Knows the totals, once somebody has estimated them; none where nothing is shown.
    pub meter: Option<Arc<Meter>>,
    bar: Option<Arc<bar::Bar>>,
}

impl Shown {
    /// Progress in this way; `draws` says whether standard error is a terminal.
    pub fn new(mode: ProgressMode, draws: bool) -> Self {
        let meter = Arc::new(Meter::default());
        match mode {
            ProgressMode::Auto if draws => {
                let bar = Arc::new(bar::Bar::new(meter.clone()));
                Self { observer: bar.clone(), meter: Some(meter), bar: Some(bar) }
            }
            ProgressMode::Plain => {
                Self { observer: Arc::new(plain::Plain::new(meter.clone())), meter: Some(meter), bar: None }
            }
            ProgressMode::Json => {
                Self { observer: Arc::new(json::Json::new(meter.clone())), meter: Some(meter), bar: None }
            }
            ProgressMode::Auto | ProgressMode::None => {
                Self { observer: Arc::new(NoObserver), meter: None, bar: None }
            }
        }
    }

    /// Takes a bar off the screen before anything else is written there.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
    }
}
