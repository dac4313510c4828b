//! What a store's failures mean here.

use std::error::Error as StdError;

use backup_core::{Error, ErrorKind};

/// A failure to do something at a place. The message has what the store answered, not what was sent: requests can hold
/// signatures.
pub(crate) fn of(error: &object_store::Error, place: &str, doing: &str) -> Error {
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    if let Some(found) = over_http(error) {
        let (kind, cause) = found;
        return Error::new(kind, format!("{place}: cannot {doing}: {cause}"));
    }
    let (kind, cause) = by_variant(error);
    Error::new(kind, format!("{place}: cannot {doing}: {cause}"))
}

fn by_variant(error: &object_store::Error) -> (ErrorKind, String) {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => (ErrorKind::NotFound, "there is no such object".into()),
        E::AlreadyExists { .. } => {
            (ErrorKind::Transient, "another request for this object is under way".into())
        }
        E::PermissionDenied { .. } => (ErrorKind::Denied, "the credentials do not permit it".into()),
        E::Unauthenticated { .. } => (ErrorKind::Denied, "the store does not accept the credentials".into()),
        E::NotSupported { .. } | E::NotImplemented { .. } => {
            (ErrorKind::Unsupported, format!("the store does not support it ({})", brief(&deepest(error))))
        }
        E::InvalidPath { .. } => (ErrorKind::InvalidInput, "the key is not accepted".into()),
        E::UnknownConfigurationKey { .. } => (ErrorKind::InvalidInput, brief(&error.to_string())),
        _ => (kind_of(error), brief(&deepest(error))),
    }
}

/// By the input or output error within, if there is one. A store with an HTTP client of its own says its status only in
/// words, those of `object_store`'s `RequestError`.
fn kind_of(error: &(dyn StdError + 'static)) -> ErrorKind {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Error::io("", std::io::Error::from(io.kind())).kind();
        }
        at = error.source();
    }
    let text = error.to_string();
    let passing = ["status code: 5", "status code: 429", "status code: 408", "HTTP error"];
    if passing.iter().any(|words| text.contains(words)) { ErrorKind::Transient } else { ErrorKind::Io }
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn over_http(error: &object_store::Error) -> Option<(ErrorKind, String)> {
    use object_store::client::{HttpError, HttpErrorKind};

    use super::answer::Answer;

    // Where no credentials are given, those of the cloud's own machines are asked for at these addresses. Elsewhere
    // nobody answers there, or somebody who refuses.
    let asked = error.to_string();
    let machine = ["169.254.169.254", "metadata.google.internal", "169.254.170.2"];
    let asked_the_machine = machine.iter().any(|host| asked.contains(host));
    let mut at: Option<&(dyn StdError + 'static)> = Some(error);
    let mut connection = None;
    while let Some(error) = at {
        if let Some(answer) = error.downcast_ref::<Answer>() {
            return Some(match answer.kind() {
                ErrorKind::Transient => (ErrorKind::Transient, answer.to_string()),
                _ if asked_the_machine => no_credentials(),
                kind => (kind, answer.to_string()),
            });
        }
        if let Some(http) = error.downcast_ref::<HttpError>() {
            connection = Some((http.kind(), deepest(http)));
        }
        at = error.source();
    }
    let (kind, cause) = connection?;
    // What the HTTP client says of an address that it must not use. It will not become another one.
    if cause == "URL scheme is not allowed" {
        let message = "its address is not https://, which must be allowed: `allow_http` in the settings, or \
                       AWS_ALLOW_HTTP, GOOGLE_ALLOW_HTTP, AZURE_ALLOW_HTTP";
        return Some((ErrorKind::InvalidInput, message.into()));
    }
    if asked_the_machine {
        return Some(no_credentials());
    }
    let what = match kind {
        HttpErrorKind::Connect => "the store cannot be reached",
        HttpErrorKind::Timeout => "the store does not answer",
        _ => "the connection failed",
    };
    Some((ErrorKind::Transient, format!("{what} ({})", brief(&cause))))
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn no_credentials() -> (ErrorKind, String) {
    let message = "no credentials were found: give them in the settings or in the cloud's environment variables \
                   (this is not one of the cloud's own machines, whose credentials would be used)";
    (ErrorKind::Denied, message.into())
}

/// The cause of the causes, which says most.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// The beginning of a foreign text, on one line.
pub(super) fn brief(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = clean.take(300).collect();
    if text.chars().nth(300).is_some() {
        short.push('…');
    }
    short
}
