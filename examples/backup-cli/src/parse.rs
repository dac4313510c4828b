//! Values of options that are more than words.

use std::str::FromStr;

use backup_core::config::Span;
use backup_core::{Error, Result, Timestamp};

/// A tag, `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Before the first `=`.
    pub key: String,
    /// After it.
    pub value: String,
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok(Self { key: key.into(), value: value.into() }),
            _ => Err(Error::invalid_input(format!("`{text}` is not a tag; write it as key=value"))),
        }
    }
}

/// A point in time: RFC 3339, a date or a date and time in the zone of this machine, or a length of time ago (`3d`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When(pub Timestamp);

impl FromStr for When {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self(time));
        }
        if let Ok(span) = text.parse::<Span>() {
            let now = Timestamp::from(std::time::SystemTime::now());
            let ago = i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX);
            return Ok(Self(now.saturating_add_seconds(ago.saturating_neg())));
        }
        let local = text
            .parse::<jiff::civil::DateTime>()
            .ok()
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()).ok());
        local.map(|time| Self(time.timestamp().into())).ok_or_else(|| {
            let message =
                "write a time like 2026-11-20T08:00:00Z, a date like 2026-11-20, or how long ago like 3d";
            Error::invalid_input(format!("`{text}` is not a time; {message}"))
        })
    }
}

/// A part of a hundred, `10%` or `10`; above 0, at most 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim().trim_end_matches('%').parse::<f64>().ok();
        number.filter(|number| *number > 0.0 && *number <= 100.0).map(Self).ok_or_else(|| {
            Error::invalid_input(format!(
                "`{text}` is not a part of a hundred; write it like 10%, above 0 and at most 100%"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let at = |text: &str| text.parse::<When>().unwrap().0;
        assert_eq!(at("2026-11-20T08:00:00Z"), Timestamp::new(1_795_161_600, 0));
        assert!(at("2026-11-20") > at("2026-11-18"));
        assert_eq!(at("2026-11-20 08:00").seconds() - at("2026-11-20").seconds(), 8 * 3600);
        assert!(at("1h") > at("1d"));
        for text in ["", "yesterday", "2026-13-01", "90", "-3d"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }

    #[test]
    fn percents_and_tags_are_checked() {
        assert_eq!("12.5%".parse::<Percent>().unwrap().0, 12.5);
        for text in ["", "0", "101%", "NaN", "inf", "-1", "x%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        assert_eq!("a=b=c".parse::<Tag>().unwrap(), Tag { key: "a".into(), value: "b=c".into() });
        for text in ["", "a", "=b", " =b"] {
            assert!(text.parse::<Tag>().is_err(), "{text}");
        }
    }
}
