//! All snapshots of a repository as a file system, read-only, through FUSE.
//!
//! ```text
//! snapshots/2026-11-20T08:00:00Z/…        every snapshot by its time (UTC); `latest` points to the last one
//! ids/<id>                                links to them, by identity
//! hosts/<host>/, labels/<label>/, tags/<key>=<value>/    links to them, by time, each with its `latest`
//! latest                                  a link to the last snapshot of all
//! ```
//!
//! The list is read again when one of these directories is looked at, at most every few seconds.
//!
//! What a snapshot holds is shown as it was: modes, numeric owners, times to the nanosecond, extended attributes and
//! access lists, links of both kinds, devices and pipes; it is mounted `nosuid` and `nodev`. FUSE has no way to show times
//! of birth, inode flags and where holes are; files are shown without holes, and as many blocks as their length needs.
//! Directories have one link, as on btrfs. How many names a file has is found by reading all entries of its snapshot, when
//! the first of its files is looked at.
//!
//! A read that meets damage fails with `EIO`, and only that: whatever can be read of the same file can still be read, to
//! the page of 4 KiB. Each file or directory with damage is told to the job's observer once.
//!
//! ```no_run
//! # async fn example(repository: backup_core::Repository) -> backup_core::Result<()> {
//! use backup_core::JobContext;
//! use backup_sources::mount::{MountOptions, mount};
//!
//! let job = JobContext::new();
//! let mounted = mount(&repository, "/mnt/backups", &MountOptions::default(), &job).await?;
//! let report = mounted.finished().await?; // until somebody unmounts it, or the job is cancelled
//! println!("{} files and directories could not be read in full", report.unreadable);
//! # Ok(())
//! # }
//! ```

mod attributes;
mod catalogue;
mod content;
mod filesystem;
mod listing;
mod nodes;
mod pieces;
mod session;
mod state;
mod views;

use std::fmt;
use std::sync::Arc;

use backup_core::SnapshotInfo;

pub use session::{MountReport, Mounted, mount};

/// Which snapshots are shown, and to whom.
#[derive(Clone, Default)]
pub struct MountOptions {
    allow_other: bool,
    filter: Option<Filter>,
}

type Filter = Arc<dyn Fn(&SnapshotInfo) -> bool + Send + Sync>;

impl MountOptions {
    /// Lets other users in, too, each with the rights that modes and access lists give. Otherwise only the user who mounts
    /// can look, and may read everything: who has the keys could do so anyway.
    ///
    /// Unless root mounts, `/etc/fuse.conf` must have a line `user_allow_other`.
    #[must_use]
    pub fn allow_other(mut self, allow: bool) -> Self {
        self.allow_other = allow;
        self
    }

    /// Shows only snapshots that pass.
    #[must_use]
    pub fn filter(mut self, passes: impl Fn(&SnapshotInfo) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(passes));
        self
    }

    fn passes(&self, snapshot: &SnapshotInfo) -> bool {
        self.filter.as_ref().is_none_or(|passes| passes(snapshot))
    }
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountOptions").field("allow_other", &self.allow_other).finish_non_exhaustive()
    }
}
