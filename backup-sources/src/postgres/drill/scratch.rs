//! The directory of a drill: where in it what lies.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use crate::postgres::guarded::{GuardedDirectory, private};

/// A directory of a drill. Dropping it ends the server in it and removes it, in the background; so does the end of this process.
#[derive(Debug)]
pub(super) struct Scratch(GuardedDirectory);

impl Scratch {
    /// A new directory below `parent`, for a user's server. Blocks.
    pub(super) fn new(parent: &Path, owner: Option<(u32, u32)>) -> Result<Self> {
        let scratch = Self(GuardedDirectory::new(parent, "drill")?);
        let inner = [scratch.socket(), scratch.data(), scratch.tablespaces()];
        for directory in &inner {
            private(directory)
                .map_err(|error| Error::io(format!("`{}` cannot be made", directory.display()), error))?;
        }
        if let Some((user, group)) = owner {
            for directory in inner.iter().map(PathBuf::as_path).chain([scratch.path()]) {
                chown(directory, Some(user), Some(group)).map_err(|error| {
                    let message = format!("`{}` cannot be given to the server's user", directory.display());
                    Error::io(message, error)
                })?;
            }
        }
        Ok(scratch)
    }

    /// Where the guard looks for a server.
    pub(super) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path().join("s")
    }

    pub(super) fn tablespaces(&self) -> PathBuf {
        self.path().join("tablespaces")
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Ends the server and removes everything. Blocks.
    pub(super) fn remove(self) -> Result<()> {
        self.0.remove()
    }
}
