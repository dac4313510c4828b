//! The names that numeric owners had where they were seen.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::limits;

/// The names of users and groups, by number, on the system that entries come from.
///
/// A target on another system, where the same people have other numbers, restores owners by name with it. Numbers
/// without a name are missing, as are those beyond [`limits::OWNER_NAMES_MAX`].
///
/// ```
/// use backup_core::OwnerNames;
///
/// let mut names = OwnerNames::default();
/// names.users.insert(33, "www-data".into());
/// assert!(!names.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerNames {
    /// Names of users.
    #[serde(default, deserialize_with = "names")]
    pub users: BTreeMap<u32, String>,
    /// Names of groups.
    #[serde(default, deserialize_with = "names")]
    pub groups: BTreeMap<u32, String>,
}

impl OwnerNames {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Adds the names of those that it does not name.
    pub(crate) fn add_missing(&mut self, others: &Self) {
        for (names, others) in [(&mut self.users, &others.users), (&mut self.groups, &others.groups)] {
            for (id, name) in others {
                names.entry(*id).or_insert_with(|| name.clone());
            }
        }
    }

    /// The same names without those that the format has no room for.
    #[must_use]
    pub(crate) fn within_limits(mut self) -> Self {
        for names in [&mut self.users, &mut self.groups] {
            names.retain(|_, name| name.len() <= limits::OWNER_NAME_BYTES_MAX);
            while names.len() > limits::OWNER_NAMES_MAX {
                names.pop_last();
            }
        }
        self
    }
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u32, String>, D::Error> {
    deserializer.deserialize_map(Names)
}

/// A table that is given up when it gets longer than it may be.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = BTreeMap<u32, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table of at most {} names", limits::OWNER_NAMES_MAX)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = BTreeMap::new();
        while let Some((id, name)) = map.next_entry::<u32, String>()? {
            if names.len() >= limits::OWNER_NAMES_MAX || name.len() > limits::OWNER_NAME_BYTES_MAX {
                return Err(A::Error::invalid_length(names.len().saturating_add(1), &self));
            }
            names.insert(id, name);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_endless_tables_given_up() {
        let mut names = OwnerNames::default();
        names.users.insert(0, "root".into());
        names.groups.insert(u32::MAX, "all".into());
        let json = serde_json::to_string(&names).unwrap();
        assert_eq!(json, r#"{"users":{"0":"root"},"groups":{"4294967295":"all"}}"#);
        assert_eq!(serde_json::from_str::<OwnerNames>(&json).unwrap(), names);
        assert!(serde_json::from_str::<OwnerNames>("{}").unwrap().is_empty());
        let many = |count: usize| {
            let names: Vec<String> = (0..count).map(|id| format!("\"{id}\":\"\"")).collect();
            serde_json::from_str::<OwnerNames>(&format!("{{\"users\":{{{}}}}}", names.join(",")))
        };
        assert_eq!(many(limits::OWNER_NAMES_MAX).unwrap().users.len(), limits::OWNER_NAMES_MAX);
        assert!(many(limits::OWNER_NAMES_MAX + 1).is_err());
    }

    #[test]
    fn what_the_format_has_no_room_for_is_left_out() {
        let users = (0..limits::OWNER_NAMES_MAX as u32 + 5).map(|id| (id, String::new())).collect();
        let mut names = OwnerNames { users, ..OwnerNames::default() };
        names.groups.insert(1, "n".repeat(limits::OWNER_NAME_BYTES_MAX + 1));
        let names = names.within_limits();
        assert_eq!((names.users.len(), names.groups.len()), (limits::OWNER_NAMES_MAX, 0));
    }
}
