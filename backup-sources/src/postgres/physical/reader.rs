//! How files of a server are listed and read: the same questions to a local directory and to the server itself.

use std::fmt;
use std::io;
use std::ops::Range;

use async_trait::async_trait;
use backup_core::{Result, Timestamp};
use bytes::Bytes;

/// What a directory holds under one name.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) kind: ListedKind,
    pub(super) bytes: u64,
    pub(super) modified: Timestamp,
    /// Permission bits, owner and group, where the reader sees them.
    pub(super) owner: Option<(u32, u32, u32)>,
    /// What else tells a changed file from an unchanged one: inode and time of change.
    pub(super) stamp: Vec<u8>,
}

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListedKind {
    File,
    Directory,
    /// And where it points.
    Symlink(Vec<u8>),
    /// A socket, a pipe, a device.
    Special,
}

/// A directory as it is now.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Listed>,
    /// Names that cannot be told: not in UTF-8.
    pub(super) unnamed: Vec<String>,
}

/// The files of one cluster, whose paths are relative to its data directory.
#[async_trait]
pub(super) trait PgFileReader: fmt::Debug + Send + Sync {
    /// What stands in a directory; none if it is not there any more.
    async fn list(&self, directory: &str) -> Result<Option<Listing>>;

    /// Where the directory of a tablespace is, as the server calls it: relative for one in place.
    async fn tablespace(&self, oid: u32) -> Result<String>;

    /// A short file as a whole; none if it is not there.
    async fn read_all(&self, path: &str) -> Result<Option<Bytes>>;

    /// Prepares the reading of a file from its start. Returns at once; the closure opens it on a worker thread. Where
    /// `end` is given, nothing beyond it is read; where `wanted` is, what lies outside of these ranges will probably be passed
    /// over. A file that is not there any more is [`Gone`](backup_core::source::Gone).
    fn open(&self, path: &str, end: Option<u64>, expected: u64, wanted: Option<&[Range<u64>]>) -> Opener;
}

/// Opens a file on a worker thread.
pub(super) type Opener = Box<dyn FnOnce() -> io::Result<Box<dyn PgFile>> + Send>;

/// A file that is read from start to end, and in places once more.
pub(super) trait PgFile: Send {
    /// As [`io::Read::read`]: 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Passes over the next bytes; they may lie beyond the end.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;

    /// Reads at `offset` what stands there now, and does not move where [`read`](PgFile::read) is. Less than the whole
    /// buffer means that the file ends there.
    fn read_again(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}
