//! What an entry is to look like, and making it so.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;

use backup_core::entry::XATTR_PREFIX;
use backup_core::{Attribute, Entry, EntryName, PosixMetadata, Timestamp};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::Opened;
use super::beneath::own_path;
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
    pub(super) fn new(entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            posix: entry.posix,
            attributes: entry.attributes.clone(),
            size: entry.size,
            sparse: entry.sparse,
        }
    }

    pub(super) fn modified(&self) -> Option<Timestamp> {
        self.posix.map(|posix| posix.modified)
    }
}

impl Opened {
    /// The permission bits to apply: those that give rights to others than the owner only with the owner.
    pub(super) fn mode(&self, posix: &PosixMetadata) -> Mode {
        Mode::from_raw_mode(posix.mode & if self.owners { 0o7777 } else { 0o777 })
    }

    /// The owner to set, if it must be; what is new belongs to this process unless `inherits`.
    pub(super) fn owner(&self, posix: &PosixMetadata, is_ours: bool) -> Option<(Uid, Gid)> {
        let differs = !is_ours || posix.uid != self.euid || posix.gid != self.egid;
        // All bits set means "leave it": no file has that owner.
        let settable = posix.uid != u32::MAX && posix.gid != u32::MAX;
        (self.owners && differs && settable).then(|| (Uid::from_raw(posix.uid), Gid::from_raw(posix.gid)))
    }
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

/// Something whose extended attributes are set: an open file, or a name in an open directory, whose link is not followed.
pub(super) enum Place<'a, F: AsFd> {
    Open(&'a F),
    Name(&'a F, &'a [u8]),
}

/// Sets `attributes` and, where `exactly`, removes others. Adds what could not be done to `notes`.
pub(super) fn apply<F: AsFd>(
    place: &Place<'_, F>,
    attributes: &[Attribute],
    exactly: bool,
    notes: &mut Vec<String>,
) {
    let path = match place {
        Place::Open(_) => CString::default(),
        Place::Name(directory, name) => {
            let mut path = own_path(directory);
            path.push(b'/');
            path.extend_from_slice(name);
            CString::new(path).unwrap_or_default()
        }
    };
    let wanted = || {
        attributes
            .iter()
            .filter_map(|attribute| Some((attribute.name.strip_prefix(XATTR_PREFIX)?, attribute)))
    };
    if exactly {
        match list(place, &path) {
            Ok(names) => {
                for name in names.split_inclusive(|&byte| byte == 0) {
                    let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
                    // A system that labels files does so by its own rules.
                    let labelled =
                        name.to_bytes().starts_with(b"security.") && name != c"security.capability";
                    if labelled || wanted().any(|(wanted, _)| wanted == name.to_bytes()) {
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

fn list<F: AsFd>(place: &Place<'_, F>, path: &CStr) -> Result<Vec<u8>, Errno> {
    // Most have none; the longest list that Linux has takes 64 KiB.
    for bytes in [512, 65_536] {
        let mut names = vec![0; bytes];
        let listed = match place {
            Place::Open(file) => rustix::fs::flistxattr(file, names.as_mut_slice()),
            Place::Name(..) => rustix::fs::llistxattr(path, names.as_mut_slice()),
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
        Place::Name(..) => rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()),
    }
}

fn remove<F: AsFd>(place: &Place<'_, F>, path: &CStr, name: &CStr) -> Result<(), Errno> {
    let removed = match place {
        Place::Open(file) => rustix::fs::fremovexattr(file, name),
        Place::Name(..) => rustix::fs::lremovexattr(path, name),
    };
    if removed == Err(Errno::NODATA) { Ok(()) } else { removed }
}

/// Sets the owner of `name` in `directory` without following it.
pub(super) fn change_owner(directory: impl AsFd, name: &[u8], owner: (Uid, Gid)) -> io::Result<()> {
    let (user, group) = owner;
    Ok(rustix::fs::chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A note for a report: what could not be done and why.
pub(super) fn note<T>(notes: &mut Vec<String>, what: &str, done: Result<T, Errno>) {
    if let Err(error) = done {
        notes.push(format!("{what} cannot be set: {}", describe(error)));
    }
}
