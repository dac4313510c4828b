//! A directory as a target: what is restored stands below it, and nothing is ever written outside.

mod attributes;
mod beneath;
mod compare;
mod complete;
mod content;
mod durable;
mod left;
mod locks;
mod meet;
mod names;
mod node;
mod staging;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use backup_core::repository::{Selection, Snapshot};
use backup_core::{
    Entry, EntryKind, EntryName, Error, JobContext, OwnerNames, Result, Skipped, Target, WriteOrder, Writer,
};

use super::ReplacedSource;
use crate::system;
use attributes::Wanted;
pub(super) use beneath::Beneath;
pub(super) use compare::{Comparing, Restoring};
use durable::Durable;
use left::LeftOwners;
use locks::Locks;
use names::Numbers;
pub use staging::PARTIAL;
use staging::Staging;
pub(super) use staging::is_reserved;

/// What happens to what stands already where an entry is to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// It becomes what the snapshot has. Of files, only what differs is written.
    #[default]
    Always,
    /// As `Always`, but a file of the same size and modification time is taken for unchanged.
    IfChanged,
    /// It stays unless the snapshot's has a later modification time.
    IfNewer,
    /// It stays.
    Never,
}

/// Whether owners are restored, and with them what lends an owner's rights: set-user-id and set-group-id bits, and the
/// capabilities of programs.
///
/// Nobody but root can give files away, and a user who restores expects that what is restored is the user's: so owners
/// that `Auto` leaves are counted in one note of the report ([`Target::notes`]) and are no failure, as with tar and rsync.
/// A bit or capability that is left out with its owner changes what a program can do, and there are few: each is among
/// the failed entries by name, and so are extended attributes and devices that only root may set or make. With `Ignore`
/// both were asked for, and nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owner {
    /// If this process is root. Otherwise the report says what was left.
    #[default]
    Auto,
    /// Always; where it is not permitted, that is reported.
    Restore,
    /// Never: everything belongs to whoever restores.
    Ignore,
}

/// Restores into a directory, and never outside it.
///
/// Every call is relative to an opened directory and follows no symbolic link, so that neither a snapshot made with bad
/// intent nor somebody who changes the directory meanwhile can lead a restore elsewhere. An entry whose parent is a
/// symbolic link is refused.
///
/// Restored are content, symbolic links, hard links, named pipes, sockets, modes, modification times, extended
/// attributes and inode flags; owners and the set-id bits as [`Owner`] says; devices only if asked for, by root. Owners
/// are those who have the names here that they had there; numbers count where nobody has. What stands in the directory
/// and not in the snapshot is left alone. At the end everything is made durable.
///
/// At any moment a name means what stood there before or what is restored, also if the process is killed: what replaces
/// something, and what is long, is written in a directory [`PARTIAL`] of the target and moved to its name when it is whole,
/// with its metadata. A file that cannot be restored leaves the former one as it was. Two things are less than that: in a
/// target that was empty new short files are written at their names, open to nobody else and without their time until they
/// are whole; and where a file is to become a directory the file goes first. Files of 8 MiB and more get their space before
/// anything is written, where the file system can do that. After a restore that was killed or stopped [`PARTIAL`] stays.
/// The next one into the same directory continues what it holds and removes it at its end.
///
/// What may not be set is named, and the rest is set all the same. Flags that forbid changes (immutable, append only)
/// come last of all. They are taken away first from what has them already and is to have them again; what somebody
/// else locked stays as it is, and is named.
///
/// ```no_run
/// use backup_sources::{DirectoryTarget, Overwrite};
///
/// let target = DirectoryTarget::builder("/srv/restored").overwrite(Overwrite::IfChanged).build();
/// ```
#[derive(Debug)]
pub struct DirectoryTarget {
    root: PathBuf,
    settings: Settings,
    names: Mutex<OwnerNames>,
    opened: OnceLock<Arc<Opened>>,
}

/// Describes a [`DirectoryTarget`].
#[derive(Debug, Clone)]
pub struct DirectoryTargetBuilder {
    root: PathBuf,
    settings: Settings,
}

#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    overwrite: Overwrite,
    owner: Owner,
    dense: bool,
    devices: bool,
    numeric: bool,
}

/// The target while it is written to.
#[derive(Debug)]
struct Opened {
    beneath: Beneath,
    durable: Durable,
    settings: Settings,
    /// Owners and the bits that go with them are restored.
    owners: bool,
    euid: u32,
    egid: u32,
    numbers: Numbers,
    locks: Locks,
    left_owners: LeftOwners,
    staging: Staging,
    /// Nothing stood in it when it was begun.
    was_empty: bool,
}

impl DirectoryTarget {
    /// Restores into `root`, which is made if it does not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::builder(root).build()
    }

    /// Starts a description.
    pub fn builder(root: impl Into<PathBuf>) -> DirectoryTargetBuilder {
        DirectoryTargetBuilder { root: root.into(), settings: Settings::default() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a restore of `select` of `snapshot` into this target would replace, and what stands at the names `deleted` and
    /// below, as a source. A snapshot of it, made before the restore, is a way back: restored into the same directory it
    /// brings back what was there.
    ///
    /// ```no_run
    /// # use backup_core::repository::{Repository, RestoreOptions, Snapshot};
    /// # async fn example(repository: Repository, snapshot: Snapshot) -> backup_core::Result<()> {
    /// use backup_core::{BackupOptions, JobContext};
    /// use backup_sources::DirectoryTarget;
    ///
    /// let (job, target) = (JobContext::new(), DirectoryTarget::new("/srv/data"));
    /// let options = RestoreOptions::default();
    /// let replaced = target.replaced(&snapshot, &options.select, Vec::new());
    /// let safety = match replaced.is_empty(&job).await? {
    ///     true => None,
    ///     false => repository.backup(&replaced, &BackupOptions::default(), &job).await?.snapshot,
    /// };
    /// repository.restore(&snapshot, &target, &options, &job).await?;
    /// println!("the way back is {safety:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn replaced(
        &self,
        snapshot: &Snapshot,
        select: &Selection,
        deleted: Vec<EntryName>,
    ) -> ReplacedSource {
        ReplacedSource::new(self.root.clone(), Restoring(self.settings), snapshot, select, deleted)
    }

    fn opened(&self) -> Result<Arc<Opened>> {
        self.opened.get().cloned().ok_or_else(|| Error::internal("the target was not begun"))
    }
}

impl DirectoryTargetBuilder {
    /// What happens to what stands there already.
    #[must_use]
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.settings.overwrite = overwrite;
        self
    }

    /// Whether owners are restored.
    #[must_use]
    pub fn owner(mut self, owner: Owner) -> Self {
        self.settings.owner = owner;
        self
    }

    /// Whether holes of files are left unallocated, as they were; they are unless this says otherwise.
    #[must_use]
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.settings.dense = !sparse;
        self
    }

    /// Whether device nodes are made; only root may.
    #[must_use]
    pub fn devices(mut self, devices: bool) -> Self {
        self.settings.devices = devices;
        self
    }

    /// Whether owners are restored by their numbers alone. Otherwise they are those who have their names here, where
    /// there are such; this holds for those whom access lists name, too. Root is always root.
    #[must_use]
    pub fn numeric_owner(mut self, numeric: bool) -> Self {
        self.settings.numeric = numeric;
        self
    }

    /// The target.
    pub fn build(self) -> DirectoryTarget {
        let Self { root, settings } = self;
        DirectoryTarget { root, settings, names: Mutex::default(), opened: OnceLock::new() }
    }
}

impl Opened {
    fn new(root: &Path, settings: Settings, names: &OwnerNames) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(|error| {
            Error::io(format!("the target directory `{}` cannot be made", root.display()), error)
        })?;
        let beneath = Beneath::open(root).map_err(|error| {
            Error::io(format!("the target directory `{}` cannot be opened", root.display()), error)
        })?;
        let durable = Durable::new(&beneath).map_err(|error| {
            let what =
                format!("the target directory `{}` cannot be read, and so not be synced", root.display());
            Error::io(what, error)
        })?;
        let owners = settings.sets_owners();
        let (euid, egid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let numbers = settings.numbers(names);
        let was_empty = beneath.is_empty();
        let staging = Staging::find(&beneath).map_err(|error| {
            Error::io(format!("what an earlier restore left in `{}` cannot be used", root.display()), error)
        })?;
        Ok(Self {
            beneath,
            durable,
            settings,
            owners,
            euid,
            egid,
            numbers,
            locks: Locks::default(),
            left_owners: LeftOwners::default(),
            staging,
            was_empty,
        })
    }
}

#[async_trait]
impl Target for DirectoryTarget {
    fn order(&self) -> WriteOrder {
        WriteOrder::Any
    }

    fn owner_names(&self, names: &OwnerNames) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names.clone();
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        let (root, settings) = (self.root.clone(), self.settings);
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let opened = blocking(move || Opened::new(&root, settings, &names)).await??;
        self.opened.set(Arc::new(opened)).map_err(|_| Error::internal("the target was begun twice"))
    }

    fn holds_content(&self) -> bool {
        self.opened.get().is_some_and(|opened| !opened.was_empty)
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        let opened = self.opened()?;
        if is_reserved(&entry.name) {
            let why = format!("a restore keeps the name `{PARTIAL}` for what it has not finished yet");
            return Ok(Writer::blocking(move || Err::<node::NodeWriter, _>(refused(why))));
        }
        let wanted = Wanted::new(entry, &opened);
        if entry.kind == EntryKind::Directory && wanted.is_locked() {
            // Before anything is put into it; the few that there are may be waited for.
            let (opened, name) = (Arc::clone(&opened), entry.name.clone());
            blocking(move || locks::unlock_directory(&opened.beneath, &name)).await?;
        }
        Ok(match &entry.kind {
            EntryKind::File => Writer::blocking(move || writer::FileWriter::open(opened, wanted)),
            EntryKind::Directory => Writer::blocking(move || {
                let path = wanted.name.as_bytes();
                opened.beneath.directory(path, opened.settings.replaces())?;
                Ok(node::NodeWriter { notes: Vec::new() })
            }),
            // Made at the end: what it is a link to may be written after it.
            EntryKind::HardLink { .. } => Writer::Skip,
            _ => {
                let kind = entry.kind.clone();
                Writer::blocking(move || node::make(&opened, &wanted, &kind))
            }
        })
    }

    async fn complete(&self, entries: Vec<Entry>) -> Result<Vec<Skipped>> {
        let opened = self.opened()?;
        blocking(move || complete::complete(&opened, &entries)).await
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        let opened = self.opened()?;
        let root = self.root.clone();
        blocking(move || {
            let failed = opened.locks.set(&opened.beneath);
            opened.staging.sweep();
            opened
                .durable
                .finish()
                .map_err(|error| Error::io(format!("`{}` cannot be made durable", root.display()), error))?;
            Ok(failed)
        })
        .await?
    }

    fn notes(&self) -> Vec<String> {
        self.opened.get().and_then(|opened| opened.left_owners.note()).into_iter().collect()
    }
}

impl Opened {
    /// Whether holes are left where the entry has zeros.
    fn is_sparse(&self, wanted: &Wanted) -> bool {
        wanted.sparse && !self.settings.dense
    }
}

impl Settings {
    fn sets_owners(self) -> bool {
        match self.owner {
            Owner::Auto => system::is_root(),
            Owner::Restore => true,
            Owner::Ignore => false,
        }
    }

    fn numbers(self, names: &OwnerNames) -> Numbers {
        if self.numeric { Numbers::default() } else { Numbers::of(names) }
    }

    /// Whether something of another kind makes room.
    fn replaces(self) -> bool {
        matches!(self.overwrite, Overwrite::Always | Overwrite::IfChanged)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("work on the target broke off").with_source(error))
}

/// An error that says what stands in the way.
fn refused(why: impl Into<String>) -> io::Error {
    io::Error::other(why.into())
}
