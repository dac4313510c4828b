//! Writing one file.
//!
//! A name means the old content or the new one, never a mix: what replaces a file is made elsewhere, from what is written
//! and, where nothing is written, from what the old file has there, and is moved to the name when it is whole. Only new
//! short files in a target that was empty are made at their names, which costs less.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use backup_core::BlockingWriter;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Wanted};
use super::beneath::Directory;
use super::content::{self, Ranges};
use super::meet::{self, Met};
use super::staging::Temporary;
use super::{Opened, Overwrite, locks, refused};
use crate::flags;
use crate::system::{self, size};

/// Files at least this long get their space at once, are always made elsewhere, and are continued by the next restore.
const LONG_BYTES: u64 = 8 * 1024 * 1024;
/// Parts of a file that is being replaced which are kept in mind; what lies between more is copied early.
const RANGES_MAX: usize = 16 * 1024;

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
    /// Made by this writer at its name.
    Direct { file: OwnedFd, end: AtomicU64 },
    /// Made elsewhere, once something is written.
    Staged(Box<Staged>),
    /// Has the right content; metadata is put right.
    Current { file: OwnedFd },
    /// Is not to be touched.
    Kept,
}

/// What several threads write to at once, each to parts of its own.
#[derive(Debug, Default)]
struct Staged {
    /// What stands at the name: wherever nothing is written its content is right.
    former: Option<(OwnedFd, Stat)>,
    temporary: OnceLock<Temporary>,
    /// Held by whoever makes the temporary file.
    making: Mutex<()>,
    /// Parts of the temporary file that are as they should be, or for which somebody sees to that. What is copied from the
    /// former file is copied while this is held, so that it never falls upon what was written.
    done: Mutex<Ranges>,
    /// Bytes in the temporary file; with holes at its end it may have fewer than it is to have.
    end: AtomicU64,
}

impl FileWriter {
    /// Opens what is there, or makes the file, with the directories above it.
    pub(super) fn open(opened: Arc<Opened>, wanted: Wanted) -> io::Result<Self> {
        let (directory, name) = opened.beneath.parent(wanted.name.as_bytes(), opened.settings.replaces())?;
        let short = wanted.size.is_none_or(|size| size < LONG_BYTES);
        if opened.was_empty && short {
            match create(&directory, name) {
                Ok(file) => {
                    let state = direct(file, &wanted);
                    let directory = Arc::clone(&directory);
                    return Ok(Self { opened, wanted, directory, state });
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let former = match meet::meet(&opened, &wanted, &directory, name)? {
            Met::Kept => {
                return Ok(Self { directory: Arc::clone(&directory), opened, wanted, state: State::Kept });
            }
            Met::Current(file) => {
                let directory = Arc::clone(&directory);
                return Ok(Self { opened, wanted, directory, state: State::Current { file } });
            }
            Met::Former(file, stat) => Some((file, stat)),
            Met::Nothing => None,
        };
        let temporary = opened.staging.left(&directory, &wanted.name);
        if temporary.is_some()
            && let Some(len) = wanted.size.filter(|len| *len >= LONG_BYTES)
        {
            let temporary = temporary.as_ref().map(Temporary::file);
            temporary.map_or(Ok(()), |file| content::preallocate(file, len, opened.is_sparse(&wanted)))?;
        }
        let end = AtomicU64::new(temporary.as_ref().map_or(0, |temporary| temporary.left));
        let temporary = temporary.map_or_else(OnceLock::new, OnceLock::from);
        let state = State::Staged(Box::new(Staged { former, temporary, end, ..Staged::default() }));
        Ok(Self { directory: Arc::clone(&directory), opened, wanted, state })
    }

    fn last(&self) -> &[u8] {
        self.wanted.name.file_name()
    }

    /// Applies the metadata to an open file, of which nothing but the content `is_ours` if so.
    fn apply(&self, file: &OwnedFd, is_ours: bool, notes: &mut Vec<String>) {
        let mut owned = true;
        // In this order: a change of owner takes away set-id bits and capabilities, and everything changes the time.
        if let Some((user, group)) = self.opened.owner(&self.wanted, is_ours) {
            let done = rustix::fs::fchown(file, Some(user), Some(group));
            owned = done.is_ok();
            attributes::note(notes, "the owner", done);
        }
        let grants = self.opened.grants(self.wanted.posix.as_ref(), owned);
        self.opened.note_withheld(&self.wanted, grants, notes);
        if !is_ours && !self.wanted.attributes.is_empty() && !system::is_root() {
            // Attributes are written like content: the owner needs the right to, too.
            if let Ok(stat) = rustix::fs::fstat(file) {
                let _ = rustix::fs::fchmod(file, Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o200));
            }
        }
        if !is_ours || !self.wanted.attributes.is_empty() {
            let place = attributes::Place::Open(file);
            attributes::apply(&place, &self.wanted.attributes, grants, !is_ours, notes);
        }
        if let Some(posix) = &self.wanted.posix {
            attributes::note(notes, "the mode", rustix::fs::fchmod(file, self.opened.mode(posix, owned)));
            let times = attributes::times(posix.modified);
            attributes::note(notes, "the time", rustix::fs::futimens(file, &times));
        }
        self.opened.set_flags(file, &self.wanted, notes);
    }

    /// Moves a file that is whole to its name.
    fn put_in_place(&self, temporary: &mut Temporary) -> io::Result<()> {
        let (name, replace) = (self.last(), self.opened.settings.overwrite != Overwrite::Never);
        if self.wanted.is_locked()
            && let Ok(there) = locks::open_in(&*self.directory, name)
        {
            locks::unlock(&there);
        }
        for _ in 0..8 {
            match temporary.move_to(&self.directory, name, replace) {
                Ok(()) => return Ok(()),
                Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) if replace => {
                    match rustix::fs::statat(&*self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => meet::make_room(&self.directory, name, &stat)?,
                        Err(Errno::NOENT) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                // It came meanwhile, and stays.
                Err(Errno::EXIST) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused("what stands there is changed by others all the time"))
    }

    fn finish_staged(&self, staged: Staged, len: u64) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        if let Some((file, stat)) = staged.former.as_ref().filter(|_| staged.temporary.get().is_none()) {
            if self.wanted.is_locked() {
                locks::unlock(file);
            }
            if size(stat) == len || (size(stat) > len && self.cut(stat, len)) {
                self.apply(file, false, &mut notes);
                return Ok(notes);
            }
        }
        staged.temporary(&self.opened, &self.directory, &self.wanted)?;
        let sparse = self.opened.is_sparse(&self.wanted);
        let former = staged.former.as_ref().map_or(0, |(_, stat)| size(stat));
        let mut done = staged.done();
        while let Some(gap) = done.gap(former.min(len)) {
            staged.fill(&mut done, gap, sparse)?;
        }
        drop(done);
        let Staged { temporary, end, .. } = staged;
        let Some(mut temporary) = temporary.into_inner() else {
            return Err(refused("there is no file to put in place"));
        };
        let file = temporary.file();
        if end.into_inner() != len {
            rustix::fs::ftruncate(file, len)?;
        }
        if let Some(group) = self.directory.group().filter(|_| !self.opened.owners) {
            // What is made in such a directory is its group's; this was made elsewhere.
            let _ = rustix::fs::fchown(file, None, Some(group));
        }
        self.apply(file, temporary.is_plain() && !self.directory.passes_on, &mut notes);
        self.put_in_place(&mut temporary)?;
        Ok(notes)
    }

    /// Cuts the former file, whose beginning is all that is wanted: no moment shows a mix.
    fn cut(&self, stat: &Stat, len: u64) -> bool {
        let file = meet::reopen(&self.directory, self.last(), stat, OFlags::RDWR);
        matches!(file, Ok(Some(file)) if rustix::fs::ftruncate(&file, len).is_ok())
    }
}

impl Staged {
    fn former_len(&self) -> u64 {
        self.former.as_ref().map_or(0, |(_, stat)| size(stat))
    }

    fn left(&self) -> u64 {
        self.temporary.get().map_or(0, |temporary| temporary.left)
    }

    fn done(&self) -> MutexGuard<'_, Ranges> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The temporary file, made if there is none yet.
    fn temporary(&self, opened: &Opened, directory: &Directory, wanted: &Wanted) -> io::Result<&Temporary> {
        if let Some(temporary) = self.temporary.get() {
            return Ok(temporary);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(temporary) = self.temporary.get() {
            return Ok(temporary);
        }
        let new = opened.staging.create(&opened.beneath, directory, &wanted.name)?;
        set_layout(new.file(), wanted);
        if let Some(len) = wanted.size.filter(|len| *len >= LONG_BYTES) {
            let sparse = opened.is_sparse(wanted);
            content::preallocate(new.file(), len, sparse)?;
            self.end.store(if sparse { len } else { 0 }, Ordering::Relaxed);
        }
        Ok(self.temporary.get_or_init(|| new))
    }

    /// Copies a part from the former file.
    fn fill(&self, done: &mut Ranges, part: Range<u64>, sparse: bool) -> io::Result<()> {
        if let (Some((former, _)), Some(temporary)) = (&self.former, self.temporary.get()) {
            content::copy(former, temporary.file(), part.clone(), sparse, temporary.left > 0)?;
        }
        self.end.fetch_max(part.end, Ordering::Relaxed);
        done.insert(part);
        Ok(())
    }

    /// Takes a part, which the caller writes next; nothing else is written there any more.
    fn take(&self, part: Range<u64>, sparse: bool) -> io::Result<()> {
        // Without a former file there is nothing to tell apart.
        if self.former.is_none() {
            return Ok(());
        }
        let mut done = self.done();
        done.insert(part);
        while done.len() > RANGES_MAX
            && let Some(gap) = done.gap(self.former_len())
        {
            self.fill(&mut done, gap, sparse)?;
        }
        Ok(())
    }

    /// Whether a part stands in what an earlier restore left.
    fn is_left(&self, file: &OwnedFd, part: &Range<u64>) -> bool {
        if self.former.is_none() {
            return true;
        }
        let mut done = self.done();
        let is_left = content::is_data(file, part);
        if is_left {
            // It is right, or will be written: either way the former file's is not needed.
            done.insert(part.clone());
        }
        is_left
    }

    fn read(&self, buffer: &mut [u8], part: Range<u64>) -> io::Result<()> {
        if let Some(temporary) = self.temporary.get().filter(|temporary| part.end <= temporary.left)
            && self.is_left(temporary.file(), &part)
        {
            return content::read_exact(temporary.file(), buffer, part.start);
        }
        match &self.former {
            Some((former, stat)) if part.end <= size(stat) => content::read_exact(former, buffer, part.start),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl BlockingWriter for FileWriter {
    fn existing_len(&self) -> u64 {
        match &self.state {
            State::Staged(staged) if staged.left() > 0 => staged.left().max(staged.former_len()),
            State::Staged(staged) => staged.former_len(),
            _ => 0,
        }
    }

    fn is_current(&self) -> bool {
        matches!(self.state, State::Current { .. } | State::Kept)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = offset..offset.saturating_add(u64::try_from(buffer.len()).unwrap_or_default());
        match &self.state {
            State::Staged(staged) => staged.read(buffer, part),
            State::Direct { file, .. } => content::read_exact(file, buffer, offset),
            State::Current { .. } | State::Kept => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let len = u64::try_from(bytes.len()).unwrap_or_default();
        let part = offset..offset.saturating_add(len);
        self.opened.durable.wrote(len);
        let sparse = self.opened.is_sparse(&self.wanted);
        let write = |file: &OwnedFd, punch: bool| match sparse {
            // What is left out at the end becomes a hole when the file gets its length.
            true => content::write_sparse(file, bytes, offset, punch),
            false => content::write_all(file, bytes, offset),
        };
        let reaches = if sparse { u64::MAX } else { part.end };
        match &self.state {
            State::Direct { file, end } => {
                write(file, false)?;
                end.fetch_max(reaches, Ordering::Relaxed);
                Ok(())
            }
            State::Staged(staged) => {
                let temporary = staged.temporary(&self.opened, &self.directory, &self.wanted)?;
                staged.take(part, sparse)?;
                write(temporary.file(), temporary.left > 0)?;
                staged.end.fetch_max(reaches, Ordering::Relaxed);
                Ok(())
            }
            State::Current { .. } | State::Kept => Err(refused("this file was not to be written to")),
        }
    }

    fn finish(mut self: Box<Self>, len: u64) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        self.opened.durable.finished_file();
        match std::mem::replace(&mut self.state, State::Kept) {
            State::Kept => {}
            State::Current { file } => self.apply(&file, false, &mut notes),
            State::Direct { file, end } => {
                if end.into_inner() != len {
                    rustix::fs::ftruncate(&file, len)?;
                }
                self.apply(&file, !self.directory.passes_on, &mut notes);
            }
            State::Staged(staged) => return self.finish_staged(*staged, len),
        }
        Ok(notes)
    }

    fn abort(self: Box<Self>) {
        // What was made elsewhere goes by itself, and what stood there was not touched.
        let State::Direct { file, .. } = &self.state else { return };
        // Only if the name still means this file.
        let name = self.last();
        let same = match (
            rustix::fs::fstat(file),
            rustix::fs::statat(&*self.directory, name, AtFlags::SYMLINK_NOFOLLOW),
        ) {
            (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
            _ => false,
        };
        if same {
            // The restore reports the entry as failed already.
            let _ = rustix::fs::unlinkat(&*self.directory, name, AtFlags::empty());
        }
    }

    fn suspend(mut self: Box<Self>) {
        if self.wanted.size.is_some_and(|size| size >= LONG_BYTES)
            && let State::Staged(staged) = &mut self.state
            && let Some(temporary) = staged.temporary.take()
        {
            temporary.keep();
        } else {
            self.abort();
        }
    }
}

fn create(directory: &Directory, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody else reads it before it has its mode.
    rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
}

fn direct(file: OwnedFd, wanted: &Wanted) -> State {
    set_layout(&file, wanted);
    State::Direct { file, end: AtomicU64::new(0) }
}

/// How content is stored can be chosen only while there is none. What is refused is named at the end.
fn set_layout(file: &OwnedFd, wanted: &Wanted) {
    let layout = wanted.flags().unwrap_or_default() & flags::LAYOUT;
    if layout != 0 {
        let _ = flags::set(file, layout, layout);
    }
}
