//! Files and directories as a source.

mod content;
mod filter;
mod inode;
mod links;
mod listing;
mod metadata;
mod owners;
mod pattern;
mod roots;
mod run;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Error, JobContext, Result, Source, SourceInfo, SourceRun};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::view::{Taken, View};
#[cfg(feature = "postgres")]
pub(crate) use content::open_below;
use filter::Filter;
use roots::Root;
use run::Base;
pub(crate) use run::FilesRun;
pub(crate) use walk::Guide;

/// Files, directories and everything else that a file system holds.
///
/// Names in the snapshot are the paths given without a leading `/`, `./` or `../`, as tar and others have it: `/etc/ssl`
/// becomes `etc/ssl`, `.` puts the content of the current directory at the top. The directories above a path are stored,
/// too, but nothing else in them. Paths that overlap are walked once.
///
/// Stored are regular files, directories, symbolic links (not followed), hard links, named pipes, sockets and devices,
/// with mode, owner, modification time in nanoseconds and extended attributes, among which are access control lists.
/// What cannot be read is skipped and named in the report.
///
/// A file is not read again as long as its size, times and inode stay what they are. Where it was written so shortly before
/// that a further change might leave all of them as they are, the walk waits once for at most 20 ms, so that this holds
/// also for a tree that was made a moment ago.
///
/// ```no_run
/// use backup_sources::FilesSource;
///
/// let source = FilesSource::builder()
///     .path("/etc")
///     .path("/home")
///     .exclude("*.tmp")
///     .exclude_caches(true)
///     .one_file_system(true)
///     .build()?;
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FilesSource {
    paths: Vec<PathBuf>,
    view: Option<Arc<dyn View>>,
    settings: Settings,
}

/// When extended attributes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum XattrsRead {
    Never,
    /// Of each entry when the walk comes to it.
    Walking,
    /// Of regular files with their content, and not at all of those that did not change: setting one changes the stamp.
    WithContent,
}

/// How a walk is done.
#[derive(Debug, Clone)]
struct Settings {
    filter: Arc<Filter>,
    caches: bool,
    present: Vec<Vec<u8>>,
    larger_than: Option<u64>,
    one_file_system: bool,
    xattrs: XattrsRead,
    stamps: bool,
    /// Directories that are views are left out.
    hides_views: bool,
}

/// Describes a [`FilesSource`].
#[derive(Debug, Clone, Default)]
pub struct FilesSourceBuilder {
    paths: Vec<PathBuf>,
    view: Option<Arc<dyn View>>,
    excludes: Vec<Exclude>,
    caches: bool,
    present: Vec<String>,
    larger_than: Option<u64>,
    one_file_system: bool,
}

#[derive(Debug, Clone)]
enum Exclude {
    Pattern(String),
    File(PathBuf),
}

impl FilesSource {
    /// Starts a description.
    pub fn builder() -> FilesSourceBuilder {
        FilesSourceBuilder::default()
    }

    /// Everything below `path`.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        Self::builder().path(path).build()
    }
}

impl FilesSourceBuilder {
    /// Adds a path to back up. A symbolic link is stored as such, unless a slash follows it.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Adds paths to back up.
    #[must_use]
    pub fn paths(mut self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Leaves out what matches `pattern`, with all that is below it. Patterns are those of `gitignore(5)`.
    ///
    /// `*` and `?` match within a component, `**` across components, `[a-z]` chooses. A pattern without a slash matches
    /// last components at any depth: `*.tmp`. One with a slash at its start or inside starts at the path that is backed
    /// up, as if it stood in a `.gitignore` there, or at the top of the snapshot: of `/home/user`, both `/cache` and
    /// `/home/user/cache` leave out `cache`; `**/a/b` matches `a/b` at any depth. With a trailing `/` it matches
    /// directories only. A leading `!` takes in again what an earlier pattern left out, unless that left out a
    /// directory above it. The last pattern that matches decides. The paths given themselves are never left out.
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excludes.push(Exclude::Pattern(pattern.into()));
        self
    }

    /// Leaves out what matches the patterns in a file: one a line; empty lines and those that start with `#` say nothing.
    /// Spaces at the end of a line do not count, unless a backslash stands before them.
    #[must_use]
    pub fn exclude_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.excludes.push(Exclude::File(path.into()));
        self
    }

    /// Leaves out the content of directories of caches, which have a tag file `CACHEDIR.TAG` with the right
    /// [signature](https://bford.info/cachedir/); the directory and the tag are stored.
    #[must_use]
    pub fn exclude_caches(mut self, exclude: bool) -> Self {
        self.caches = exclude;
        self
    }

    /// Leaves out the content of directories in which there is a file `name`; the directory and that file are stored.
    #[must_use]
    pub fn exclude_if_present(mut self, name: impl Into<String>) -> Self {
        self.present.push(name.into());
        self
    }

    /// Leaves out regular files of more than `bytes` bytes.
    #[must_use]
    pub fn exclude_larger_than(mut self, bytes: u64) -> Self {
        self.larger_than = Some(bytes);
        self
    }

    /// Stays on the file system of each path: mount points are stored as empty directories.
    #[must_use]
    pub fn one_file_system(mut self, stay: bool) -> Self {
        self.one_file_system = stay;
        self
    }

    /// Reads the files from a consistent view of them: as they all are at the moment when the run begins. Every path to
    /// back up must lie in the directory of the view.
    #[must_use]
    pub fn view(mut self, view: impl View) -> Self {
        self.view = Some(Arc::new(view));
        self
    }

    /// The source. Reads exclude files.
    ///
    /// # Errors
    ///
    /// No path, a pattern that makes no sense, or an exclude file that cannot be read.
    pub fn build(self) -> Result<FilesSource> {
        if self.paths.is_empty() {
            return Err(Error::invalid_input("no path to back up was given; give at least one"));
        }
        let mut patterns = Vec::new();
        for exclude in self.excludes {
            match exclude {
                Exclude::Pattern(pattern) => patterns.push(pattern),
                Exclude::File(path) => {
                    let text = std::fs::read_to_string(&path).map_err(|error| {
                        Error::invalid_input(format!(
                            "the exclude file `{}` cannot be read: {error}",
                            path.display()
                        ))
                    })?;
                    patterns.extend(filter::patterns_of_file(&text).map(str::to_owned));
                }
            }
        }
        if let Some(name) = self.present.iter().find(|name| name.is_empty() || name.contains('/')) {
            return Err(Error::invalid_input(format!("`{name}` is not the name of a file in a directory")));
        }
        let settings = Settings {
            filter: Arc::new(Filter::new(patterns.iter().map(String::as_str))?),
            caches: self.caches,
            present: self.present.into_iter().map(String::into_bytes).collect(),
            larger_than: self.larger_than,
            one_file_system: self.one_file_system,
            xattrs: XattrsRead::WithContent,
            stamps: true,
            hides_views: self.view.is_some(),
        };
        Ok(FilesSource { paths: self.paths, view: self.view, settings })
    }
}

#[async_trait]
impl Source for FilesSource {
    fn info(&self) -> SourceInfo {
        let mut identity: Vec<_> = self.paths.iter().map(|path| roots::identity(path)).collect();
        identity.sort();
        identity.dedup();
        SourceInfo::new("files", identity).xattrs_with_content()
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        let Self { paths, view, settings } = self.clone();
        let begin = move || {
            let current = std::env::current_dir()
                .map_err(|error| Error::io("the current directory is not known", error))
                .or_else(|error| {
                    if paths.iter().all(|path| path.is_absolute()) { Ok("/".into()) } else { Err(error) }
                })?;
            let mut roots = roots::resolve(&paths, &current)?;
            let view = view.map(|view| Taken::take(&view)).transpose()?;
            if let Some(view) = &view {
                roots = in_view(roots, view)?;
            }
            let bases = roots.iter().map(base).collect::<Result<Vec<_>>>()?;
            FilesRun::start(settings, roots, bases, view, None)
        };
        let run = tokio::task::spawn_blocking(begin)
            .await
            .map_err(|error| Error::internal("starting the walk broke off").with_source(error))??;
        Ok(Box::new(run))
    }
}

/// Walks all below `root` without a filter, extended attributes and stamps; names start below `root`.
pub(crate) fn walk_below(root: &Path) -> Result<FilesRun> {
    start_below(root, XattrsRead::Never, None)
}

/// Walks what `guide` lets it see below `root`, with extended attributes; names start below `root`.
pub(crate) fn walk_guided(root: &Path, guide: Guide) -> Result<FilesRun> {
    start_below(root, XattrsRead::Walking, Some(guide))
}

fn start_below(root: &Path, xattrs: XattrsRead, guide: Option<Guide>) -> Result<FilesRun> {
    let path = std::path::absolute(root)
        .map_err(|error| Error::io(format!("`{}` cannot be found", root.display()), error))?;
    let path = path.into_os_string().into_encoded_bytes();
    let root = Root { name: None, given: path.clone(), path, follow: true };
    let base = base(&root)?;
    let settings = Settings {
        filter: Arc::new(Filter::new([])?),
        caches: false,
        present: Vec::new(),
        larger_than: None,
        one_file_system: false,
        xattrs,
        stamps: false,
        hides_views: false,
    };
    FilesRun::start(settings, vec![root], vec![base], None, guide)
}

/// The roots where they stand in a view.
fn in_view(roots: Vec<Root>, view: &Taken) -> Result<Vec<Root>> {
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map(|path| path.into_os_string().into_encoded_bytes())
            .map_err(|error| Error::io(format!("`{}` cannot be found", path.display()), error))
    };
    let (from, to) = (absolute(view.directory())?, absolute(view.path())?);
    let moved = |root: Root| {
        let given = String::from_utf8_lossy(&root.given).into_owned();
        root.moved(&from, &to).ok_or_else(|| {
            let directory = view.directory().display();
            Error::invalid_input(format!(
                "the path `{given}` is not in `{directory}`, of which a view is taken"
            ))
        })
    };
    roots.into_iter().map(moved).collect()
}

/// Opens the directory from which the content of a root's entries is reached, and makes sure that the root exists.
fn base(root: &Root) -> Result<Base> {
    let failed = |errno: rustix::io::Errno| {
        let path = String::from_utf8_lossy(&root.path).into_owned();
        let why = std::io::Error::from(errno);
        Error::invalid_input(format!("the path `{path}` cannot be backed up: {why}"))
    };
    let (above, last) = match root.name {
        Some(_) => walk::split(&root.path),
        None => (root.path.as_slice(), &b""[..]),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(above, flags, Mode::empty()).map_err(failed)?;
    let mut first = last.to_vec();
    if !last.is_empty() {
        let follow = if root.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        rustix::fs::statat(&directory, last, follow).map_err(failed)?;
        if root.follow {
            // What is below is reached through what the link points to now, once and for all.
            if let Ok(inner) = rustix::fs::openat(&directory, last, flags, Mode::empty()) {
                directory = inner;
                first = b".".to_vec();
            }
        }
    }
    Ok(Base { name: root.name.clone(), directory, first })
}
