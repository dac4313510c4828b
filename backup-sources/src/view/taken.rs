//! A view while it is used: taken, and given up however that ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Result, Skipped};

use super::{View, name};

/// A view that is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    view: Arc<dyn View>,
    name: String,
    path: PathBuf,
    released: bool,
    /// What earlier processes left and could not be given up.
    left: Vec<Skipped>,
}

impl Taken {
    /// Gives up what was left behind, and takes a view. Blocks.
    pub(crate) fn take(view: &Arc<dyn View>) -> Result<Self> {
        let mut left = Vec::new();
        for name in view.list()?.into_iter().filter(|name| name::is_left_behind(name)) {
            left.extend(complaint(&name, view.release(&name)));
        }
        let mut taken =
            Self { view: Arc::clone(view), name: name::fresh(), path: PathBuf::new(), released: false, left };
        taken.path = view.take(&taken.name)?;
        Ok(taken)
    }

    /// The directory whose files are frozen.
    pub(crate) fn directory(&self) -> &Path {
        self.view.directory()
    }

    /// Where they stand.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the view up; what is left behind. Blocks.
    pub(crate) fn release(mut self) -> Vec<Skipped> {
        self.released = true;
        let mut left = std::mem::take(&mut self.left);
        left.extend(complaint(&self.name, self.view.release(&self.name)));
        left
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Blocking here is the smaller evil: a view that stays uses up space, or holds up writers.
        if !self.released {
            let _ = self.view.release(&self.name);
        }
    }
}

fn complaint(name: &str, released: Result<()>) -> Option<Skipped> {
    released.err().map(|error| Skipped::new(name, format!("this view of the files is left behind: {error}")))
}
