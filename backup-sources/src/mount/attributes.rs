//! What `stat` says of entries.

use std::time::{Duration, SystemTime};

use backup_core::{Entry, EntryKind, Timestamp};
use fuser::{FileAttr, FileType, INodeNo};

/// Whoever mounts: the owner of what no entry describes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Something that no entry describes: a directory or link above the snapshots, or a directory that only names tell of.
pub(super) fn plain(number: u64, kind: FileType, size: u64, time: Timestamp, owner: Owner) -> FileAttr {
    let time = system_time(time);
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: if kind == FileType::Symlink { 0o777 } else { 0o555 },
        nlink: 1,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// An entry with so many names. What an entry does not say is what `plain` says, with the time of its snapshot.
pub(super) fn of_entry(number: u64, entry: &Entry, names: u32, time: Timestamp, owner: Owner) -> FileAttr {
    let kind = file_type(&entry.kind);
    let size = match &entry.kind {
        EntryKind::Symlink { target } => target.len() as u64,
        _ => entry.size.unwrap_or_default(),
    };
    let mut attr = plain(number, kind, size, time, owner);
    attr.blocks = if kind == FileType::RegularFile { size.div_ceil(512) } else { 0 };
    attr.nlink = names;
    if let EntryKind::CharDevice { device } | EntryKind::BlockDevice { device } = entry.kind {
        attr.rdev = device_number(device);
    }
    if let Some(posix) = entry.posix {
        attr.perm = u16::try_from(posix.mode & 0o7777).unwrap_or_default();
        attr.uid = posix.uid;
        attr.gid = posix.gid;
        let modified = system_time(posix.modified);
        (attr.atime, attr.mtime, attr.ctime, attr.crtime) = (modified, modified, modified, modified);
    }
    attr
}

/// What an entry is. A hard link is shown as what it is a name of.
pub(super) fn file_type(kind: &EntryKind) -> FileType {
    match kind {
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink { .. } => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::Socket => FileType::Socket,
        EntryKind::CharDevice { .. } => FileType::CharDevice,
        EntryKind::BlockDevice { .. } => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// A device's numbers in 32 bits: twelve bits of the major and twenty of the minor (`new_encode_dev`, linux/kdev_t.h).
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

fn system_time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds().unsigned_abs());
    let whole = if time.seconds() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let nanoseconds = Duration::from_nanos(time.nanoseconds().into());
    whole.and_then(|whole| whole.checked_add(nanoseconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_times_are_those_that_the_system_means() {
        for (major, minor) in [(0, 0), (1, 3), (7, 200), (8, 256), (259, 70_000), (0xfff, 0xf_ffff)] {
            let number = u64::from(device_number((major, minor)));
            // As the kernel reads it (`new_decode_dev`).
            assert_eq!((number & 0xf_ff00) >> 8, u64::from(major));
            assert_eq!((number & 0xff) | ((number >> 12) & 0xf_ff00), u64::from(minor));
        }
        let half = system_time(Timestamp::new(-2, 500_000_000));
        assert_eq!(SystemTime::UNIX_EPOCH.duration_since(half).unwrap(), Duration::from_millis(1500));
        assert!(system_time(Timestamp::new(i64::MAX, 999_999_999)).elapsed().is_err());
        system_time(Timestamp::new(i64::MIN, 0));
    }
}
