//! A thing of some kind, described by settings that only its kind understands.

use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A source, transform or policy: its kind, and settings that the factory of this kind reads.
#[derive(Clone, PartialEq)]
pub struct Component {
    /// Which factory of the [`Registry`](super::Registry) makes it.
    pub kind: String,
    /// Everything beside `kind`.
    pub settings: Map<String, Value>,
}

impl Component {
    /// A component of `kind` without settings.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), settings: Map::new() }
    }

    /// The same component with one more setting.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Settings are a user's: names are shown, values may be confidential.
        let keys: Vec<&String> = self.settings.keys().collect();
        f.debug_struct("Component").field("kind", &self.kind).field("settings", &keys).finish()
    }
}

impl Serialize for Component {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &self.kind)?;
        for (key, value) in &self.settings {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut settings = Map::deserialize(deserializer)?;
        match settings.remove("kind") {
            Some(Value::String(kind)) => Ok(Self { kind, settings }),
            Some(_) => Err(D::Error::custom("`kind` must be a string")),
            None => Err(D::Error::missing_field("kind")),
        }
    }
}

/// Where a repository's objects are kept: a kind of sink with its settings, or a URL.
///
/// `{ url = "/srv/backup" }`, `{ url = "file:///srv/backup" }` and `{ kind = "local", path = "/srv/backup" }` say the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A kind of sink and its settings.
    Kind(Component),
    /// A URL, whose scheme tells the kind, or a path.
    Url(String),
}

impl Place {
    /// The scheme of a URL, or none for a path. A scheme is two letters at least, so that no drive is taken for one.
    pub fn scheme(url: &str) -> Option<&str> {
        let (scheme, _) = url.split_once("://")?;
        let mut bytes = scheme.bytes();
        let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
        let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        (starts && goes_on && scheme.len() > 1).then_some(scheme)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kind(component) => component.serialize(serializer),
            Self::Url(url) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("url", url)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut settings = Map::deserialize(deserializer)?;
        if settings.contains_key("kind") {
            return Component::deserialize(Value::Object(settings)).map(Self::Kind).map_err(D::Error::custom);
        }
        match settings.remove("url") {
            Some(Value::String(url)) if settings.is_empty() && !url.is_empty() => Ok(Self::Url(url)),
            Some(Value::String(_)) => {
                Err(D::Error::custom("beside `url` nothing is allowed; name a `kind` for more"))
            }
            _ => Err(D::Error::custom("a place needs `url`, or `kind` with its settings")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_url_or_a_kind_with_settings() {
        let read = |text: &str| serde_json::from_str::<Place>(text);
        assert_eq!(read(r#"{"url":"/srv"}"#).unwrap(), Place::Url("/srv".into()));
        let local = Place::Kind(Component::new("local").with("path", "/srv"));
        assert_eq!(read(r#"{"kind":"local","path":"/srv"}"#).unwrap(), local);
        assert_eq!(read(&serde_json::to_string(&local).unwrap()).unwrap(), local);
        for text in
            ["{}", r#"{"url":"/srv","more":1}"#, r#"{"url":""}"#, r#"{"kind":1}"#, r#"{"path":"/srv"}"#]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn schemes_are_told_from_paths() {
        for (url, scheme) in [
            ("s3://bucket/prefix", Some("s3")),
            ("file:///srv", Some("file")),
            ("/srv/a://b", None),
            ("relative", None),
            ("://x", None),
            ("c://x", None),
        ] {
            assert_eq!(Place::scheme(url), scheme, "{url}");
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let component = Component::new("files").with("token", "hunter2");
        assert!(!format!("{component:?}").contains("hunter2"));
    }
}
