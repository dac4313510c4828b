//! Which snapshot a backup compares with: the newest of the same source, host, label and tenant. Entries that are as in it
//! are neither opened nor read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backup_core::repository::{BackupOptions, ParentChoice};
use backup_core::{
    ErrorKind, JobContext, Result, SnapshotId, Source, SourceInfo, SourceRun, Timestamp, limits,
};
use common::{Protect, SMALL, Setup, TestEntry, TestSource, in_memory, random};

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
