//! From what the file system says about a name to an entry.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use backup_core::entry::XATTR_PREFIX;
use backup_core::limits;
use backup_core::{Attribute, PosixMetadata, Timestamp};
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::system;

/// How long a timestamp of a file may lag behind the clock: one tick of the kernel's coarse clock (10 ms at 100 Hz), twice.
const TICK_NANOSECONDS: i128 = 20_000_000;
/// The same where a file system keeps whole seconds, or two (FAT).
const COARSE_NANOSECONDS: i128 = 2_000_000_000;

/// Owner, mode and time.
pub(super) fn posix(stat: &Stat) -> PosixMetadata {
    PosixMetadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: system::modified(stat),
    }
}

/// Whether a regular file has holes.
pub(super) fn is_sparse(stat: &Stat) -> bool {
    u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512) < system::size(stat)
}

/// What tells this state of a file from another beside its size and time of modification, which the engine compares
/// itself: inode, and time of change as the distance from that of modification, in as few bytes as they need.
///
/// None if a change could follow that leaves all of them as they are. Kernels stamp changes with a coarse clock, so a
/// file that is written, seen here, and written again within one tick keeps its times, and with the same size nothing
/// would tell the difference for ever after. A file changed less than a tick before it was seen is therefore read again
/// next time. A modification time far in the future was set by hand and does not count: a write would bring it back.
pub(super) fn stamp(stat: &Stat, seen: Timestamp) -> Option<Box<[u8]>> {
    if !unsettled(stat, seen).is_zero() {
        return None;
    }
    let (modified, changed) = (system::modified(stat), system::changed(stat));
    let mut stamp = Vec::with_capacity(24);
    varint(&mut stamp, stat.st_ino);
    varint(&mut stamp, zigzag(changed.seconds().wrapping_sub(modified.seconds())));
    varint(
        &mut stamp,
        zigzag(i64::from(changed.nanoseconds()).wrapping_sub(i64::from(modified.nanoseconds()))),
    );
    Some(stamp.into_boxed_slice())
}

/// How long from `seen` on this state of a file has no stamp, because a change could go unnoticed; zero if it has one.
fn unsettled(stat: &Stat, seen: Timestamp) -> Duration {
    let (modified, changed) = (system::modified(stat), system::changed(stat));
    let seen = nanoseconds(seen);
    let left = |time: Timestamp| {
        let window = if time.nanoseconds() == 0 { COARSE_NANOSECONDS } else { TICK_NANOSECONDS };
        nanoseconds(time).saturating_add(window).saturating_add(1).saturating_sub(seen).max(0)
    };
    let set_by_hand = nanoseconds(modified) > seen.saturating_add(COARSE_NANOSECONDS);
    let left = left(changed).max(if set_by_hand { 0 } else { left(modified) });
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}

/// The one wait of a walk that meets what was written a moment ago: until one tick after it began. Then all that stood
/// there at the beginning has settled, so that a backup right after its tree was made leaves stamps; what is written
/// while the walk goes on has none.
#[derive(Debug)]
pub(super) struct Settling {
    began: Instant,
}

impl Settling {
    pub(super) fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// How long to wait before this file is looked at again; none if it has a stamp, or waiting would not help.
    pub(super) fn wait(&self, stat: &Stat, seen: Timestamp) -> Option<Duration> {
        let tick = Duration::from_nanos(u64::try_from(TICK_NANOSECONDS).unwrap_or_default());
        let left = tick.checked_sub(self.began.elapsed()).filter(|left| !left.is_zero())?;
        let unsettled = unsettled(stat, seen);
        // Where times are coarser than the kernel's ticks, or its clock is not ours, a tick does not help.
        let helps = !unsettled.is_zero() && unsettled <= tick.saturating_add(Duration::from_nanos(1));
        helps.then(|| left.max(unsettled))
    }
}

/// The inode in a stamp.
pub(super) fn stamped_inode(stamp: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for (at, byte) in stamp.iter().take(10).enumerate() {
        let shift = u32::try_from(at).ok()?.checked_mul(7)?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The time by the system's clock, which is the one that stamps files.
pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Reads extended attributes, with the buffers that it needs for that.
#[derive(Debug)]
pub(super) struct Xattrs {
    /// What stands in the path of an entry in the place of the first `skip` bytes of its name.
    base: Vec<u8>,
    skip: usize,
    full: Vec<u8>,
    path: Vec<u8>,
    directory_len: usize,
    names: Vec<u8>,
    value: Vec<u8>,
}

/// The kernel takes no longer path at once.
const PATH_MAX: usize = 4096;

impl Xattrs {
    pub(super) fn new() -> Self {
        Self {
            base: Vec::new(),
            skip: 0,
            full: Vec::new(),
            path: Vec::new(),
            directory_len: 0,
            names: vec![0; 4096],
            value: vec![0; 4096],
        }
    }

    /// Entries are found at `base` followed by their names without the first `skip` bytes from now on.
    pub(super) fn start(&mut self, (base, skip): (&[u8], usize)) {
        self.skip = skip;
        self.base.clear();
        self.base.extend_from_slice(base);
    }

    /// The attributes of the entry `entry`, which is `name` in the directory entered last, sorted; links are not followed.
    ///
    /// Most entries have none, and asking by their whole path is the fastest way to learn that. Where there are some they
    /// are read by way of the directory's descriptor: somebody who puts a link in the place of a directory may hide
    /// attributes of his own files that way, but must not get those of others attached to them.
    pub(super) fn of(&mut self, entry: &[u8], name: &CStr) -> Result<Vec<Attribute>, Errno> {
        let Self { base, skip, full, names, .. } = self;
        full.clear();
        full.extend_from_slice(base);
        full.extend_from_slice(entry.get(*skip..).unwrap_or_default());
        full.push(0);
        if full.len() < PATH_MAX
            && let Ok(path) = CStr::from_bytes_with_nul(full)
            && matches!(rustix::fs::llistxattr(path, names.as_mut_slice()), Ok(0) | Err(Errno::NOTSUP))
        {
            return Ok(Vec::new());
        }
        self.read(name)
    }

    /// Names in `directory` are read from now on.
    ///
    /// There is no call that reads attributes relative to a directory and without opening the file, so the way goes
    /// through the descriptor's own path.
    pub(super) fn enter(&mut self, directory: BorrowedFd<'_>) {
        self.path.clear();
        self.path.extend_from_slice(b"/proc/self/fd/");
        self.path.extend_from_slice(directory.as_raw_fd().to_string().as_bytes());
        self.path.push(b'/');
        self.directory_len = self.path.len();
    }

    /// The attributes of `name` in the directory entered last, sorted; links are not followed.
    pub(super) fn read(&mut self, name: &CStr) -> Result<Vec<Attribute>, Errno> {
        self.path.truncate(self.directory_len);
        self.path.extend_from_slice(name.to_bytes_with_nul());
        let Self { path, names, value, .. } = self;
        let path = CStr::from_bytes_with_nul(path).map_err(|_| Errno::INVAL)?;
        collect(
            names,
            value,
            |buffer| rustix::fs::llistxattr(path, buffer),
            |name, buffer| rustix::fs::lgetxattr(path, name, buffer),
        )
    }
}

/// The extended attributes of an open file, sorted.
pub(super) fn xattrs_of_open(file: impl AsFd) -> Result<Vec<Attribute>, Errno> {
    collect(
        &mut Vec::new(),
        &mut Vec::new(),
        |buffer| rustix::fs::flistxattr(&file, buffer),
        |name, buffer| rustix::fs::fgetxattr(&file, name, buffer),
    )
}

/// All attributes of what `list` lists the names and `get` gives the values of, sorted.
fn collect(
    names: &mut Vec<u8>,
    value: &mut Vec<u8>,
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<Attribute>, Errno> {
    let names = match filled(names, list) {
        Ok(names) => names,
        // The file system has none.
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match filled(value, |buffer| get(name, buffer)) {
            Ok(value) => attributes.push(Attribute {
                name: [XATTR_PREFIX, name.to_bytes()].concat().into_boxed_slice(),
                value: value.into(),
            }),
            // Removed meanwhile.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error),
        }
    }
    attributes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    attributes.dedup_by(|a, b| a.name == b.name);
    Ok(attributes)
}

/// Room that is offered first: most files have no extended attributes, and those that have some have short ones.
const FIRST_BYTES: usize = 256;

/// What `read` fills a buffer with, which is made as long as is needed.
fn filled(buffer: &mut Vec<u8>, read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<&[u8], Errno> {
    if buffer.len() < FIRST_BYTES {
        buffer.resize(FIRST_BYTES, 0);
    }
    let len = loop {
        match read(buffer) {
            Ok(len) => break len,
            Err(Errno::RANGE) if buffer.len() < MAX_BYTES => buffer.resize(MAX_BYTES, 0),
            Err(error) => return Err(error),
        }
    };
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Linux's own limit on a list of names and on a value (xattr(7)), which is within the format's.
const MAX_BYTES: usize = 64 * 1024;
const _: () = assert!(MAX_BYTES <= limits::ATTRIBUTE_BYTES_MAX);

fn nanoseconds(time: Timestamp) -> i128 {
    i128::from(time.seconds()).saturating_mul(1_000_000_000).saturating_add(i128::from(time.nanoseconds()))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_of_new_file() -> Stat {
        let file = tempfile::tempfile().unwrap();
        rustix::fs::fstat(&file).unwrap()
    }

    fn later(seconds: i64) -> Timestamp {
        now().saturating_add_seconds(seconds)
    }

    #[test]
    fn a_file_changed_within_the_clocks_grain_has_no_stamp() {
        let stat = stat_of_new_file();
        assert_eq!(stamp(&stat, system::changed(&stat)), None);
        assert_eq!(stamp(&stat, later(-100)), None, "a clock that was set back");
        assert!(stamp(&stat, later(1)).is_some());
    }

    #[test]
    fn a_walk_waits_once_and_no_longer_than_a_tick() {
        let stat = stat_of_new_file();
        let changed = system::changed(&stat);
        let settling = || Settling { began: Instant::now() };
        assert_eq!(settling().wait(&stat, later(1)), None, "nothing to wait for");
        assert_eq!(settling().wait(&stat, changed.saturating_add_seconds(-3600)), None, "another clock");
        let wait = settling().wait(&stat, changed).unwrap();
        assert!(wait <= Duration::from_millis(21), "{wait:?}");
        let settled = SystemTime::UNIX_EPOCH + Duration::new(changed.seconds() as u64, changed.nanoseconds());
        assert!(stamp(&stat, (settled + wait).into()).is_some(), "it was long enough");
        // Of a file that is older by half a tick less is left, but others may be younger.
        let half = (settled + Duration::from_millis(10)).into();
        assert!(settling().wait(&stat, half).unwrap() > Duration::from_millis(11));
        let began = Instant::now().checked_sub(Duration::from_millis(20)).unwrap();
        assert_eq!(
            Settling { began }.wait(&stat, changed),
            None,
            "what is recent now changed since it began"
        );
    }

    #[test]
    fn whole_seconds_need_a_wider_guard() {
        let mut stat = stat_of_new_file();
        stat.st_ctime_nsec = 0;
        let seen = Timestamp::new(stat.st_ctime, 900_000_000);
        assert_eq!(stamp(&stat, seen), None);
        assert!(stamp(&stat, seen.saturating_add_seconds(3)).is_some());
    }

    #[test]
    fn a_time_set_into_the_future_does_not_cost_the_stamp() {
        let mut stat = stat_of_new_file();
        stat.st_mtime += 1_000_000_000;
        assert!(stamp(&stat, later(1)).is_some());
    }

    #[test]
    fn stamps_differ_in_each_of_their_parts_and_give_the_inode_back() {
        let stat = stat_of_new_file();
        let seen = later(10);
        let original = stamp(&stat, seen).unwrap();
        assert_eq!(stamped_inode(&original), Some(stat.st_ino));
        let changes: [fn(&mut Stat); 3] =
            [|stat| stat.st_ino += 1, |stat| stat.st_ctime -= 1, |stat| stat.st_ctime_nsec ^= 1];
        for change in changes {
            let mut other = stat;
            change(&mut other);
            assert_ne!(stamp(&other, seen).unwrap(), original);
        }
        let mut extreme = stat;
        extreme.st_ino = u64::MAX;
        extreme.st_mtime = i64::MIN;
        assert_eq!(stamped_inode(&stamp(&extreme, seen).unwrap()), Some(u64::MAX));
    }
}
