//! Writing one file.
//!
//! A name means the old content or the new one, never a mix: what replaces a file is made elsewhere, from what is written
//! and, where nothing is written, from what the old file has there, and is moved to the name when it is whole. Only new
//! short files in a target that was empty are made at their names, which costs less.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
    Direct { file: OwnedFd, end: u64 },
    /// Made elsewhere, once something is written.
    Staged(Box<Staged>),
    /// Has the right content; metadata is put right.
    Current { file: OwnedFd },
    /// Is not to be touched.
    Kept,
}

#[derive(Debug, Default)]
struct Staged {
    /// What stands at the name: wherever nothing is written its content is right.
    former: Option<(OwnedFd, Stat)>,
    temporary: Option<Temporary>,
    /// Parts of the temporary file that are as they should be.
    done: Ranges,
    /// Bytes in the temporary file; with holes at its end it may have fewer than it is to have.
    end: u64,
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
        let end = temporary.as_ref().map_or(0, |temporary| temporary.left);
        let state = State::Staged(Box::new(Staged { former, temporary, done: Ranges::default(), end }));
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

    fn finish_staged(&self, mut staged: Staged, len: u64) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        if let Some((file, stat)) = staged.former.as_ref().filter(|_| staged.temporary.is_none()) {
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
        while let Some(gap) = staged.done.gap(former.min(len)) {
            staged.fill(gap, sparse)?;
        }
        let Staged { temporary: Some(mut temporary), end, .. } = staged else {
            return Err(refused("there is no file to put in place"));
        };
        let file = temporary.file();
        if end != len {
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
        self.temporary.as_ref().map_or(0, |temporary| temporary.left)
    }

    /// The temporary file, made if there is none yet.
    fn temporary(
        &mut self,
        opened: &Opened,
        directory: &Directory,
        wanted: &Wanted,
    ) -> io::Result<&Temporary> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                let new = opened.staging.create(&opened.beneath, directory, &wanted.name)?;
                set_layout(new.file(), wanted);
                if let Some(len) = wanted.size.filter(|len| *len >= LONG_BYTES) {
                    let sparse = opened.is_sparse(wanted);
                    content::preallocate(new.file(), len, sparse)?;
                    self.end = if sparse { len } else { 0 };
                }
                new
            }
        };
        Ok(self.temporary.insert(temporary))
    }

    /// Copies a part from the former file.
    fn fill(&mut self, part: Range<u64>, sparse: bool) -> io::Result<()> {
        if let (Some((former, _)), Some(temporary)) = (&self.former, &self.temporary) {
            content::copy(former, temporary.file(), part.clone(), sparse, temporary.left > 0)?;
        }
        self.end = self.end.max(part.end);
        self.done.insert(part);
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], part: Range<u64>) -> io::Result<()> {
        if let Some(temporary) = self.temporary.as_ref().filter(|temporary| part.end <= temporary.left)
            && (self.former.is_none() || content::is_data(temporary.file(), &part))
        {
            content::read_exact(temporary.file(), buffer, part.start)?;
            // It is right, or will be written: either way the former file's is not needed.
            if self.former.is_some() {
                self.done.insert(part);
            }
            return Ok(());
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

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = offset..offset.saturating_add(u64::try_from(buffer.len()).unwrap_or_default());
        match &mut self.state {
            State::Staged(staged) => staged.read(buffer, part),
            State::Direct { file, .. } => content::read_exact(file, buffer, offset),
            State::Current { .. } | State::Kept => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let len = u64::try_from(bytes.len()).unwrap_or_default();
        let part = offset..offset.saturating_add(len);
        self.opened.durable.wrote(len);
        let sparse = self.opened.is_sparse(&self.wanted);
        let write = |file: &OwnedFd, punch: bool| match sparse {
            // What is left out at the end becomes a hole when the file gets its length.
            true => content::write_sparse(file, bytes, offset, punch),
            false => content::write_all(file, bytes, offset),
        };
        match &mut self.state {
            State::Direct { file, end } => {
                write(file, false)?;
                *end = if sparse { u64::MAX } else { part.end.max(*end) };
                Ok(())
            }
            State::Staged(staged) => {
                let temporary = staged.temporary(&self.opened, &self.directory, &self.wanted)?;
                write(temporary.file(), temporary.left > 0)?;
                staged.end = if sparse { u64::MAX } else { part.end.max(staged.end) };
                if staged.former.is_some() {
                    staged.done.insert(part);
                    while staged.done.len() > RANGES_MAX
                        && let Some(gap) = staged.done.gap(staged.former_len())
                    {
                        staged.fill(gap, sparse)?;
                    }
                }
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
                if end != len {
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
    State::Direct { file, end: 0 }
}

/// How content is stored can be chosen only while there is none. What is refused is named at the end.
fn set_layout(file: &OwnedFd, wanted: &Wanted) {
    let layout = wanted.flags().unwrap_or_default() & flags::LAYOUT;
    if layout != 0 {
        let _ = flags::set(file, layout, layout);
    }
}
