//! In which storage class objects are kept.

use std::collections::BTreeMap;

use backup_core::{Error, ObjectKey, Result};

/// What may be in a class of its own: the first parts of keys. What is not here is short-lived, or read to open anything.
const KINDS: [&str; 7] = ["data", "evidence", "index", "logs", "meta", "sets", "snapshots"];
/// Of these a restore can wait for what it needs.
const KINDS_THAWED: [&str; 1] = ["data"];
/// Classes from which nothing can be read at once, of S3 and of Azure.
const CLASSES_COLD: [&str; 3] = ["GLACIER", "DEEP_ARCHIVE", "ARCHIVE"];

/// In which of the store's classes objects are created, by the first part of their keys, like `data` in `STANDARD_IA`. All others are in the store's
/// usual one.
///
/// ```
/// use backup_sinks::StorageClasses;
///
/// assert!(StorageClasses::new([("data", "GLACIER")]).is_ok());
/// let wrong = StorageClasses::new([("index", "GLACIER")]).unwrap_err();
/// assert!(wrong.to_string().contains("cannot be read at once"), "{wrong}");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageClasses(BTreeMap<String, String>);

impl StorageClasses {
    /// These classes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](backup_core::ErrorKind::InvalidInput) for what is no kind of object or no name of a class, and for a class from which
    /// what lists everything else could not be read at once.
    pub fn new<K: Into<String>, C: Into<String>>(classes: impl IntoIterator<Item = (K, C)>) -> Result<Self> {
        let classes: BTreeMap<String, String> =
            classes.into_iter().map(|(kind, class)| (kind.into(), class.into())).collect();
        for (kind, class) in &classes {
            let wrong = |why: String| Err(Error::invalid_input(format!("storage_classes: {kind}: {why}")));
            if !KINDS.contains(&kind.as_str()) {
                return wrong(format!(
                    "is no kind of object that can have a class; these can: {}",
                    KINDS.join(", ")
                ));
            }
            if class.is_empty() || !class.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return wrong(format!("`{}` is not the name of a class", class.escape_debug()));
            }
            let is_cold = CLASSES_COLD.contains(&class.to_ascii_uppercase().as_str());
            if is_cold && !KINDS_THAWED.contains(&kind.as_str()) {
                return wrong(format!(
                    "what is in {class} cannot be read at once, and every job reads these; data can be there"
                ));
            }
        }
        Ok(Self(classes))
    }

    /// The class of an object, unless it is the usual one.
    pub(crate) fn of(&self, key: &ObjectKey) -> Option<&str> {
        let kind = key.as_str().split('/').next().unwrap_or_default();
        self.0.get(kind).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_by_the_first_part_of_keys() {
        let classes = StorageClasses::new([("data", "STANDARD_IA"), ("meta", "ONEZONE_IA")]).unwrap();
        let of = |key: &str| classes.of(&ObjectKey::new(key).unwrap()).map(str::to_owned);
        assert_eq!(of("data/ab/abcd"), Some("STANDARD_IA".to_owned()));
        assert_eq!(of("meta/ab/abcd"), Some("ONEZONE_IA".to_owned()));
        assert_eq!((of("config"), of("index/ab")), (None, None));
    }

    #[test]
    fn what_could_not_work_is_refused_by_name() {
        for (kind, class, why) in [
            ("config", "STANDARD_IA", "is no kind"),
            ("data", "", "not the name"),
            ("data", "A B", "not the name"),
            ("meta", "glacier", "cannot be read at once"),
            ("snapshots", "Archive", "cannot be read at once"),
        ] {
            let error = StorageClasses::new([(kind, class)]).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(kind), "{error}");
        }
    }
}
