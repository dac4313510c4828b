//! Makes snapshots of a directory in a repository, one after the other, in one process: as many as years make, in minutes.
//!
//! ```text
//! cargo run --release -p backup-benches --features aws-lc --example many_snapshots -- REPOSITORY KEY_FILE DIRECTORY COUNT
//! ```
//!
//! Before each a file `changing` in the directory gets other content, so that none is like the one before.

#![allow(clippy::expect_used, reason = "a program for measuring")]

use std::path::Path;
use std::sync::Arc;

use backup_core::{JobContext, Pipeline, Repository, Sink, TransformSet};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::LocalSink;
use backup_sources::FilesSource;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [repository, key, directory, count] = &arguments[..] else {
        eprintln!("many_snapshots REPOSITORY KEY_FILE DIRECTORY COUNT");
        std::process::exit(2);
    };
    let count: u64 = count.parse().expect("how many snapshots");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(make(repository, key, Path::new(directory), count));
}

async fn make(repository: &str, key: &str, directory: &Path, count: u64) {
    let job = JobContext::new();
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::open(repository).expect("a directory with a repository"));
    let key = std::fs::read(key).expect("a key file");
    let recipient = Recipient::key_file(&key).expect("a key");
    let keys = Keyring::unlock(&sink, &[recipient], &job).await.expect("the repository's keys");
    let repository =
        Repository::open(sink, keys, TransformSet::builtin(), &job).await.expect("the repository");
    for number in 0..count {
        std::fs::write(directory.join("changing"), format!("made {number} of {count}\n")).expect("a file");
        let source = FilesSource::new(directory).expect("the directory");
        Pipeline::new(source).run(&repository, &job).await.expect("a snapshot");
    }
}
