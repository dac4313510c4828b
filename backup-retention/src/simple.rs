//! The policies without a calendar: the last ones, those within a span, those with a tag, all; and their union.

use std::sync::Arc;

use backup_core::retention::{Decision, SnapshotFacts};
use backup_core::{RetentionPolicy, Timestamp};

use crate::select::{Reasons, decide_counted, newest_first};
use crate::{CalendarSpan, Zone};

/// Keeps the newest so many snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepLast(pub u32);

impl RetentionPolicy for KeepLast {
    fn decide(&self, snapshots: &[SnapshotFacts], now: Timestamp) -> Vec<Decision> {
        let count = usize::try_from(self.0).unwrap_or(usize::MAX);
        decide_counted(snapshots, now, |newest_first| {
            let last = newest_first.iter().take(count).zip(1_u64..);
            last.map(|(facts, place)| (facts.id, format!("last {place} of {}", self.0))).collect()
        })
    }
}

/// Keeps everything that the store has had for no longer than a span of the calendar, up to the second, and what is
/// from the future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepWithin {
    span: CalendarSpan,
    zone: Zone,
}

impl KeepWithin {
    /// Everything not older than `span`, with days and months of UTC.
    pub fn new(span: CalendarSpan) -> Self {
        Self { span, zone: Zone::utc() }
    }

    /// Days and months of this time zone: a day is 23 or 25 hours long where the clock is changed.
    #[must_use]
    pub fn in_zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }
}

impl RetentionPolicy for KeepWithin {
    fn decide(&self, snapshots: &[SnapshotFacts], now: Timestamp) -> Vec<Decision> {
        let oldest = self.span.before(now, &self.zone);
        let mut reasons = Reasons::default();
        for facts in newest_first(snapshots).into_iter().take_while(|facts| facts.time >= oldest) {
            reasons.add(facts.id, format!("within {}", self.span));
        }
        reasons.into_decisions(snapshots)
    }
}

/// Keeps snapshots with a tag, for ever.
///
/// ```
/// use backup_retention::KeepTagged;
///
/// let legal: KeepTagged = "hold=legal".parse()?;
/// let any_hold: KeepTagged = "hold".parse()?;
/// assert_eq!(legal, KeepTagged::new("hold", Some("legal")));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepTagged {
    name: String,
    value: Option<String>,
}

impl KeepTagged {
    /// Snapshots with the tag `name`, and where given of that value.
    pub fn new(name: impl Into<String>, value: Option<&str>) -> Self {
        Self { name: name.into(), value: value.map(str::to_owned) }
    }
}

impl std::str::FromStr for KeepTagged {
    type Err = backup_core::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.is_empty() {
            let message =
                format!("`{text}` names no tag; write it like `hold=legal`, or `hold` for any value");
            return Err(backup_core::Error::invalid_input(message));
        }
        Ok(Self::new(name, value))
    }
}

impl RetentionPolicy for KeepTagged {
    fn decide(&self, snapshots: &[SnapshotFacts], _: Timestamp) -> Vec<Decision> {
        let mut reasons = Reasons::default();
        for facts in snapshots {
            let found = facts.tags.get(&self.name);
            if let Some(value) =
                found.filter(|found| self.value.as_ref().is_none_or(|wanted| wanted == *found))
            {
                reasons.add(facts.id, format!("tag {}={value}", self.name));
            }
        }
        reasons.into_decisions(snapshots)
    }
}

/// Keeps everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAll;

impl RetentionPolicy for KeepAll {
    fn decide(&self, snapshots: &[SnapshotFacts], _: Timestamp) -> Vec<Decision> {
        let keep =
            |facts: &SnapshotFacts| Decision { id: facts.id, reasons: vec!["everything is kept".to_owned()] };
        snapshots.iter().map(keep).collect()
    }
}

/// Keeps what any of several policies keeps, for all of their reasons.
#[derive(Debug, Clone)]
pub struct Union(Vec<Arc<dyn RetentionPolicy>>);

impl Union {
    /// The union of `policies`; of none, it keeps nothing.
    pub fn new(policies: impl IntoIterator<Item = Arc<dyn RetentionPolicy>>) -> Self {
        Self(policies.into_iter().collect())
    }
}

impl RetentionPolicy for Union {
    fn decide(&self, snapshots: &[SnapshotFacts], now: Timestamp) -> Vec<Decision> {
        let mut reasons = Reasons::default();
        for policy in &self.0 {
            for decision in policy.decide(snapshots, now) {
                decision.reasons.into_iter().for_each(|reason| reasons.add(decision.id, reason));
            }
        }
        reasons.into_decisions(snapshots)
    }
}
