//! Where restores write to.

mod directory;

pub use directory::{DirectoryTarget, DirectoryTargetBuilder, Overwrite, Owner};
