//! Where the repositories of the tests are kept.

use std::path::Path;
use std::sync::Arc;

use backup_core::{Sink, SinkExt};
use backup_sinks::{LocalSink, MemorySink};
use tempfile::TempDir;

/// A store and what it needs as long as it is used.
pub(crate) struct Store {
    pub sink: Arc<dyn Sink>,
    /// Where commands keep copies of what they read; none if they keep none.
    pub copies: Option<TempDir>,
    _directory: Option<TempDir>,
    stays: bool,
}

/// Makes an empty store; the directory is for those that need one.
pub(crate) type Make = Box<dyn Fn(&Path) -> Store + Send + Sync>;

pub(crate) fn in_memory(_: &Path) -> Store {
    Store::new(Arc::new(MemorySink::new()))
}

pub(crate) fn in_a_directory(below: &Path) -> Store {
    let directory = tempfile::tempdir_in(below).unwrap();
    let sink = LocalSink::create(directory.path().join("store")).unwrap();
    Store { _directory: Some(directory), ..Store::new(Arc::new(sink)) }
}

impl Store {
    fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, copies: None, _directory: None, stays: false }
    }

    /// One whose objects stay in a server until they are deleted.
    #[cfg(feature = "s3")]
    pub(crate) fn in_a_server(sink: Arc<dyn Sink>) -> Self {
        Self { stays: true, ..Self::new(sink) }
    }

    /// What a command is told about copies.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Some(copies) = &self.copies else { return Vec::new() };
        vec!["--cache-dir".to_owned(), copies.path().display().to_string()]
    }

    /// Gives back what it takes up; nobody uses it any more.
    pub(crate) async fn remove(self) {
        if self.stays {
            for meta in self.sink.list_all("").await.unwrap() {
                self.sink.delete(&meta.key).await.unwrap();
            }
        }
    }
}
