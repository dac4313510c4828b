//! Sources and targets: where backups read from and restores write to.
//!
//! Sources: [`FilesSource`] walks files and directories. Targets: [`DirectoryTarget`] recreates them below a directory
//! and nowhere else.

pub mod files;
mod register;
mod system;
pub mod target;

pub use files::{FilesSource, FilesSourceBuilder};
pub use register::register;
pub use target::{DirectoryTarget, DirectoryTargetBuilder, Overwrite, Owner};
