//! A walk that nobody wants any more ends. Alone in its process: it counts the threads in it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use backup_core::{JobContext, Source};
use backup_sources::FilesSource;

#[tokio::test]
async fn a_run_that_is_dropped_ends_its_thread() {
    let scratch = tempfile::tempdir().unwrap();
    for number in 0..20_000 {
        fs::write(scratch.path().join(number.to_string()), "").unwrap();
    }
    let threads = || {
        fs::read_dir("/proc/self/task")
            .unwrap()
            .filter(|task| {
                let name = fs::read_to_string(task.as_ref().unwrap().path().join("comm")).unwrap_or_default();
                name.trim() == "backup-walk"
            })
            .count()
    };
    let source = FilesSource::new(scratch.path()).unwrap();
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    assert!(!run.next(10).await.unwrap().is_empty());
    // It waits with the next ones, of which there are too many to be read before they are wanted.
    assert_eq!(threads(), 1);
    drop(run);
    let mut left = threads();
    for _ in 0..3_000 {
        if left == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        left = threads();
    }
    assert_eq!(left, 0);
}
