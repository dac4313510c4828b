//! A tree with everything that a file system holds, walked and written again.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use backup_core::EntryKind;
use backup_sources::{DirectoryTarget, FilesSource, Overwrite};
use common::{copy, is_root, picture, set_time};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// An access list as the kernel stores it: version 2, then tag, permissions and id of each rule.
fn access_list(rules: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in rules {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

fn tree_of_everything(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/sub/empty")).unwrap();
    fs::write(at("dir/small"), b"hello").unwrap();
    fs::write(at("dir/none"), b"").unwrap();
    fs::write(at("dir/big"), (0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>()).unwrap();
    fs::write(at("setuid"), b"#!").unwrap();
    mode(&at("setuid"), 0o6755);
    fs::write(at("secret"), b"x").unwrap();
    mode(&at("secret"), 0o000);
    fs::create_dir(at("sticky")).unwrap();
    mode(&at("sticky"), 0o1777);
    fs::create_dir(at("setgid")).unwrap();
    fs::write(at("setgid/file"), b"inherits").unwrap();
    mode(&at("setgid"), 0o2750);
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("closed/file"), b"in a directory that nothing can be added to").unwrap();
    symlink("small", at("dir/link")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    symlink("/etc", at("absolute")).unwrap();
    fs::hard_link(at("dir/small"), at("dir/sub/again")).unwrap();
    fs::hard_link(at("dir/small"), at("a-first-name")).unwrap();
    fs::hard_link(at("dangling"), at("dangling-again")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    sparse.write_all_at(b"island", 20_000_000).unwrap();
    let tail = fs::File::create(at("sparse-with-tail")).unwrap();
    tail.write_all_at(b"end", 9_999_997).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    rustix::fs::mknodat(CWD, at("socket"), FileType::Socket, Mode::from_raw_mode(0o755), 0).unwrap();
    for name in
        [&b"new\nline"[..], b"\xff\xfe not utf-8", b" ", &[b'n'; 255], b"-rf", b"a\\..\\b", b"\x01\x7f"]
    {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let set = |name: &str, xattr: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at(name).as_path(), xattr, value, XattrFlags::empty()).is_ok()
    };
    assert!(set("dir/small", "user.comment", b"several\0bytes"));
    assert!(set("dir/small", "user.empty", b""));
    assert!(set("dir/sub", "user.on-a-directory", &[7; 3000]));
    let list = access_list(&[
        (1, 6, u32::MAX),
        (2, 4, 1234),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ]);
    set("dir/big", "system.posix_acl_access", &list);
    fs::create_dir(at("defaults")).unwrap();
    fs::write(at("defaults/before"), b"made before the default").unwrap();
    set("defaults", "system.posix_acl_default", &list);
    if is_root() {
        rustix::fs::mknodat(
            CWD,
            at("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
        rustix::fs::mknodat(
            CWD,
            at("loop"),
            FileType::BlockDevice,
            Mode::from_raw_mode(0o660),
            rustix::fs::makedev(7, 77),
        )
        .unwrap();
        for (name, owner) in
            [("dir/big", 1000), ("setuid", 1234), ("sticky", 77), ("dangling", 4_000_000_000), ("fifo", 5)]
        {
            std::os::unix::fs::lchown(at(name), Some(owner), Some(owner / 2)).unwrap();
        }
        mode(&at("setuid"), 0o6755);
        set("dangling", "trusted.note", b"on a link");
        // cap_net_bind_service, as a version 2 capability.
        set("setuid", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    set_time(&at("dir/big"), 1_700_000_000, 123_456_789);
    set_time(&at("dangling"), 1_500_000_000, 1);
    set_time(&at("dir/none"), -1_000_000_000, 999_999_999);
    set_time(&at("fifo"), 5_000_000_000, 7);
    set_time(&at("sparse"), 0, 0);
    mode(&at("closed"), 0o555);
    for directory in ["dir/sub/empty", "dir/sub", "dir", "sticky", "closed"] {
        set_time(&at(directory), 946_684_800, 42);
    }
}

fn everything(root: &Path) -> DirectoryTarget {
    DirectoryTarget::builder(root).devices(true).build()
}

#[tokio::test]
async fn everything_that_a_file_system_holds_comes_back() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir(&from).unwrap();
    tree_of_everything(&from);
    // What cannot be read by this user is somebody else's test.
    if !is_root() {
        fs::remove_file(from.join("secret")).unwrap();
    }
    let before = picture(&from);
    let source = FilesSource::new(from.join(".")).unwrap();
    let prefix = from.strip_prefix("/").unwrap().to_owned();
    let copied = copy(&source, &everything(&to)).await;
    assert_eq!(copied.skipped, []);
    let restored = to.join(prefix);
    let after = picture(&restored);
    for (name, line) in &before {
        assert_eq!(after.get(name), Some(line), "{}", String::from_utf8_lossy(name));
    }
    assert_eq!(before.len(), after.len());
    assert_eq!(picture(&from), before, "a backup changes nothing");

    let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
    assert!(blocks(&restored.join("sparse")) < 200, "holes stay holes");
    assert!(blocks(&restored.join("sparse-with-tail")) < 200, "holes stay holes");

    // A second restore finds everything as it is, and changes nothing.
    let again = copy(&source, &everything(&to)).await;
    assert_eq!(
        (again.skipped, again.bytes_written),
        (vec![], 5),
        "only a file with several names is written anew"
    );
    assert_eq!(picture(&restored), after);
    let target = DirectoryTarget::builder(&to).devices(true).overwrite(Overwrite::IfChanged).build();
    let unchanged = copy(&source, &target).await;
    let files = unchanged.entries.iter().filter(|entry| entry.kind == EntryKind::File).count();
    assert_eq!((unchanged.skipped, unchanged.bytes_written, unchanged.current), (vec![], 0, files));
    assert_eq!(picture(&restored), after);
}

#[tokio::test]
async fn trees_deeper_than_any_path_are_walked_and_written() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir(&from).unwrap();
    let component = "d".repeat(200);
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let mut at = rustix::fs::open(&from, flags, Mode::empty()).unwrap();
    let depth = 100;
    for level in 0..depth {
        rustix::fs::mkdirat(&at, component.as_str(), Mode::RWXU).unwrap();
        let name = format!("file{level}");
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = rustix::fs::openat(&at, name.as_str(), flags, Mode::RWXU).unwrap();
        rustix::io::write(&file, name.as_bytes()).unwrap();
        at = rustix::fs::openat(&at, component.as_str(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let source = FilesSource::new(&from).unwrap();
    let above = from.strip_prefix("/").unwrap().components().count();
    let copied = copy(&source, &everything(&to)).await;
    assert_eq!(copied.skipped, []);
    assert_eq!(copied.entries.len(), above + 2 * depth);
    let again = FilesSource::new(to.join(from.strip_prefix("/").unwrap())).unwrap();
    let restored = common::walk(&again).await;
    assert_eq!(restored.skipped, []);
    let files = |copied: &common::Copied| copied.entries.iter().filter(|entry| entry.size.is_some()).count();
    assert_eq!(files(&restored), depth);
}
