//! Owners by name: recorded with the entries, and found again on a system where they have other numbers.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use backup_core::OwnerNames;
use backup_core::{Entry, EntryKind, Item, JobContext, PosixMetadata, Source, Target, Timestamp, Writer};
use backup_sources::{DirectoryTarget, FilesSource};
use common::{content_attributes, is_root, xattrs};
use rustix::fs::XattrFlags;

/// Somebody whom every system has, and that is not root.
const SOMEBODY: &str = "daemon";

/// Read from the tables themselves.
fn number(table: &str) -> u32 {
    let text = fs::read_to_string(table).unwrap();
    let line = text.lines().find(|line| line.split(':').next() == Some(SOMEBODY)).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

fn access_list(user: u32, group: u32) -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, user),
        (4, 4, u32::MAX),
        (8, 4, group),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// The names that a run found by its end: those in access lists of files come with their content.
async fn owners(source: &FilesSource) -> OwnerNames {
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    loop {
        let items = run.next(100).await.unwrap();
        if items.is_empty() {
            return run.finish().await.unwrap().owners;
        }
        for item in items {
            let Item::Entry(entry) = item else { panic!("{item:?}") };
            if entry.kind.has_content() {
                content_attributes(run.open(&entry).await.unwrap());
            }
        }
    }
}

#[tokio::test]
async fn names_of_owners_and_of_those_in_access_lists_are_recorded() {
    let (user, group) = (number("/etc/passwd"), number("/etc/group"));
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "x").unwrap();
    let listed = rustix::fs::setxattr(
        &file,
        "system.posix_acl_access",
        &access_list(user, group),
        XattrFlags::empty(),
    );
    let names = owners(&FilesSource::new(scratch.path()).unwrap()).await;
    if listed.is_ok() {
        assert_eq!(names.users.get(&user).map(String::as_str), Some(SOMEBODY));
        assert_eq!(names.groups.get(&group).map(String::as_str), Some(SOMEBODY));
    }
    assert_eq!(names.users.get(&0).map(String::as_str), Some("root"), "who owns /");
    if is_root() {
        fs::write(scratch.path().join("other"), "x").unwrap();
        chown(scratch.path().join("other"), Some(user), Some(3_999_999_999)).unwrap();
        let names = owners(&FilesSource::new(scratch.path().join("other")).unwrap()).await;
        assert_eq!(names.users.get(&user).map(String::as_str), Some(SOMEBODY));
        assert_eq!(names.groups.get(&3_999_999_999), None, "who has no name is known by number");
    }
}

async fn restored(numeric: bool) -> Option<(u32, u32, Vec<u8>)> {
    let scratch = tempfile::tempdir().unwrap();
    let target = DirectoryTarget::builder(scratch.path().join("to")).numeric_owner(numeric).build();
    let names = OwnerNames {
        users: [(4242, SOMEBODY.to_owned()), (4244, "no such user".to_owned())].into(),
        groups: [(4243, SOMEBODY.to_owned())].into(),
    };
    target.owner_names(&names);
    target.begin(&JobContext::new()).await.unwrap();
    let posix = PosixMetadata { mode: 0o640, uid: 4242, gid: 4243, modified: Timestamp::new(1, 2) };
    let mut entry = Entry::new("file", EntryKind::File).unwrap().with_posix(posix);
    let value = access_list(4242, 4243).into();
    entry.attributes.push(backup_core::Attribute { name: (*b"xattr:system.posix_acl_access").into(), value });
    let Writer::Blocking(open) = target.entry(&entry).await.unwrap() else { panic!() };
    let notes = open().unwrap().finish(0).unwrap();
    if !notes.is_empty() {
        println!("not tested: {notes:?}");
        return None;
    }
    let path = scratch.path().join("to/file");
    let meta = fs::metadata(&path).unwrap();
    let list = xattrs(&path).into_iter().find(|(name, _)| name == "system.posix_acl_access").unwrap().1;
    Some((meta.uid(), meta.gid(), list))
}

#[tokio::test]
async fn owners_are_those_who_have_the_names_here() {
    let (user, group) = (number("/etc/passwd"), number("/etc/group"));
    if let Some((uid, gid, list)) = restored(false).await {
        assert_eq!(list, access_list(user, group), "access lists name the same people");
        assert!(!is_root() || (uid, gid) == (user, group));
    }
    if let Some((uid, gid, list)) = restored(true).await {
        assert_eq!(list, access_list(4242, 4243));
        assert!(!is_root() || (uid, gid) == (4242, 4243));
    }
}
