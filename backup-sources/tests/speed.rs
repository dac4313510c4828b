//! How fast the walk and the writing are, alone. Not for every run: `cargo test --release -- --ignored --nocapture speed`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use std::time::Instant;

use backup_core::entry::PosixMetadata;
use backup_core::{Entry, Item, JobContext, Source, Target, Timestamp, Writer};
use backup_sources::{DirectoryTarget, FilesSource};

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_the_walk() {
    let path = std::env::var("SPEED_PATH").unwrap_or_else(|_| "/usr".into());
    let source = FilesSource::new(&path).unwrap();
    for _ in 0..5 {
        let start = Instant::now();
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        let (mut entries, mut batches) = (0, 0);
        loop {
            let items = run.next(512).await.unwrap();
            if items.is_empty() {
                break;
            }
            batches += 1;
            entries += items.iter().filter(|item| matches!(item, Item::Entry(_))).count();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{entries} entries, {batches} batches, {seconds:.3} s, {:.0} entries/s",
            entries as f64 / seconds
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed_of_writing() {
    let scratch = tempfile::tempdir().unwrap();
    for threads in [1, 2] {
        let target = DirectoryTarget::new(scratch.path().join(threads.to_string()));
        target.begin(&JobContext::new()).await.unwrap();
        let mut writers = Vec::new();
        let count = 60_000;
        for number in 0..count {
            let posix = PosixMetadata {
                mode: 0o644,
                modified: Timestamp::new(1_000_000_000, 5),
                ..Default::default()
            };
            let name = format!("some/where/dir-{}/file-{number}", number / 100);
            let entry = Entry::file(name).unwrap().with_posix(posix).with_size(2000);
            let Writer::Blocking(open) = target.entry(&entry).await.unwrap() else { panic!() };
            writers.push(open);
        }
        let start = Instant::now();
        let half = writers.split_off(count / threads);
        let work = |writers: Vec<
            Box<dyn FnOnce() -> std::io::Result<Box<dyn backup_core::BlockingWriter>> + Send>,
        >| {
            for open in writers {
                let writer = open().unwrap();
                writer.write_all_at(&[b'x'; 2000], 0).unwrap();
                assert!(writer.finish(2000).unwrap().is_empty());
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| work(writers));
            scope.spawn(|| work(half));
        });
        let seconds = start.elapsed().as_secs_f64();
        println!("{threads} threads: {count} files, {seconds:.3} s, {:.0} files/s", count as f64 / seconds);
    }
}
