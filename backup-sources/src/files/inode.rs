//! What a file system knows of an inode beside its stat: its flags, and when it was made.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::AsFd;

use backup_core::Attribute;
use backup_core::entry::{BORN_ATTRIBUTE, FLAGS_ATTRIBUTE};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use crate::flags;
use crate::system::describe;

/// Something of an inode that could not be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hidden {
    pub(super) what: &'static str,
    pub(super) error: Errno,
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {} cannot be read: {}", self.what, describe(self.error))
    }
}

/// The attributes of an open file or directory, sorted; with what could not be read, if anything.
pub(super) fn of_open(file: impl AsFd) -> (Vec<Attribute>, Option<Hidden>) {
    let (mut attributes, mut failure) = born(&file, c"");
    match flags::get(&file) {
        Ok(Some(flags)) if flags & flags::SETTABLE != 0 => attributes.push(Attribute {
            name: FLAGS_ATTRIBUTE.into(),
            value: (flags & flags::SETTABLE).to_le_bytes().into(),
        }),
        Ok(_) => {}
        Err(error) => failure = Some(Hidden { what: "inode flags", error }),
    }
    (attributes, failure)
}

/// The attributes of `name` in `directory`, which is not opened: when it was made. Empty names mean what is open itself.
pub(super) fn born(directory: impl AsFd, name: &CStr) -> (Vec<Attribute>, Option<Hidden>) {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(directory, name, flags, StatxFlags::BTIME) {
        Ok(stat) if stat.stx_mask & StatxFlags::BTIME.bits() != 0 => {
            let mut value = stat.stx_btime.tv_sec.to_le_bytes().to_vec();
            value.extend_from_slice(&stat.stx_btime.tv_nsec.to_le_bytes());
            (vec![Attribute { name: BORN_ATTRIBUTE.into(), value: value.into() }], None)
        }
        // The file system, the kernel or a sandbox has no such times.
        Ok(_) | Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::NOTSUP) => (Vec::new(), None),
        Err(error) => (Vec::new(), Some(Hidden { what: "time of birth", error })),
    }
}
