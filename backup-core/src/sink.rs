//! Where objects are kept: the contract of stores, and conveniences over it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;
use crate::{Error, ErrorKind, Result, Timestamp};

/// The key of an object: `/`-separated components of `[A-Za-z0-9._-]`, none starting with a dot.
///
/// ```
/// use backup_core::ObjectKey;
///
/// assert!(ObjectKey::new("data/ab/abcd").is_ok());
/// assert!(ObjectKey::new("data/../config").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// The key made of `text`, or what is wrong with it.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        let well_formed = |component: &str| {
            !component.is_empty()
                && !component.starts_with('.')
                && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if text.len() <= limits::KEY_BYTES_MAX && text.split('/').all(well_formed) {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid_input(format!("`{}` is not an object key", text.escape_debug())))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ObjectKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's key.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub len: u64,
    /// When the store first had it, by the store's clock, where the store says so.
    pub created: Option<Timestamp>,
}

/// Which part of an object to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetRange {
    /// All of it.
    Full,
    /// The bytes `start..end`; a range that ends beyond the object is [`ErrorKind::Corruption`].
    Bounded(Range<u64>),
    /// The last so many bytes, or all of a shorter object.
    Suffix(u64),
}

impl GetRange {
    /// The bytes meant in an object of `len` bytes.
    pub fn resolve(&self, len: u64) -> Result<Range<u64>> {
        match self {
            Self::Full => Ok(0..len),
            Self::Suffix(count) => Ok(len.saturating_sub(*count)..len),
            Self::Bounded(range) if range.start <= range.end && range.end <= len => Ok(range.clone()),
            Self::Bounded(range) => Err(Error::corruption(format!(
                "bytes {}..{} were asked of an object of {len} bytes",
                range.start, range.end
            ))),
        }
    }

    /// The bytes meant, out of the whole object: all that a sink needs that has its objects in memory.
    ///
    /// ```
    /// use backup_core::GetRange;
    ///
    /// let whole = bytes::Bytes::from("content");
    /// assert_eq!(GetRange::Suffix(4).cut(&whole)?.bytes, "tent");
    /// assert!(GetRange::Bounded(4..8).cut(&whole).is_err());
    /// # Ok::<(), backup_core::Error>(())
    /// ```
    pub fn cut(&self, whole: &Bytes) -> Result<Fetched> {
        let object_len = u64::try_from(whole.len()).unwrap_or(u64::MAX);
        let range = self.resolve(object_len)?;
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(whole.len());
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).clamp(start, whole.len());
        Ok(Fetched { bytes: whole.slice(start..end), object_len })
    }
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The bytes asked for.
    pub bytes: Bytes,
    /// The length of the whole object.
    pub object_len: u64,
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is durable and this call created it.
    Created,
    /// An object of that key is durable already and was left alone.
    AlreadyExists,
}

/// A store of immutable objects, each written once.
///
/// The contract, which the conformance suite in `backup_core::testing::sink` checks:
/// - [`put`](Sink::put) creates the whole object or nothing, returns only when it is durable, and never replaces an
///   object: of several racing puts of one key exactly one sees [`PutOutcome::Created`].
/// - After a put returned, every [`get`](Sink::get) and [`list`](Sink::list) sees the object.
/// - An error from `put` leaves open whether the object exists; the engine looks.
/// - Dropping a future abandons the call; for `put` that is like an error.
///
/// There are no default methods, so a wrapper cannot forget to forward one; conveniences are in [`SinkExt`].
#[async_trait]
pub trait Sink: fmt::Debug + Send + Sync + 'static {
    /// Creates `key` with `bytes` unless it exists.
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome>;

    /// Reads an object or a part of it; [`ErrorKind::NotFound`] if there is none.
    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched>;

    /// The objects whose keys start with `prefix` and are greater than `after`, in ascending order of key, at most
    /// `limit` of them. A result shorter than `limit` is the last.
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>>;

    /// Deletes an object; deleting what does not exist succeeds.
    async fn delete(&self, key: &ObjectKey) -> Result<()>;
}

/// What can be said in terms of the four calls of a [`Sink`].
#[async_trait]
pub trait SinkExt {
    /// The whole object, refused if longer than `max` bytes.
    async fn get_whole(&self, key: &ObjectKey, max: usize) -> Result<Bytes>;

    /// Every object whose key starts with `prefix`; [`ErrorKind::LimitExceeded`] beyond
    /// [`LISTED_OBJECTS_MAX`](limits::LISTED_OBJECTS_MAX), and [`ErrorKind::Io`] where pages do not go on where the one before
    /// ended: such a listing might never end.
    async fn list_all(&self, prefix: &str) -> Result<Vec<ObjectMeta>>;

    /// Creates `key`; an object that exists already with the same bytes is a success (a put whose answer was lost), with
    /// other bytes it is [`ErrorKind::AlreadyExists`].
    async fn put_or_same(&self, key: &ObjectKey, bytes: Bytes) -> Result<()>;
}

/// Whether a page of a listing is one that was asked for, so that the listing ends.
pub(crate) fn check_page(page: &[ObjectMeta], prefix: &str, after: Option<&ObjectKey>) -> Result<()> {
    let ascends = page.iter().zip(page.iter().skip(1)).all(|(one, next)| one.key < next.key);
    let first = page.first().is_none_or(|first| after.is_none_or(|after| first.key > *after));
    let within = page.iter().all(|meta| meta.key.as_str().starts_with(prefix));
    if ascends && first && within && page.len() <= limits::LIST_PAGE_OBJECTS_MAX {
        return Ok(());
    }
    let message = format!(
        "the store lists under `{prefix}` what it was not asked for: keys out of order, repeated, or of other objects"
    );
    Err(Error::new(ErrorKind::Io, message))
}

#[async_trait]
impl<S: Sink + ?Sized> SinkExt for S {
    async fn get_whole(&self, key: &ObjectKey, max: usize) -> Result<Bytes> {
        let limit = u64::try_from(max).unwrap_or(u64::MAX);
        let fetched = self.get(key, GetRange::Suffix(limit)).await?;
        if fetched.object_len > limit {
            let message = format!("has {} bytes; at most {max} are allowed here", fetched.object_len);
            return Err(Error::new(ErrorKind::LimitExceeded, message).with_object(key));
        }
        Ok(fetched.bytes)
    }

    async fn list_all(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let mut all: Vec<ObjectMeta> = Vec::new();
        loop {
            let after = all.last().map(|meta| meta.key.clone());
            let page = self.list(prefix, after.as_ref(), limits::LIST_PAGE_OBJECTS_MAX).await?;
            check_page(&page, prefix, after.as_ref())?;
            let last = page.len() < limits::LIST_PAGE_OBJECTS_MAX;
            if all.len().saturating_add(page.len()) > limits::LISTED_OBJECTS_MAX {
                let message = format!(
                    "the store lists more than {} objects under `{prefix}`",
                    limits::LISTED_OBJECTS_MAX
                );
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    async fn put_or_same(&self, key: &ObjectKey, bytes: Bytes) -> Result<()> {
        if self.put(key, bytes.clone()).await? == PutOutcome::Created {
            return Ok(());
        }
        let there = self.get_whole(key, bytes.len()).await;
        match there {
            Ok(there) if there == bytes => Ok(()),
            Ok(_) => {
                Err(Error::new(ErrorKind::AlreadyExists, "exists already with other content")
                    .with_object(key))
            }
            Err(error) if error.kind() == ErrorKind::LimitExceeded => {
                Err(Error::new(ErrorKind::AlreadyExists, "exists already with other content")
                    .with_object(key))
            }
            Err(error) => Err(error),
        }
    }
}
