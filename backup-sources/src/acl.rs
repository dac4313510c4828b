//! The users and groups that a POSIX access control list names.
//!
//! Linux gives and takes lists as extended attributes: a version (2), then rules of eight bytes: tag, permissions and
//! id, little-endian (`linux/posix_acl_xattr.h`). Only the tags of named users and groups have an id that counts.

/// What lists are called as extended attributes.
pub(crate) const NAMES: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const RULE_BYTES: usize = 8;
const TAG_USER: u16 = 2;
const TAG_GROUP: u16 = 8;

/// Somebody whom a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    User(u32),
    Group(u32),
}

/// The users and groups that `list` names.
pub(crate) fn named(list: &[u8]) -> impl Iterator<Item = Who> {
    let rules = list.strip_prefix(&VERSION).unwrap_or_default();
    rules.as_chunks::<RULE_BYTES>().0.iter().filter_map(who)
}

/// `list` with other numbers for those whom it names.
pub(crate) fn renumbered(list: &[u8], number: impl Fn(Who) -> u32) -> Box<[u8]> {
    let mut list: Box<[u8]> = list.into();
    if list.starts_with(&VERSION)
        && let Some(rules) = list.get_mut(VERSION.len()..)
    {
        for rule in rules.as_chunks_mut::<RULE_BYTES>().0 {
            if let Some(who) = who(rule) {
                let [tag_low, tag_high, low, high, ..] = *rule;
                let [a, b, c, d] = number(who).to_le_bytes();
                *rule = [tag_low, tag_high, low, high, a, b, c, d];
            }
        }
    }
    list
}

fn who(rule: &[u8; RULE_BYTES]) -> Option<Who> {
    let [tag_low, tag_high, _, _, a, b, c, d] = *rule;
    let id = u32::from_le_bytes([a, b, c, d]);
    match u16::from_le_bytes([tag_low, tag_high]) {
        TAG_USER => Some(Who::User(id)),
        TAG_GROUP => Some(Who::Group(id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rules: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut list = VERSION.to_vec();
        for (tag, permissions, id) in rules {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        list
    }

    #[test]
    fn only_named_users_and_groups_have_numbers() {
        let before =
            list(&[(1, 6, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (8, 5, 77), (16, 4, 9), (32, 0, 9)]);
        assert_eq!(named(&before).collect::<Vec<_>>(), [Who::User(1234), Who::Group(77)]);
        let after = renumbered(&before, |who| match who {
            Who::User(id) => id + 1,
            Who::Group(id) => id + 100,
        });
        let expected =
            list(&[(1, 6, u32::MAX), (2, 4, 1235), (4, 4, u32::MAX), (8, 5, 177), (16, 4, 9), (32, 0, 9)]);
        assert_eq!(*after, *expected);
    }

    #[test]
    fn what_is_no_list_is_left_as_it_is() {
        for bytes in [&b""[..], b"\x02\0", b"\x03\0\0\0\x02\0\0\0\x01\0\0\0", b"\x02\0\0\0\x02\0\0"] {
            assert_eq!(named(bytes).count(), 0);
            assert_eq!(*renumbered(bytes, |_| 0), *bytes);
        }
    }
}
