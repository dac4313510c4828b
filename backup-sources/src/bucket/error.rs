//! What a store's failures mean here.

use std::error::Error as StdError;

use backup_core::{Error, ErrorKind};

/// What a failure of a store means: given the failure, what errors call the bucket, and what was to be done (`list`,
/// `read`).
pub type Explain = fn(&object_store::Error, &str, &str) -> Error;

/// What can be told of any store. What has no variant of its own may go well another time.
pub(super) fn explain(error: &object_store::Error, place: &str, doing: &str) -> Error {
    use object_store::Error as E;
    let (kind, cause) = match error {
        E::NotFound { .. } => (ErrorKind::NotFound, "there is no such object or bucket".into()),
        E::PermissionDenied { .. } => (ErrorKind::Denied, "the credentials do not permit it".into()),
        E::Unauthenticated { .. } => (ErrorKind::Denied, "the store does not accept the credentials".into()),
        E::NotSupported { .. } | E::NotImplemented { .. } => {
            (ErrorKind::Unsupported, format!("the store does not support it ({})", brief(error)))
        }
        E::UnknownConfigurationKey { .. } => (ErrorKind::InvalidInput, brief(error)),
        _ => (ErrorKind::Transient, brief(error)),
    };
    Error::new(kind, format!("{place}: cannot {doing}: {cause}"))
}

/// The beginning of the cause of the causes, on one line: it has neither addresses nor signatures.
fn brief(error: &object_store::Error) -> String {
    let mut at: &dyn StdError = error;
    while let Some(source) = at.source() {
        at = source;
    }
    let text = at.to_string();
    let mut short: String = text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(300).is_some() {
        short.push('…');
    }
    short
}
