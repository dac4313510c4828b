//! Writing one file.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use backup_core::BlockingWriter;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Place, Wanted, note};
use super::beneath::Directory;
use super::locks;
use super::{Opened, Overwrite, refused};
use crate::flags;
use crate::system::{file_type, modified, size};

/// New files at least this long get their space at once.
const PREALLOCATE_BYTES: u64 = 8 * 1024 * 1024;
/// What file systems leave unallocated: aligned blocks of this many zeros.
const HOLE_BYTES: usize = 4096;

/// A file being restored.
#[derive(Debug)]
pub(super) struct FileWriter {
    opened: Arc<Opened>,
    wanted: Wanted,
    directory: Arc<Directory>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Made by this writer.
    New { file: OwnedFd, end: u64 },
    /// Stood there before; content that differs is written into it.
    Former { file: OwnedFd, stat: Stat, touched: bool },
    /// Has the right content; metadata is put right.
    Current { file: OwnedFd },
    /// Is not to be touched.
    Kept,
}

impl FileWriter {
    /// Opens or makes the file, with the directories above it.
    pub(super) fn open(opened: Arc<Opened>, wanted: Wanted) -> io::Result<Self> {
        let (directory, name) = opened.beneath.parent(wanted.name.as_bytes(), opened.settings.replaces())?;
        // Others may make or remove the same name meanwhile, but not for ever.
        for _ in 0..8 {
            let state = match create(&directory, name) {
                Ok(file) => match new(file, &wanted, opened.settings.dense) {
                    Ok(state) => Some(state),
                    Err(error) => {
                        // Empty as it is it would pass for whole.
                        let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
                        return Err(error);
                    }
                },
                Err(Errno::EXIST) => meet(&opened, &wanted, &directory, name)?,
                Err(error) => return Err(error.into()),
            };
            if let Some(state) = state {
                let directory = Arc::clone(&directory);
                return Ok(Self { opened, wanted, directory, state });
            }
        }
        Err(refused("what stands there is changed by others all the time"))
    }

    fn last(&self) -> &[u8] {
        self.wanted.name.file_name()
    }
}

impl BlockingWriter for FileWriter {
    fn existing_len(&self) -> u64 {
        match &self.state {
            State::Former { stat, .. } => size(stat),
            _ => 0,
        }
    }

    fn is_current(&self) -> bool {
        matches!(self.state, State::Current { .. } | State::Kept)
    }

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (State::New { file, .. } | State::Former { file, .. }) = &self.state else {
            return Err(io::ErrorKind::Unsupported.into());
        };
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

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let len = u64::try_from(bytes.len()).unwrap_or_default();
        match &mut self.state {
            State::New { file, end } => {
                if self.wanted.sparse && !self.opened.settings.dense {
                    // What is left out at the end becomes a hole when the file gets its length.
                    return write_sparse(file, bytes, offset, end);
                }
                write_all(file, bytes, offset)?;
                *end = (*end).max(offset.saturating_add(len));
                Ok(())
            }
            State::Former { file, stat, touched } => {
                if !*touched {
                    *touched = true;
                    protect(file, stat, self.wanted.posix.map(|posix| posix.mode))?;
                }
                write_all(file, bytes, offset)
            }
            State::Current { .. } | State::Kept => Err(refused("this file was not to be written to")),
        }
    }

    fn finish(self: Box<Self>, len: u64) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        let (file, fresh) = match &self.state {
            State::Kept => return Ok(notes),
            State::New { file, end } => {
                if *end != len {
                    rustix::fs::ftruncate(file, len)?;
                }
                (file, true)
            }
            State::Former { file, stat, touched } => {
                if size(stat) != len || *touched {
                    rustix::fs::ftruncate(file, len)?;
                }
                (file, false)
            }
            State::Current { file } => (file, false),
        };
        let ours = fresh && !self.directory.passes_on;
        let mut owned = true;
        // In this order: a change of owner takes away set-id bits and capabilities, and everything changes the time.
        if let Some((user, group)) = self.opened.owner(&self.wanted, ours) {
            let done = rustix::fs::fchown(file, Some(user), Some(group));
            owned = done.is_ok();
            note(&mut notes, "the owner", done);
        }
        let grants = self.opened.grants(self.wanted.posix.as_ref(), owned);
        self.opened.note_withheld(&self.wanted, grants, &mut notes);
        if !ours || !self.wanted.attributes.is_empty() {
            attributes::apply(&Place::Open(file), &self.wanted.attributes, grants, !ours, &mut notes);
        }
        if let Some(posix) = &self.wanted.posix {
            note(&mut notes, "the mode", rustix::fs::fchmod(file, self.opened.mode(posix, owned)));
            note(&mut notes, "the time", rustix::fs::futimens(file, &attributes::times(posix.modified)));
        }
        self.opened.set_flags(file, &self.wanted, &mut notes);
        Ok(notes)
    }

    fn abort(self: Box<Self>) {
        let file = match &self.state {
            State::New { file, .. } | State::Former { file, touched: true, .. } => file,
            _ => return,
        };
        // Only if the name still means this file.
        let name = self.last();
        let same = match (
            rustix::fs::fstat(file),
            rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW),
        ) {
            (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
            _ => false,
        };
        if same {
            // The restore reports the entry as failed already.
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

fn create(directory: &Directory, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody else reads it before it has its mode.
    rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
}

fn new(file: OwnedFd, wanted: &Wanted, dense: bool) -> io::Result<State> {
    // How content is stored can be chosen only while there is none. What is refused is named at the end.
    let layout = wanted.flags().unwrap_or_default() & flags::LAYOUT;
    if layout != 0 {
        let _ = flags::set(&file, layout, layout);
    }
    if let Some(len) = wanted.size.filter(|len| *len >= PREALLOCATE_BYTES) {
        // Not every file system can; but a full one, or a length that it does not have, is better known now than after
        // an hour: a few pages can claim more bytes than there are.
        let room = match i64::try_from(len) {
            Err(_) => Err(Errno::FBIG),
            Ok(_) if wanted.sparse && !dense => rustix::fs::ftruncate(&file, len),
            Ok(_) => rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len),
        };
        if let Err(error @ (Errno::NOSPC | Errno::FBIG)) = room {
            return Err(error.into());
        }
    }
    Ok(State::New { file, end: 0 })
}

/// Decides about what stands at the name already. None: it made room, or went by itself.
fn meet(opened: &Opened, wanted: &Wanted, directory: &Directory, name: &[u8]) -> io::Result<Option<State>> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let keep = match opened.settings.overwrite {
        Overwrite::Never => true,
        Overwrite::IfNewer => wanted.modified().is_none_or(|time| time <= modified(&stat)),
        Overwrite::Always | Overwrite::IfChanged => false,
    };
    if keep {
        return Ok(Some(State::Kept));
    }
    let is_file = file_type(&stat) == FileType::RegularFile;
    let unchanged = opened.settings.overwrite == Overwrite::IfChanged
        && is_file
        && wanted.size == Some(size(&stat))
        && wanted.modified() == Some(modified(&stat));
    if unchanged && let Some(file) = reopen(directory, name, &stat, OFlags::RDONLY)? {
        if stat.st_nlink == 1 {
            if wanted.is_locked() {
                locks::unlock(&file);
            }
            return Ok(Some(State::Current { file }));
        }
        // Whoever sets anything of a file with several names sets it of all of them, wherever they stand.
        if opened.has(&stat, wanted) && attributes::are_set(&file, &wanted.attributes) {
            return Ok(Some(State::Kept));
        }
    }
    // The snapshot has it locked as well, so it is most likely from an earlier restore.
    if is_file
        && wanted.is_locked()
        && let Ok(file) = locks::open_in(directory, name)
    {
        locks::unlock(&file);
    }
    if !unchanged
        && is_file
        && stat.st_nlink == 1
        && let Some(file) = reopen(directory, name, &stat, OFlags::RDWR)?
    {
        return Ok(Some(State::Former { file, stat, touched: false }));
    }
    make_room(directory, name, &stat)?;
    Ok(None)
}

/// Opens a file that stands there, if it still is the one and may be opened so.
fn reopen(directory: &Directory, name: &[u8], stat: &Stat, access: OFlags) -> io::Result<Option<OwnedFd>> {
    // A fifo in its place would make the open wait.
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        // Being executed, not permitted, or replaced: it makes room for a new file.
        Err(
            Errno::TXTBSY
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::NXIO
            | Errno::NOENT
            | Errno::ISDIR,
        ) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let now = rustix::fs::fstat(&file)?;
    // Still as many names: to write into a file with several would change the others, too.
    let same = (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino)
        && file_type(&now) == FileType::RegularFile
        && now.st_nlink == stat.st_nlink;
    Ok(same.then_some(file))
}

/// Removes what stands at a name, unless it is a directory with content.
pub(super) fn make_room(directory: &Directory, name: &[u8], stat: &Stat) -> io::Result<()> {
    let flags = if file_type(stat) == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            Err(refused("a directory with content stands there; remove it first"))
        }
        // It became something else; the next look tells what.
        Err(Errno::ISDIR | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Before anything is written into a file that others may read and that is to be more private, closes it to them.
fn protect(file: &OwnedFd, stat: &Stat, mode: Option<u32>) -> io::Result<()> {
    let now = stat.st_mode & 0o7777;
    if mode.is_some_and(|mode| now & !mode & 0o7077 != 0) {
        rustix::fs::fchmod(file, Mode::from_raw_mode(0o600))?;
    }
    Ok(())
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, bytes, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            len => {
                bytes = bytes.get(len..).unwrap_or_default();
                offset = offset.saturating_add(u64::try_from(len).unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// Writes `bytes` but for the blocks of the file that are all zero.
fn write_sparse(file: &OwnedFd, bytes: &[u8], offset: u64, end: &mut u64) -> io::Result<()> {
    let within =
        usize::try_from(offset.checked_rem(HOLE_BYTES as u64).unwrap_or_default()).unwrap_or_default();
    let first = HOLE_BYTES.saturating_sub(within).min(bytes.len());
    let (head, rest) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
    let mut pieces = std::iter::once(head).chain(rest.chunks(HOLE_BYTES)).peekable();
    let mut at = 0_usize;
    while let Some(piece) = pieces.next() {
        let start = at;
        at = at.saturating_add(piece.len());
        if is_zero(piece) {
            continue;
        }
        // As much as has content, in one call.
        while let Some(piece) = pieces.next_if(|piece| !is_zero(piece)) {
            at = at.saturating_add(piece.len());
        }
        let from = offset.saturating_add(u64::try_from(start).unwrap_or_default());
        write_all(file, bytes.get(start..at).unwrap_or_default(), from)?;
        *end = (*end).max(offset.saturating_add(u64::try_from(at).unwrap_or_default()));
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    // Compared in steps that the compiler turns into wide ones.
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0_u8, |all, byte| all | byte) == 0)
}
