//! Keys that have no path in `object_store`, and how they come through its listings all the same.

use object_store::path::Path;

/// Starts what stands for another key. It is a private character, which no keys have; those that do are hidden, too.
const SIGN: char = '\u{10fffd}';

/// A key as the store has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// One that can be asked for.
    Plain(String),
    /// `a/`, here without its slash.
    Marker(String),
    /// One that cannot be asked for.
    Unreachable(String),
}

impl Key {
    /// The key whose path a listing has.
    pub(super) fn of(path: &Path) -> Self {
        let text = path.as_ref();
        if let Some(hidden) = text.strip_prefix(SIGN) {
            let bytes = hex::decode(hidden).unwrap_or_default();
            return Self::Unreachable(String::from_utf8_lossy(&bytes).into_owned());
        }
        match text.strip_suffix(SIGN).and_then(|marker| marker.strip_suffix('/')) {
            Some(marker) => Self::Marker(marker.to_owned()),
            None => Self::Plain(text.to_owned()),
        }
    }

    /// The key, byte for byte.
    pub(super) fn raw(&self) -> String {
        match self {
            Self::Plain(key) | Self::Unreachable(key) => key.clone(),
            Self::Marker(key) => format!("{key}/"),
        }
    }
}

/// A key that has a path and stands for `raw`; none if `raw` has one itself.
pub(super) fn hidden(raw: &str) -> Option<String> {
    // Readers of XML take an element of spaces for an empty one.
    let reachable = |key: &str| {
        let path = Path::parse(key).is_ok_and(|path| path.as_ref() == key);
        path && !key.contains(SIGN) && !key.trim_ascii().is_empty()
    };
    if reachable(raw) {
        return None;
    }
    match raw.strip_suffix('/') {
        Some(marker) if !marker.is_empty() && reachable(marker) => Some(format!("{raw}{SIGN}")),
        _ => Some(format!("{SIGN}{}", hex::encode(raw))),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn every_key_comes_through_as_it_was() {
        for raw in [
            "a",
            "a/b",
            "a b/ü.txt",
            "a%2Fb",
            "a/",
            "a/b/",
            "a//b",
            "/a",
            "/",
            "a/../b",
            ".",
            "a\tb",
            "a//",
            " ",
            " a ",
        ] {
            let listed = hidden(raw).unwrap_or_else(|| raw.to_owned());
            let key = Key::of(&Path::parse(&listed).unwrap());
            assert_eq!(key.raw(), raw);
            let marker = matches!(raw, "a/" | "a/b/");
            assert_eq!(matches!(key, Key::Marker(_)), marker, "{raw}");
            assert_eq!(matches!(key, Key::Plain(_)), hidden(raw).is_none(), "{raw}");
        }
        assert!(hidden("a\u{10fffd}").is_some());
    }
}
