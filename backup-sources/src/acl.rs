//! The users and groups that a POSIX access control list names.
//!
//! Linux gives and takes lists as extended attributes: a version (2), then rules of eight bytes: tag, permissions and
//! id, little-endian (`linux/posix_acl_xattr.h`). Only the tags of named users and groups have an id that counts.

/// What lists are called as extended attributes.
pub(crate) const NAMES: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const RULE_BYTES: usize = 8;
const TAG_USER_OWNER: u16 = 1;
const TAG_USER: u16 = 2;
const TAG_GROUP_OWNER: u16 = 4;
const TAG_GROUP: u16 = 8;
const TAG_MASK: u16 = 16;
const TAG_OTHER: u16 = 32;

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

/// `list` as text, as archives hold it: `user::rw-,user:lisa:r--,group::r--,mask::rw-,other::---` (acl(5), the long form on one
/// line). Who has no name here stands there by number. None if it is no list.
pub(crate) fn text(list: &[u8], name: impl Fn(Who) -> Option<String>) -> Option<String> {
    let (rules, rest) = list.strip_prefix(&VERSION)?.as_chunks::<RULE_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let mut parts = Vec::with_capacity(rules.len());
    for rule in rules {
        let [tag_low, tag_high, low, high, ..] = *rule;
        let class = match u16::from_le_bytes([tag_low, tag_high]) {
            TAG_USER_OWNER | TAG_USER => "user",
            TAG_GROUP_OWNER | TAG_GROUP => "group",
            TAG_MASK => "mask",
            TAG_OTHER => "other",
            _ => return None,
        };
        let plain = |name: &String| !name.contains([':', ',', '\n', '#']);
        let whom = match who(rule) {
            Some(someone @ (Who::User(id) | Who::Group(id))) => {
                name(someone).filter(plain).unwrap_or_else(|| id.to_string())
            }
            None => String::new(),
        };
        let permissions = u16::from_le_bytes([low, high]);
        let letter = |bit: u16, letter| if permissions & bit == 0 { '-' } else { letter };
        parts.push(format!("{class}:{whom}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')));
    }
    Some(parts.join(","))
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
    fn archives_hold_text() {
        let rules = [
            (1, 6, u32::MAX),
            (2, 4, 1234),
            (4, 5, u32::MAX),
            (8, 7, 77),
            (16, 1, u32::MAX),
            (32, 0, u32::MAX),
        ];
        let name = |who| (who == Who::User(1234)).then(|| "lisa".to_owned());
        let expected = "user::rw-,user:lisa:r--,group::r-x,group:77:rwx,mask::--x,other::---";
        assert_eq!(text(&list(&rules), name).as_deref(), Some(expected));
        assert_eq!(text(&list(&[(2, 4, 1)]), |_| Some("a:b".into())).as_deref(), Some("user:1:r--"));
        for bytes in [&b""[..], b"\x03\0\0\0", b"\x02\0\0\0\x01\0", b"\x02\0\0\0\x03\0\0\0\0\0\0\0"] {
            assert_eq!(text(bytes, |_| None), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_left_as_it_is() {
        for bytes in [&b""[..], b"\x02\0", b"\x03\0\0\0\x02\0\0\0\x01\0\0\0", b"\x02\0\0\0\x02\0\0"] {
            assert_eq!(named(bytes).count(), 0);
            assert_eq!(*renumbered(bytes, |_| 0), *bytes);
        }
    }
}
