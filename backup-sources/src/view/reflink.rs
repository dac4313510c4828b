//! Views by copies that share their blocks with the originals (`ioctl_ficlone(2)`): xfs, btrfs and others.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use super::View;
use super::command::{Commands, names_in};
use super::name::PREFIX;

/// A copy of a directory that shares its blocks. Each file is frozen by itself, one after the other, and not the directory
/// as a whole; and each copy is a new file, which is read anew in every backup. Where the file system can, a snapshot is
/// better in both.
#[derive(Debug, Clone)]
pub struct ReflinkView {
    directory: PathBuf,
    views: PathBuf,
    commands: Commands,
}

impl ReflinkView {
    /// Of `directory`; copies stand in `views`, outside of it on the same file system.
    pub fn new(directory: impl Into<PathBuf>, views: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), views: views.into(), commands: Commands::default() }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.views.join(format!(".{name}"))
    }
}

impl View for ReflinkView {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn take(&self, name: &str) -> Result<PathBuf> {
        let place = self.place(name);
        let words = ["--archive", "--reflink=always", "--no-target-directory", "--"].map(OsStr::new);
        let arguments: Vec<&OsStr> =
            words.into_iter().chain([self.directory.as_os_str(), place.as_os_str()]).collect();
        self.commands.run("cp", &arguments)?;
        Ok(place)
    }

    fn release(&self, name: &str) -> Result<()> {
        match std::fs::remove_dir_all(self.place(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("the copy cannot be removed", error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        let names = names_in(&self.views)?;
        let ours = |name: &std::ffi::OsString| Some(name.to_str()?.strip_prefix('.')?.to_owned());
        Ok(names.iter().filter_map(ours).filter(|name| name.starts_with(PREFIX)).collect())
    }
}
