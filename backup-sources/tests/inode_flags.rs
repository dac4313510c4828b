//! Inode flags and times of birth: what `chattr` sets comes back, locks last of all.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use backup_core::entry::{BORN_ATTRIBUTE, FLAGS_ATTRIBUTE};
use backup_sources::{DirectoryTarget, FilesSource, Overwrite};
use common::{Unlocked, copy, flags, is_root, picture, set_flags, walk};

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NO_DUMP: u32 = 0x40;
const NO_ATIME: u32 = 0x80;

fn tree(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("locked directory/inner/deeper")).unwrap();
    for name in
        ["plain", "no dump", "immutable", "log", "locked directory/file", "locked directory/inner/file"]
    {
        fs::write(at(name), name).unwrap();
    }
    fs::hard_link(at("immutable"), at("locked directory/another name")).unwrap();
    fs::hard_link(at("immutable"), at("z-last")).unwrap();
    fs::create_dir(at("no atime")).unwrap();
}

/// False where this file system has no flags.
fn set(root: &Path) -> bool {
    let at = |name: &str| root.join(name);
    let all = set_flags(&at("no dump"), NO_DUMP) && set_flags(&at("no atime"), NO_ATIME);
    let locks = || {
        set_flags(&at("immutable"), IMMUTABLE | NO_DUMP)
            && set_flags(&at("log"), APPEND)
            && set_flags(&at("locked directory/inner"), APPEND)
            && set_flags(&at("locked directory"), IMMUTABLE)
    };
    all && (!is_root() || locks())
}

#[tokio::test]
async fn inode_flags_come_back_and_locks_do_not_hinder_the_restore() {
    let scratch = tempfile::tempdir().unwrap();
    let _unlocked = Unlocked(scratch.path());
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    tree(&from);
    if !set(&from) {
        println!("not tested: there are no inode flags here");
        return;
    }
    let before = picture(&from);
    let source = FilesSource::new(from.join(".")).unwrap();
    let restored = to.join(from.strip_prefix("/").unwrap());
    let first = copy(&source, &DirectoryTarget::new(&to)).await;
    assert_eq!(first.skipped, []);
    assert_eq!(picture(&restored), before);
    if is_root() {
        assert_eq!(flags(&restored.join("locked directory")), IMMUTABLE);
        assert_eq!(flags(&restored.join("immutable")), IMMUTABLE | NO_DUMP);
        assert!(fs::write(restored.join("immutable"), "x").is_err());
    }
    // What an earlier restore has locked does not hinder the next, whether content differs or not.
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        let target = DirectoryTarget::builder(&to).overwrite(overwrite).build();
        assert_eq!(copy(&source, &target).await.skipped, [], "{overwrite:?}");
        assert_eq!(picture(&restored), before, "{overwrite:?}");
    }
    drop(Unlocked(&restored));
    fs::write(restored.join("log"), "other").unwrap();
    fs::remove_file(restored.join("locked directory/file")).unwrap();
    set(&restored);
    let target = DirectoryTarget::builder(&to).overwrite(Overwrite::IfChanged).build();
    assert_eq!(copy(&source, &target).await.skipped, []);
    assert_eq!(picture(&restored), before);
}

#[tokio::test]
async fn what_somebody_else_locked_stays_and_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let _unlocked = Unlocked(scratch.path());
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    tree(&from);
    let restored = to.join(from.strip_prefix("/").unwrap());
    fs::create_dir_all(&restored).unwrap();
    fs::write(restored.join("plain"), "not to be touched").unwrap();
    if !set_flags(&restored.join("plain"), IMMUTABLE) {
        println!("not tested: nothing can be locked here");
        return;
    }
    let copied = copy(&FilesSource::new(&from).unwrap(), &DirectoryTarget::new(&to)).await;
    assert_eq!(copied.skipped.len(), 1, "{:?}", copied.skipped);
    assert!(copied.skipped[0].name.ends_with("/plain"), "{:?}", copied.skipped);
    assert_eq!(fs::read(restored.join("plain")).unwrap(), b"not to be touched");
    assert_eq!(flags(&restored.join("plain")), IMMUTABLE);
}

#[tokio::test]
async fn flags_that_cannot_be_set_are_named_and_the_others_set() {
    let scratch = tempfile::tempdir().unwrap();
    let _unlocked = Unlocked(scratch.path());
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir_all(&from).unwrap();
    fs::write(from.join("file"), "content").unwrap();
    if !set_flags(&from.join("file"), NO_DUMP) {
        println!("not tested: there are no inode flags here");
        return;
    }
    // No file system of today undeletes, and the snapshot says that one did.
    let target = DirectoryTarget::new(&to);
    let mut entry = backup_core::Entry::file("file").unwrap();
    let value: Box<[u8]> = (0x2_u32 | NO_DUMP).to_le_bytes().into();
    entry.attributes.push(backup_core::Attribute { name: FLAGS_ATTRIBUTE.into(), value });
    use backup_core::{Target, Writer};
    target.begin(&backup_core::JobContext::new()).await.unwrap();
    let Writer::Blocking(open) = target.entry(&entry).await.unwrap() else { panic!() };
    let notes = open().unwrap().finish(0).unwrap();
    match flags(&to.join("file")) {
        0x42 => assert_eq!(notes, Vec::<String>::new(), "this one does"),
        NO_DUMP => assert!(notes.len() == 1 && notes[0].contains("undeletable"), "{notes:?}"),
        other => panic!("{other:x}, {notes:?}"),
    }
}

#[tokio::test]
async fn the_time_of_birth_is_recorded_of_every_kind() {
    let scratch = tempfile::tempdir().unwrap();
    let from = scratch.path().join("from");
    tree(&from);
    std::os::unix::fs::symlink("nowhere", from.join("link")).unwrap();
    if fs::metadata(from.join("plain")).unwrap().created().is_err() {
        println!("not tested: this file system has no times of birth");
        return;
    }
    let source = FilesSource::new(from.join(".")).unwrap();
    let target = DirectoryTarget::new(scratch.path().join("to"));
    let copied = copy(&source, &target).await;
    let base = from.strip_prefix("/").unwrap();
    for name in ["plain", "link", "no atime"] {
        let entry = copied.entry(base.join(name).to_str().unwrap());
        let born = entry.attribute(BORN_ATTRIBUTE).unwrap_or_else(|| panic!("{name}: {entry:?}"));
        let since = fs::symlink_metadata(from.join(name)).unwrap().created().unwrap();
        let since = since.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(born[..8], since.as_secs().to_le_bytes(), "{name}");
        assert_eq!(born[8..], since.subsec_nanos().to_le_bytes(), "{name}");
    }
    // Directories that are walked tell at once, files when they are read.
    let walked = walk(&source).await;
    assert!(walked.entry(base.join("plain").to_str().unwrap()).attributes.is_empty());
    assert!(fs::metadata(from.join("plain")).unwrap().size() > 0);
}
