//! What is known of an entry only once its content is open joins what its source said of it.

use crate::entry::CONTENT_PREFIX;
use crate::format::entries::check_entry;
use crate::{Attribute, Entry};

/// Adds those of `attributes` that belong to content and that `entry` does not have by itself.
///
/// They come with the content, or from the parent's entry where the content is not read again. What would exceed the
/// format's limits is left out: such an entry could not be stored at all.
pub(crate) fn add_content_attributes(entry: &mut Entry, attributes: Vec<Attribute>) {
    for attribute in attributes {
        if !attribute.name.starts_with(CONTENT_PREFIX) {
            continue;
        }
        let Err(at) = entry.attributes.binary_search_by(|has| has.name.cmp(&attribute.name)) else {
            continue;
        };
        entry.attributes.insert(at, attribute);
        if check_entry(entry).is_err() {
            entry.attributes.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &[u8], value: &[u8]) -> Attribute {
        Attribute { name: name.into(), value: value.into() }
    }

    #[test]
    fn what_belongs_to_content_is_added_in_order_and_nothing_is_replaced() {
        let mut entry = Entry::file("a").unwrap();
        entry.attributes = vec![attribute(b"file:b", b"own"), attribute(b"xattr:user.x", b"1")];
        add_content_attributes(
            &mut entry,
            vec![
                attribute(b"file:a", b"given"),
                attribute(b"file:b", b"given"),
                attribute(b"xattr:user.gone", b"2"),
                attribute(b"file:c", b"given"),
            ],
        );
        let names: Vec<_> =
            entry.attributes.iter().map(|a| String::from_utf8_lossy(&a.name).into_owned()).collect();
        assert_eq!(names, ["file:a", "file:b", "file:c", "xattr:user.x"]);
        assert_eq!(entry.attribute(b"file:b"), Some(&b"own"[..]));
    }

    #[test]
    fn what_exceeds_the_limits_is_left_out() {
        let mut entry = Entry::file("a").unwrap();
        let long = vec![0; crate::limits::ATTRIBUTE_BYTES_MAX + 1];
        add_content_attributes(&mut entry, vec![attribute(b"file:a", &long), attribute(b"file:b", b"")]);
        assert_eq!(entry.attributes.len(), 1);
    }
}
