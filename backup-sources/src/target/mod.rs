//! Where restores write to.

mod directory;
mod extraneous;
mod lent;
mod replaced;
mod tar;
mod writer;

pub use directory::{DirectoryTarget, DirectoryTargetBuilder, Overwrite, Owner, PARTIAL};
pub use extraneous::{DeletePlan, DeletePlanner};
pub use replaced::{ReplacedSource, SAFETY};
pub use tar::TarTarget;
pub use writer::WriterTarget;
