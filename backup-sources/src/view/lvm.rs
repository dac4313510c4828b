//! Views by snapshots of logical volumes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{Error, Result};

use super::View;
use super::command::{Commands, words};
use super::name::PREFIX;

/// How often a volume is unmounted that is still in use, and how long is waited in between: readers that were stopped
/// take a moment to let go.
const TRIES: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);

/// A snapshot of a logical volume (`lvmsnapshot(7)`), mounted read-only while it is used.
#[derive(Debug, Clone)]
pub struct LvmView {
    group: String,
    volume: String,
    directory: PathBuf,
    mounts: PathBuf,
    space: String,
    options: String,
    commands: Commands,
}

impl LvmView {
    /// Of the volume `volume` of the group `group`, whose file system is mounted at `directory`.
    pub fn new(group: impl Into<String>, volume: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            group: group.into(),
            volume: volume.into(),
            directory: directory.into(),
            mounts: PathBuf::from("/run"),
            space: "20%ORIGIN".into(),
            options: "ro".into(),
            commands: Commands::default(),
        }
    }

    /// The same with room for so much that is written meanwhile, as `lvcreate --extents` takes it; by default `20%ORIGIN`.
    #[must_use]
    pub fn space(mut self, extents: impl Into<String>) -> Self {
        self.space = extents.into();
        self
    }

    /// The same with further mount options: xfs needs `nouuid`.
    #[must_use]
    pub fn mount_options(mut self, options: &str) -> Self {
        self.options = format!("ro,{options}");
        self
    }

    /// The same with mount points in a directory; by default `/run`.
    #[must_use]
    pub fn mounts_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.mounts = directory.into();
        self
    }

    /// The same with commands from a directory, not those of `PATH`.
    #[must_use]
    pub fn commands_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.commands.directory = Some(directory.into());
        self
    }

    fn place(&self, name: &str) -> PathBuf {
        self.mounts.join(name)
    }

    fn unmount(&self, place: &Path) -> Result<()> {
        for _ in 0..TRIES {
            if self.commands.run("umount", &[OsStr::new("--"), place.as_os_str()]).is_ok() {
                return Ok(());
            }
            std::thread::sleep(BETWEEN);
        }
        self.commands.run("umount", &[OsStr::new("--"), place.as_os_str()]).map(drop)
    }

    fn is_mounted(place: &Path) -> bool {
        let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
        place.parent().is_some_and(|above| device(above) != device(place))
    }
}

impl View for LvmView {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn take(&self, name: &str) -> Result<PathBuf> {
        let origin = format!("{}/{}", self.group, self.volume);
        let arguments =
            words(["--yes", "--snapshot", "--extents", &self.space, "--name", name, "--", &origin]);
        self.commands.run("lvcreate", &arguments)?;
        let place = self.place(name);
        std::fs::create_dir(&place).map_err(|error| {
            Error::io(format!("the mount point `{}` cannot be made", place.display()), error)
        })?;
        let device = format!("/dev/{}/{name}", self.group);
        let words = words(["-o", &self.options, "--", &device]);
        let arguments: Vec<&OsStr> = words.into_iter().chain([place.as_os_str()]).collect();
        self.commands.run("mount", &arguments)?;
        Ok(place)
    }

    fn release(&self, name: &str) -> Result<()> {
        let place = self.place(name);
        if place.exists() {
            if Self::is_mounted(&place) {
                self.unmount(&place)?;
            }
            std::fs::remove_dir(&place).map_err(|error| {
                Error::io(format!("the mount point `{}` cannot be removed", place.display()), error)
            })?;
        }
        if self.list()?.iter().any(|there| there == name) {
            let volume = format!("{}/{name}", self.group);
            self.commands.run("lvremove", &words(["--yes", "--", &volume]))?;
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>> {
        // Of snapshots only, and of this volume only: never of anything that somebody else named so.
        let select = format!("origin={}", self.volume);
        let arguments = words(["--noheadings", "-o", "lv_name", "--select", &select, "--", &self.group]);
        let listed = self.commands.run("lvs", &arguments)?;
        Ok(listed.lines().map(str::trim).filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
    }
}
