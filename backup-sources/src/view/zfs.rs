//! Views by snapshots of ZFS datasets.

use std::path::{Path, PathBuf};

use backup_core::Result;

use super::View;
use super::command::{Commands, words};
use super::name::PREFIX;

/// A snapshot of a dataset (`zfs-snapshot(8)`), read below `.zfs/snapshot`. Datasets in it are not frozen.
#[derive(Debug, Clone)]
pub struct ZfsView {
    dataset: String,
    directory: PathBuf,
    commands: Commands,
}

impl ZfsView {
    /// Of the dataset `dataset`, which is mounted at `directory`.
    pub fn new(dataset: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self { dataset: dataset.into(), directory: directory.into(), commands: Commands::default() }
    }

    /// The same with commands from a directory, not those of `PATH`.
    #[must_use]
    pub fn commands_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.commands.directory = Some(directory.into());
        self
    }
}

impl View for ZfsView {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn take(&self, name: &str) -> Result<PathBuf> {
        let snapshot = format!("{}@{name}", self.dataset);
        self.commands.run("zfs", &words(["snapshot", &snapshot]))?;
        Ok(self.directory.join(".zfs/snapshot").join(name))
    }

    fn release(&self, name: &str) -> Result<()> {
        if self.list()?.iter().any(|there| there == name) {
            // A snapshot is named, with its @: this can destroy nothing else.
            let snapshot = format!("{}@{name}", self.dataset);
            self.commands.run("zfs", &words(["destroy", &snapshot]))?;
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>> {
        let arguments = words(["list", "-H", "-t", "snapshot", "-d", "1", "-o", "name", &self.dataset]);
        let listed = self.commands.run("zfs", &arguments)?;
        let ours =
            listed.lines().filter_map(|line| line.trim().strip_prefix(&self.dataset)?.strip_prefix('@'));
        Ok(ours.filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
    }
}
