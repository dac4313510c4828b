//! Retention: which snapshots to keep, and why. Pure functions of the snapshots and the time.
//!
//! ```
//! use backup_core::RetentionPolicy;
//! use backup_core::testing::retention::facts;
//! use backup_retention::RetentionConfig;
//!
//! // As it stands in a configuration file.
//! let config: RetentionConfig = toml::from_str("keep_last = 1\nkeep_daily = 2\ntime_zone = 'Europe/Zurich'")?;
//! let policy = config.build()?;
//! let times = ["2026-11-18T08:00:00Z", "2026-11-19T08:00:00Z", "2026-11-20T08:00:00Z", "2026-11-20T20:00:00Z"];
//! let snapshots: Vec<_> = times.iter().zip(1..).map(|(time, n)| Ok(facts(n, time.parse()?))).collect::<backup_core::Result<_>>()?;
//!
//! let decisions = policy.decide(&snapshots, "2026-11-20T21:00:00Z".parse()?);
//! assert!(!decisions[0].keep());
//! assert_eq!(decisions[1].reasons, ["daily 2026-11-19"]);
//! assert!(!decisions[2].keep());
//! assert_eq!(decisions[3].reasons, ["last 1 of 1", "daily 2026-11-20", "the newest complete one of its group"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | policy | keeps |
//! |---|---|
//! | [`KeepLast`] | the newest so many |
//! | [`KeepCalendar`] | the newest of each hour, day, week, month or year, for so many of them or so long |
//! | [`GrandfatherFatherSon`] | the newest of each day; Sunday's, the first of the month's and New Year's for longer |
//! | [`KeepWithin`] | everything younger than `90d` or `1y6m` |
//! | [`KeepTagged`], [`KeepAll`] | what has a tag; everything |
//! | [`Union`] | what any of its policies keeps |
//! | [`PerGroup`] | for each source, host, label, tenant or tag by itself, what its policy keeps, and never nothing |
//!
//! A [`SafetyCatch`] holds up a plan that would drop much of a series, until somebody has looked at it.
//!
//! # Rules that all of them follow
//! - **Nothing is lost by surprise.** [`PerGroup`], and so everything made from a [`RetentionConfig`], keeps the newest
//!   complete snapshot of each group whatever its policy says, unless told that a group may become empty. The other
//!   policies keep what they name and no more: as a repository's only policy, put them into a [`PerGroup`].
//! - **Partial snapshots displace nothing.** What counts (the last three, seven days) is counted twice: among all
//!   snapshots, and among the complete ones alone. Both are kept; where every snapshot is complete they are the same.
//! - **Times in the future displace nothing.** A snapshot that the store first had after `now` is kept by every policy
//!   that counts, and not counted.
//! - **Forged times displace nothing.** A snapshot that its writer says to have made when it cannot have been made is
//!   quarantined ([`SnapshotFacts::quarantined`](backup_core::retention::SnapshotFacts::quarantined)): kept by every policy that
//!   counts, and not counted. Copies count by the times of their originals, and in a [`PerGroup`] among copies from the same
//!   repository only.
//! - **The order of the input does not matter.** Of two snapshots of one time the one with the greater id is newer. A
//!   snapshot that is given twice counts once, by its newest time, and gets one decision.
//! - **Days are those of a time zone.** Where clocks are set back, the hour that comes twice is two hours; a day, week,
//!   month or year may be longer or shorter, and is one all the same.

mod calendar;
mod config;
mod gfs;
mod group;
mod period;
mod register;
mod safety;
mod select;
mod simple;
mod span;
mod zone;

pub use calendar::{Extent, KeepCalendar};
pub use config::{Count, GfsConfig, OverrideConfig, RetentionConfig, WeekdayName};
pub use gfs::GrandfatherFatherSon;
pub use group::{GroupBy, Override, PerGroup};
pub use period::Period;
pub use register::register;
pub use safety::{Caught, SafetyCatch};
pub use simple::{KeepAll, KeepLast, KeepTagged, KeepWithin, Union};
pub use span::CalendarSpan;
pub use zone::Zone;
