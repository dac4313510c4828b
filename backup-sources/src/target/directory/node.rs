//! Entries without content: symbolic links, named pipes, sockets, devices.

use std::io;

use backup_core::{BlockingWriter, EntryKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Place, Wanted, note};
use super::beneath::{Directory, own_path};
use super::writer::make_room;
use super::{Opened, Overwrite, refused};
use crate::system::{file_type, modified};

/// An entry that was finished when it was opened.
#[derive(Debug)]
pub(super) struct NodeWriter {
    /// What could not be applied.
    pub(super) notes: Vec<String>,
}

impl BlockingWriter for NodeWriter {
    fn write_all_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
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
        match create(&directory, name, kind) {
            Ok(()) => {
                apply(opened, wanted, &directory, name, kind, &mut notes);
                return Ok(NodeWriter { notes });
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let keep = match opened.settings.overwrite {
            Overwrite::Never => true,
            Overwrite::IfNewer => wanted.modified().is_none_or(|time| time <= modified(&stat)),
            Overwrite::Always | Overwrite::IfChanged => false,
        };
        if keep {
            return Ok(NodeWriter { notes });
        }
        if is_same(&directory, name, kind, &stat) {
            apply(opened, wanted, &directory, name, kind, &mut notes);
            return Ok(NodeWriter { notes });
        }
        make_room(&directory, name, &stat)?;
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

fn is_same(directory: &Directory, name: &[u8], kind: &EntryKind, stat: &Stat) -> bool {
    let same_device = |(major, minor): &(u32, u32)| stat.st_rdev == rustix::fs::makedev(*major, *minor);
    match (kind, file_type(stat)) {
        (EntryKind::Symlink { target }, FileType::Symlink) => {
            rustix::fs::readlinkat(directory, name, Vec::new()).is_ok_and(|now| now.to_bytes() == &**target)
        }
        (EntryKind::Fifo, FileType::Fifo) | (EntryKind::Socket, FileType::Socket) => true,
        (EntryKind::CharDevice { device }, FileType::CharacterDevice)
        | (EntryKind::BlockDevice { device }, FileType::BlockDevice) => same_device(device),
        _ => false,
    }
}

fn apply(
    opened: &Opened,
    wanted: &Wanted,
    directory: &Directory,
    name: &[u8],
    kind: &EntryKind,
    notes: &mut Vec<String>,
) {
    if let Some(posix) = &wanted.posix {
        // What is there may be anybody's: always set.
        if let Some(owner) = opened.owner(posix, false)
            && let Err(error) = attributes::change_owner(directory, name, owner)
        {
            notes.push(format!("the owner cannot be set: {error}"));
        }
    }
    attributes::apply(&Place::Name(directory, name), &wanted.attributes, true, notes);
    if let Some(posix) = &wanted.posix {
        // Links have no mode of their own.
        if !matches!(kind, EntryKind::Symlink { .. }) {
            note(notes, "the mode", change_mode(directory, name, kind, opened.mode(posix)));
        }
        let times = attributes::times(posix.modified);
        note(notes, "the time", rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW));
    }
}

/// Sets the mode of a node without following a link that may have taken its place.
fn change_mode(directory: &Directory, name: &[u8], kind: &EntryKind, mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&node)?;
    if !is_same(directory, name, kind, &stat) {
        return Err(Errno::STALE);
    }
    rustix::fs::chmod(own_path(&node).as_slice(), mode)
}
