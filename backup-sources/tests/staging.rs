//! Files that are not finished: where they stand, what a name means meanwhile, and who goes on with them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::entry::PosixMetadata;
use backup_core::{BlockingWriter, Entry, EntryKind, EntryName, JobContext, Target, Timestamp, Writer};
use backup_sources::target::PARTIAL;
use backup_sources::{DirectoryTarget, Overwrite};

const LONG: usize = 9 * 1024 * 1024;

fn content(seed: u8) -> Vec<u8> {
    (0..LONG).map(|at| (at / 7 % 251) as u8 ^ seed).collect()
}

fn entry(name: &str, len: usize) -> Entry {
    let posix = PosixMetadata { mode: 0o644, uid: 0, gid: 0, modified: Timestamp::new(1_000_000_000, 5) };
    Entry::file(name).unwrap().with_posix(posix).with_size(len as u64)
}

async fn begun(root: &Path) -> DirectoryTarget {
    let target = DirectoryTarget::new(root);
    target.begin(&JobContext::new()).await.unwrap();
    target
}

async fn open(target: &DirectoryTarget, entry: &Entry) -> std::io::Result<Box<dyn BlockingWriter>> {
    match target.entry(entry).await.unwrap() {
        Writer::Blocking(open) => open(),
        other => panic!("{other:?}"),
    }
}

/// A root with a file in it.
fn scene() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "former content").unwrap();
    (scratch, root)
}

fn partial(root: &Path) -> usize {
    fs::read_dir(root.join(PARTIAL)).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_name_means_the_former_content_until_the_new_one_is_whole() {
    let (_scratch, root) = scene();
    let target = begun(&root).await;
    let file = root.join("file");
    let before = fs::metadata(&file).unwrap();
    let writer = open(&target, &entry("file", 14)).await.unwrap();
    assert_eq!(writer.existing_len(), 14);
    writer.write_all_at(b"new", 3).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "former content");
    assert_eq!(partial(&root), 1);
    let hidden = fs::metadata(root.join(PARTIAL)).unwrap();
    assert_eq!(hidden.mode() & 0o777, 0o700, "nobody else can look into it");
    writer.abort();
    assert_eq!(fs::read_to_string(&file).unwrap(), "former content");
    assert_eq!(fs::metadata(&file).unwrap().ino(), before.ino());
    assert_eq!(partial(&root), 0);

    let writer = open(&target, &entry("file", 12)).await.unwrap();
    writer.write_all_at(b"new", 3).unwrap();
    assert_eq!(writer.finish(12).unwrap(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(&file).unwrap(), "fornew conte");
    assert_eq!(fs::metadata(&file).unwrap().mtime(), 1_000_000_000);
    // Cut, or with other metadata only, it is still the same file.
    let inode = fs::metadata(&file).unwrap().ino();
    open(&target, &entry("file", 6)).await.unwrap().finish(6).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "fornew");
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    target.finish().await.unwrap();
    assert!(!root.join(PARTIAL).exists());
}

#[tokio::test]
async fn what_is_replaced_by_a_link_or_another_name_is_replaced_at_once() {
    let (_scratch, root) = scene();
    fs::write(root.join("other"), "other").unwrap();
    let target = begun(&root).await;
    let link = EntryKind::Symlink { target: (*b"elsewhere").into() };
    let link = Entry::new("file", link).unwrap();
    open(&target, &link).await.unwrap().finish(0).unwrap();
    assert_eq!(fs::read_link(root.join("file")).unwrap(), Path::new("elsewhere"));
    let to = EntryName::new("other").unwrap();
    let name = Entry::new("file", EntryKind::HardLink { to }).unwrap();
    assert_eq!(target.complete(vec![name]).await.unwrap(), []);
    assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "other");
    assert_eq!(fs::metadata(root.join("file")).unwrap().nlink(), 2);
    assert_eq!(target.finish().await.unwrap(), []);
    assert!(!root.join(PARTIAL).exists());
}

#[tokio::test]
async fn a_long_file_that_was_stopped_is_continued_and_a_short_one_is_not() {
    let (_scratch, root) = scene();
    let whole = content(1);
    let (long, short) = (entry("deep/long", LONG), entry("short", 100));
    {
        let target = begun(&root).await;
        let writer = open(&target, &long).await.unwrap();
        writer.write_all_at(&whole[..5_000_000], 0).unwrap();
        writer.suspend();
        let writer = open(&target, &short).await.unwrap();
        writer.write_all_at(b"short", 0).unwrap();
        writer.suspend();
        assert!(!root.join("deep/long").exists() && !root.join("short").exists());
        assert_eq!(partial(&root), 1);
    }
    let target = begun(&root).await;
    assert!(target.holds_content());
    let writer = open(&target, &long).await.unwrap();
    assert!(writer.existing_len() >= 5_000_000);
    let mut there = vec![0; 5_000_000];
    writer.read_exact_at(&mut there, 0).unwrap();
    assert_eq!(there, whole[..5_000_000]);
    writer.write_all_at(&whole[5_000_000..], 5_000_000).unwrap();
    writer.finish(LONG as u64).unwrap();
    assert_eq!(fs::read(root.join("deep/long")).unwrap(), whole);
    target.finish().await.unwrap();
    assert!(!root.join(PARTIAL).exists());

    // What nobody asks for any more is removed.
    let target = begun(&root).await;
    let writer = open(&target, &entry("gone", LONG)).await.unwrap();
    writer.write_all_at(&whole, 0).unwrap();
    writer.suspend();
    assert_eq!(partial(&root), 1);
    // A process that another test starts has the file's lock, too, between fork and exec: then the one after removes it.
    for _ in 0..200 {
        begun(&root).await.finish().await.unwrap();
        if !root.join(PARTIAL).exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("what was left stays");
}

#[tokio::test]
async fn what_an_earlier_restore_left_and_what_stood_there_are_put_together() {
    let (_scratch, root) = scene();
    let (old, new) = (content(1), content(2));
    fs::write(root.join("long"), &old).unwrap();
    let wanted = [&new[..4_000_000], &old[4_000_000..]].concat();
    let long = entry("long", LONG);
    let writer = open(&begun(&root).await, &long).await.unwrap();
    writer.write_all_at(&new[..2_000_000], 0).unwrap();
    writer.suspend();
    assert_eq!(fs::read(root.join("long")).unwrap(), old);
    let target = begun(&root).await;
    let writer = open(&target, &long).await.unwrap();
    let mut written = 0;
    for (at, piece) in wanted.chunks(500_000).enumerate() {
        let offset = at as u64 * 500_000;
        let mut there = vec![0; piece.len()];
        if writer.read_exact_at(&mut there, offset).is_err() || there != piece {
            writer.write_all_at(piece, offset).unwrap();
            written += piece.len();
        }
    }
    writer.finish(LONG as u64).unwrap();
    assert!(fs::read(root.join("long")).unwrap() == wanted);
    assert_eq!(written, 2_000_000, "neither what was written before nor what the former file has");
}

/// More parts than are kept in mind, so that what lies between them is copied while others write.
#[tokio::test]
async fn parts_that_several_threads_write_stand_beside_what_stood_there() {
    const PARTS: usize = 40_000;
    const PART: usize = 8;
    let (_scratch, root) = scene();
    let old = content(1)[..2 * PARTS * PART].to_vec();
    let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
    fs::write(root.join("long"), &old).unwrap();
    let writer = open(&begun(&root).await, &entry("long", old.len())).await.unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (writer, new) = (&*writer, &new);
            scope.spawn(move || {
                // Every second part, from the back, where the gaps are copied last.
                for part in (0..PARTS).rev().filter(|part| part % 4 == thread) {
                    let at = 2 * part * PART;
                    writer.write_all_at(&new[at..at + PART], at as u64).unwrap();
                }
            });
        }
    });
    writer.finish(old.len() as u64).unwrap();
    let found = fs::read(root.join("long")).unwrap();
    let wrong = found.chunks(PART).enumerate().filter(|(at, part)| {
        let wanted = if at % 2 == 0 { &new } else { &old };
        **part != wanted[at * PART..(at + 1) * PART]
    });
    assert_eq!((wrong.count(), found.len()), (0, old.len()));
}

#[tokio::test]
async fn two_restores_at_once_do_not_share_a_file() {
    let (_scratch, root) = scene();
    let (one, two) = (begun(&root).await, begun(&root).await);
    let long = entry("long", LONG);
    let (first, second) = (open(&one, &long).await.unwrap(), open(&two, &long).await.unwrap());
    first.write_all_at(&content(1), 0).unwrap();
    second.write_all_at(&content(2), 0).unwrap();
    assert_eq!(partial(&root), 2);
    // The end of one leaves alone what the other is at work with.
    first.finish(LONG as u64).unwrap();
    one.finish().await.unwrap();
    assert!(fs::read(root.join("long")).unwrap() == content(1));
    assert_eq!(partial(&root), 1);
    second.finish(LONG as u64).unwrap();
    two.finish().await.unwrap();
    assert!(fs::read(root.join("long")).unwrap() == content(2));
    assert!(!root.join(PARTIAL).exists());
    // One that ended took the directory with it.
    let third = open(&two, &long).await.unwrap();
    third.write_all_at(&content(3), 0).unwrap();
    third.finish(LONG as u64).unwrap();
    assert!(fs::read(root.join("long")).unwrap() == content(3));
}

#[tokio::test]
async fn a_file_for_which_there_is_no_room_is_refused_before_anything_is_written() {
    let (_scratch, root) = scene();
    let target = begun(&root).await;
    for sparse in [false, true] {
        let mut huge = entry("file", 0).with_size(1 << 62);
        huge.sparse = sparse;
        let writer = open(&target, &huge).await.unwrap();
        assert!(writer.write_all_at(b"new", 0).is_err());
        writer.abort();
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "former content");
        assert_eq!(partial(&root), 0);
    }
}

#[tokio::test]
async fn a_directory_of_that_name_that_is_not_a_restores_own_is_refused() {
    let (scratch, root) = scene();
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, root.join(PARTIAL)).unwrap();
    assert!(DirectoryTarget::new(&root).begin(&JobContext::new()).await.is_err());
    fs::remove_file(root.join(PARTIAL)).unwrap();
    fs::create_dir(root.join(PARTIAL)).unwrap();
    fs::set_permissions(root.join(PARTIAL), fs::Permissions::from_mode(0o777)).unwrap();
    let error = DirectoryTarget::new(&root).begin(&JobContext::new()).await.unwrap_err();
    assert!(error.to_string().contains(PARTIAL), "{error}");
    fs::remove_dir(root.join(PARTIAL)).unwrap();
    // Nor does a snapshot put anything into it.
    let target = begun(&root).await;
    for name in [PARTIAL.to_owned(), format!("{PARTIAL}/file")] {
        let error = open(&target, &entry(&name, 1)).await.err().unwrap();
        assert!(error.to_string().contains("keeps the name"), "{error}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn what_appears_meanwhile_stays_where_nothing_is_overwritten() {
    let (_scratch, root) = scene();
    let target = DirectoryTarget::builder(&root).overwrite(Overwrite::Never).build();
    target.begin(&JobContext::new()).await.unwrap();
    let writer = open(&target, &entry("new", 3)).await.unwrap();
    writer.write_all_at(b"new", 0).unwrap();
    fs::write(root.join("new"), "somebody else's").unwrap();
    writer.finish(3).unwrap();
    assert_eq!(fs::read_to_string(root.join("new")).unwrap(), "somebody else's");
    assert_eq!(partial(&root), 0);
}

#[tokio::test]
async fn a_file_on_a_file_system_below_the_root_is_made_on_that_file_system() {
    if !common::is_root() {
        return;
    }
    let (_scratch, root) = scene();
    let below = root.join("a/mounted");
    fs::create_dir_all(&below).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&below).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("not tested: nothing can be mounted");
        return;
    }
    let target = begun(&root).await;
    let writer = open(&target, &entry("a/mounted/deep/long", LONG)).await.unwrap();
    writer.write_all_at(&content(1), 0).unwrap();
    let staged = partial(&below);
    let finished = writer.finish(LONG as u64);
    let restored = fs::read(below.join("deep/long"));
    target.finish().await.unwrap();
    let swept = !below.join(PARTIAL).exists();
    let _ = Command::new("umount").arg(&below).status();
    assert_eq!((finished.unwrap(), staged, swept), (Vec::<String>::new(), 1, true));
    assert!(restored.unwrap() == content(1));
}
