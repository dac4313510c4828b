//! The moment that a recovery goes to.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result, Timestamp};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Disambiguation;
use serde::{Deserialize, Serialize};

use crate::postgres::{Lsn, Timeline};

/// Bytes that the name of a restore point may have: `MAXFNAMELEN` of the server, less its NUL.
const NAME_BYTES_MAX: usize = 63;

/// The settings that each name a target.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_xid",
    "recovery_target_name",
];

/// A moment to recover to, and the branch of the log on which it lies.
///
/// As text it is `latest`, `immediate`, `time:2026-11-20 08:00:00+01`, `lsn:0/3000060`, `xid:741`, `name:before-the-upgrade`. See "Recovery
/// Target" in the chapter "Server Configuration" of the PostgreSQL manual.
///
/// ```
/// use backup_sources::postgres::recovery::{RecoveryTarget, StopAt};
///
/// let target: RecoveryTarget = "time:2026-11-20 08:00:00+01".parse()?;
/// assert_eq!(target.stop, StopAt::Time("2026-11-20T07:00:00Z".parse()?));
/// // A time without a zone could mean any hour of a day.
/// assert!("time:2026-11-20 08:00:00".parse::<RecoveryTarget>().is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryTarget {
    /// Where replay stops.
    pub stop: StopAt,
    /// Whether what happened exactly there is replayed, too: a commit at this very time, the transaction itself. It says nothing of
    /// restore points, `immediate` and `latest`.
    pub inclusive: bool,
    /// The branch of the log.
    pub timeline: TargetTimeline,
}

/// Where replay stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopAt {
    /// At the end of what is archived.
    Latest,
    /// As soon as the files are consistent: at the end of the base backup.
    Immediate,
    /// At a time, by the clock of the server that wrote the log.
    Time(Timestamp),
    /// At a position of the log.
    Lsn(Lsn),
    /// At the end of a transaction, whose number may be given with its epoch, as `pg_current_xact_id()` does.
    Xid(u64),
    /// At a restore point that `pg_create_restore_point()` made.
    Name(String),
}

/// The branch of the log on which a target lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetTimeline {
    /// The newest that the base backup leads to.
    #[default]
    Latest,
    /// The one that the base backup was made on.
    Current,
    /// This one.
    Number(Timeline),
}

impl RecoveryTarget {
    fn new(stop: StopAt) -> Self {
        Self { stop, inclusive: true, timeline: TargetTimeline::default() }
    }

    /// All that is archived.
    pub fn latest() -> Self {
        Self::new(StopAt::Latest)
    }

    /// The end of the base backup.
    pub fn immediate() -> Self {
        Self::new(StopAt::Immediate)
    }

    /// What was committed up to a time.
    pub fn time(time: Timestamp) -> Self {
        Self::new(StopAt::Time(time))
    }

    /// What the log has up to a position.
    pub fn lsn(lsn: Lsn) -> Self {
        Self::new(StopAt::Lsn(lsn))
    }

    /// What ended up to the end of a transaction. Other transactions of higher numbers may have ended before it.
    pub fn xid(xid: u64) -> Self {
        Self::new(StopAt::Xid(xid))
    }

    /// What the log has up to a restore point.
    pub fn name(name: impl Into<String>) -> Self {
        Self::new(StopAt::Name(name.into()))
    }

    /// The same target, without what happened exactly there.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.inclusive = false;
        self
    }

    /// The same moment on this branch.
    #[must_use]
    pub fn on(mut self, timeline: TargetTimeline) -> Self {
        self.timeline = timeline;
        self
    }

    /// Whether the target can be said in the server's settings.
    ///
    /// # Errors
    ///
    /// The name is empty, too long for a restore point or has a character that settings cannot hold; the time lies outside of what the
    /// server counts; the transaction has a number that none gets.
    pub fn check(&self) -> Result<()> {
        match &self.stop {
            StopAt::Name(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
                let message =
                    format!("`{name}` names no restore point: such names have 1 to {NAME_BYTES_MAX} bytes");
                Err(Error::invalid_input(message))
            }
            StopAt::Name(name) if name.chars().any(char::is_control) => {
                Err(Error::invalid_input(format!("`{}` names no restore point", name.escape_debug())))
            }
            StopAt::Time(time) if time.to_jiff().is_none_or(|time| time.as_second() < 0) => {
                Err(Error::invalid_input(format!("{time} is no time at which a server has written a log")))
            }
            StopAt::Xid(xid) if *xid & u64::from(u32::MAX) < 3 => {
                Err(Error::invalid_input(format!("no transaction has the number {xid}: they begin with 3")))
            }
            _ => Ok(()),
        }
    }

    /// The settings that say so, but for the timeline. Those of other targets are emptied first, as the server refuses to have two.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let wanted = match &self.stop {
            StopAt::Latest => None,
            StopAt::Immediate => Some(("recovery_target", "immediate".to_owned())),
            StopAt::Time(time) => Some(("recovery_target_time", self.server_time(*time))),
            StopAt::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
            StopAt::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
            StopAt::Name(name) => Some(("recovery_target_name", name.clone())),
        };
        let others =
            TARGETS.into_iter().filter(|name| wanted.as_ref().is_none_or(|(wanted, _)| wanted != name));
        let mut settings: Vec<_> = others.map(|name| (name, String::new())).collect();
        settings.extend(wanted);
        settings.push(("recovery_target_inclusive", if self.inclusive { "on" } else { "off" }.to_owned()));
        settings
    }

    /// The time as the server reads it. It counts microseconds: what lies between two of them is cut off, unless that would replay
    /// less than was asked for.
    fn server_time(&self, time: Timestamp) -> String {
        let micros = time.nanoseconds().div_ceil(1000);
        let (seconds, micros) = match self.inclusive {
            true => (time.seconds(), time.nanoseconds().div_euclid(1000)),
            false if micros == 1_000_000 => (time.seconds().saturating_add(1), 0),
            false => (time.seconds(), micros),
        };
        let second = Timestamp::new(seconds, 0).to_jiff().unwrap_or_default();
        format!("{}.{micros:06}+00", second.strftime("%Y-%m-%d %H:%M:%S"))
    }
}

/// A time with its zone: `2026-11-20T08:00:00Z`, `2026-11-20 08:00:00.5+01`, `2026-11-20 08:00:00[Europe/Berlin]`.
///
/// # Errors
///
/// It has no zone; or it names a place whose clocks show that hour twice, or not at all, and no offset says which is meant.
pub fn parse_time(text: &str) -> Result<Timestamp> {
    let parser = DateTimeParser::new().disambiguation(Disambiguation::Reject);
    // An offset that is not that of the place is an error, too.
    let parsed = match text.contains('[') {
        true => parser.parse_zoned(text).map(|zoned| zoned.timestamp()),
        false => parser.parse_timestamp(text),
    };
    parsed.map(Timestamp::from).map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        let message = format!(
            "`{}` is no moment; write it with its zone, like 2026-11-20 08:00:00+01, 2026-11-20T07:00:00Z or \
             2026-11-20 08:00:00[Europe/Berlin]",
            shown.escape_debug()
        );
        Error::invalid_input(message).with_source(error)
    })
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stop {
            StopAt::Latest => f.write_str("latest"),
            StopAt::Immediate => f.write_str("immediate"),
            StopAt::Time(time) => write!(f, "time:{time}"),
            StopAt::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            StopAt::Xid(xid) => write!(f, "xid:{xid}"),
            StopAt::Name(name) => write!(f, "name:{name}"),
        }
    }
}

impl FromStr for RecoveryTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let target = match text.split_once(':') {
            None if text == "latest" => Self::latest(),
            None if text == "immediate" => Self::immediate(),
            Some(("time", time)) => Self::time(parse_time(time)?),
            Some(("lsn", lsn)) => Self::lsn(lsn.parse()?),
            Some(("xid", xid)) => {
                let wrong = || Error::invalid_input(format!("`{xid}` is no number of a transaction"));
                Self::xid(xid.parse().map_err(|_| wrong())?)
            }
            Some(("name", name)) => Self::name(name),
            _ => {
                let known = "latest, immediate, time:TIME, lsn:LSN, xid:NUMBER or name:NAME";
                return Err(Error::invalid_input(format!("`{text}` is no recovery target; write {known}")));
            }
        };
        target.check()?;
        Ok(target)
    }
}

impl fmt::Display for TargetTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Current => f.write_str("current"),
            Self::Number(timeline) => write!(f, "{}", timeline.get()),
        }
    }
}

impl FromStr for TargetTimeline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "latest" => Ok(Self::Latest),
            "current" => Ok(Self::Current),
            number => match number.parse::<u32>() {
                Ok(number) if number > 0 => Ok(Self::Number(Timeline::new(number))),
                _ => Err(Error::invalid_input(format!(
                    "`{text}` is no timeline; write latest, current or a number"
                ))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_zone_that_leaves_no_doubt() {
        let utc: Timestamp = "2026-11-20T07:00:00.5Z".parse().unwrap();
        for text in [
            "2026-11-20T07:00:00.5Z",
            "2026-11-20 08:00:00.5+01",
            "2026-11-20 02:00:00.5-05:00",
            "2026-11-20 08:00:00.5[Europe/Berlin]",
        ] {
            assert_eq!(parse_time(text).unwrap(), utc, "{text}");
        }
        // The hour that clocks show twice, and the one that they leave out.
        for text in ["2026-10-25 02:30:00[Europe/Berlin]", "2026-03-29 02:30:00[Europe/Berlin]"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert!(parse_time("2026-10-25 02:30:00+02[Europe/Berlin]").is_ok());
        for text in [
            "2026-11-20 08:00:00",
            "2026-11-20",
            "08:00:00+01",
            "now",
            "",
            "2026-11-20 08:00:00 CET",
            "2026-11-20 08:00:00+05[Europe/Berlin]",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets_are_read_and_written() {
        for text in
            ["latest", "immediate", "time:2026-11-20T07:00:00Z", "lsn:0/3000060", "xid:741", "name:a:b c"]
        {
            assert_eq!(text.parse::<RecoveryTarget>().unwrap().to_string(), text);
        }
        let long = format!("name:{}", "n".repeat(64));
        for text in ["", "later", "time:", "lsn:3", "xid:x", "xid:2", "name:", "name:a\nb", long.as_str()] {
            assert!(text.parse::<RecoveryTarget>().is_err(), "{text}");
        }
        for text in ["latest", "current", "7"] {
            assert_eq!(text.parse::<TargetTimeline>().unwrap().to_string(), text);
        }
        assert!("0".parse::<TargetTimeline>().is_err());
    }

    #[test]
    fn settings_name_one_target_and_empty_the_others_before_it() {
        let time = Timestamp::new(1_795_161_600, 999_999_999);
        let inclusive = RecoveryTarget::time(time).settings();
        assert!(inclusive.iter().take(4).all(|(_, value)| value.is_empty()), "{inclusive:?}");
        assert_eq!(inclusive[4], ("recovery_target_time", "2026-11-20 08:00:00.999999+00".into()));
        assert_eq!(inclusive[5], ("recovery_target_inclusive", "on".into()));
        let exclusive = RecoveryTarget::time(time).exclusive().settings();
        assert_eq!(exclusive[4].1, "2026-11-20 08:00:01.000000+00");
        assert_eq!(exclusive[5].1, "off");
        assert!(RecoveryTarget::latest().settings().iter().take(5).all(|(_, value)| value.is_empty()));
    }
}
