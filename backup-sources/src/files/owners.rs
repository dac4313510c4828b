//! The names of the owners that were seen.

use std::collections::BTreeSet;

use backup_core::entry::XATTR_PREFIX;
use backup_core::{Attribute, Entry, OwnerNames, limits};
use nix::unistd::{Gid, Group, Uid, User};

use crate::acl::{self, Who};

/// Looks each owner's name up once. What has none, or cannot be looked up, is stored by its number alone.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    /// Those of the entry before: most have the same.
    last: Option<(u32, u32)>,
    names: OwnerNames,
}

impl Owners {
    /// Notes the owner of `entry`, and whom its access lists name.
    pub(super) fn see(&mut self, entry: &Entry) {
        if let Some(posix) = &entry.posix
            && self.last != Some((posix.uid, posix.gid))
        {
            self.last = Some((posix.uid, posix.gid));
            self.note(Who::User(posix.uid));
            self.note(Who::Group(posix.gid));
        }
        self.see_lists(&entry.attributes);
    }

    /// Notes whom access lists among these attributes name.
    pub(super) fn see_lists(&mut self, attributes: &[Attribute]) {
        for attribute in attributes {
            let name = attribute.name.strip_prefix(XATTR_PREFIX).unwrap_or_default();
            if acl::NAMES.contains(&name) {
                acl::named(&attribute.value).for_each(|who| self.note(who));
            }
        }
    }

    /// The names found.
    pub(super) fn into_names(self) -> OwnerNames {
        self.names
    }

    /// Adds the names found to `names`.
    pub(super) fn add_to(&mut self, names: &mut OwnerNames) {
        names.users.append(&mut self.names.users);
        names.groups.append(&mut self.names.groups);
    }

    fn note(&mut self, who: Who) {
        let (seen, id) = match who {
            Who::User(id) => (&mut self.users, id),
            Who::Group(id) => (&mut self.groups, id),
        };
        if seen.len() >= limits::OWNER_NAMES_MAX || !seen.insert(id) {
            return;
        }
        match who {
            Who::User(id) => {
                if let Ok(Some(user)) = User::from_uid(Uid::from_raw(id)) {
                    self.names.users.insert(id, user.name);
                }
            }
            Who::Group(id) => {
                if let Ok(Some(group)) = Group::from_gid(Gid::from_raw(id)) {
                    self.names.groups.insert(id, group.name);
                }
            }
        }
    }
}
