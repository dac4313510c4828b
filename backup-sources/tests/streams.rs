//! Commands, readers and memory as sources; one writer as a target.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use backup_core::{Entry, EntryKind, ErrorKind, Item, JobContext, Source, Target};
use backup_sources::{CommandSource, MemorySource, ReaderSource, WriterTarget};
use common::{copy, read};

/// Content of a source's only entry, and how its run ended.
async fn run(source: &dyn Source) -> (std::io::Result<Vec<u8>>, backup_core::Result<()>) {
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    let items = run.next(10).await.unwrap();
    let [Item::Entry(entry)] = items.as_slice() else { panic!("{items:?}") };
    let content = read(run.open(entry).await.unwrap()).await.map(|(bytes, _)| bytes);
    assert!(run.next(10).await.unwrap().is_empty());
    (content, run.finish().await.map(|_| ()))
}

fn shell(script: &str) -> CommandSource {
    CommandSource::new("dump", ["sh", "-c", script]).unwrap()
}

#[tokio::test]
async fn a_commands_output_is_an_entry() {
    let (content, finished) = run(&shell("seq 1 300000; echo noise >&2").env("LANG", "C")).await;
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(content.unwrap() == expected.as_bytes());
    finished.unwrap();
    let (content, _) = run(&shell("printf %s \"$SECRET\"").env("SECRET", "from the environment")).await;
    assert_eq!(content.unwrap(), b"from the environment");
}

#[test]
fn a_command_runs_in_a_runtime_without_drivers() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (content, finished) = runtime.block_on(run(&shell("echo fine")));
    assert_eq!(content.unwrap(), b"fine\n");
    finished.unwrap();
}

#[tokio::test]
async fn a_command_that_fails_fails_the_run_and_says_what_it_wrote() {
    let cases = [
        ("echo half; echo 'no such table' >&2; exit 3", "exit status 3; it wrote: no such table"),
        ("echo half; kill -9 $$", "killed by signal 9"),
        ("yes warning | head -c 1000000 >&2; echo last words >&2; exit 1", "last words"),
    ];
    for (script, expected) in cases {
        let (content, finished) = run(&shell(script)).await;
        assert!(content.unwrap_err().to_string().contains(expected), "{script}");
        let error = finished.unwrap_err().to_string();
        assert!(error.contains(expected) && error.len() < 3000, "{error}");
    }
    let (content, finished) = run(&CommandSource::new("x", ["/no/such/program"]).unwrap()).await;
    assert!(content.is_err() && finished.unwrap_err().to_string().contains("/no/such/program"));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let scratch = tempfile::tempdir().unwrap();
    let pid = scratch.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; echo started; wait", pid.display());
    // Long enough for the shell to have started its child, on a machine that is busy with other things.
    let (content, finished) = run(&shell(&script).timeout(Duration::from_secs(3))).await;
    assert!(content.is_err() && finished.unwrap_err().to_string().contains("did not end within"));
    let child = fs::read_to_string(&pid).unwrap();
    assert!(ends(child.trim()).await, "the command's child lives");
}

/// Whether a process ends, soon enough for any machine.
async fn ends(pid: &str) -> bool {
    let status = format!("/proc/{pid}/status");
    for _ in 0..1500 {
        // What has ended and was not waited for is a zombie.
        match fs::read_to_string(&status) {
            Ok(text) if !text.contains("State:\tZ") => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => return true,
        }
    }
    false
}

#[tokio::test]
async fn a_command_ends_when_its_run_is_dropped() {
    let scratch = tempfile::tempdir().unwrap();
    let pid = scratch.path().join("pid");
    let source = shell(&format!("echo $$ > {}; echo started; exec sleep 100", pid.display()));
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    let items = run.next(1).await.unwrap();
    let Item::Entry(entry) = &items[0] else { panic!() };
    let content = run.open(entry).await.unwrap();
    let backup_core::source::ContentReader::Async(mut reader) = content.reader else { panic!() };
    let mut start = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut start).await.unwrap();
    let process = fs::read_to_string(&pid).unwrap();
    assert!(Path::new("/proc").join(process.trim()).exists());
    drop(reader);
    drop(run);
    assert!(ends(process.trim()).await, "the process lives");
}

#[test]
fn a_command_shows_its_secrets_to_nobody() {
    let source = CommandSource::new("x", ["program", "--password=hush"]).unwrap().env("TOKEN", "hush");
    assert!(!format!("{source:?}").contains("hush"));
    assert_eq!(CommandSource::new("x", Vec::<String>::new()).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(CommandSource::new("../x", ["true"]).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_reader_is_an_entry_once_and_its_failure_fails_the_run() {
    let source = ReaderSource::new("notes", &b"some text"[..]).unwrap();
    let (content, finished) = run(&source).await;
    assert_eq!(content.unwrap(), b"some text");
    finished.unwrap();
    assert_eq!(source.begin(&JobContext::new()).await.err().unwrap().kind(), ErrorKind::InvalidInput);

    let broken = tokio_test_reader();
    let (content, finished) = run(&ReaderSource::new("notes", broken).unwrap()).await;
    assert!(content.is_err() && finished.unwrap_err().to_string().contains("cable pulled"));
}

/// Yields something and then fails.
fn tokio_test_reader() -> impl tokio::io::AsyncRead + Send + 'static {
    struct Broken(bool);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if std::mem::replace(&mut self.0, true) {
                return std::task::Poll::Ready(Err(std::io::Error::other("cable pulled")));
            }
            buffer.put_slice(b"some");
            std::task::Poll::Ready(Ok(()))
        }
    }
    Broken(false)
}

#[tokio::test]
async fn memory_is_sorted_whatever_the_order_of_building() {
    let source = MemorySource::new("test")
        .with_file("b", "2")
        .unwrap()
        .with_file("a/x", "1")
        .unwrap()
        .with_entry(Entry::directory("a").unwrap(), "")
        .with_file("a-b", "3")
        .unwrap();
    let copied = common::walk(&source).await;
    assert_eq!(copied.names(), ["a", "a/x", "a-b", "b"]);
    let all = WriterTarget::all(Vec::new());
    copy(&source, &all).await;
    assert_eq!(all.into_inner().unwrap(), b"132");
}

#[tokio::test]
async fn a_writer_for_one_file_takes_exactly_one() {
    let one = WriterTarget::one(Vec::new());
    copy(&MemorySource::new("test").with_file("dir/only", "content").unwrap(), &one).await;
    assert_eq!(one.into_inner().unwrap(), b"content");

    let target = WriterTarget::one(Vec::new());
    assert_eq!(target.finish().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let first = target.entry(&Entry::file("a").unwrap()).await.unwrap();
    drop(first);
    assert!(target.entry(&Entry::file("b").unwrap()).await.is_err());
    let target = WriterTarget::one(Vec::new());
    let link = Entry::new("l", EntryKind::Fifo).unwrap();
    assert!(matches!(target.entry(&link).await.unwrap(), backup_core::Writer::Skip));
}
