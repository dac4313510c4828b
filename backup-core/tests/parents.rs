//! Which snapshot a backup compares with: the newest of the same source, host, label and tenant. Entries that are as in it
//! are neither opened nor read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backup_core::repository::{BackupOptions, ParentChoice};
use backup_core::{
    ErrorKind, JobContext, Outcome, Result, SnapshotId, Source, SourceInfo, SourceRun, Timestamp, limits,
};
use common::{Body, Protect, SMALL, Setup, TestEntry, TestSource, in_memory, random};

fn source() -> TestSource {
    TestSource::new((0..10).map(|i| TestEntry::file(&format!("f{i}"), random(i, 5_000)).stamped()).collect())
}

fn options(host: &str, label: &str, tenant: Option<&str>, seconds: i64) -> BackupOptions {
    BackupOptions {
        host: host.into(),
        label: Some(label.into()),
        tenant: tenant.map(Into::into),
        time: Some(Timestamp::new(seconds, 0)),
        ..BackupOptions::default()
    }
}

/// Backs up; the snapshot, the parent that was chosen, and how many entries were opened.
async fn backup(setup: &Setup, options: &BackupOptions) -> (SnapshotId, Option<SnapshotId>, u64) {
    let source = source();
    let report = setup.repository.backup(&source, options, &setup.job).await.unwrap();
    let id = report.snapshot.unwrap();
    setup.assert_restores(id, &source).await;
    (id, report.parent, source.opened())
}

#[tokio::test]
async fn the_parent_is_the_newest_of_the_same_source_host_label_and_tenant() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let (first, parent, opened) = backup(&setup, &options("a", "x", Some("t"), 100)).await;
    assert_eq!((parent, opened), (None, 10));
    let others =
        [options("b", "x", Some("t"), 200), options("a", "y", Some("t"), 200), options("a", "x", None, 200)];
    let mut seen = vec![first];
    for other in &others {
        let (id, parent, opened) = backup(&setup, other).await;
        assert_eq!((parent, opened), (None, 10), "{other:?} has no parent");
        seen.push(id);
    }
    // Newest by its time, not by when it came.
    let (newest, parent, opened) = backup(&setup, &options("a", "x", Some("t"), 300)).await;
    assert_eq!((parent, opened), (Some(first), 0));
    let (_, parent, _) = backup(&setup, &options("a", "x", Some("t"), 150)).await;
    assert_eq!(parent, Some(newest));
    let (_, parent, opened) = backup(&setup, &options("a", "x", Some("t"), 400)).await;
    assert_eq!((parent, opened), (Some(newest), 0));
    for (other, earlier) in others.iter().zip(&seen[1..]) {
        assert_eq!(backup(&setup, other).await.1, Some(*earlier));
    }
}

#[tokio::test]
async fn a_parent_can_be_named_or_declined() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let (first, ..) = backup(&setup, &options("a", "x", None, 100)).await;
    backup(&setup, &options("a", "x", None, 200)).await;
    let named = BackupOptions { parent: ParentChoice::Snapshot(first), ..options("b", "z", None, 300) };
    let (_, parent, opened) = backup(&setup, &named).await;
    assert_eq!((parent, opened), (Some(first), 0));
    let declined = BackupOptions { parent: ParentChoice::None, ..options("a", "x", None, 300) };
    let (_, parent, opened) = backup(&setup, &declined).await;
    assert_eq!((parent, opened), (None, 10));
}

#[tokio::test]
async fn what_its_reader_complained_of_is_read_again_and_complained_of_again() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    // One that is read as a whole, and one in regions.
    let noticed = |name, len| TestEntry::file(name, random(7, len)).stamped().body(Body::Noticed);
    for seconds in [100, 200, 300] {
        let sound = TestEntry::file("sound", random(8, 5_000)).stamped();
        let source = TestSource::new(vec![noticed("long", 3 << 20), noticed("short", 5_000), sound]);
        let report =
            setup.repository.backup(&source, &options("a", "x", None, seconds), &setup.job).await.unwrap();
        assert_eq!(report.outcome, Outcome::Partial);
        let named: Vec<_> = report.skipped.named().iter().map(|skipped| skipped.name.clone()).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        assert_eq!(report.entries_unchanged, u64::from(report.parent.is_some()));
    }
}

/// The same entries from somewhere else.
#[derive(Debug)]
struct From(TestSource, &'static str, Vec<String>);

#[async_trait::async_trait]
impl Source for From {
    fn info(&self) -> SourceInfo {
        SourceInfo::new(self.1, self.2.clone())
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        self.0.begin(job).await
    }
}

#[tokio::test]
async fn a_snapshot_of_another_kind_or_place_is_no_parent() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let places = [("files", "/srv"), ("files", "/home"), ("database", "/srv")];
    for expected in [None, Some(10)] {
        for (kind, place) in places {
            let from = From(source(), kind, vec![place.into()]);
            let options = options("a", "x", None, 100 + expected.unwrap_or(0));
            let report = setup.repository.backup(&from, &options, &setup.job).await.unwrap();
            assert_eq!(report.parent.is_some(), expected.is_some(), "{kind} {place}");
            assert_eq!(from.0.opened(), if expected.is_some() { 0 } else { 10 });
        }
    }
}

#[tokio::test]
async fn a_source_has_as_many_parts_of_an_identity_as_are_allowed_and_no_more() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let parts = |count| vec!["p".to_owned(); count];
    let most = limits::IDENTITY_PARTS_MAX;
    let from = From(source(), "files", parts(most));
    setup.repository.backup(&from, &BackupOptions::default(), &setup.job).await.unwrap();
    let from = From(source(), "files", parts(most + 1));
    let error = setup.repository.backup(&from, &BackupOptions::default(), &setup.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let read = setup.repository.snapshots(&setup.job).await.unwrap();
    assert_eq!(read.iter().map(|snapshot| snapshot.identity.len()).collect::<Vec<_>>(), [most]);
}

/// An access list that lets one user read, as Linux stores it (`acl(5)`).
fn access_list(user: u32) -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, user), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

#[tokio::test]
async fn an_unchanged_file_keeps_its_extended_attributes_and_the_names_in_its_access_list() {
    use rustix::fs::XattrFlags;
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let daemon = passwd.lines().find_map(|line| line.strip_prefix("daemon:x:")).unwrap();
    let daemon: u32 = daemon.split(':').next().unwrap().parse().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, vec![7; 5_000]).unwrap();
    let set = |name: &str, value: &[u8]| rustix::fs::setxattr(&file, name, value, XattrFlags::empty());
    set("user.kind", b"first").expect("these tests need a file system with extended attributes");
    let listed = set("system.posix_acl_access", &access_list(daemon)).is_ok();
    // So that its stamp counts.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let source = backup_sources::FilesSource::new(scratch.path()).unwrap();
    for (round, kind, read) in [(0, "first", 5_000), (1, "first", 0), (2, "first", 0), (3, "second", 5_000)] {
        if round == 3 {
            set("user.kind", b"second").unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let report = setup.repository.backup(&source, &BackupOptions::default(), &setup.job).await.unwrap();
        assert_eq!(report.bytes_read, read, "round {round}");
        let id = report.snapshot.unwrap();
        let (found, _) = setup.restore(id).await.unwrap();
        let stored = found.iter().find(|(name, _)| name.file_name() == b"file").unwrap().1;
        assert_eq!(stored.entry.attribute(b"xattr:user.kind"), Some(kind.as_bytes()), "round {round}");
        let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
        let name = snapshot.owner_names().users.get(&daemon).map(String::as_str);
        assert_eq!(name, listed.then_some("daemon"), "round {round}");
    }
}

const PAGE: usize = 64 << 10;

/// One file of pages.
fn pages(content: &[u8], body: Body) -> TestEntry {
    TestEntry::file("pages", content.to_vec()).fixed(PAGE as u32).body(body)
}

#[tokio::test]
async fn where_a_source_knows_what_changed_only_that_is_read() {
    let page = PAGE as u64;
    let before = random(1, 100 * PAGE + 77).to_vec();
    for body in [Body::Blocking, Body::Random] {
        let (setup, _) = in_memory(Protect::Plain, SMALL).await;
        let back_up = async |entry: TestEntry| {
            let source = TestSource::new(vec![entry]);
            let report =
                setup.repository.backup(&source, &BackupOptions::default(), &setup.job).await.unwrap();
            setup.assert_restores(report.snapshot.unwrap(), &source).await;
            assert_eq!(report.bytes_read, source.bytes_read());
            report
        };
        // What changed since nothing is everything.
        let first = back_up(pages(&before, body).changed_in(&[])).await;
        assert_eq!(first.bytes_read, before.len() as u64);

        // Bytes within pages, pages side by side, and what was added, of which nobody need say anything.
        let mut now = before.clone();
        now.extend(random(2, 2 * PAGE));
        now[3 * PAGE + 9] ^= 1;
        now[50 * PAGE + 7..52 * PAGE].fill(0);
        let ranges = [3 * page + 9..3 * page + 10, 50 * page + 7..52 * page];
        let second = back_up(pages(&now, body).changed_in(&ranges)).await;
        assert_eq!(second.bytes_read, 3 * page + (now.len() - 100 * PAGE) as u64);
        assert_eq!((second.bytes_logical, second.entries_unchanged), (now.len() as u64, 0));

        // Nothing at all changed.
        let third = back_up(pages(&now, body).changed_in(&[])).await;
        assert_eq!((third.bytes_read, third.bytes_added, third.entries_unchanged), (0, 0, 1));

        // It became shorter, in the middle of a page.
        let shorter = &now[..60 * PAGE + 5];
        let fourth = back_up(pages(shorter, body).changed_in(&[])).await;
        assert_eq!(fourth.bytes_read, 5);

        // Where lengths of chunks differ, and where content cuts itself, everything is read.
        let coarse = TestEntry::file("pages", now.clone()).fixed(2 * PAGE as u32).body(body).changed_in(&[]);
        let fifth = back_up(coarse).await;
        assert_eq!(fifth.bytes_read, now.len() as u64);
        let cut = TestEntry::file("pages", shorter.to_vec()).body(body).changed_in(&[]);
        assert_eq!(back_up(cut).await.bytes_read, shorter.len() as u64);
    }
}
