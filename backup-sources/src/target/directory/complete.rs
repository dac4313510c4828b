//! What must come last: hard links, when what they link to stands there; directories, when nothing in them changes any more.

use std::io;

use backup_core::{Entry, EntryKind, EntryName, Skipped};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{self, Place, Wanted, note};
use super::beneath::Directory;
use super::meet::make_room;
use super::{Opened, Overwrite, refused};
use crate::system::{describe, file_type, modified};

const FOR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Completes a batch of hard links and directories; what could not be done.
pub(super) fn complete(opened: &Opened, entries: &[Entry]) -> Vec<Skipped> {
    let mut failed = Vec::new();
    for entry in entries {
        let mut notes = Vec::new();
        let done = match &entry.kind {
            EntryKind::HardLink { to } => link(opened, &Wanted::new(entry, opened), to),
            EntryKind::Directory => directory(opened, &Wanted::new(entry, opened), &mut notes),
            _ => Ok(()),
        };
        failed.extend(done.err().map(|error| Skipped::new(&entry.name, error)));
        failed.extend(notes.into_iter().map(|note| Skipped::new(&entry.name, note)));
    }
    failed
}

fn directory(opened: &Opened, wanted: &Wanted, notes: &mut Vec<String>) -> io::Result<()> {
    let path = wanted.name.as_bytes();
    let directory = opened.beneath.existing(path)?;
    // Through the directory itself, whatever stands at its name by now.
    let itself = &b"."[..];
    let mut owned = true;
    if let Some(owner) = opened.owner(wanted, false) {
        let done = attributes::change_owner(&*directory, owner);
        owned = done.is_ok();
        note(notes, "the owner", done);
    }
    let grants = opened.grants(wanted.posix.as_ref(), owned);
    opened.note_withheld(wanted, grants, notes);
    attributes::apply(&Place::Pinned(&*directory), &wanted.attributes, grants, true, notes);
    if wanted.flags().is_some() {
        // Before the mode, which may take away the right to open it.
        match rustix::fs::openat(&*directory, itself, FOR_FLAGS, Mode::empty()) {
            Ok(open) => opened.set_flags(open, wanted, notes),
            Err(error) => notes.push(format!("the inode flags cannot be set: {}", describe(error))),
        }
    }
    if let Some(posix) = &wanted.posix {
        let mode = opened.mode(posix, owned);
        let times = attributes::times(posix.modified);
        // The time first: a mode may take away the right to look into the directory.
        note(notes, "the time", rustix::fs::utimensat(&*directory, itself, &times, AtFlags::empty()));
        note(notes, "the mode", rustix::fs::chmodat(&*directory, itself, mode, AtFlags::empty()));
    }
    Ok(())
}

fn link(opened: &Opened, wanted: &Wanted, to: &EntryName) -> io::Result<()> {
    let (directory, name) = opened.beneath.parent(wanted.name.as_bytes(), opened.settings.replaces())?;
    let source = match to.parent() {
        Some(parent) => opened.beneath.existing(parent.as_bytes()),
        None => opened.beneath.existing(b""),
    };
    let missing =
        |error: io::Error| refused(format!("the file `{to}`, which it is a link to, is not there: {error}"));
    let source = source.map_err(missing)?;
    let target = rustix::fs::statat(&*source, to.file_name(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| missing(error.into()))?;
    if file_type(&target) == FileType::Directory {
        return Err(refused(format!("a directory stands at `{to}`, which it is a link to")));
    }
    for _ in 0..8 {
        // Without AT_SYMLINK_FOLLOW: a link at that name is linked to itself, and not what it points to.
        match rustix::fs::linkat(&*source, to.file_name(), &*directory, name, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let stat = match rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let keep = match opened.settings.overwrite {
            Overwrite::Never => true,
            Overwrite::IfNewer => wanted.modified().is_none_or(|time| time <= modified(&stat)),
            Overwrite::Always | Overwrite::IfChanged => false,
        };
        if keep || (stat.st_dev, stat.st_ino) == (target.st_dev, target.st_ino) {
            return Ok(());
        }
        if file_type(&stat) == FileType::Directory {
            make_room(&directory, name, &stat)?;
            continue;
        }
        let make = |place: &Directory, temporary: &[u8]| {
            rustix::fs::linkat(&*source, to.file_name(), place, temporary, AtFlags::empty())
        };
        opened.staging.replace(&opened.beneath, &directory, &wanted.name, make)?;
        return Ok(());
    }
    Err(refused("what stands there is changed by others all the time"))
}
