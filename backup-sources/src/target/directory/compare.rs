//! What a restore would change of what stands in the directory, told before it does.

use std::io;
use std::os::fd::OwnedFd;

use backup_core::entry::XATTR_PREFIX;
use backup_core::source::ReadAt;
use backup_core::{Attribute, Entry, EntryKind, EntryName, OwnerNames};
use rustix::fs::{Mode, OFlags};

use super::beneath::Beneath;
use super::names::Numbers;
use super::{Overwrite, Settings, content};
use crate::system::size;

/// How a target restores.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct Restoring(pub(super) Settings);

/// How it restores entries whose owners have these names.
#[derive(Debug)]
pub(in crate::target) struct Comparing {
    settings: Settings,
    owners: bool,
    numbers: Numbers,
}

impl Restoring {
    pub(in crate::target) fn for_names(self, names: &OwnerNames) -> Comparing {
        let Self(settings) = self;
        Comparing { settings, owners: settings.sets_owners(), numbers: settings.numbers(names) }
    }
}

impl Comparing {
    /// Whether something of another kind goes where a directory must be.
    pub(in crate::target) fn makes_room(&self) -> bool {
        self.settings.replaces()
    }

    /// Whether what stands there is not to be overwritten. Directories get their metadata always.
    pub(in crate::target) fn keeps(&self, there: &Entry, wanted: &Entry) -> bool {
        let time = |entry: &Entry| entry.posix.map(|posix| posix.modified);
        match self.settings.overwrite {
            _ if wanted.kind == EntryKind::Directory && there.kind == EntryKind::Directory => false,
            Overwrite::Never => true,
            Overwrite::IfNewer => time(wanted).is_none_or(|wanted| Some(wanted) <= time(there)),
            Overwrite::Always | Overwrite::IfChanged => false,
        }
    }

    /// Whether content is not even compared.
    pub(in crate::target) fn counts_as_unchanged(&self, there: &Entry, wanted: &Entry) -> bool {
        let time = |entry: &Entry| entry.posix.map(|posix| posix.modified);
        self.settings.overwrite == Overwrite::IfChanged
            && there.size == wanted.size
            && time(there) == time(wanted)
    }

    /// Whether owner, mode, time or extended attributes would be changed.
    pub(in crate::target) fn metadata_differs(&self, there: &Entry, wanted: &Entry) -> bool {
        let mut grants = false;
        if let (Some(now), Some(posix)) = (there.posix, wanted.posix) {
            let posix = self.numbers.owner(posix);
            grants = self.owners && posix.uid != u32::MAX && posix.gid != u32::MAX;
            let owner = grants && (now.uid, now.gid) != (posix.uid, posix.gid);
            let mode = posix.mode & if grants { 0o7777 } else { 0o1777 };
            // Links have no mode of their own.
            let mode = now.mode & 0o7777 != mode && !matches!(wanted.kind, EntryKind::Symlink { .. });
            if owner || mode || now.modified != posix.modified {
                return true;
            }
        }
        let counts = |attribute: &&Attribute| match attribute.name.strip_prefix(XATTR_PREFIX) {
            Some(b"security.capability") => grants,
            // Labels are the system's own affair.
            Some(name) => !name.starts_with(b"security."),
            None => false,
        };
        let attributes = self.numbers.attributes(&wanted.attributes);
        !attributes.iter().filter(counts).eq(there.attributes.iter().filter(counts))
    }
}

/// A file below the root, to be read.
#[derive(Debug)]
pub(in crate::target) struct Standing {
    file: OwnedFd,
    len: u64,
}

impl Beneath {
    /// Opens the file at `name`, following no links.
    pub(in crate::target) fn read(&self, name: &EntryName) -> io::Result<Standing> {
        let parent = name.parent();
        let directory = self.existing(parent.as_ref().map_or(b"", EntryName::as_bytes))?;
        // A fifo in its place would make the open wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*directory, name.file_name(), flags, Mode::empty())?;
        let len = size(&rustix::fs::fstat(&file)?);
        Ok(Standing { file, len })
    }
}

impl ReadAt for Standing {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        content::read_exact(&self.file, buffer, offset)
    }
}
