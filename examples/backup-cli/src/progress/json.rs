//! A JSON object a line, for programs.

use std::io::Write;
use std::sync::Arc;

use backup_core::{Event, Observer};
use serde_json::{Value, json};

use super::Meter;

#[derive(Debug)]
pub(super) struct Json {
    meter: Arc<Meter>,
}

impl Json {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { meter }
    }
}

impl Observer for Json {
    fn on_event(&self, event: &Event) {
        let line = match event {
            Event::Progress(progress) => {
                let mut line = serde_json::to_value(self.meter.read(progress)).unwrap_or_default();
                if let Value::Object(members) = &mut line {
                    members.insert("event".into(), json!("progress"));
                }
                line
            }
            // Objects come too often to be told one by one.
            Event::ObjectStored { .. } => return,
            other => serde_json::to_value(other).unwrap_or_default(),
        };
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}
