//! What an entry is to look like, and making it so.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use backup_core::entry::{FLAGS_ATTRIBUTE, XATTR_PREFIX};
use backup_core::{Attribute, Entry, EntryName, PosixMetadata, Timestamp};
use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::beneath::own_path;
use super::{Opened, Owner};
use crate::flags;
use crate::system::describe;

/// The parts of an entry that a target applies.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: EntryName,
    pub(super) posix: Option<PosixMetadata>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) size: Option<u64>,
    pub(super) sparse: bool,
}

impl Wanted {
    /// With the numbers that owners have here.
    pub(super) fn new(entry: &Entry, opened: &Opened) -> Self {
        Self {
            name: entry.name.clone(),
            posix: entry.posix.map(|posix| opened.numbers.owner(posix)),
            attributes: opened.numbers.attributes(&entry.attributes),
            size: entry.size,
            sparse: entry.sparse,
        }
    }

    /// The inode flags, where the snapshot has them; without them those that are there stay.
    pub(super) fn flags(&self) -> Option<u32> {
        let found = self.attributes.iter().find(|attribute| *attribute.name == *FLAGS_ATTRIBUTE)?;
        Some(u32::from_le_bytes((*found.value).try_into().ok()?))
    }

    /// Whether the snapshot has it locked against changes.
    pub(super) fn is_locked(&self) -> bool {
        self.flags().is_some_and(|wanted| wanted & flags::LOCKS != 0)
    }

    pub(super) fn modified(&self) -> Option<Timestamp> {
        self.posix.map(|posix| posix.modified)
    }
}

impl Opened {
    /// Whether what lends the owner's rights to others may be applied: set-id bits and capabilities come only with the
    /// owner, who was set if `owned`. Otherwise they would lend the rights of whoever restores.
    pub(super) fn grants(&self, posix: Option<&PosixMetadata>, owned: bool) -> bool {
        self.owners && owned && posix.is_some_and(settable)
    }

    /// Names what lends rights and is not restored because it is not granted, unless that was asked for.
    pub(super) fn note_withheld(&self, wanted: &Wanted, grants: bool, notes: &mut Vec<String>) {
        if grants || self.settings.owner == Owner::Ignore {
            return;
        }
        let mode = wanted.posix.map_or(0, |posix| posix.mode);
        let attribute =
            |attribute: &Attribute| attribute.name.strip_prefix(XATTR_PREFIX) == Some(CAPABILITY.to_bytes());
        let withheld = [
            (mode & 0o4000 != 0, "the set-user-id bit is"),
            (mode & 0o2000 != 0, "the set-group-id bit is"),
            (wanted.attributes.iter().any(attribute), "capabilities are"),
        ];
        let withheld = withheld.into_iter().filter(|(withheld, _)| *withheld);
        notes.extend(withheld.map(|(_, what)| format!("{what} not restored without the owner")));
    }

    /// The permission bits to apply; the set-id bits as [`grants`](Self::grants) says. The sticky bit lends nothing.
    pub(super) fn mode(&self, posix: &PosixMetadata, owned: bool) -> Mode {
        Mode::from_raw_mode(posix.mode & if self.grants(Some(posix), owned) { 0o7777 } else { 0o1777 })
    }

    /// Whether a file has the mode and owner that it is to have.
    pub(super) fn has(&self, stat: &Stat, wanted: &Wanted) -> bool {
        wanted.posix.is_none_or(|posix| {
            let owner = (stat.st_uid, stat.st_gid) == (posix.uid, posix.gid);
            (owner || !self.owners) && stat.st_mode & 0o7777 == self.mode(&posix, true).as_raw_mode()
        })
    }

    /// Sets the inode flags of what is open as `file`, those that forbid changes when everything else is done.
    pub(super) fn set_flags(&self, file: impl AsFd, wanted: &Wanted, notes: &mut Vec<String>) {
        let Some(bits) = wanted.flags() else { return };
        notes.extend(flags::set(&file, bits, flags::SETTABLE & !flags::LOCKS).err());
        notes.extend(self.locks.later(file, &wanted.name, bits).err());
    }

    /// The owner to set, if it must be; what is new and `is_ours` belongs to this process already. Counts owners that
    /// are left.
    pub(super) fn owner(&self, wanted: &Wanted, is_ours: bool) -> Option<(Uid, Gid)> {
        let posix = wanted.posix.as_ref().filter(|posix| settable(posix))?;
        let others = posix.uid != self.euid || posix.gid != self.egid;
        if !self.owners && others && self.settings.owner == Owner::Auto {
            self.left_owners.push(&wanted.name);
        }
        (self.owners && (others || !is_ours)).then(|| (Uid::from_raw(posix.uid), Gid::from_raw(posix.gid)))
    }
}

/// All bits set means "leave it": no file has that owner.
fn settable(posix: &PosixMetadata) -> bool {
    posix.uid != u32::MAX && posix.gid != u32::MAX
}

/// The time of modification to set; that of access is left alone.
pub(super) fn times(modified: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: modified.seconds(),
            tv_nsec: i64::from(modified.nanoseconds()),
        },
    }
}

/// Something whose extended attributes are set: an open file, or one opened as a place only (`O_PATH`).
pub(super) enum Place<'a, F: AsFd> {
    Open(&'a F),
    Pinned(&'a F),
}

/// The capabilities of a program: like set-id bits they lend rights.
const CAPABILITY: &CStr = c"security.capability";

/// Sets `attributes`, capabilities only where `grants`, and, where `exactly`, removes others. Adds what could not be done to `notes`.
pub(super) fn apply<F: AsFd>(
    place: &Place<'_, F>,
    attributes: &[Attribute],
    grants: bool,
    exactly: bool,
    notes: &mut Vec<String>,
) {
    let path = match place {
        Place::Open(_) => CString::default(),
        Place::Pinned(file) => CString::new(own_path(file)).unwrap_or_default(),
    };
    let wanted = || {
        attributes
            .iter()
            .filter_map(|attribute| Some((attribute.name.strip_prefix(XATTR_PREFIX)?, attribute)))
            .filter(|(name, _)| grants || *name != CAPABILITY.to_bytes())
    };
    if exactly {
        match list(place, &path) {
            Ok(names) => {
                for name in names.split_inclusive(|&byte| byte == 0) {
                    let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
                    if is_label(name) || wanted().any(|(wanted, _)| wanted == name.to_bytes()) {
                        continue;
                    }
                    if let Err(error) = remove(place, &path, name) {
                        notes.push(format!(
                            "the extended attribute `{}` cannot be removed: {}",
                            name.to_string_lossy(),
                            describe(error)
                        ));
                    }
                }
            }
            Err(Errno::NOTSUP) => {}
            Err(error) => notes.push(format!("extended attributes cannot be listed: {}", describe(error))),
        }
    }
    for (name, attribute) in wanted() {
        let set = CString::new(name)
            .map_err(|_| Errno::INVAL)
            .and_then(|name| set(place, &path, &name, &attribute.value));
        if let Err(error) = set {
            notes.push(format!(
                "the extended attribute `{}` cannot be set: {}",
                String::from_utf8_lossy(name),
                describe(error)
            ));
        }
    }
}

/// Whether an open file has exactly these extended attributes.
pub(super) fn are_set<F: AsFd>(file: &F, attributes: &[Attribute]) -> bool {
    let Ok(names) = list(&Place::Open(file), c"") else { return attributes.is_empty() };
    let names =
        names.split_inclusive(|&byte| byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    let there = names.filter(|name| !is_label(name)).count();
    let wanted = attributes.iter().filter_map(|attribute| attribute.name.strip_prefix(XATTR_PREFIX));
    there == wanted.count()
        && attributes.iter().all(|attribute| {
            let Some(name) = attribute.name.strip_prefix(XATTR_PREFIX) else { return true };
            // One byte more shows a longer value.
            let mut value = vec![0; attribute.value.len().saturating_add(1)];
            rustix::fs::fgetxattr(file, name, value.as_mut_slice())
                .is_ok_and(|len| value.get(..len) == Some(&*attribute.value))
        })
}

/// Whether a system that labels files sets it by its own rules.
fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.") && name != CAPABILITY
}

fn list<F: AsFd>(place: &Place<'_, F>, path: &CStr) -> Result<Vec<u8>, Errno> {
    // Most have none; the longest list that Linux has takes 64 KiB.
    for bytes in [512, 65_536] {
        let mut names = vec![0; bytes];
        let listed = match place {
            Place::Open(file) => rustix::fs::flistxattr(file, names.as_mut_slice()),
            Place::Pinned(_) => rustix::fs::listxattr(path, names.as_mut_slice()),
        };
        match listed {
            Ok(len) => {
                names.truncate(len);
                return Ok(names);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

fn set<F: AsFd>(place: &Place<'_, F>, path: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    match place {
        Place::Open(file) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()),
        Place::Pinned(_) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
    }
}

fn remove<F: AsFd>(place: &Place<'_, F>, path: &CStr, name: &CStr) -> Result<(), Errno> {
    let removed = match place {
        Place::Open(file) => rustix::fs::fremovexattr(file, name),
        Place::Pinned(_) => rustix::fs::removexattr(path, name),
    };
    if removed == Err(Errno::NODATA) { Ok(()) } else { removed }
}

/// Sets the owner of what is open as a place.
pub(super) fn change_owner(place: impl AsFd, owner: (Uid, Gid)) -> Result<(), Errno> {
    let (user, group) = owner;
    rustix::fs::chownat(place, c"", Some(user), Some(group), AtFlags::EMPTY_PATH)
}

/// A note for a report: what could not be done and why.
pub(super) fn note<T>(notes: &mut Vec<String>, what: &str, done: Result<T, Errno>) {
    if let Err(error) = done {
        notes.push(format!("{what} cannot be set: {}", describe(error)));
    }
}
