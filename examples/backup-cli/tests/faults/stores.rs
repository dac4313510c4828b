//! Where the repositories of the tests are kept.

use std::path::Path;
use std::sync::Arc;

use backup_core::Sink;
use backup_sinks::{LocalSink, MemorySink};
use tempfile::TempDir;

/// A store and what it needs as long as it is used.
pub(crate) struct Store {
    pub sink: Arc<dyn Sink>,
    _directory: Option<TempDir>,
}

/// Makes an empty store; the directory is for those that need one.
pub(crate) type Make = fn(&Path) -> Store;

pub(crate) fn in_memory(_: &Path) -> Store {
    Store { sink: Arc::new(MemorySink::new()), _directory: None }
}

pub(crate) fn in_a_directory(below: &Path) -> Store {
    let directory = tempfile::tempdir_in(below).unwrap();
    let sink = LocalSink::create(directory.path().join("store")).unwrap();
    Store { sink: Arc::new(sink), _directory: Some(directory) }
}
