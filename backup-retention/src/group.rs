//! Snapshots by source, host, label, tenant or tag, each group by itself, and none emptied by surprise.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use backup_core::retention::{Decision, SnapshotFacts};
use backup_core::{Error, RepositoryId, Result, RetentionPolicy, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::select::{QUARANTINED, Reasons, newest_first};

/// What tells groups apart: `source`, `host`, `label`, `tenant`, or `tag:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupBy {
    /// The kind of the source.
    Source,
    /// The host.
    Host,
    /// The label; snapshots without one are a group.
    Label,
    /// The tenant; snapshots without one are a group.
    Tenant,
    /// The value of this tag; snapshots without it are a group.
    Tag(String),
}

impl GroupBy {
    fn value<'a>(&self, facts: &'a SnapshotFacts) -> Option<&'a str> {
        match self {
            Self::Source => Some(&facts.source),
            Self::Host => Some(&facts.host),
            Self::Label => facts.label.as_deref(),
            Self::Tenant => facts.tenant.as_deref(),
            Self::Tag(name) => facts.tags.get(name).map(String::as_str),
        }
    }
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("source"),
            Self::Host => f.write_str("host"),
            Self::Label => f.write_str("label"),
            Self::Tenant => f.write_str("tenant"),
            Self::Tag(name) => write!(f, "tag:{name}"),
        }
    }
}

impl FromStr for GroupBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "source" => Self::Source,
            "host" => Self::Host,
            "label" => Self::Label,
            "tenant" => Self::Tenant,
            _ => match text.strip_prefix("tag:").filter(|name| !name.is_empty()) {
                Some(name) => Self::Tag(name.to_owned()),
                None => {
                    let message = format!(
                        "`{text}` is nothing to group by: take source, host, label, tenant or tag:NAME"
                    );
                    return Err(Error::invalid_input(message));
                }
            },
        })
    }
}

impl Serialize for GroupBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GroupBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for GroupBy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GroupBy".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "What tells groups apart",
            "pattern": "^(source|host|label|tenant|tag:.+)$"
        })
    }
}

/// Another policy for some snapshots: those that have everything that is given here.
#[derive(Debug, Clone)]
pub struct Override {
    /// The kind of the source.
    pub source: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The label.
    pub label: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// What decides for them.
    pub policy: Arc<dyn RetentionPolicy>,
    /// Whether a group of them may become empty.
    pub allow_empty: bool,
}

impl Override {
    fn applies_to(&self, facts: &SnapshotFacts) -> bool {
        let fits =
            |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        fits(&self.source, Some(&facts.source))
            && fits(&self.host, Some(&facts.host))
            && fits(&self.label, facts.label.as_deref())
            && fits(&self.tenant, facts.tenant.as_deref())
    }
}

/// Applies a policy to each group of snapshots by itself, and never drops the newest complete snapshot of a group unless
/// told that it may.
///
/// The groups are those of equal values of everything in `group_by`; with nothing in it, all snapshots are one. The
/// first override that applies to a snapshot takes it out of the others' groups and into groups of its own.
///
/// Copies of another repository's snapshots are groups of their own, whatever is grouped by: nobody can know when they were
/// first stored, and so they displace nothing that was made here. Quarantined snapshots are kept.
///
/// In a group without a complete snapshot the newest partial one is kept in its stead. A snapshot that a policy gives no
/// decision on, against its contract, is kept.
///
/// ```
/// use std::sync::Arc;
/// use backup_retention::{GroupBy, KeepLast, PerGroup};
///
/// let policy = PerGroup::new([GroupBy::Host, GroupBy::Label], Arc::new(KeepLast(3)));
/// # let _ = policy;
/// ```
#[derive(Debug, Clone)]
pub struct PerGroup {
    group_by: Vec<GroupBy>,
    policy: Arc<dyn RetentionPolicy>,
    overrides: Vec<Override>,
    allow_empty: bool,
}

/// A group: the override that applies, where copies come from, and the values it is grouped by.
type Group<'a> = (Option<usize>, Option<RepositoryId>, Vec<Option<&'a str>>);

impl PerGroup {
    /// `policy` for each group by itself.
    pub fn new(group_by: impl IntoIterator<Item = GroupBy>, policy: Arc<dyn RetentionPolicy>) -> Self {
        Self { group_by: group_by.into_iter().collect(), policy, overrides: Vec::new(), allow_empty: false }
    }

    /// Another policy for some snapshots; earlier overrides go before later ones.
    #[must_use]
    pub fn with_override(mut self, other: Override) -> Self {
        self.overrides.push(other);
        self
    }

    /// Whether a group may become empty when its policy keeps nothing of it.
    #[must_use]
    pub fn allow_empty(mut self, allow_empty: bool) -> Self {
        self.allow_empty = allow_empty;
        self
    }

    fn group_of<'a>(&self, facts: &'a SnapshotFacts) -> Group<'a> {
        let other = self.overrides.iter().position(|other| other.applies_to(facts));
        (other, facts.origin, self.group_by.iter().map(|by| by.value(facts)).collect())
    }
}

impl RetentionPolicy for PerGroup {
    fn decide(&self, snapshots: &[SnapshotFacts], now: Timestamp) -> Vec<Decision> {
        let mut groups: BTreeMap<Group<'_>, Vec<SnapshotFacts>> = BTreeMap::new();
        for facts in snapshots {
            groups.entry(self.group_of(facts)).or_default().push(facts.clone());
        }
        let mut reasons = Reasons::default();
        for ((other, ..), group) in groups {
            let other = other.and_then(|number| self.overrides.get(number));
            let policy = other.map_or(&self.policy, |other| &other.policy);
            let decided: BTreeMap<_, _> = policy
                .decide(&group, now)
                .into_iter()
                .map(|decision| (decision.id, decision.reasons))
                .collect();
            for facts in &group {
                match decided.get(&facts.id) {
                    Some(mine) => mine.iter().for_each(|reason| reasons.add(facts.id, reason.clone())),
                    None => reasons.add(facts.id, "its policy decided nothing".to_owned()),
                }
            }
            let (quarantined, group): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|facts| facts.quarantined);
            for facts in quarantined {
                reasons.add(facts.id, QUARANTINED.to_owned());
            }
            if !other.map_or(self.allow_empty, |other| other.allow_empty) {
                keep_one(&group, now, &mut reasons);
            }
        }
        reasons.into_decisions(snapshots)
    }
}

/// Keeps the newest complete snapshot; if there is none up to `now`, one of the future; if there is none at all, the
/// newest partial one.
fn keep_one(group: &[SnapshotFacts], now: Timestamp, reasons: &mut Reasons) {
    let sorted = newest_first(group);
    let complete = || sorted.iter().filter(|facts| facts.complete);
    if let Some(facts) = complete().find(|facts| facts.time <= now).or_else(|| complete().next()) {
        reasons.add(facts.id, "the newest complete one of its group".to_owned());
    } else if let Some(facts) = sorted.iter().find(|facts| facts.time <= now).or_else(|| sorted.first()) {
        reasons.add(facts.id, "the newest of its group, which has no complete one".to_owned());
    }
}
