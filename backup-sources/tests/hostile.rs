//! Restores that somebody wants to lead out of their directory.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use backup_core::entry::PosixMetadata;
use backup_core::{Entry, EntryKind, EntryName, JobContext, Target, Timestamp, Writer};
use backup_sources::{DirectoryTarget, Overwrite, Owner};

async fn open(
    target: &DirectoryTarget,
    entry: &Entry,
) -> std::io::Result<Box<dyn backup_core::BlockingWriter>> {
    match target.entry(entry).await.unwrap() {
        Writer::Blocking(open) => open(),
        other => panic!("{other:?}"),
    }
}

async fn write(target: &DirectoryTarget, name: &str, content: &[u8]) -> std::io::Result<Vec<String>> {
    let writer = open(target, &file(name, 0o644)).await?;
    if writer.is_current() {
        return writer.finish(content.len() as u64);
    }
    writer.write_all_at(content, 0)?;
    writer.finish(content.len() as u64)
}

fn posix(mode: u32) -> PosixMetadata {
    PosixMetadata { mode, uid: 0, gid: 0, modified: Timestamp::new(1_000_000_000, 5) }
}

fn file(name: &str, mode: u32) -> Entry {
    Entry::file(name).unwrap().with_posix(posix(mode))
}

struct Scene {
    _scratch: tempfile::TempDir,
    root: std::path::PathBuf,
    outside: std::path::PathBuf,
}

fn scene() -> Scene {
    let scratch = tempfile::tempdir().unwrap();
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    Scene { _scratch: scratch, root, outside }
}

async fn begun(root: &Path, overwrite: Overwrite) -> DirectoryTarget {
    let target = DirectoryTarget::builder(root).overwrite(overwrite).build();
    target.begin(&JobContext::new()).await.unwrap();
    target
}

impl Scene {
    fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(self.outside.join("victim")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(&self.outside).unwrap().count(), 1);
        assert_eq!(fs::metadata(self.outside.join("victim")).unwrap().nlink(), 1);
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_parent_that_is_a_link() {
    let scene = scene();
    symlink(&scene.outside, scene.root.join("a")).unwrap();
    symlink("../outside", scene.root.join("b")).unwrap();
    symlink(".", scene.root.join("inside")).unwrap();
    let target = begun(&scene.root, Overwrite::Always).await;
    for name in ["a/victim", "a/new", "b/victim", "a/sub/new", "inside/file"] {
        let error = write(&target, name, b"evil").await.unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    let fifo = Entry::new("a/fifo", EntryKind::Fifo).unwrap();
    assert!(open(&target, &fifo).await.is_err());
    let directory = Entry::directory("a").unwrap().with_posix(posix(0o777));
    assert!(open(&target, &directory).await.is_err());
    let before = fs::metadata(&scene.outside).unwrap();
    let failed = target.complete(vec![directory]).await.unwrap();
    assert_eq!(failed.len(), 1);
    let after = fs::metadata(&scene.outside).unwrap();
    assert_eq!((before.mode(), before.mtime_nsec()), (after.mode(), after.mtime_nsec()));
    scene.assert_untouched();
}

#[tokio::test]
async fn a_parent_swapped_for_a_link_during_the_restore_leads_nowhere() {
    let scene = scene();
    let target = begun(&scene.root, Overwrite::Always).await;
    write(&target, "a/b/first", b"1").await.unwrap();
    fs::rename(scene.root.join("a"), scene.root.join("moved")).unwrap();
    symlink(&scene.outside, scene.root.join("a")).unwrap();
    // The directory opened before goes on to be used, or the link is refused: both stay inside.
    let _ = write(&target, "a/b/second", b"2").await;
    let _ = write(&target, "a/third", b"3").await;
    assert!(write(&target, "a/new/fourth", b"4").await.is_err());
    let link = Entry::new("x", EntryKind::HardLink { to: EntryName::new("a/victim").unwrap() }).unwrap();
    assert_eq!(target.complete(vec![link]).await.unwrap().len(), 1);
    scene.assert_untouched();
}

#[tokio::test]
async fn a_hard_link_goes_neither_through_a_link_nor_to_what_one_points_to() {
    let scene = scene();
    symlink(&scene.outside, scene.root.join("dir")).unwrap();
    symlink(scene.outside.join("victim"), scene.root.join("link")).unwrap();
    let target = begun(&scene.root, Overwrite::Always).await;
    let link = |name: &str, to: &str| {
        Entry::new(name, EntryKind::HardLink { to: EntryName::new(to).unwrap() })
            .unwrap()
            .with_posix(posix(0o777))
    };
    let links = vec![
        link("one", "dir/victim"),
        link("dir/two", "link"),
        link("three", "link"),
        link("four", "missing"),
    ];
    for entry in &links {
        assert!(matches!(target.entry(entry).await.unwrap(), Writer::Skip));
    }
    let failed: Vec<_> =
        target.complete(links).await.unwrap().into_iter().map(|skipped| skipped.name).collect();
    assert_eq!(failed, ["one", "dir/two", "four"]);
    // The third is a second name of the link itself.
    assert!(fs::symlink_metadata(scene.root.join("three")).unwrap().is_symlink());
    scene.assert_untouched();
    // Content for that name replaces the link, and does not follow it.
    write(&target, "three", b"content").await.unwrap();
    assert!(fs::symlink_metadata(scene.root.join("three")).unwrap().is_file());
    scene.assert_untouched();
}

#[tokio::test]
async fn what_stands_at_a_files_name_is_replaced_and_not_followed() {
    let scene = scene();
    let at = |name: &str| scene.root.join(name);
    symlink(scene.outside.join("victim"), at("link")).unwrap();
    symlink(scene.outside.join("new"), at("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir_all(at("full/of")).unwrap();
    fs::hard_link(scene.outside.join("victim"), at("hard")).unwrap();
    let target = begun(&scene.root, Overwrite::Always).await;
    for name in ["link", "dangling", "fifo", "empty", "hard"] {
        assert_eq!(write(&target, name, b"content").await.unwrap(), Vec::<String>::new(), "{name}");
        assert!(fs::symlink_metadata(at(name)).unwrap().is_file(), "{name}");
        assert_eq!(fs::read(at(name)).unwrap(), b"content");
    }
    let error = write(&target, "full", b"content").await.unwrap_err();
    assert!(error.to_string().contains("directory with content"), "{error}");
    scene.assert_untouched();
}

#[tokio::test]
async fn never_and_if_newer_keep_what_is_there() {
    let scene = scene();
    let at = |name: &str| scene.root.join(name);
    for name in ["old", "new"] {
        fs::write(at(name), "there").unwrap();
    }
    common::set_time(&at("old"), 999_999_999, 0);
    let target = begun(&scene.root, Overwrite::Never).await;
    for name in ["old", "new", "absent"] {
        write(&target, name, b"restored").await.unwrap();
    }
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "there");
    assert_eq!(fs::metadata(at("old")).unwrap().mtime(), 999_999_999);
    assert_eq!(fs::read_to_string(at("absent")).unwrap(), "restored");
    let target = begun(&scene.root, Overwrite::IfNewer).await;
    for name in ["old", "new"] {
        write(&target, name, b"restored").await.unwrap();
    }
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "restored");
    assert_eq!(fs::read_to_string(at("new")).unwrap(), "there");
    // A file in a directory's place goes only where everything is overwritten.
    assert!(write(&target, "new/below", b"x").await.is_err());
    let target = begun(&scene.root, Overwrite::Always).await;
    write(&target, "new/below", b"x").await.unwrap();
}

#[tokio::test]
async fn set_id_bits_owners_and_devices_come_only_with_the_owner_or_when_asked_for() {
    let scene = scene();
    let target = DirectoryTarget::builder(&scene.root).owner(Owner::Ignore).build();
    target.begin(&JobContext::new()).await.unwrap();
    let mut entry = file("program", 0o6755);
    entry.posix.as_mut().unwrap().uid = 12_345;
    open(&target, &entry).await.unwrap().finish(0).unwrap();
    let meta = fs::metadata(scene.root.join("program")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o755, rustix::process::geteuid().as_raw()));
    let device =
        Entry::new("null", EntryKind::CharDevice { device: (1, 3) }).unwrap().with_posix(posix(0o666));
    let error = open(&target, &device).await.err().unwrap();
    assert!(error.to_string().contains("only when asked for"), "{error}");
    assert!(!scene.root.join("null").exists());
    if common::is_root() {
        let target = DirectoryTarget::builder(&scene.root).devices(true).build();
        target.begin(&JobContext::new()).await.unwrap();
        open(&target, &device).await.unwrap().finish(0).unwrap();
        assert!(fs::metadata(scene.root.join("null")).unwrap().file_type().is_char_device());
        open(&target, &entry).await.unwrap().finish(0).unwrap();
        let meta = fs::metadata(scene.root.join("program")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o6755, 12_345));
    }
}

#[tokio::test]
async fn a_file_is_private_until_it_is_finished_and_gone_when_given_up() {
    let scene = scene();
    let target = begun(&scene.root, Overwrite::Always).await;
    let mode = |name: &str| fs::metadata(scene.root.join(name)).unwrap().mode() & 0o7777;
    let writer = open(&target, &file("a/new", 0o644)).await.unwrap();
    writer.write_all_at(b"part", 0).unwrap();
    assert_eq!((mode("a/new"), mode("a")), (0o600, 0o700));
    writer.abort();
    assert!(!scene.root.join("a/new").exists());

    // Where one stood, more private content goes where nobody else can look, and the former stays until it is whole.
    fs::write(scene.root.join("former"), "former content").unwrap();
    let writer = open(&target, &file("former", 0o600)).await.unwrap();
    assert_eq!(writer.existing_len(), 14);
    writer.abort();
    assert_eq!(fs::read_to_string(scene.root.join("former")).unwrap(), "former content");
    let writer = open(&target, &file("former", 0o600)).await.unwrap();
    writer.write_all_at(b"s", 0).unwrap();
    assert_eq!(fs::read_to_string(scene.root.join("former")).unwrap(), "former content");
    assert_eq!(mode(".backup-partial"), 0o700);
    assert_eq!(writer.finish(6).unwrap(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(scene.root.join("former")).unwrap(), "sormer");
    assert_eq!(mode("former"), 0o600);
}
