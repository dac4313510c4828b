//! Inode flags (`chattr(1)`, `ioctl_iflags(2)`): reading and setting them.

use std::os::fd::AsFd;

use rustix::fs::IFlags;
use rustix::io::Errno;

/// Nothing can be changed, removed or linked to.
pub(crate) const IMMUTABLE: u32 = 0x10;
/// Content can only be added.
pub(crate) const APPEND: u32 = 0x20;
/// What forbids further changes: comes last of all.
pub(crate) const LOCKS: u32 = IMMUTABLE | APPEND;
/// Compressed; never compressed; not copied on write: these say how content is stored, and come before it.
pub(crate) const LAYOUT: u32 = 0x4 | 0x400 | 0x80_0000;

/// Flags and their names in `chattr(1)`. Others are the file system's own affair.
const NAMES: [(u32, &str); 17] = [
    (0x1, "secure deletion"),
    (0x2, "undeletable"),
    (0x4, "compressed"),
    (0x8, "synchronous updates"),
    (IMMUTABLE, "immutable"),
    (APPEND, "append only"),
    (0x40, "no dump"),
    (0x80, "no atime updates"),
    (0x400, "don't compress"),
    (0x4000, "data journaling"),
    (0x8000, "no tail-merging"),
    (0x1_0000, "synchronous directory updates"),
    (0x2_0000, "top of directory hierarchies"),
    (0x80_0000, "no copy on write"),
    (0x200_0000, "direct access"),
    (0x2000_0000, "project hierarchy"),
    (0x4000_0000, "case-insensitive"),
];

/// The flags that a user may set.
pub(crate) const SETTABLE: u32 = {
    let mut all = 0;
    let mut rest: &[(u32, &str)] = &NAMES;
    while let [(bit, _), further @ ..] = rest {
        all |= *bit;
        rest = further;
    }
    all
};

/// All flags of an open file or directory; none where the file system has no flags.
pub(crate) fn get(file: impl AsFd) -> Result<Option<u32>, Errno> {
    match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => Ok(Some(flags.bits())),
        Err(Errno::NOTTY | Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the flags of an open file or directory those of `wanted`, as far as they are in `mask`; what could not be set,
/// in words.
pub(crate) fn set(file: impl AsFd, wanted: u32, mask: u32) -> Result<(), String> {
    let mask = mask & SETTABLE;
    let before = match get(&file) {
        Ok(Some(before)) => before,
        Ok(None) if wanted & mask == 0 => return Ok(()),
        Ok(None) => return Err(refusal(wanted & mask, "the file system has none")),
        Err(error) => return Err(refusal(wanted & mask, &crate::system::describe(error))),
    };
    let differing = (before ^ wanted) & mask;
    if differing == 0 {
        return Ok(());
    }
    let mut why = None;
    // All at once, or, where one of them is refused, one after the other: the rest is set all the same.
    if let Err(error) = put(&file, before ^ differing) {
        why = Some(error);
        for (bit, _) in NAMES.iter().filter(|(bit, _)| differing & bit != 0) {
            if let Ok(Some(now)) = get(&file)
                && let Err(error) = put(&file, now ^ bit)
            {
                why = Some(error);
            }
        }
    }
    // Some file systems pass over in silence what they do not do.
    let left = get(&file).ok().flatten().map_or(differing, |now| (now ^ wanted) & mask);
    match (left, why) {
        (0, _) => Ok(()),
        (left, Some(error)) => Err(refusal(left, &crate::system::describe(error))),
        (left, None) => Err(refusal(left, "the file system does not keep them")),
    }
}

fn put(file: impl AsFd, flags: u32) -> Result<(), Errno> {
    rustix::fs::ioctl_setflags(file, IFlags::from_bits_retain(flags))
}

fn refusal(flags: u32, why: &str) -> String {
    let names: Vec<&str> = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    format!("the inode flags ({}) cannot be set: {why}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_set_as_far_as_the_file_system_has_them() {
        let file = tempfile::tempfile().unwrap();
        let Ok(Some(before)) = get(&file) else { return };
        if set(&file, 0x40, 0x40).is_ok() {
            assert_eq!(get(&file).unwrap(), Some(before | 0x40));
            set(&file, 0, 0x40).unwrap();
            assert_eq!(get(&file).unwrap(), Some(before), "what is not in the mask stays");
        }
        // No file system does this; the other one is set all the same.
        let refused = set(&file, 0x2 | 0x40, 0x2 | 0x40);
        if let Err(why) = refused {
            assert!(why.contains("undeletable") && !why.contains("immutable"), "{why}");
        }
    }

    #[test]
    fn every_flag_has_a_name_and_locks_are_among_them() {
        assert_eq!(SETTABLE.count_ones() as usize, NAMES.len());
        assert_eq!(SETTABLE & LOCKS, LOCKS);
        assert_eq!(SETTABLE & LAYOUT, LAYOUT);
        assert_eq!(refusal(LOCKS, "no"), "the inode flags (immutable, append only) cannot be set: no");
    }
}
