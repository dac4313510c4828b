//! How much room there is where a place is a directory.

use std::path::{Path, PathBuf};

use backup_core::config::Place;

use crate::context::{Context, Location};

/// The room of a file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    /// What is left for this user.
    pub(crate) free: u64,
    /// All of it.
    pub(crate) all: u64,
}

/// The room of the file system that a path is on.
pub(crate) fn of(path: &Path) -> std::io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        all: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

impl Space {
    /// Hundredths that are left, rounded down.
    pub(crate) fn percent_free(self) -> u8 {
        let percent = self.free.saturating_mul(100).checked_div(self.all).unwrap_or(0);
        u8::try_from(percent).unwrap_or(100)
    }

    /// Hundredths that are used, rounded up.
    pub(crate) fn percent_used(self) -> u8 {
        100_u8.saturating_sub(self.percent_free())
    }
}

impl Context {
    /// The directory of a local place.
    pub(crate) fn directory_of(&self, location: &Location) -> Option<PathBuf> {
        let path = match &location.place {
            Place::Url(url) if Place::scheme(url).is_none() => url.as_str(),
            Place::Url(url) => url.strip_prefix("file://")?,
            Place::Kind(component) if component.kind == "local" => {
                component.settings.get("path")?.as_str()?
            }
            Place::Kind(_) => return None,
        };
        // A path on the command line is meant from the working directory, one in a configuration from there.
        let base = location.configured.as_ref().and(self.config.as_ref()).and_then(|config| config.base());
        Some(base.map_or_else(|| PathBuf::from(path), |base| base.join(path)))
    }
}
