//! Values of options that are more than words.

use std::path::PathBuf;
use std::str::FromStr;

use backup_core::config::Span;
use backup_core::{Error, Result, Timestamp};
use backup_sources::FilesSourceBuilder;
use backup_sources::view::{BtrfsView, LvmView, ReflinkView, ZfsView};

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
        let ago = |now: Timestamp, seconds: i64| now.saturating_add_seconds(seconds.saturating_neg());
        point_in_time(text, ago, "how long ago like 3d").map(Self)
    }
}

/// A point in time to come: RFC 3339, a date or a date and time in the zone of this machine, or a length of time from now
/// on (`90d`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until(pub Timestamp);

impl FromStr for Until {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        point_in_time(text, Timestamp::saturating_add_seconds, "for how long like 90d").map(Self)
    }
}

fn point_in_time(text: &str, away: fn(Timestamp, i64) -> Timestamp, span: &str) -> Result<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(span) = text.parse::<Span>() {
        let now = Timestamp::from(std::time::SystemTime::now());
        return Ok(away(now, i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX)));
    }
    let local = text
        .parse::<jiff::civil::DateTime>()
        .ok()
        .and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()).ok());
    local.map(|time| time.timestamp().into()).ok_or_else(|| {
        let message = format!("write a time like 2026-11-20T08:00:00Z, a date like 2026-11-20, or {span}");
        Error::invalid_input(format!("`{text}` is not a time; {message}"))
    })
}

/// A consistent view to read files from: `btrfs:DIRECTORY`, `lvm:GROUP/VOLUME:DIRECTORY`, `zfs:DATASET:DIRECTORY` or
/// `reflink:DIRECTORY:VIEWS`. What these do not say, such as the space of an LVM snapshot, a configuration can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewOf {
    /// A snapshot of the subvolume that is this directory.
    Btrfs(PathBuf),
    /// A snapshot of a logical volume, which is mounted at a directory.
    Lvm {
        /// The volume group.
        group: String,
        /// The volume.
        volume: String,
        /// Where it is mounted.
        directory: PathBuf,
    },
    /// A snapshot of a dataset, which is mounted at a directory.
    Zfs {
        /// The dataset.
        dataset: String,
        /// Where it is mounted.
        directory: PathBuf,
    },
    /// Copies of a directory that share its blocks.
    Reflink {
        /// The directory.
        directory: PathBuf,
        /// Where the copies are made, on the same file system.
        views: PathBuf,
    },
}

impl ViewOf {
    /// Reads the files from the view.
    pub fn add_to(self, builder: FilesSourceBuilder) -> FilesSourceBuilder {
        match self {
            Self::Btrfs(directory) => builder.view(BtrfsView::new(directory)),
            Self::Lvm { group, volume, directory } => builder.view(LvmView::new(group, volume, directory)),
            Self::Zfs { dataset, directory } => builder.view(ZfsView::new(dataset, directory)),
            Self::Reflink { directory, views } => builder.view(ReflinkView::new(directory, views)),
        }
    }
}

impl FromStr for ViewOf {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let view = match text.split_once(':') {
            Some(("btrfs", directory)) if !directory.is_empty() => Some(Self::Btrfs(directory.into())),
            Some(("lvm", rest)) => rest.split_once(':').and_then(|(volume, directory)| {
                let (group, volume) = volume.split_once('/')?;
                Some(Self::Lvm { group: group.into(), volume: volume.into(), directory: directory.into() })
            }),
            Some(("zfs", rest)) => rest.split_once(':').map(|(dataset, directory)| Self::Zfs {
                dataset: dataset.into(),
                directory: directory.into(),
            }),
            Some(("reflink", rest)) => rest
                .split_once(':')
                .map(|(directory, views)| Self::Reflink { directory: directory.into(), views: views.into() }),
            _ => None,
        };
        view.ok_or_else(|| {
            let message = "write btrfs:DIRECTORY, lvm:GROUP/VOLUME:DIRECTORY, zfs:DATASET:DIRECTORY or reflink:DIRECTORY:VIEWS";
            Error::invalid_input(format!("`{text}` is no view; {message}"))
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

/// A whole number of hundredths, for clap: `5%` or `5`.
pub fn percent(text: &str) -> std::result::Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| format!("`{text}` is no share; say a whole number up to 100, like 5%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_name_what_is_frozen() {
        let parsed = |text: &str| text.parse::<ViewOf>().unwrap();
        assert_eq!(parsed("btrfs:/srv/a:b"), ViewOf::Btrfs("/srv/a:b".into()));
        let lvm = ViewOf::Lvm { group: "vg0".into(), volume: "data".into(), directory: "/srv".into() };
        assert_eq!(parsed("lvm:vg0/data:/srv"), lvm);
        assert_eq!(
            parsed("zfs:tank/data:/srv"),
            ViewOf::Zfs { dataset: "tank/data".into(), directory: "/srv".into() }
        );
        assert_eq!(
            parsed("reflink:/srv:/srv/.views"),
            ViewOf::Reflink { directory: "/srv".into(), views: "/srv/.views".into() }
        );
        for wrong in [
            "",
            "btrfs",
            "btrfs:",
            "/srv",
            "lvm:data:/srv",
            "lvm:vg0/data",
            "zfs:tank",
            "reflink:/srv",
            "ext4:/srv",
        ] {
            assert!(wrong.parse::<ViewOf>().is_err(), "{wrong}");
        }
    }

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
