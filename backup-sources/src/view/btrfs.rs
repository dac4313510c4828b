//! Views by snapshots of btrfs subvolumes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use backup_core::Result;

use super::View;
use super::command::{Commands, names_in};
use super::name::PREFIX;

/// A read-only snapshot of a subvolume (`btrfs-subvolume(8)`). Subvolumes in it are not frozen: they are empty directories.
#[derive(Debug, Clone)]
pub struct BtrfsView {
    subvolume: PathBuf,
    views: PathBuf,
    commands: Commands,
}

impl BtrfsView {
    /// Of the subvolume at `subvolume`; snapshots stand in it, as `.backup-view-...`, while they are used.
    pub fn new(subvolume: impl Into<PathBuf>) -> Self {
        let subvolume = subvolume.into();
        Self { views: subvolume.clone(), subvolume, commands: Commands::default() }
    }

    /// The same with snapshots in another directory of the file system, so that making one does not touch the subvolume.
    #[must_use]
    pub fn views_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.views = directory.into();
        self
    }

    fn place(&self, name: &str) -> PathBuf {
        self.views.join(format!(".{name}"))
    }
}

impl View for BtrfsView {
    fn directory(&self) -> &Path {
        &self.subvolume
    }

    fn take(&self, name: &str) -> Result<PathBuf> {
        let place = self.place(name);
        let words = ["subvolume", "snapshot", "-r", "--"].map(OsStr::new);
        let arguments: Vec<&OsStr> =
            words.into_iter().chain([self.subvolume.as_os_str(), place.as_os_str()]).collect();
        self.commands.run("btrfs", &arguments)?;
        Ok(place)
    }

    fn release(&self, name: &str) -> Result<()> {
        let place = self.place(name);
        if place.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(());
        }
        let words = ["subvolume", "delete", "--"].map(OsStr::new);
        let arguments: Vec<&OsStr> = words.into_iter().chain([place.as_os_str()]).collect();
        self.commands.run("btrfs", &arguments).map(drop)
    }

    fn list(&self) -> Result<Vec<String>> {
        let names = names_in(&self.views)?;
        let ours = |name: &std::ffi::OsString| Some(name.to_str()?.strip_prefix('.')?.to_owned());
        Ok(names.iter().filter_map(ours).filter(|name| name.starts_with(PREFIX)).collect())
    }
}
