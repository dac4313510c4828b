//! Whom the numbers in a snapshot mean on this system.

use std::collections::HashMap;

use backup_core::entry::XATTR_PREFIX;
use backup_core::{Attribute, OwnerNames, PosixMetadata};
use nix::unistd::{Group, User};

use crate::acl::{self, Who};

/// The numbers that users and groups have here, where it is not those that they have in the snapshot.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
}

impl Numbers {
    /// Looks up who has the names here. Names that nobody has here keep their numbers.
    ///
    /// Root stays root, and nobody becomes root by a name.
    pub(super) fn of(names: &OwnerNames) -> Self {
        let user = |name: &str| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        let group = |name: &str| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        Self {
            users: names.users.iter().filter_map(|(id, name)| other(*id, user(name)?)).collect(),
            groups: names.groups.iter().filter_map(|(id, name)| other(*id, group(name)?)).collect(),
        }
    }

    /// The owner's numbers here.
    pub(super) fn owner(&self, mut posix: PosixMetadata) -> PosixMetadata {
        posix.uid = self.number(Who::User(posix.uid));
        posix.gid = self.number(Who::Group(posix.gid));
        posix
    }

    /// The attributes, with access lists that name the same users and groups here.
    pub(super) fn attributes(&self, attributes: &[Attribute]) -> Vec<Attribute> {
        let here = |attribute: &Attribute| {
            let name = attribute.name.strip_prefix(XATTR_PREFIX).unwrap_or_default();
            if self.is_empty() || !acl::NAMES.contains(&name) {
                return attribute.clone();
            }
            let value = acl::renumbered(&attribute.value, |who| self.number(who));
            Attribute { name: attribute.name.clone(), value }
        };
        attributes.iter().map(here).collect()
    }

    fn number(&self, who: Who) -> u32 {
        match who {
            Who::User(id) => self.users.get(&id).copied().unwrap_or(id),
            Who::Group(id) => self.groups.get(&id).copied().unwrap_or(id),
        }
    }

    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }
}

fn other(there: u32, here: u32) -> Option<(u32, u32)> {
    (there != here && there != 0 && here != 0).then_some((there, here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_system_decide_and_nobody_becomes_root() {
        let daemon = User::from_name("daemon").unwrap().unwrap().uid.as_raw();
        let users =
            [(4242, "daemon"), (5, "root"), (0, "daemon"), (6, "nobody has this name"), (daemon, "daemon")]
                .map(|(id, name)| (id, name.to_owned()))
                .into();
        let names = OwnerNames { users, ..OwnerNames::default() };
        let numbers = Numbers::of(&names);
        let uid = |uid| numbers.owner(PosixMetadata { uid, ..PosixMetadata::default() }).uid;
        assert_eq!([uid(4242), uid(5), uid(0), uid(6), uid(daemon), uid(77)], [daemon, 5, 0, 6, daemon, 77]);
    }
}
