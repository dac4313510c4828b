//! What a file is filled with: preallocated, written, copied from what stood there.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// What file systems leave unallocated: aligned blocks of this many zeros.
const HOLE_BYTES: usize = 4096;
/// Bytes written by one call at most: in calls of 1 MiB ext4 of Linux 6.18 took more than twice as long, of the system's time, as in
/// calls of 64 to 512 KiB.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes copied at once.
const COPY_BYTES: usize = 256 * 1024;

/// Gives a new file of `len` bytes its space at once, or, if it is `sparse`, tries whether it can be that long.
///
/// Not every file system can; but a full one, or a length that it does not have, is better known before anything is
/// written than after an hour: a few pages can claim more bytes than there are.
pub(super) fn preallocate(file: &OwnedFd, len: u64, sparse: bool) -> io::Result<()> {
    let room = match i64::try_from(len) {
        Err(_) => Err(Errno::FBIG),
        Ok(_) if sparse => rustix::fs::ftruncate(file, len),
        Ok(_) => rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, len),
    };
    match room {
        Err(error @ (Errno::NOSPC | Errno::FBIG)) => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn read_exact(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0_usize;
    while done < buffer.len() {
        let at = offset.saturating_add(u64::try_from(done).unwrap_or_default());
        let rest = buffer.get_mut(done..).unwrap_or_default();
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *rest, at))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => done = done.saturating_add(len),
        }
    }
    Ok(())
}

pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let step = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, step, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            len => {
                bytes = bytes.get(len..).unwrap_or_default();
                offset = offset.saturating_add(u64::try_from(len).unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// Writes `bytes` but for the blocks of the file that are all zero: those are left out, or, where something else may
/// stand there (`punch`), made holes.
pub(super) fn write_sparse(file: &OwnedFd, bytes: &[u8], offset: u64, punch: bool) -> io::Result<()> {
    let within =
        usize::try_from(offset.checked_rem(HOLE_BYTES as u64).unwrap_or_default()).unwrap_or_default();
    let first = HOLE_BYTES.saturating_sub(within).min(bytes.len());
    let (head, rest) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
    let mut pieces = std::iter::once(head).chain(rest.chunks(HOLE_BYTES)).peekable();
    let mut at = 0_usize;
    while let Some(piece) = pieces.next() {
        let start = at;
        at = at.saturating_add(piece.len());
        // As much as is of one kind, in one call.
        let zero = is_zero(piece);
        while let Some(piece) = pieces.next_if(|piece| is_zero(piece) == zero) {
            at = at.saturating_add(piece.len());
        }
        let from = offset.saturating_add(u64::try_from(start).unwrap_or_default());
        let part = bytes.get(start..at).unwrap_or_default();
        if !zero {
            write_all(file, part, from)?;
        } else if punch {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let len = u64::try_from(part.len()).unwrap_or_default();
            if len > 0 && rustix::fs::fallocate(file, flags, from, len).is_err() {
                write_all(file, part, from)?;
            }
        }
    }
    Ok(())
}

/// Copies a range from one file into another, zeros as holes if `sparse`, made where something else may stand if `punch`.
/// What `from` lacks at its end is left out.
pub(super) fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    range: Range<u64>,
    sparse: bool,
    punch: bool,
) -> io::Result<()> {
    let mut at = range.start;
    // The kernel shares the blocks where the file system can. Copied like this holes would be filled.
    while !sparse && at < range.end {
        let len = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let (mut from_at, mut to_at) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len) {
            Ok(0) => return Ok(()),
            Ok(copied) => at = at.saturating_add(u64::try_from(copied).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::IO)) => return Err(error.into()),
            // Not between these two.
            Err(_) => break,
        }
    }
    let mut buffer = vec![0; COPY_BYTES];
    while at < range.end {
        let len = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX).min(COPY_BYTES);
        let part = buffer.get_mut(..len).unwrap_or_default();
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut *part, at))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        if sparse {
            write_sparse(to, bytes, at, punch)?
        } else {
            write_all(to, bytes, at)?
        }
        at = at.saturating_add(u64::try_from(read).unwrap_or_default());
    }
    Ok(())
}

/// Whether all of a range was written, as far as the file system tells.
pub(super) fn is_data(file: &OwnedFd, range: &Range<u64>) -> bool {
    rustix::fs::seek(file, SeekFrom::Data(range.start)).is_ok_and(|data| data == range.start)
        && rustix::fs::seek(file, SeekFrom::Hole(range.start)).is_ok_and(|hole| hole >= range.end)
}

fn is_zero(bytes: &[u8]) -> bool {
    // Compared in steps that the compiler turns into wide ones.
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0_u8, |all, byte| all | byte) == 0)
}

/// Parts of a file, joined where they meet.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        // What begins in it or before it and reaches it becomes a part of it.
        while let Some((&other, &other_end)) = self.0.range(..=end).next_back()
            && other_end >= start
        {
            self.0.remove(&other);
            start = start.min(other);
            end = end.max(other_end);
        }
        if start < end {
            self.0.insert(start, end);
        }
    }

    /// The first part below `len` that is missing.
    pub(super) fn gap(&self, len: u64) -> Option<Range<u64>> {
        let (start, next) = match self.0.first_key_value() {
            Some((0, end)) => (*end, self.0.range(1..).next().map(|(start, _)| *start)),
            Some((start, _)) => (0, Some(*start)),
            None => (0, None),
        };
        let end = next.unwrap_or(len).min(len);
        (start < end).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_and_gaps_are_what_is_missing() {
        let mut ranges = Ranges::default();
        for range in [10..20, 30..40, 20..25, 5..8, 24..31] {
            ranges.insert(range);
        }
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges.gap(100), Some(0..5));
        ranges.insert(0..5);
        assert_eq!(ranges.gap(100), Some(8..10));
        assert_eq!(ranges.gap(9), Some(8..9));
        assert_eq!(ranges.gap(8), None);
        ranges.insert(8..10);
        assert_eq!((ranges.gap(40), ranges.gap(41)), (None, Some(40..41)));
        ranges.insert(50..50);
        ranges.insert(0..60);
        assert_eq!((ranges.len(), ranges.gap(60)), (1, None));
    }
}
