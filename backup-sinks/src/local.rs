//! Objects as files below a directory: durable when a put returns, created once, safe with several processes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use bytes::Bytes;

use self::disk::{Disk, SystemDisk};
use self::tree::Tree;

mod buffers;
#[cfg(test)]
mod crash;
mod delete;
mod direct;
// Public where tests may use it.
#[cfg_attr(not(any(test, feature = "testing")), allow(unreachable_pub))]
pub mod disk;
mod get;
mod list;
mod put;
#[cfg(test)]
mod replay;
mod temporary;
mod tree;

/// A sink that keeps every object as a file below one directory: the object `data/ab/abcd` is the file `data/ab/abcd`.
///
/// **Durable.** A put writes a temporary file below `.tmp`, syncs it, gives it its name with `RENAME_NOREPLACE` (or
/// `link`, where the file system lacks that), and syncs the directory and every directory above it that may be new.
/// A put that finds the object there already syncs all the same before it says so: its creator may have been killed.
/// Deletes are durable, too.
///
/// **Create-once, for several processes** and threads, by the file system's own atomicity; no lock is held that a
/// killed process could leave behind. Temporary files of processes that are gone are removed when the store is opened;
/// those of live ones are locked and stay. On file systems without `flock` they stay until someone removes them.
///
/// **Closed.** Files are created with mode 0400 and directories with 0700. Nothing below the root is reached through a
/// symbolic link (the root itself may be one). All of it must be one file system, which distinguishes upper and lower
/// case.
///
/// **Beside the page cache.** Objects of a megabyte and more are written with `O_DIRECT` where the file system has it, so that a
/// backup does not push out what the machine's services read.
///
/// What differs from an object store: no key may continue below another (`a` and `a/b`), and a component longer than
/// the file system's names (255 bytes) is refused. An object's `created` is its file's time of modification, by the
/// clock of the host that wrote it; copies made with `rsync -t` keep it.
///
/// **Cancellation.** The calls block, so they run on the runtime's blocking threads (in place, outside of a tokio
/// runtime). A call whose future is dropped goes on to its end there: a put abandoned so leaves the whole object or
/// nothing, possibly only after the drop. Memory: a call holds the bytes it puts or gets, a listing the names of the
/// directories between the root and where it stands.
///
/// ```
/// use backup_core::{ObjectKey, PutOutcome, Sink};
/// use backup_sinks::LocalSink;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("repository");
/// let sink = LocalSink::create(&path)?;
/// let key = ObjectKey::new("snapshots/1")?;
/// assert_eq!(sink.put(&key, "bytes".into()).await?, PutOutcome::Created);
/// assert_eq!(std::fs::read(path.join("snapshots/1"))?, b"bytes");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LocalSink {
    path: PathBuf,
    tree: Arc<Tree>,
}

impl LocalSink {
    /// The store below the directory at `path`, created with its parents where missing. Blocks for a moment.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if something else stands there, and what the system says otherwise.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        make_root(path).map_err(|error| root_error(path, "could not be created", error))?;
        Self::open(path)
    }

    /// The store below the directory at `path`, which must exist. Removes what killed processes left in `.tmp`. Blocks
    /// for a moment.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such directory, [`ErrorKind::InvalidInput`] if it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(path.as_ref(), Arc::new(SystemDisk))
    }

    /// As [`LocalSink::open`], with every step that durability rests on going through `disk`.
    #[cfg(any(test, feature = "testing"))]
    pub fn open_with(path: impl AsRef<Path>, disk: Arc<dyn Disk>) -> Result<Self> {
        Self::open_on(path.as_ref(), disk)
    }

    /// The directory as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_on(path: &Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let tree = Tree::open(path, disk).map_err(|error| root_error(path, "could not be opened", error))?;
        temporary::sweep(&tree);
        Ok(Self { path: path.to_owned(), tree: Arc::new(tree) })
    }

    /// Runs `call` on a thread that may block.
    async fn blocking<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tree) -> Result<T> + Send + 'static,
    {
        let tree = Arc::clone(&self.tree);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => match runtime.spawn_blocking(move || call(&tree)).await {
                Ok(result) => result,
                Err(error) if error.is_cancelled() => Err(Error::cancelled().with_source(error)),
                Err(error) => {
                    Err(Error::internal("a call of the local sink ended abnormally").with_source(error))
                }
            },
            Err(_) => call(&tree),
        }
    }
}

impl fmt::Debug for LocalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSink").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for LocalSink {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let owned = key.clone();
        let done = self.blocking(move |tree| put::put(tree, &owned, &bytes)).await;
        done.map_err(|error| error.with_object(key))
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let owned = key.clone();
        let done = self.blocking(move |tree| get::get(tree, &owned, &range)).await;
        done.map_err(|error| error.with_object(key))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.blocking(move |tree| list::list(tree, &prefix, after.as_ref(), limit)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let owned = key.clone();
        let done = self.blocking(move |tree| delete::delete(tree, &owned)).await;
        done.map_err(|error| error.with_object(key))
    }
}

/// Creates the directory and its missing parents, and makes the new names durable.
fn make_root(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    let absolute = std::path::absolute(path)?;
    let missing: Vec<&Path> = absolute.ancestors().take_while(|path| !path.exists()).collect();
    for directory in missing.iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        sync_parent(directory)?;
    }
    if missing.is_empty() {
        // Another process may have created it a moment ago; where its parent cannot be read it is older than that.
        let _ = sync_parent(&absolute);
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn root_error(path: &Path, what: &str, error: io::Error) -> Error {
    let place = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::io(format!("there is no directory `{place}`; create it, or create the repository"), error)
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Error::io(format!("`{place}` is not a directory"), error).with_kind(ErrorKind::InvalidInput)
        }
        _ => Error::io(format!("`{place}` {what}"), error),
    }
}
