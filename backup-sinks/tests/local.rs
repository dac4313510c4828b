//! What a local store does beyond the contract of every sink: links, modes, strange files, directories that go.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use backup_core::{Error, ErrorKind, GetRange, ObjectKey, PutOutcome, Sink, SinkExt};
use backup_sinks::LocalSink;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
async fn links_below_the_root_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let root = directory.path().join("store");
    let sink = LocalSink::create(&root).unwrap();
    symlink(&outside, root.join("data")).unwrap();
    symlink(outside.join("secret"), root.join("config")).unwrap();
    symlink(outside.join("nothing"), root.join("new")).unwrap();

    assert_eq!(kind(sink.get(&key("data/secret"), GetRange::Full).await), Some(ErrorKind::Denied));
    assert_eq!(kind(sink.get(&key("config"), GetRange::Full).await), Some(ErrorKind::Denied));
    for refused in ["data/new", "data/secret", "config", "new"] {
        assert_eq!(kind(sink.put(&key(refused), "x".into()).await), Some(ErrorKind::Denied), "{refused}");
    }
    assert_eq!(kind(sink.delete(&key("data/secret")).await), Some(ErrorKind::Denied));
    assert_eq!(sink.list_all("").await.unwrap(), []);
    // Deleting the key of a link removes the link and not what it points to.
    sink.delete(&key("config")).await.unwrap();
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn a_link_in_the_place_of_the_temporary_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let name = "0123456789abcdef0123456789abcdef";
    fs::write(outside.path().join(name), "not ours").unwrap();
    symlink(outside.path(), directory.path().join(".tmp")).unwrap();
    let sink = LocalSink::open(directory.path()).unwrap();
    sink.put(&key("a"), "a".into()).await.unwrap_err();
    assert!(outside.path().join(name).exists());
}

#[tokio::test]
async fn only_temporary_files_of_our_making_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().join(".tmp");
    fs::create_dir(&temporary).unwrap();
    fs::write(temporary.join("0123456789abcdef0123456789abcdef"), "left behind").unwrap();
    fs::write(temporary.join("notes.txt"), "somebody's").unwrap();
    LocalSink::open(directory.path()).unwrap();
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}

#[tokio::test]
async fn files_and_directories_are_for_their_owner() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/b");
    let sink = LocalSink::create(&root).unwrap();
    sink.put(&key("data/ab/object"), "x".into()).await.unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("data/ab/object"), 0o400);
    for path in ["", "data", "data/ab", ".tmp"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
}

#[tokio::test]
async fn what_no_key_can_name_is_no_part_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for path in ["lost+found/x", ".hidden/x", ".tmp/x", "with space/x", "data/.partial", "data/a~"] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "x").unwrap();
    }
    make_pipe(&root.join("data/pipe"));
    let sink = LocalSink::open(root).unwrap();
    sink.put(&key("data/real"), "x".into()).await.unwrap();
    let listed = sink.list_all("").await.unwrap();
    assert_eq!(listed.iter().map(|meta| meta.key.as_str()).collect::<Vec<_>>(), ["data/real"]);
    assert_eq!(kind(sink.get(&key("data/pipe"), GetRange::Full).await), Some(ErrorKind::NotFound));
    assert_eq!(kind(sink.put(&key("data/pipe"), "x".into()).await), Some(ErrorKind::InvalidInput));
}

#[tokio::test]
async fn keys_that_a_file_system_cannot_have_are_refused_with_words() {
    let directory = tempfile::tempdir().unwrap();
    let sink = LocalSink::open(directory.path()).unwrap();
    sink.put(&key("a"), "x".into()).await.unwrap();
    sink.put(&key("b/c"), "x".into()).await.unwrap();
    let long = "x".repeat(300);
    for refused in ["a/below", "b", &long, &format!("{long}/x")] {
        let error = sink.put(&key(refused), "x".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(
            kind(sink.get(&key(refused), GetRange::Full).await),
            Some(ErrorKind::NotFound),
            "{refused}"
        );
        sink.delete(&key(refused)).await.unwrap();
    }
    assert_eq!(sink.list_all("").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_store_is_opened_where_one_is_and_created_where_one_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(kind(LocalSink::open(directory.path().join("missing"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(LocalSink::open(&file)), Some(ErrorKind::InvalidInput));
    assert_eq!(kind(LocalSink::create(&file)), Some(ErrorKind::InvalidInput));
    assert_eq!(kind(LocalSink::create(file.join("below"))), Some(ErrorKind::InvalidInput));
    let link = directory.path().join("link");
    symlink(directory.path(), &link).unwrap();
    LocalSink::create(link.join("deep/er")).unwrap();
    LocalSink::create(directory.path().join("deep/er")).unwrap();
}

#[tokio::test]
async fn objects_longer_than_any_object_are_neither_put_nor_read_into_memory() {
    let directory = tempfile::tempdir().unwrap();
    let sink = LocalSink::open(directory.path()).unwrap();
    let file = fs::File::create(directory.path().join("huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(kind(sink.get(&key("huge"), GetRange::Full).await), Some(ErrorKind::LimitExceeded));
    assert_eq!(kind(sink.get(&key("huge"), GetRange::Suffix(1 << 39)).await), Some(ErrorKind::LimitExceeded));
    assert_eq!(sink.get(&key("huge"), GetRange::Suffix(3)).await.unwrap().bytes, "\0\0\0");
    let bytes = vec![0; backup_core::limits::OBJECT_BYTES_MAX + 1];
    assert_eq!(kind(sink.put(&key("big"), bytes.into()).await), Some(ErrorKind::LimitExceeded));
}

/// Deletes take empty directories away while puts are about to use them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_and_deletes_do_not_fail_over_directories_that_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Arc::new(LocalSink::open(directory.path()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let sink = Arc::clone(&sink);
        tasks.spawn(async move {
            let key = key(&format!("control/sessions/s/{task}"));
            for _ in 0..100 {
                assert_eq!(sink.put(&key, "x".into()).await.unwrap(), PutOutcome::Created);
                sink.delete(&key).await.unwrap();
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert!(!directory.path().join("control/sessions/s").exists());
    assert!(directory.path().join("control/sessions").exists());
}

#[test]
fn it_works_outside_of_a_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let sink = LocalSink::open(directory.path()).unwrap();
    let key = key("a");
    let mut put = sink.put(&key, "x".into());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(put.as_mut().poll(&mut context).is_ready());
}

fn make_pipe(path: &Path) {
    let done = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(done.success());
}
