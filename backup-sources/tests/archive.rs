//! Tar archives, read back by the tar that everybody has.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use backup_core::entry::PosixMetadata;
use backup_core::{Entry, EntryKind, Target, Timestamp, Writer};
use backup_sources::{FilesSource, TarTarget};
use common::{copy, is_root, picture, set_time};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn an_archive_is_extracted_by_tar_with_every_attribute() {
    let scratch = tempfile::tempdir().unwrap();
    let from = scratch.path().join("from");
    let at = |name: &str| from.join(name);
    fs::create_dir_all(at("dir/sub")).unwrap();
    fs::write(at("dir/file"), "content").unwrap();
    fs::write(at("none"), "").unwrap();
    fs::write(at("block"), [b'x'; 512]).unwrap();
    fs::write(at("big"), [b'y'; 100_001]).unwrap();
    fs::set_permissions(at("dir/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("x".repeat(150), at("long-link")).unwrap();
    symlink("dir/file", at("link")).unwrap();
    fs::hard_link(at("dir/file"), at("z-hard")).unwrap();
    fs::write(at("n".repeat(255).as_str()), "long name").unwrap();
    let deep = ["d".repeat(120), "e".repeat(120), "f".repeat(120)].join("/");
    fs::create_dir_all(at(&deep)).unwrap();
    fs::write(at(&deep).join(OsStr::from_bytes(b"\xff\n raw")), "deep").unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    rustix::fs::mknodat(CWD, at("socket"), FileType::Socket, Mode::from_raw_mode(0o600), 0).unwrap();
    rustix::fs::lsetxattr(at("dir/file").as_path(), "user.note", b"a\nb=c\0d", XattrFlags::empty()).unwrap();
    if is_root() {
        rustix::fs::mknodat(
            CWD,
            at("null"),
            FileType::CharacterDevice,
            Mode::RWXU,
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
        std::os::unix::fs::lchown(at("big"), Some(3_000_000_000), Some(5)).unwrap();
    }
    set_time(&at("dir/file"), 1_700_000_000, 123_456_789);
    set_time(&at("none"), -1_000_000, 250_000_000);
    set_time(&at("block"), 10_000_000_000, 0);

    let target = TarTarget::new(Vec::new());
    let copied = copy(&FilesSource::new(&from).unwrap(), &target).await;
    let socket = at("socket").to_str().unwrap().trim_start_matches('/').to_owned();
    assert_eq!(copied.skipped.len(), 1, "{:?}", copied.skipped);
    assert!(copied.reason(&socket).contains("socket"));
    let archive = target.into_inner().unwrap();
    assert_eq!(archive.len() % 512, 0);
    let to = scratch.path().join("to");
    extract(&archive, scratch.path(), &to);
    fs::remove_file(at("socket")).unwrap();
    set_time(&from, 1, 1);
    let restored = to.join(from.strip_prefix("/").unwrap());
    set_time(&restored, 1, 1);
    let (before, after) = (picture(&from), picture(&restored));
    for (name, line) in &before {
        assert_eq!(after.get(name), Some(line), "{}", String::from_utf8_lossy(name));
    }
    assert_eq!(before.len(), after.len());
}

fn extract(archive: &[u8], scratch: &Path, to: &Path) {
    let file = scratch.join("archive.tar");
    fs::write(&file, archive).unwrap();
    fs::create_dir(to).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-xpf"]).arg(&file).arg("-C").arg(to);
    let output = tar.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // It remarks upon odd times, and upon the standard's own word for names that are not UTF-8.
    let remarks = ["in the future", "implausibly old", "'hdrcharset'"];
    let text = String::from_utf8_lossy(&output.stderr);
    let other: Vec<_> =
        text.lines().filter(|line| !remarks.iter().any(|remark| line.contains(remark))).collect();
    assert_eq!(other, [""; 0]);
}

#[tokio::test]
async fn sizes_beyond_the_old_header_are_announced() {
    let len = 9_000_000_000_u64;
    let target = TarTarget::new(Vec::new());
    let posix = PosixMetadata { mode: 0o644, modified: Timestamp::new(1, 0), ..PosixMetadata::default() };
    let entry = Entry::file("huge").unwrap().with_size(len).with_posix(posix);
    let writer = target.entry(&entry).await.unwrap();
    // Nobody writes so much here; the entry stays open, and nothing can follow it.
    assert!(target.entry(&Entry::file("x").unwrap().with_size(0)).await.is_err());
    let Writer::Async(mut writer) = writer else { panic!() };
    writer.write_all(b"start").await.unwrap();
    assert!(writer.shutdown().await.is_err(), "less than announced");
    drop(writer);
    assert!(target.finish().await.is_err(), "an archive that broke off has no end");
}

#[tokio::test]
async fn content_of_another_length_than_announced_is_refused() {
    let target = TarTarget::new(Vec::new());
    let Writer::Async(mut writer) = target.entry(&Entry::file("a").unwrap().with_size(3)).await.unwrap()
    else {
        panic!()
    };
    assert!(writer.write_all(b"four").await.is_err());
    assert!(target.entry(&Entry::file("b").unwrap()).await.is_err(), "no length");
    let socket = TarTarget::new(Vec::new());
    assert!(matches!(
        socket.entry(&Entry::new("s", EntryKind::Socket).unwrap()).await.unwrap(),
        Writer::Skip
    ));
}

#[tokio::test]
async fn owners_stand_in_an_archive_by_name_as_well() {
    let target = TarTarget::new(Vec::new());
    let mut names = backup_core::OwnerNames::default();
    let long = "a-group-with-a-name-that-the-old-header-has-no-room-for";
    names.users.insert(4242, "somebody".into());
    names.groups.insert(4243, long.into());
    target.owner_names(&names);
    let posix = PosixMetadata { mode: 0o755, uid: 4242, gid: 4243, modified: Timestamp::new(1, 0) };
    let entry = Entry::directory("directory").unwrap().with_posix(posix);
    let Writer::Async(mut writer) = target.entry(&entry).await.unwrap() else { panic!() };
    writer.shutdown().await.unwrap();
    assert_eq!(target.finish().await.unwrap(), []);
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("a.tar"), target.into_inner().unwrap()).unwrap();
    let listed = Command::new("tar").arg("-tvf").arg(scratch.path().join("a.tar")).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(text.contains(&format!("somebody/{long}")), "{text}");
}
