//! What is known of an entry only once its content is open joins what its source said of it.

use crate::entry::{CONTENT_PREFIX, XATTR_PREFIX};
use crate::format::entries::check_entry;
use crate::{Attribute, Entry};

/// Adds those of `attributes` that belong to content, extended ones among them or not, and that `entry` does not have by itself.
///
/// They come with the content, or from the parent's entry where the content is not read again. What would exceed the
/// format's limits is left out, as such an entry could not be stored at all: returns how many.
pub(crate) fn add_content_attributes(entry: &mut Entry, attributes: Vec<Attribute>, xattrs: bool) -> usize {
    let mut left_out = 0_usize;
    for attribute in attributes {
        let name = &attribute.name;
        if !(name.starts_with(CONTENT_PREFIX) || xattrs && name.starts_with(XATTR_PREFIX)) {
            continue;
        }
        let Err(at) = entry.attributes.binary_search_by(|has| has.name.cmp(&attribute.name)) else {
            continue;
        };
        entry.attributes.insert(at, attribute);
        if check_entry(entry).is_err() {
            entry.attributes.remove(at);
            left_out = left_out.saturating_add(1);
        }
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &[u8], value: &[u8]) -> Attribute {
        Attribute { name: name.into(), value: value.into() }
    }

    #[test]
    fn what_belongs_to_content_is_added_in_order_and_nothing_is_replaced() {
        for (xattrs, expected) in [
            (false, &["file:a", "file:b", "file:c", "xattr:user.x"][..]),
            (true, &["file:a", "file:b", "file:c", "xattr:user.gone", "xattr:user.x"]),
        ] {
            let mut entry = Entry::file("a").unwrap();
            entry.attributes = vec![attribute(b"file:b", b"own"), attribute(b"xattr:user.x", b"1")];
            let given = vec![
                attribute(b"file:a", b"given"),
                attribute(b"file:b", b"given"),
                attribute(b"xattr:user.gone", b"2"),
                attribute(b"file:c", b"given"),
                attribute(b"other:d", b"given"),
            ];
            assert_eq!(add_content_attributes(&mut entry, given, xattrs), 0);
            let names: Vec<_> =
                entry.attributes.iter().map(|a| String::from_utf8_lossy(&a.name).into_owned()).collect();
            assert_eq!(names, expected);
            assert_eq!(entry.attribute(b"file:b"), Some(&b"own"[..]));
        }
    }

    #[test]
    fn what_exceeds_the_limits_is_left_out() {
        let mut entry = Entry::file("a").unwrap();
        let long = vec![0; crate::limits::ATTRIBUTE_BYTES_MAX + 1];
        let given = vec![attribute(b"file:a", &long), attribute(b"file:b", b"")];
        assert_eq!(add_content_attributes(&mut entry, given, false), 1);
        assert_eq!(entry.attributes.len(), 1);
    }
}
