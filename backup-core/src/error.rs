//! One opaque error for the whole engine: a kind to decide by, a context to read, a source to follow.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything in these crates that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the terms a caller decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already, with other content than what was to be created.
    AlreadyExists,
    /// The caller asked for something that makes no sense; the message says what to give instead.
    InvalidInput,
    /// Stored bytes are not what was stored: damaged, swapped, truncated or forged.
    Corruption,
    /// A key, passphrase or permission does not fit.
    Denied,
    /// The repository or object needs a feature that this build or these settings lack.
    Unsupported,
    /// The object is in a storage class from which it cannot be read at once; see [`thaw`](crate::thaw).
    Cold,
    /// The store holds no more.
    NoSpace,
    /// A limit stated in [`limits`](crate::limits) would be exceeded.
    LimitExceeded,
    /// The job was cancelled.
    Cancelled,
    /// The store, the network or the system failed in a way that may pass.
    Transient,
    /// The store, the source, the target or the system failed.
    Io,
    /// An invariant of the engine itself does not hold. Nothing was acknowledged.
    Internal,
}

/// An error with its kind, what it concerns and its cause.
///
/// ```
/// use backup_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Corruption, "the trailer is cut short").with_object("data/ab/abcd");
/// assert!(error.is_corruption());
/// assert_eq!(error.to_string(), "data/ab/abcd: the trailer is cut short");
/// ```
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    object: Option<String>,
    entry: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` names the thing and says what to do about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner { kind, message: message.into(), object: None, entry: None, source: None }),
        }
    }

    /// [`ErrorKind::Corruption`].
    pub fn corruption(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    /// [`ErrorKind::InvalidInput`].
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// [`ErrorKind::Cancelled`].
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the job was cancelled")
    }

    /// An operating system error, with its kind derived from `source`.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::PermissionDenied => ErrorKind::Denied,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
            Io::Interrupted | Io::TimedOut | Io::WouldBlock | Io::ConnectionReset | Io::ConnectionAborted => {
                ErrorKind::Transient
            }
            _ => ErrorKind::Io,
        };
        Self::new(kind, message).with_source(source)
    }

    /// The same error, naming the stored object that it concerns.
    #[must_use]
    pub fn with_object(mut self, key: impl fmt::Display) -> Self {
        self.inner.object.get_or_insert_with(|| key.to_string());
        self
    }

    /// The same error, naming the entry that it concerns.
    #[must_use]
    pub fn with_entry(mut self, name: impl fmt::Display) -> Self {
        self.inner.entry.get_or_insert_with(|| name.to_string());
        self
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same error as another kind, for a layer that knows better what the failure means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.inner.kind = kind;
        self
    }

    /// What went wrong, in the terms a caller decides by.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What went wrong, without the context and the cause.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The key of the stored object that the error concerns.
    pub fn object(&self) -> Option<&str> {
        self.inner.object.as_deref()
    }

    /// The name of the entry that the error concerns, as text.
    pub fn entry(&self) -> Option<&str> {
        self.inner.entry.as_deref()
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        self.inner.kind == ErrorKind::Transient
    }

    /// Whether stored bytes are not what was stored.
    pub fn is_corruption(&self) -> bool {
        self.inner.kind == ErrorKind::Corruption
    }

    /// Whether an object is what nobody here can read, be it damaged, or put by somebody who does not belong here.
    pub(crate) fn is_unreadable(&self) -> bool {
        use ErrorKind::{Corruption, Denied, LimitExceeded, Unsupported};
        matches!(self.inner.kind, Corruption | Unsupported | Denied | LimitExceeded)
    }

    /// Whether the job was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.inner.kind == ErrorKind::Cancelled
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.inner.object {
            write!(f, "{object}: ")?;
        }
        if let Some(entry) = &self.inner.entry {
            write!(f, "{entry}: ")?;
        }
        f.write_str(&self.inner.message)?;
        if let Some(source) = &self.inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("object", &self.inner.object)
            .field("entry", &self.inner.entry)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::io("input or output failed", source)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => std::io::ErrorKind::NotFound,
            ErrorKind::Denied => std::io::ErrorKind::PermissionDenied,
            ErrorKind::Corruption | ErrorKind::InvalidInput => std::io::ErrorKind::InvalidData,
            ErrorKind::NoSpace => std::io::ErrorKind::StorageFull,
            _ => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}
