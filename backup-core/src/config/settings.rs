//! The settings of one component, as its factory sees them.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::load::parse_value;
use crate::{Error, Result};

/// What a configuration says of one component, and where it says so, for errors.
#[derive(Clone)]
pub struct Settings {
    file: String,
    at: String,
    values: Map<String, Value>,
}

impl Settings {
    /// The settings `values`, found in `file` at the key `at`.
    pub fn new(file: impl Into<String>, at: impl Into<String>, values: Map<String, Value>) -> Self {
        Self { file: file.into(), at: at.into(), values }
    }

    /// The settings as a `T`, which should deny unknown fields; errors name the file, the key and what is allowed.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        parse_value(Value::Object(self.values.clone()), &self.file, &self.at)
    }

    /// The settings as they stand.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// An error about these settings.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        let at = if self.at.is_empty() { String::new() } else { format!("{}: ", self.at) };
        Error::invalid_input(format!("{}: {at}{what}", self.file))
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<&String> = self.values.keys().collect();
        f.debug_struct("Settings")
            .field("file", &self.file)
            .field("at", &self.at)
            .field("keys", &keys)
            .finish()
    }
}
