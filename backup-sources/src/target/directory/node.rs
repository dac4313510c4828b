//! Entries without content: symbolic links, named pipes, sockets, devices.

use std::io;
use std::os::fd::OwnedFd;

use backup_core::{BlockingWriter, EntryKind};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Place, Wanted, note};
use super::beneath::{Directory, own_path};
use super::meet::make_room;
use super::{Opened, Overwrite, refused};
use crate::system::{file_type, modified};

/// An entry that was finished when it was opened.
#[derive(Debug)]
pub(super) struct NodeWriter {
    /// What could not be applied.
    pub(super) notes: Vec<String>,
}

impl BlockingWriter for NodeWriter {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(refused("this entry has no content"))
    }

    fn finish(self: Box<Self>, _: u64) -> io::Result<Vec<String>> {
        Ok(self.notes)
    }

    fn abort(self: Box<Self>) {}
}

/// Makes the node and gives it its metadata.
pub(super) fn make(opened: &Opened, wanted: &Wanted, kind: &EntryKind) -> io::Result<NodeWriter> {
    let mut notes = Vec::new();
    let (directory, name) = opened.beneath.parent(wanted.name.as_bytes(), opened.settings.replaces())?;
    if matches!(kind, EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. })
        && !opened.settings.devices
    {
        return Err(refused("devices are restored only when asked for"));
    }
    // Others may make or remove the same name meanwhile, but not for ever.
    for _ in 0..8 {
        let made = match create(&directory, name, kind) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let (node, stat) = match pin(&directory, name) {
            Ok(pinned) => pinned,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let keep = match opened.settings.overwrite {
            Overwrite::Never => true,
            Overwrite::IfNewer => wanted.modified().is_none_or(|time| time <= modified(&stat)),
            Overwrite::Always | Overwrite::IfChanged => false,
        };
        if keep && !made {
            return Ok(NodeWriter { notes });
        }
        if is_same(&node, kind, &stat) {
            apply(opened, wanted, &node, kind, &mut notes);
            return Ok(NodeWriter { notes });
        }
        if file_type(&stat) == FileType::Directory {
            make_room(&directory, name, &stat)?;
            continue;
        }
        let make = |place: &Directory, temporary: &[u8]| create(place, temporary, kind);
        opened.staging.replace(&opened.beneath, &directory, &wanted.name, make)?;
    }
    Err(refused("what stands there is changed by others all the time"))
}

fn create(directory: &Directory, name: &[u8], kind: &EntryKind) -> Result<(), Errno> {
    let private = Mode::RUSR | Mode::WUSR;
    let device = |(major, minor)| rustix::fs::makedev(major, minor);
    match kind {
        EntryKind::Symlink { target } => rustix::fs::symlinkat(&**target, directory, name),
        EntryKind::Fifo => rustix::fs::mknodat(directory, name, FileType::Fifo, private, 0),
        EntryKind::Socket => rustix::fs::mknodat(directory, name, FileType::Socket, private, 0),
        EntryKind::CharDevice { device: number } => {
            rustix::fs::mknodat(directory, name, FileType::CharacterDevice, private, device(*number))
        }
        EntryKind::BlockDevice { device: number } => {
            rustix::fs::mknodat(directory, name, FileType::BlockDevice, private, device(*number))
        }
        _ => Err(Errno::INVAL),
    }
}

/// What stands at a name, opened as a place only: what is done to it is done to nothing that takes its place.
fn pin(directory: &Directory, name: &[u8]) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&node)?;
    Ok((node, stat))
}

/// Whether a node is of this kind, and has no other name whose owner and mode would change with it.
fn is_same(node: &OwnedFd, kind: &EntryKind, stat: &Stat) -> bool {
    let same_device = |(major, minor): &(u32, u32)| stat.st_rdev == rustix::fs::makedev(*major, *minor);
    let same_kind = match (kind, file_type(stat)) {
        (EntryKind::Symlink { target }, FileType::Symlink) => {
            rustix::fs::readlinkat(node, c"", Vec::new()).is_ok_and(|now| now.to_bytes() == &**target)
        }
        (EntryKind::Fifo, FileType::Fifo) | (EntryKind::Socket, FileType::Socket) => true,
        (EntryKind::CharDevice { device }, FileType::CharacterDevice)
        | (EntryKind::BlockDevice { device }, FileType::BlockDevice) => same_device(device),
        _ => false,
    };
    same_kind && stat.st_nlink == 1
}

fn apply(opened: &Opened, wanted: &Wanted, node: &OwnedFd, kind: &EntryKind, notes: &mut Vec<String>) {
    let mut owned = true;
    // What is there may be anybody's: always set.
    if let Some(owner) = opened.owner(wanted, false) {
        let done = attributes::change_owner(node, owner);
        owned = done.is_ok();
        note(notes, "the owner", done);
    }
    let grants = opened.grants(wanted.posix.as_ref(), owned);
    opened.note_withheld(wanted, grants, notes);
    attributes::apply(&Place::Pinned(node), &wanted.attributes, grants, true, notes);
    if let Some(posix) = &wanted.posix {
        let path = own_path(node);
        // Links have no mode of their own.
        if !matches!(kind, EntryKind::Symlink { .. }) {
            note(notes, "the mode", rustix::fs::chmod(path.as_slice(), opened.mode(posix, owned)));
        }
        let times = attributes::times(posix.modified);
        // The way through /proc ends at the node itself, also where that is a link.
        note(notes, "the time", rustix::fs::utimensat(CWD, path.as_slice(), &times, AtFlags::empty()));
    }
}
