//! Retention as it stands in a configuration: rules by name, checked, and made into a policy.

use std::sync::Arc;

use backup_core::{Error, Result, RetentionPolicy};
use jiff::civil::Weekday;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    CalendarSpan, Extent, GrandfatherFatherSon, GroupBy, KeepAll, KeepCalendar, KeepLast, KeepTagged,
    KeepWithin, Override, PerGroup, Period, Union, Zone,
};

/// What to keep. Every rule by itself keeps snapshots; what no rule keeps is dropped.
///
/// ```toml
/// keep_daily = 7
/// keep_weekly = 4
/// keep_yearly = "all"
/// keep_within = "48h"
/// keep_tags = ["hold", "reason=legal"]
/// time_zone = "Europe/Zurich"
/// group_by = ["source", "host", "label"]
///
/// [[overrides]]
/// label = "financial"
/// policy = { keep_within = "7y" }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Keeps the newest so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Keeps the newest of each of so many hours, or `"all"` hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<Count>,
    /// Keeps the newest of each of so many days, or `"all"` days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<Count>,
    /// Keeps the newest of each of so many weeks, or `"all"` weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<Count>,
    /// Keeps the newest of each of so many months, or `"all"` months.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<Count>,
    /// Keeps the newest of each of so many years, or `"all"` years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<Count>,
    /// Keeps everything for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<CalendarSpan>,
    /// Keeps the newest of each hour for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within_hourly: Option<CalendarSpan>,
    /// Keeps the newest of each day for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within_daily: Option<CalendarSpan>,
    /// Keeps the newest of each week for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within_weekly: Option<CalendarSpan>,
    /// Keeps the newest of each month for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within_monthly: Option<CalendarSpan>,
    /// Keeps the newest of each year for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within_yearly: Option<CalendarSpan>,
    /// Keeps what has one of these tags, each `name=value`, or `name` for any value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep_tags: Vec<String>,
    /// Keeps everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_all: bool,
    /// Keeps days, and the weeks, months and years by fixed days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grandfather_father_son: Option<GfsConfig>,
    /// The time zone of all this, such as `Europe/Zurich`; UTC if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The day that weeks begin on; Monday if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_weekday: Option<WeekdayName>,
    /// What is told apart, each group with a count of its own; source, host, label and tenant if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_by: Option<Vec<GroupBy>>,
    /// Whether a group may lose its newest complete snapshot when no rule keeps it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// Other policies for some snapshots; the first that applies counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<OverrideConfig>,
}

/// Another policy for the snapshots that have everything that is given here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OverrideConfig {
    /// The kind of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What to keep of them. Time zone and first weekday are those around it where not given; groups and further
    /// overrides it cannot have.
    pub policy: RetentionConfig,
}

/// Counts of a [`GrandfatherFatherSon`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct GfsConfig {
    /// Days.
    pub daily: u32,
    /// Weeks, by the snapshot of their first day.
    pub weekly: u32,
    /// Months, by the snapshot of the first.
    pub monthly: u32,
    /// Years, by the snapshot of the first of January.
    pub yearly: u32,
    /// The day whose snapshot is the week's; Sunday if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekday: Option<WeekdayName>,
}

/// How many periods: a number from 1 on, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Some(u32),
    /// However many there are; `"all"` in a configuration.
    All,
}

/// A day of the week, by its English name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum WeekdayName {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl RetentionConfig {
    /// The policy that this describes: a [`PerGroup`] over the [`Union`] of its rules.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](backup_core::ErrorKind::InvalidInput), naming the setting, for a configuration
    /// without a rule, a rule that keeps nothing, an unknown time zone, an override that applies to everything.
    pub fn build(&self) -> Result<Arc<dyn RetentionPolicy>> {
        let surroundings = Surroundings { zone: Zone::utc(), first_weekday: Weekday::Monday };
        let rules = self.rules(&surroundings)?;
        let default = || vec![GroupBy::Source, GroupBy::Host, GroupBy::Label, GroupBy::Tenant];
        let group_by = self.group_by.clone().unwrap_or_else(default);
        let mut policy = PerGroup::new(group_by, rules).allow_empty(self.allow_empty);
        let surroundings = self.surroundings(&surroundings)?;
        for (number, other) in self.overrides.iter().enumerate() {
            let other = other
                .build(&surroundings)
                .map_err(|error| Error::invalid_input(format!("overrides[{number}]: {}", error.message())))?;
            policy = policy.with_override(other);
        }
        Ok(Arc::new(policy))
    }

    /// The union of the rules.
    fn rules(&self, around: &Surroundings) -> Result<Arc<dyn RetentionPolicy>> {
        let around = self.surroundings(around)?;
        let mut rules: Vec<Arc<dyn RetentionPolicy>> = Vec::new();
        if let Some(count) = self.keep_last {
            rules.push(Arc::new(KeepLast(positive("keep_last", count)?)));
        }
        if let Some(span) = self.keep_within {
            rules.push(Arc::new(KeepWithin::new(span).in_zone(around.zone.clone())));
        }
        for (name, period, count, within) in [
            ("keep_hourly", Period::Hour, self.keep_hourly, self.keep_within_hourly),
            ("keep_daily", Period::Day, self.keep_daily, self.keep_within_daily),
            ("keep_weekly", Period::Week, self.keep_weekly, self.keep_within_weekly),
            ("keep_monthly", Period::Month, self.keep_monthly, self.keep_within_monthly),
            ("keep_yearly", Period::Year, self.keep_yearly, self.keep_within_yearly),
        ] {
            let count = match count {
                Some(Count::Some(count)) => Some(Extent::Count(positive(name, count)?)),
                Some(Count::All) => Some(Extent::Unlimited),
                None => None,
            };
            for extent in count.into_iter().chain(within.map(Extent::Within)) {
                let rule = KeepCalendar::with_extent(period, extent).in_zone(around.zone.clone());
                rules.push(Arc::new(rule.with_first_weekday(around.first_weekday)));
            }
        }
        if let Some(gfs) = &self.grandfather_father_son {
            rules.push(Arc::new(gfs.build(&around.zone)?));
        }
        for tag in &self.keep_tags {
            rules.push(Arc::new(tag.parse::<KeepTagged>()?));
        }
        if self.keep_all {
            rules.push(Arc::new(KeepAll));
        }
        if rules.is_empty() {
            let message = "this policy has no rule, so it would keep nothing; give one, such as keep_daily = 7, or say \
                           keep_all = true";
            return Err(Error::invalid_input(message));
        }
        Ok(Arc::new(Union::new(rules)))
    }

    fn surroundings(&self, around: &Surroundings) -> Result<Surroundings> {
        let zone = match &self.time_zone {
            Some(name) => Zone::named(name)
                .map_err(|error| Error::invalid_input(format!("time_zone: {}", error.message())))?,
            None => around.zone.clone(),
        };
        let first_weekday = self.first_weekday.map_or(around.first_weekday, Weekday::from);
        Ok(Surroundings { zone, first_weekday })
    }
}

/// What an override takes over from the policy around it.
struct Surroundings {
    zone: Zone,
    first_weekday: Weekday,
}

impl OverrideConfig {
    fn build(&self, around: &Surroundings) -> Result<Override> {
        if [&self.source, &self.host, &self.label, &self.tenant].into_iter().all(Option::is_none) {
            return Err(Error::invalid_input("say what it applies to: source, host, label or tenant"));
        }
        if self.policy.group_by.is_some() || !self.policy.overrides.is_empty() {
            return Err(Error::invalid_input("group_by and overrides belong to the policy around it"));
        }
        Ok(Override {
            source: self.source.clone(),
            host: self.host.clone(),
            label: self.label.clone(),
            tenant: self.tenant.clone(),
            policy: self.policy.rules(around)?,
            allow_empty: self.policy.allow_empty,
        })
    }
}

impl GfsConfig {
    fn build(&self, zone: &Zone) -> Result<GrandfatherFatherSon> {
        if [self.daily, self.weekly, self.monthly, self.yearly].iter().all(|count| *count == 0) {
            return Err(Error::invalid_input(
                "grandfather_father_son keeps nothing; give it daily, weekly, monthly or yearly",
            ));
        }
        let weekday = self.weekday.map_or(Weekday::Sunday, Weekday::from);
        let policy = GrandfatherFatherSon::new(self.daily, self.weekly, self.monthly, self.yearly);
        Ok(policy.in_zone(zone.clone()).with_weekday(weekday))
    }
}

impl From<WeekdayName> for Weekday {
    fn from(name: WeekdayName) -> Self {
        match name {
            WeekdayName::Monday => Self::Monday,
            WeekdayName::Tuesday => Self::Tuesday,
            WeekdayName::Wednesday => Self::Wednesday,
            WeekdayName::Thursday => Self::Thursday,
            WeekdayName::Friday => Self::Friday,
            WeekdayName::Saturday => Self::Saturday,
            WeekdayName::Sunday => Self::Sunday,
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Some(count) => serializer.serialize_u32(*count),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of periods, or \"all\"")
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Count, E> {
                u32::try_from(count)
                    .map(Count::Some)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(count), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Count, E> {
                u32::try_from(count)
                    .map(Count::Some)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(count), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Count, E> {
                if text == "all" {
                    Ok(Count::All)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Count {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number of periods, or \"all\"",
            "oneOf": [{ "type": "integer", "minimum": 1 }, { "const": "all" }]
        })
    }
}

fn positive(name: &str, count: u32) -> Result<u32> {
    match count {
        0 => Err(Error::invalid_input(format!("{name} = 0 keeps nothing; leave it out"))),
        count => Ok(count),
    }
}
