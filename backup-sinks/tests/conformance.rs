//! The sinks of this crate keep the contract.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use backup_core::testing::sink::conformance;
use backup_core::testing::{FailingSink, RecordingSink};
use backup_sinks::{LocalSink, MemorySink};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_keeps_the_contract() {
    conformance(Arc::new(MemorySink::new())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_local_directory_keeps_the_contract_and_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    conformance(Arc::new(LocalSink::open(directory.path()).unwrap())).await.unwrap();
    assert_eq!(files_below(directory.path()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn the_contract_holds_in_a_single_threaded_runtime() {
    let directory = tempfile::tempdir().unwrap();
    conformance(Arc::new(LocalSink::open(directory.path()).unwrap())).await.unwrap();
    conformance(Arc::new(MemorySink::new())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wrappers_for_tests_keep_the_contract() {
    conformance(Arc::new(RecordingSink::new(MemorySink::new()))).await.unwrap();
    conformance(Arc::new(FailingSink::new(MemorySink::new(), []))).await.unwrap();
}

fn files_below(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
