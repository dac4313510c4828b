//! What stands in a directory and not in a snapshot: found first, deleted by a second call.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use backup_core::{EntryName, Error, Item, Result, Skipped, SourceRun};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::directory::Beneath;
use crate::files::{self, FilesRun};
use crate::system::{describe, file_type};

/// Compares a directory with the names of a snapshot.
///
/// The names are given in the order of the snapshot, which is that of a sorted walk, so nothing but what is extraneous
/// is kept in memory.
///
/// ```no_run
/// # async fn example(names: Vec<backup_core::EntryName>) -> backup_core::Result<()> {
/// use backup_sources::DeletePlanner;
///
/// let mut planner = DeletePlanner::new("/srv/restored").await?;
/// for name in &names {
///     planner.keep(name).await?;
/// }
/// let plan = planner.finish().await?;
/// println!("{:?}", plan.names);
/// let failed = plan.apply().await?;
/// # Ok(())
/// # }
/// ```
pub struct DeletePlanner {
    root: PathBuf,
    run: FilesRun,
    items: std::vec::IntoIter<Item>,
    current: Option<EntryName>,
    plan: Vec<EntryName>,
    skipped: Vec<Skipped>,
}

/// What is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletePlan {
    root: PathBuf,
    /// Names below the root that the snapshot does not have, in order. A directory stands for all that is in it.
    pub names: Vec<EntryName>,
    /// What could not be looked at and therefore stays.
    pub skipped: Vec<Skipped>,
}

impl DeletePlanner {
    /// Starts to walk `root`.
    ///
    /// # Errors
    ///
    /// `root` does not exist or is no directory.
    pub async fn new(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_owned();
        let path = root.clone();
        let run = blocking(move || files::walk_below(&path)).await??;
        let mut planner = Self {
            root,
            run,
            items: Vec::new().into_iter(),
            current: None,
            plan: Vec::new(),
            skipped: Vec::new(),
        };
        planner.advance().await?;
        Ok(planner)
    }

    /// Says that the snapshot has `name`. Names come in order, each once.
    pub async fn keep(&mut self, name: &EntryName) -> Result<()> {
        while let Some(current) = self.current.take_if(|current| *current < *name) {
            // A directory that the snapshot does not name, but something in it.
            if !name.is_within(&current) {
                self.extraneous(current);
            }
            self.advance().await?;
        }
        if self.current.as_ref() == Some(name) {
            self.advance().await?;
        }
        Ok(())
    }

    /// The plan, after the last name.
    pub async fn finish(mut self) -> Result<DeletePlan> {
        while let Some(current) = self.current.take() {
            self.extraneous(current);
            self.advance().await?;
        }
        Ok(DeletePlan { root: self.root, names: self.plan, skipped: self.skipped })
    }

    fn extraneous(&mut self, name: EntryName) {
        if !self.plan.last().is_some_and(|last| name.is_within(last)) {
            self.plan.push(name);
        }
    }

    async fn advance(&mut self) -> Result<()> {
        loop {
            match self.items.next() {
                // Kept for what a restore has not finished, maybe by one that is at work.
                Some(Item::Entry(entry)) if super::directory::is_reserved(&entry.name) => {}
                Some(Item::Entry(entry)) => {
                    self.current = Some(entry.name);
                    return Ok(());
                }
                Some(Item::Skipped(skipped)) => self.skipped.push(skipped),
                None => {
                    let items = self.run.next(512).await?;
                    if items.is_empty() {
                        self.current = None;
                        return Ok(());
                    }
                    self.items = items.into_iter();
                }
            }
        }
    }
}

impl std::fmt::Debug for DeletePlanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeletePlanner").field("root", &self.root).finish_non_exhaustive()
    }
}

impl DeletePlan {
    /// Deletes what is planned, following no links and never leaving the root; what could not be deleted.
    pub async fn apply(&self) -> Result<Vec<Skipped>> {
        let plan = self.clone();
        blocking(move || {
            let failed = |error| Error::io(format!("`{}` cannot be opened", plan.root.display()), error);
            let beneath = Beneath::open(&plan.root).map_err(failed)?;
            let mut failed = Vec::new();
            for name in &plan.names {
                let parent = name.parent();
                let parent = parent.as_ref().map_or(&b""[..], EntryName::as_bytes);
                let removed = match beneath.existing(parent) {
                    Ok(directory) => remove(directory.as_fd(), name.file_name()).map_err(describe),
                    Err(error) => Err(error.to_string()),
                };
                failed.extend(
                    removed.err().map(|why| Skipped::new(name, format!("it cannot be deleted: {why}"))),
                );
            }
            Ok(failed)
        })
        .await?
    }
}

/// Removes `name` and all that is in it, with few open directories however deep it goes.
fn remove(directory: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let mut at = open(&directory, name)?;
    // Directories on the way down to `at`.
    let mut below: Vec<Vec<u8>> = Vec::new();
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 16 * 1024];
    loop {
        match empty(&at, &mut buffer)? {
            Some(inner) => {
                at = open(&at, &inner)?;
                below.push(inner);
            }
            None => match below.pop() {
                None => return rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR),
                Some(inner) => {
                    let left = rustix::fs::fstat(&at)?;
                    let above = open(&at, b"..")?;
                    let same = rustix::fs::statat(&above, inner.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
                    // Moved meanwhile, maybe out of the root: nothing there is ours.
                    if (left.st_dev, left.st_ino) != (same.st_dev, same.st_ino) {
                        return Err(Errno::STALE);
                    }
                    rustix::fs::unlinkat(&above, inner.as_slice(), AtFlags::REMOVEDIR)?;
                    at = above;
                }
            },
        }
    }
}

/// Removes all but directories from `directory`; the name of a directory in it, if there is one.
fn empty(directory: &OwnedFd, buffer: &mut [std::mem::MaybeUninit<u8>]) -> Result<Option<Vec<u8>>, Errno> {
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
    let mut entries = RawDir::new(directory, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                file_type(&stat) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        if is_directory {
            return Ok(Some(name.to_bytes().to_vec()));
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn open(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("the work on the directory broke off").with_source(error))
}
