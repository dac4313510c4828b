//! The vocabulary of what is backed up: a named entry with a kind, metadata and maybe content.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Error, Result, Timestamp};

/// The name of an entry within its snapshot: components of arbitrary bytes, joined by `/`.
///
/// No component is empty, `.`, `..` or holds NUL, so a name never leads out of a target. Names order by component,
/// which is the order of a depth-first walk with sorted directories.
///
/// ```
/// use backup_core::EntryName;
///
/// let name = EntryName::new("etc/ssl/openssl.cnf")?;
/// assert_eq!(name.components().count(), 3);
/// assert_eq!(name.parent(), Some(EntryName::new("etc/ssl")?));
/// assert!(EntryName::new("etc")? < EntryName::new("etc/ssl")?);
/// assert!(EntryName::new("etc/ssl")? < EntryName::new("etc-old")?);
/// assert!(EntryName::new("../etc/passwd").is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// The name made of `bytes`, or [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) saying what is wrong
    /// with them.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        let wrong = |what: &str| {
            Err(Error::invalid_input(format!("the entry name `{}` {what}", String::from_utf8_lossy(bytes))))
        };
        if bytes.len() > limits::NAME_BYTES_MAX {
            return wrong("is longer than the format allows");
        }
        if bytes.contains(&0) {
            return wrong("contains a NUL byte");
        }
        for component in bytes.split(|&byte| byte == b'/') {
            match component {
                b"" => return wrong("has an empty component"),
                b"." | b".." => return wrong("has a relative component"),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// The name without its last component; none for a name at the top.
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|&byte| byte == b'/')?;
        self.0.get(..end).map(|bytes| Self(bytes.into()))
    }

    /// The last component.
    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// `self/child`.
    pub fn join(&self, child: impl AsRef<[u8]>) -> Result<Self> {
        let mut bytes =
            Vec::with_capacity(self.0.len().saturating_add(child.as_ref().len()).saturating_add(1));
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(child.as_ref());
        Self::new(bytes)
    }

    /// Whether this is `ancestor` or stands below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
    }
}

impl Ord for EntryName {
    fn cmp(&self, other: &Self) -> Ordering {
        // `/` sorts below every other byte, so that a directory's content follows it at once.
        let split = self.0.iter().zip(other.0.iter()).find(|(a, b)| a != b);
        match split {
            None => self.0.len().cmp(&other.0.len()),
            Some((b'/', _)) => Ordering::Less,
            Some((_, b'/')) => Ordering::Greater,
            Some((a, b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for EntryName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// What an entry is. Sources that know nothing of files yield [`EntryKind::File`] for whatever has content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// Something with content: a regular file, a dump, a relation fork, an object.
    File,
    /// A container of entries.
    Directory,
    /// A symbolic link and what it points to, byte for byte.
    Symlink {
        /// Where the link points.
        target: Box<[u8]>,
    },
    /// Another name of the content of an entry that stands earlier in the snapshot.
    HardLink {
        /// The earlier entry.
        to: EntryName,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
}

impl EntryKind {
    /// Whether entries of this kind have content.
    pub fn has_content(&self) -> bool {
        matches!(self, Self::File)
    }

    /// A word for the kind: `file`, `directory`, `symlink`, `hardlink`, `fifo`, `socket`, `char-device`, `block-device`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink { .. } => "symlink",
            Self::HardLink { .. } => "hardlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice { .. } => "char-device",
            Self::BlockDevice { .. } => "block-device",
        }
    }
}

/// Owner, mode and times, as POSIX file systems have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PosixMetadata {
    /// Permission bits with set-user-id, set-group-id and sticky: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Last change of content.
    pub modified: Timestamp,
}

/// A named value beside an entry: an extended attribute (`xattr:user.comment`) or a source's own (`pg:lsn`).
///
/// Attributes are sorted by name and unique within an entry; the part before the colon says who reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The name, with the namespace of its reader before the first colon.
    pub name: Box<[u8]>,
    /// The value.
    pub value: Box<[u8]>,
}

/// The prefix of [`Attribute`]s that are extended attributes of a file.
pub const XATTR_PREFIX: &[u8] = b"xattr:";

/// The prefix of [`Attribute`]s that may be known only once content is open: those that
/// [`BlockingContent::attributes`](crate::source::BlockingContent::attributes) gives, and that stay with content which is
/// not read again.
pub const CONTENT_PREFIX: &[u8] = b"file:";

/// The [`Attribute`] with the inode's flags that a user may set (`chattr(1)`): four bytes, little-endian, the numbers of
/// `ioctl_iflags(2)`. Where it is missing no such flag was set, or the file system has none.
pub const FLAGS_ATTRIBUTE: &[u8] = b"file:flags";

/// The [`Attribute`] with the time at which a file was made, where the file system knows it: eight bytes of seconds since
/// 1970, signed, then four of nanoseconds, little-endian. It is recorded; no system can set it.
pub const BORN_ATTRIBUTE: &[u8] = b"file:born";

/// One thing that is backed up: a name, a kind, metadata and, for [`EntryKind::File`], content elsewhere.
///
/// ```
/// use backup_core::Entry;
///
/// let entry = Entry::file("dumps/orders.sql")?.with_size(4096);
/// assert!(entry.kind.has_content());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name within the snapshot.
    pub name: EntryName,
    /// What it is.
    pub kind: EntryKind,
    /// Owner, mode and times, where the source has them.
    pub posix: Option<PosixMetadata>,
    /// Further named values, sorted by name.
    pub attributes: Vec<Attribute>,
    /// Bytes of content, as far as known before reading it. After storing: the bytes stored.
    pub size: Option<u64>,
    /// What tells changed from unchanged beside size and time of modification (for files: inode and time of change).
    /// Opaque to the engine: an entry whose kind, size, time of modification and stamp equal those in the parent snapshot
    /// is not opened again. None: always read.
    pub stamp: Option<Box<[u8]>>,
    /// Whether the content has holes that a restore should leave unallocated.
    pub sparse: bool,
}

impl Entry {
    /// An entry of `kind` without metadata.
    pub fn new(name: impl AsRef<[u8]>, kind: EntryKind) -> Result<Self> {
        Ok(Self {
            name: EntryName::new(name)?,
            kind,
            posix: None,
            attributes: Vec::new(),
            size: None,
            stamp: None,
            sparse: false,
        })
    }

    /// An entry with content.
    pub fn file(name: impl AsRef<[u8]>) -> Result<Self> {
        Self::new(name, EntryKind::File)
    }

    /// A container.
    pub fn directory(name: impl AsRef<[u8]>) -> Result<Self> {
        Self::new(name, EntryKind::Directory)
    }

    /// The same entry with a known size in bytes.
    #[must_use]
    pub fn with_size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// The same entry with a stamp that tells changed from unchanged.
    #[must_use]
    pub fn with_stamp(mut self, stamp: impl AsRef<[u8]>) -> Self {
        self.stamp = Some(stamp.as_ref().into());
        self
    }

    /// The same entry with owner, mode and times.
    #[must_use]
    pub fn with_posix(mut self, posix: PosixMetadata) -> Self {
        self.posix = Some(posix);
        self
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.attributes.iter().find(|attribute| *attribute.name == *name).map(|attribute| &*attribute.value)
    }
}

/// Something that a job left out or could not treat in full, and why. Every one is in the report, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The entry, as text.
    pub name: String,
    /// Why, in words.
    pub reason: String,
}

impl Skipped {
    /// `name` was skipped for `reason`.
    pub fn new(name: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self { name: name.to_string(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
            assert!(EntryName::new(name).is_err(), "{name:?}");
        }
        assert!(EntryName::new(vec![b'a'; limits::NAME_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn names_order_like_a_sorted_depth_first_walk() {
        let walk = ["a", "a/b", "a/b/c", "a/b-", "a-b", "a-b/c", "a.b", "b"];
        let mut sorted: Vec<_> = walk.iter().map(|name| EntryName::new(name).unwrap()).collect();
        sorted.reverse();
        sorted.sort();
        assert_eq!(sorted, walk.map(|name| EntryName::new(name).unwrap()));
    }
}
