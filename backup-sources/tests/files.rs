//! The walk of files: names, order, filters, and what happens to files meanwhile.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use backup_core::{EntryKind, ErrorKind, JobContext, Source};
use backup_sources::FilesSource;
use common::{Copied, read, settle, walk};

fn tree(files: &[&str]) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    for file in files {
        let path = scratch.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    scratch
}

/// Names below `root`, without it.
fn below(copied: &Copied, root: &Path) -> Vec<String> {
    let prefix = format!("{}/", root.strip_prefix("/").unwrap().display());
    copied.names().iter().filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_walk_is_depth_first_and_sorted_by_component() {
    let scratch = tree(&["a/b/c", "a/b-", "a-b/c", "a.b", "b"]);
    let copied = walk(&FilesSource::new(scratch.path()).unwrap()).await;
    assert_eq!(below(&copied, scratch.path()), ["a", "a/b", "a/b/c", "a/b-", "a-b", "a-b/c", "a.b", "b"]);
    assert_eq!(copied.skipped, []);
}

#[tokio::test]
async fn directories_above_a_path_are_stored_without_their_other_content() {
    let scratch = tree(&["x/y/wanted/file", "x/y/unwanted", "x/other", "z/file"]);
    fs::set_permissions(scratch.path().join("x"), fs::Permissions::from_mode(0o711)).unwrap();
    let paths = ["x/y/wanted", "z/file", "z/file", "x/y/wanted/file"].map(|path| scratch.path().join(path));
    let copied = walk(&FilesSource::builder().paths(paths).build().unwrap()).await;
    assert_eq!(below(&copied, scratch.path()), ["x", "x/y", "x/y/wanted", "x/y/wanted/file", "z", "z/file"]);
    let x = copied.entries.iter().find(|entry| entry.name.file_name() == b"x").unwrap();
    assert_eq!(x.posix.unwrap().mode, 0o711);
    assert_eq!(copied.names()[0], scratch.path().components().nth(1).unwrap().as_os_str().to_str().unwrap());
}

#[tokio::test]
async fn a_path_that_does_not_exist_fails_the_run_by_name() {
    let scratch = tree(&["a"]);
    for paths in [vec!["missing"], vec!["a", "missing"], vec!["a/inside-a-file"]] {
        let paths = paths.iter().map(|path| scratch.path().join(path));
        let source = FilesSource::builder().paths(paths).build().unwrap();
        let error = source.begin(&JobContext::new()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(scratch.path().to_str().unwrap()), "{error}");
    }
    assert_eq!(FilesSource::builder().build().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_link_given_as_path_is_stored_and_followed_with_a_slash() {
    let scratch = tree(&["real/file"]);
    symlink("real", scratch.path().join("link")).unwrap();
    let stored = walk(&FilesSource::new(scratch.path().join("link")).unwrap()).await;
    assert_eq!(stored.entries.last().unwrap().kind, EntryKind::Symlink { target: (*b"real").into() });
    let source = FilesSource::new(scratch.path().join("link/")).unwrap();
    let followed = walk(&source).await;
    assert_eq!(below(&followed, scratch.path()), ["link", "link/file"]);
    let run = source.begin(&JobContext::new()).await.unwrap();
    let content = read(run.open(followed.entries.last().unwrap()).await.unwrap()).await.unwrap();
    assert_eq!(content.0, b"real/file");
}

#[tokio::test]
async fn filters_leave_out_what_they_say_and_nothing_else() {
    let scratch = tree(&[
        "keep/file",
        "keep/x.tmp",
        "deep/node_modules/lib",
        "cache/CACHEDIR.TAG",
        "cache/data",
        "fake/CACHEDIR.TAG",
        "fake/data",
        "marked/.nobackup",
        "marked/data",
        "marked/sub/data",
        "big",
        "list",
    ]);
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# x").unwrap();
    fs::write(at("big"), vec![0; 1001]).unwrap();
    fs::write(at("list"), "# comment\nnode_modules/\n").unwrap();
    let source = FilesSource::builder()
        .path(scratch.path())
        .exclude("*.tmp")
        .exclude_file(at("list"))
        .exclude_caches(true)
        .exclude_if_present(".nobackup")
        .exclude_larger_than(1000)
        .build()
        .unwrap();
    let copied = walk(&source).await;
    let expected = [
        "cache",
        "cache/CACHEDIR.TAG",
        "deep",
        "fake",
        "fake/CACHEDIR.TAG",
        "fake/data",
        "keep",
        "keep/file",
        "list",
        "marked",
        "marked/.nobackup",
    ];
    assert_eq!(below(&copied, scratch.path()), expected);
    assert_eq!(copied.skipped, [], "what was to be left out is not missing");
    let missing = FilesSource::builder().path("/").exclude_file(at("missing")).build().unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn one_file_system_stores_mount_points_as_empty_directories() {
    // /proc is mounted everywhere that these tests run, and below / it is another file system.
    let source = FilesSource::builder().path("/").one_file_system(true);
    let source =
        ["/usr", "/home", "/root", "/tmp", "/var", "/opt", "/work", "/etc", "/lib", "/bin", "/sbin", "/boot"]
            .iter()
            .fold(source, |source, path| source.exclude(*path))
            .build()
            .unwrap();
    let copied = walk(&source).await;
    assert!(copied.names().contains(&"proc".to_owned()));
    assert!(!copied.names().iter().any(|name| name.starts_with("proc/")));
}

#[tokio::test]
async fn hard_links_name_the_first_name_in_order() {
    let scratch = tree(&["b/first"]);
    fs::hard_link(scratch.path().join("b/first"), scratch.path().join("c")).unwrap();
    fs::hard_link(scratch.path().join("b/first"), scratch.path().join("a")).unwrap();
    let copied = walk(&FilesSource::new(scratch.path()).unwrap()).await;
    let kinds: Vec<_> =
        copied.entries.iter().filter(|entry| entry.kind != EntryKind::Directory).map(|e| &e.kind).collect();
    let to = backup_core::EntryName::new(scratch.path().join("a").to_str().unwrap().trim_start_matches('/'))
        .unwrap();
    assert_eq!(
        kinds,
        [&EntryKind::File, &EntryKind::HardLink { to: to.clone() }, &EntryKind::HardLink { to }]
    );
}

#[tokio::test]
async fn an_unchanged_file_keeps_its_stamp_and_a_changed_one_does_not() {
    let scratch = tree(&["same", "written", "mode", "fresh"]);
    settle();
    let source = FilesSource::new(scratch.path()).unwrap();
    let stamps = |copied: &Copied| -> Vec<_> {
        copied.entries.iter().filter(|e| e.size.is_some()).map(|e| e.stamp.clone()).collect()
    };
    let before = stamps(&walk(&source).await);
    assert!(before.iter().all(Option::is_some));
    // Same size, and the old time put back: only ctime tells.
    let path = scratch.path().join("written");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "WRITTEN").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    fs::write(scratch.path().join("fresh"), "FRESH").unwrap();
    let after = stamps(&walk(&source).await);
    // In the order fresh, mode, same, written.
    assert!(after[0].is_some(), "written a moment ago: the walk waits until a further write would show");
    assert_eq!(after[1..3], before[1..3]);
    assert_ne!(after[3], before[3]);
}

#[tokio::test]
async fn a_tree_that_was_made_a_moment_ago_has_stamps_from_its_first_walk_on() {
    let scratch = tree(&["a", "b/c", "b/d", "e"]);
    let source = FilesSource::new(scratch.path()).unwrap();
    let stamps = |copied: &Copied| -> Vec<_> {
        copied.entries.iter().filter(|e| e.size.is_some()).map(|e| e.stamp.clone()).collect()
    };
    let first = stamps(&walk(&source).await);
    assert!(first.len() == 4 && first.iter().all(Option::is_some), "{first:?}");
    assert_eq!(stamps(&walk(&source).await), first);
}

#[tokio::test]
async fn what_is_written_while_the_walk_goes_on_has_no_stamp() {
    // The walk waits once; then it must be quick to see the write as one of a moment ago, which a busy machine may prevent.
    for _ in 0..20 {
        // A few more than the walk reads ahead, so that it stands still with the last ones to come.
        let scratch = tree(&[]);
        let name = |number: usize| scratch.path().join(format!("{number:05}"));
        (0..5_200).for_each(|number| fs::write(name(number), "").unwrap());
        let source = FilesSource::new(scratch.path()).unwrap();
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        let mut items = run.next(1).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        fs::write(name(5_199), "again").unwrap();
        loop {
            match run.next(1000).await.unwrap() {
                more if more.is_empty() => break,
                more => items.extend(more),
            }
        }
        let files = items.iter().filter_map(|item| match item {
            backup_core::Item::Entry(entry) if entry.size.is_some() => Some(entry),
            _ => None,
        });
        let mut stamps: Vec<bool> = files.map(|entry| entry.stamp.is_some()).collect();
        assert_eq!(stamps.len(), 5_200);
        let last = stamps.pop().unwrap();
        assert!(stamps.iter().all(|stamped| *stamped));
        if !last {
            return;
        }
    }
    panic!("a further write in the same tick could go unnoticed");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_reported() {
    let scratch =
        tree(&["grows", "replaced", "becomes-a-link", "becomes-a-fifo", "gone", "steady", "in/swapped"]);
    settle();
    let at = |name: &str| scratch.path().join(name);
    let source = FilesSource::new(scratch.path()).unwrap();
    let copied = walk(&source).await;
    let run = source.begin(&JobContext::new()).await.unwrap();
    let entry = |name: &str| copied.entry(at(name).to_str().unwrap().trim_start_matches('/'));

    let content = run.open(entry("grows")).await.unwrap();
    let backup_core::source::ContentReader::Blocking(open) = content.reader else { panic!() };
    let mut reader = open().unwrap();
    let mut buffer = [0; 100];
    assert_eq!(reader.read(&mut buffer).unwrap(), 5);
    fs::write(at("grows"), "grows and grows").unwrap();
    while reader.read(&mut buffer).unwrap() > 0 {}
    assert!(reader.finish().unwrap().contains("changed"));

    let steady = read(run.open(entry("steady")).await.unwrap()).await.unwrap();
    assert_eq!(steady, (b"steady".to_vec(), None));

    fs::write(at("new"), "new").unwrap();
    fs::rename(at("new"), at("replaced")).unwrap();
    fs::remove_file(at("becomes-a-link")).unwrap();
    symlink("steady", at("becomes-a-link")).unwrap();
    fs::remove_file(at("becomes-a-fifo")).unwrap();
    assert!(Command::new("mkfifo").arg(at("becomes-a-fifo")).status().unwrap().success());
    fs::remove_file(at("gone")).unwrap();
    // The parent becomes a link to a place with a file of the same name.
    fs::create_dir(at("elsewhere")).unwrap();
    fs::hard_link(at("in/swapped"), at("elsewhere/swapped")).unwrap();
    fs::remove_dir_all(at("in")).unwrap();
    symlink("elsewhere", at("in")).unwrap();
    for name in ["replaced", "becomes-a-link", "becomes-a-fifo", "gone", "in/swapped"] {
        let content = run.open(entry(name)).await.unwrap();
        assert!(read(content).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_skipped_by_name() {
    if !common::is_root() {
        return;
    }
    // Root reads everything, so somebody else must try: the walk runs in this test's own program as another user.
    let scratch = tree(&["closed/file", "open"]);
    let at = |name: &str| scratch.path().join(name);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let program = std::env::current_exe().unwrap();
    let copy_of_program = at("test-program");
    // By another process: what this one has open for writing, commands started meanwhile by other tests have open, too, for a
    // moment, and then it cannot be executed (ETXTBSY, execve(2)).
    assert!(Command::new("cp").arg(&program).arg(&copy_of_program).status().unwrap().success());
    let mut command = Command::new(&copy_of_program);
    command
        .args(["--ignored", "--exact", "walk_for_another_user", "--nocapture"])
        .env("WALK", scratch.path());
    std::os::unix::process::CommandExt::uid(&mut command, 65_534);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("closed: the directory cannot be read: Permission denied"), "{text}");
    assert!(text.contains("entry closed") && text.contains("entry open"), "{text}");
}

#[tokio::test]
#[ignore = "part of another test"]
async fn walk_for_another_user() {
    let root = std::env::var("WALK").unwrap();
    let copied = walk(&FilesSource::new(&root).unwrap()).await;
    for skipped in &copied.skipped {
        println!("{}: {}", skipped.name.rsplit('/').next().unwrap(), skipped.reason);
    }
    for name in copied.names() {
        println!("entry {}", name.rsplit('/').next().unwrap());
    }
}
