//! Consistent views: the files of a directory as they were at one moment, for as long as a backup reads them.
//!
//! A [`View`] freezes a directory by what its file system or volume manager offers. A
//! [`FilesSource`](crate::FilesSource) with one reads the frozen files under the names of the living ones. The view is
//! given up when the run ends, however it ends; what a killed process left behind is recognised by its name and given
//! up by the next run.

mod btrfs;
mod command;
mod lvm;
mod name;
mod reflink;
mod taken;
mod zfs;

use std::fmt;
use std::path::{Path, PathBuf};

use backup_core::Result;

pub use btrfs::BtrfsView;
pub use lvm::LvmView;
pub(crate) use name::PREFIX;
pub use reflink::ReflinkView;
pub(crate) use taken::Taken;
pub use zfs::ZfsView;

/// A way to freeze the files of a directory.
///
/// Every call may block: it is made on a thread for that. Views are named by their user, so that they can be recognised
/// later; names consist of letters, digits, dots and hyphens.
pub trait View: fmt::Debug + Send + Sync + 'static {
    /// The directory whose files are frozen. Paths to back up must lie in it.
    fn directory(&self) -> &Path;

    /// Takes a view called `name`; where its files stand.
    ///
    /// # Errors
    /// It cannot be taken; [`release`](View::release) is called all the same, since a part of it may be there.
    fn take(&self, name: &str) -> Result<PathBuf>;

    /// Gives up the view called `name`, or what there is of it.
    ///
    /// # Errors
    /// Something of it is still there.
    fn release(&self, name: &str) -> Result<()>;

    /// The names of all views of this directory that there are, whoever took them, maybe with other names among them.
    fn list(&self) -> Result<Vec<String>>;
}
