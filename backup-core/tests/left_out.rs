//! What the format or the moment does not let in: it is skipped by name, and everything else is stored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::report::Outcome;
use backup_core::repository::{BackupOptions, RestoreOptions, Selection};
use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{
    Attribute, Content, Entry, EntryKind, EntryName, ErrorKind, Finished, Item, JobContext, PosixMetadata,
    Result, Source, SourceInfo, SourceRun, Target, Timestamp, limits,
};
use backup_sinks::MemorySink;
use backup_sources::{DirectoryTarget, FilesSource};
use common::{
    BOTH, Body, CollectingTarget, Protect, SMALL, SequentialTarget, TestEntry, TestSource, create, in_memory,
    random,
};

fn name(name: &str) -> EntryName {
    EntryName::new(name).unwrap()
}

fn link(at: &str, to: &str, content: &[u8]) -> TestEntry {
    let mut link = TestEntry::other(Entry::new(at, EntryKind::HardLink { to: name(to) }).unwrap());
    // What is there to be read by this name.
    link.content = content.to_vec().into();
    link
}

fn attribute(name: &str, bytes: usize) -> Attribute {
    Attribute { name: name.as_bytes().into(), value: vec![7; bytes].into() }
}

/// Entries of which each is beyond one of the format's limits.
fn unfit() -> Vec<TestEntry> {
    let file = |name: &str, change: fn(&mut Entry)| {
        let mut test = TestEntry::file(name, b"content".to_vec());
        change(&mut test.entry);
        test
    };
    let target = vec![b'x'; limits::NAME_BYTES_MAX + 1].into_boxed_slice();
    vec![
        file("a/many-attributes", |entry| {
            let attributes = (0..=limits::ENTRY_ATTRIBUTES_MAX).map(|at| attribute(&format!("x:{at:05}"), 1));
            entry.attributes = attributes.collect();
        }),
        file("a/long-attribute", |entry| {
            entry.attributes = vec![attribute("x:a", limits::ATTRIBUTE_BYTES_MAX + 1)];
        }),
        file("a/large-attributes", |entry| {
            let count = limits::ENTRY_BYTES_MAX / limits::ATTRIBUTE_BYTES_MAX + 1;
            let attributes =
                (0..count).map(|at| attribute(&format!("x:{at:05}"), limits::ATTRIBUTE_BYTES_MAX));
            entry.attributes = attributes.collect();
        }),
        file("a/unsorted-attributes", |entry| entry.attributes = vec![attribute("b", 1), attribute("a", 1)]),
        file("a/long-stamp", |entry| entry.stamp = Some(vec![0; limits::ATTRIBUTE_BYTES_MAX + 1].into())),
        file("a/odd-mode", |entry| {
            entry.posix = Some(PosixMetadata { mode: 0o100_644, ..PosixMetadata::default() });
        }),
        TestEntry::other(Entry::new("a/long-target", EntryKind::Symlink { target }).unwrap()),
    ]
}

#[tokio::test]
async fn what_the_format_cannot_hold_is_skipped_by_name_and_the_rest_is_stored() {
    for unsorted in [false, true] {
        let (setup, _) = in_memory(Protect::Plain, SMALL).await;
        let good = |place: &str| TestEntry::file(&format!("{place}/good"), random(1, 50_000));
        let mut trailing = unfit();
        trailing.iter_mut().for_each(|test| test.entry.name = name(&format!("end/{}", test.entry.name)));
        trailing.push(good("end"));
        let mut source = TestSource::new(unfit().into_iter().chain([good("a"), good("b")]).collect());
        source.trailing = trailing;
        if unsorted {
            source = source.shuffled(3);
        }
        let report = setup.backup(&source).await.unwrap();
        assert_eq!(report.outcome, Outcome::Partial);
        let mut skipped: Vec<_> = report.skipped.named().iter().map(|item| item.name.clone()).collect();
        skipped.sort();
        let mut expected: Vec<_> = unfit().iter().map(|test| test.entry.name.to_string()).collect();
        expected.extend(expected.clone().iter().map(|name| format!("end/{name}")));
        expected.sort();
        assert_eq!(skipped, expected);
        assert!(report.skipped.named().iter().all(|item| !item.reason.is_empty()));
        let (found, restored) = setup.restore(report.snapshot.unwrap()).await.unwrap();
        assert!(restored.failed.is_empty());
        assert_eq!(
            found.keys().map(ToString::to_string).collect::<Vec<_>>(),
            ["a/good", "b/good", "end/good"]
        );
        assert!(found.values().all(|entry| entry.whole && entry.content == random(1, 50_000)));
        setup.assert_clean().await;
    }
}

#[tokio::test]
async fn a_great_many_skipped_entries_with_long_names_do_not_hinder_the_commit() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let mut entries = vec![TestEntry::file("good", random(1, 5000))];
    entries.extend((0..6000).map(|number| {
        let mut unfit = TestEntry::file(&format!("long/{number:05}{}", "n".repeat(3000)), Vec::new());
        unfit.entry.posix = Some(PosixMetadata { mode: 0o100_644, ..PosixMetadata::default() });
        unfit
    }));
    let report = setup.backup(&TestSource::new(entries)).await.unwrap();
    assert_eq!((report.outcome, report.skipped.count()), (Outcome::Partial, 6000));
    let snapshot = setup.repository.snapshot(report.snapshot.unwrap(), &setup.job).await.unwrap();
    assert_eq!(snapshot.info().skipped_count, 6000);
    assert_eq!(snapshot.info().skipped, report.skipped.named());
    let named: usize = report.skipped.named().iter().map(|item| item.name.len()).sum();
    assert!((1..limits::REPORT_SKIPPED_BYTES_MAX).contains(&named), "{named} bytes");
    setup.assert_clean().await;
}

#[tokio::test]
async fn trap_2_a_store_that_fails_fails_the_job_however_much_was_skipped() {
    let setup = create(Arc::new(MemorySink::new()), Protect::Plain, SMALL).await;
    let fault = Fault::at(1).of(Operation::Put).below("data/").with_kind(ErrorKind::NoSpace);
    let failing = FailingSink::over(setup.repository.sink().clone(), [fault]);
    let setup = setup.reopen(Arc::new(failing)).await.unwrap();
    let mut entries = unfit();
    entries.push(TestEntry::file("unreadable", random(2, 9000)).body(Body::FailsAfter(10)));
    entries.push(TestEntry::file("readable", random(3, 9000)));
    let error = setup.backup(&TestSource::new(entries)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
}

#[tokio::test]
async fn a_file_with_too_many_extended_attributes_is_skipped_by_name() {
    // Where a file system holds that many; in memory it does on newer kernels.
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let overfull = |place: &Path| -> Option<tempfile::TempDir> {
        let scratch = tempfile::tempdir_in(place).ok()?;
        fs::write(scratch.path().join("full"), "x").unwrap();
        fs::write(scratch.path().join("good"), "y").unwrap();
        for number in 0..=limits::ENTRY_ATTRIBUTES_MAX {
            let path = scratch.path().join("full");
            let name = format!("user.{number}");
            rustix::fs::setxattr(&path, name, b"", rustix::fs::XattrFlags::empty()).ok()?;
        }
        Some(scratch)
    };
    let Some(scratch) = places.iter().find_map(|place| overfull(place)) else {
        println!("no file system here holds so many extended attributes");
        return;
    };
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let source = FilesSource::new(scratch.path()).unwrap();
    let report = setup.repository.backup(&source, &BackupOptions::default(), &setup.job).await.unwrap();
    assert_eq!(report.outcome, Outcome::Partial);
    let [skipped] = report.skipped.named() else { panic!("{:?}", report.skipped) };
    assert!(skipped.name.ends_with("/full") && skipped.reason.contains("attributes"), "{skipped:?}");
    let (found, _) = setup.restore(report.snapshot.unwrap()).await.unwrap();
    assert!(found.keys().any(|name| name.file_name() == b"good"));
}

#[tokio::test]
async fn a_name_among_the_entries_and_again_at_the_end_is_refused() {
    for unsorted in [false, true] {
        let (setup, _) = in_memory(Protect::Plain, SMALL).await;
        let entries = (0..3000).map(|number| TestEntry::file(&format!("dir/{number}"), vec![1; 200]));
        let source = TestSource::new(entries.collect());
        let at_end =
            |name: &str| vec![TestEntry::file("label", vec![2; 10]), TestEntry::file(name, vec![2; 10])];
        let order = |source: TestSource| if unsorted { source.shuffled(5) } else { source };
        let twice = order(source.clone().with_trailing(at_end("dir/77")));
        let error = setup.backup(&twice).await.unwrap_err();
        assert_eq!((error.kind(), error.entry()), (ErrorKind::InvalidInput, Some("dir/77")));
        let error = setup.backup(&order(source.clone().with_trailing(at_end("label")))).await.unwrap_err();
        assert_eq!((error.kind(), error.entry()), (ErrorKind::InvalidInput, Some("label")));
        let fine = order(source.with_trailing(at_end("dir/new")));
        let id = setup.store(&fine).await;
        setup.assert_restores(id, &fine).await;
    }
}

#[tokio::test]
async fn of_a_file_that_cannot_be_read_by_its_first_name_the_next_readable_one_becomes_the_file() {
    for protect in BOTH {
        for len in [50, 5000, 5_000_000] {
            for body in [Body::Unopenable, Body::FailsAfter(20), Body::AsyncFailsAfter(20)] {
                let (setup, _) = in_memory(protect, SMALL).await;
                let content = random(len as u64, len);
                let posix = PosixMetadata { mode: 0o640, uid: 3, gid: 4, modified: Timestamp::new(9, 8) };
                let mut first = TestEntry::file("a", content.clone()).body(body);
                first.entry = first.entry.with_posix(posix);
                first.entry.attributes = vec![attribute("xattr:user.x", 5)];
                let source = TestSource::new(vec![
                    first,
                    TestEntry::file("b", random(2, 9000)),
                    link("dir/c", "a", &content).body(body),
                    link("dir/d", "a", &content),
                    link("dir/e", "a", &content),
                    TestEntry::file("f", random(3, 9000)),
                    link("g", "a", &content),
                    link("h", "b", b""),
                ])
                .with_trailing(vec![TestEntry::file("dir/d2", b"label".to_vec())]);
                let report = setup.backup(&source).await.unwrap();
                let skipped: Vec<_> = report.skipped.named().iter().map(|item| item.name.as_str()).collect();
                assert_eq!((report.outcome, skipped), (Outcome::Partial, vec!["a", "dir/c"]));
                assert_eq!(report.entries, 7);
                let (found, restored) = setup.restore(report.snapshot.unwrap()).await.unwrap();
                assert!(restored.failed.is_empty(), "{:?}", restored.failed);
                let names = ["b", "dir/d", "dir/d2", "dir/e", "f", "g", "h"];
                assert_eq!(found.keys().map(ToString::to_string).collect::<Vec<_>>(), names);
                let file = &found[&name("dir/d")];
                assert!(file.whole && file.content == content);
                assert_eq!(file.entry.kind, EntryKind::File);
                assert_eq!((file.entry.posix, file.entry.attributes.len()), (Some(posix), 1));
                for (link, to) in [("dir/e", "dir/d"), ("g", "dir/d"), ("h", "b")] {
                    assert_eq!(found[&name(link)].entry.kind, EntryKind::HardLink { to: name(to) });
                }
                setup.assert_clean().await;
            }
        }
    }
}

#[tokio::test]
async fn links_to_what_cannot_be_stored_by_any_name_are_named() {
    let unfit = || {
        let mut first = TestEntry::file("a", b"x".to_vec());
        first.entry.attributes = vec![attribute("b", 1), attribute("a", 1)];
        first
    };
    for unsorted in [false, true] {
        let (setup, _) = in_memory(Protect::Plain, SMALL).await;
        let unreadable = TestEntry::file("m", random(1, 3000)).body(Body::Unopenable);
        let mut source = TestSource::new(vec![
            unfit(),
            link("b", "a", b"x"),
            unreadable,
            link("n", "m", b"").body(Body::Unopenable),
            TestEntry::file("z", random(2, 3000)),
        ]);
        if unsorted {
            // Links first: what they lead to turns out to be missing when they are stored already.
            source.entries.reverse();
            source.unsorted = true;
        }
        let report = setup.backup(&source).await.unwrap();
        let mut skipped: Vec<_> = report.skipped.named().iter().map(|item| item.name.as_str()).collect();
        skipped.sort_unstable();
        assert_eq!(skipped, ["a", "b", "m", "n"]);
        assert_eq!(report.entries, 1);
        let (found, restored) = setup.restore(report.snapshot.unwrap()).await.unwrap();
        assert!(restored.failed.is_empty());
        assert_eq!(found.keys().map(ToString::to_string).collect::<Vec<_>>(), ["z"]);
    }
}

/// A walk beside which somebody deletes a file when it has been seen and not opened yet.
#[derive(Debug)]
struct Deleting {
    files: FilesSource,
    victim: PathBuf,
}

struct DeletingRun {
    run: Box<dyn SourceRun>,
    victim: PathBuf,
}

#[async_trait]
impl Source for Deleting {
    fn info(&self) -> SourceInfo {
        self.files.info()
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(DeletingRun { run: self.files.begin(job).await?, victim: self.victim.clone() }))
    }
}

#[async_trait]
impl SourceRun for DeletingRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        let items = self.run.next(max).await?;
        let _ = fs::remove_file(&self.victim);
        Ok(items)
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        self.run.open(entry).await
    }

    async fn finish(&mut self) -> Result<Finished> {
        self.run.finish().await
    }
}

#[tokio::test]
async fn a_file_deleted_by_its_first_name_is_restored_by_its_others() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("later")).unwrap();
    fs::write(at("first"), random(1, 100_000)).unwrap();
    for link in ["later/second", "later/third"] {
        fs::hard_link(at("first"), at(link)).unwrap();
    }
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let source = Deleting { files: FilesSource::new(scratch.path()).unwrap(), victim: at("first") };
    let report = setup.repository.backup(&source, &BackupOptions::default(), &setup.job).await.unwrap();
    assert_eq!(report.skipped.count(), 1, "{:?}", report.skipped);
    let restored = tempfile::tempdir().unwrap();
    let snapshot = setup.repository.snapshot(report.snapshot.unwrap(), &setup.job).await.unwrap();
    let target = DirectoryTarget::builder(restored.path()).build();
    let options = RestoreOptions::default();
    let report = setup.repository.restore(&snapshot, &target, &options, &setup.job).await.unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let there = restored.path().join(scratch.path().strip_prefix("/").unwrap());
    let inode = |name: &str| fs::metadata(there.join(name)).unwrap().ino();
    assert_eq!(fs::read(there.join("later/second")).unwrap(), random(1, 100_000));
    assert_eq!(inode("later/second"), inode("later/third"));
    assert!(!there.join("first").exists());
}

#[tokio::test]
async fn of_links_to_a_file_that_is_not_selected_the_first_becomes_the_file() {
    let (setup, _) = in_memory(Protect::Encrypted, SMALL).await;
    let content = random(1, 100_000);
    let posix = PosixMetadata { mode: 0o640, uid: 3, gid: 4, modified: Timestamp::new(9, 8) };
    let mut first = TestEntry::file("a", content.clone());
    first.entry = first.entry.with_posix(posix);
    let short = b"short".to_vec();
    let target = b"elsewhere".as_slice().into();
    let id = setup
        .store(&TestSource::new(vec![
            first,
            TestEntry::file("b", short.clone()),
            TestEntry::other(Entry::new("c", EntryKind::Symlink { target }).unwrap()),
            link("dir/k", "a", b""),
            link("dir/l", "a", b""),
            link("dir/m", "b", b""),
            link("dir/n", "c", b""),
            TestEntry::file("dir/o", random(2, 9000)),
            link("dir/p", "dir/o", b""),
            link("dir/q", "a", b""),
            link("z", "a", b""),
        ]))
        .await;
    let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
    let within = |entry: &Entry| entry.name.is_within(&name("dir"));
    for select in [Selection::Names(vec![name("dir")]), Selection::Filter(Arc::new(within))] {
        let options = RestoreOptions { select };
        let (any, sequential) = (CollectingTarget::default(), SequentialTarget::default());
        let targets: [&dyn Target; 2] = [&any, &sequential];
        for target in targets {
            let report = setup.repository.restore(&snapshot, target, &options, &setup.job).await.unwrap();
            assert!(report.failed.is_empty(), "{:?}", report.failed);
        }
        let one_by_one = std::mem::take(&mut *sequential.entries.lock().unwrap());
        let one_by_one = one_by_one.into_iter().map(|entry| (entry.entry.name.clone(), entry)).collect();
        for found in [any.take(), one_by_one] {
            assert_eq!(found.len(), 7, "{:?}", found.keys());
            let kind = |at: &str| found[&name(at)].entry.kind.as_str();
            let kinds = ["dir/k", "dir/l", "dir/m", "dir/n", "dir/o", "dir/p", "dir/q"].map(kind);
            assert_eq!(kinds, ["file", "hardlink", "file", "symlink", "file", "hardlink", "hardlink"]);
            let file = &found[&name("dir/k")];
            assert!(file.whole && file.content == content);
            assert_eq!(file.entry.posix, Some(posix));
            assert_eq!(found[&name("dir/m")].content, short);
            for (link, to) in [("dir/l", "dir/k"), ("dir/q", "dir/k"), ("dir/p", "dir/o")] {
                assert_eq!(found[&name(link)].entry.kind, EntryKind::HardLink { to: name(to) });
            }
        }
    }
    // With the file selected, too, a link is a link.
    let options = RestoreOptions { select: Selection::Names(vec![name("a"), name("dir/l")]) };
    let target = CollectingTarget::default();
    setup.repository.restore(&snapshot, &target, &options, &setup.job).await.unwrap();
    assert_eq!(target.take()[&name("dir/l")].entry.kind, EntryKind::HardLink { to: name("a") });
}
