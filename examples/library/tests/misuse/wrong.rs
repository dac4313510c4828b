//! Arguments and sources that break the contract: the error says which and how.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::repository::{BackupOptions, ParentChoice, Repository};
use backup_core::{
    Content, Encoded, Entry, EntryName, Error, ErrorKind, FrameContext, Item, JobContext, Result, SnapshotId,
    Source, SourceInfo, SourceRun, Transform, TransformSet,
};

use crate::bad::{At, BadTarget, Does};
use crate::common::{ends, good_source, is_valid, job, repository, works};

/// Yields these names at once, whatever was asked for.
#[derive(Debug, Clone)]
struct Names {
    names: Vec<String>,
    sorted: bool,
    fixed: Option<u32>,
}

impl Names {
    fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), sorted: true, fixed: None }
    }
}

#[async_trait]
impl Source for Names {
    fn info(&self) -> SourceInfo {
        let info = SourceInfo::new("names", ["wrong"]);
        if self.sorted { info } else { info.unsorted() }
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SourceRun for Names {
    async fn next(&mut self, _: usize) -> Result<Vec<Item>> {
        std::mem::take(&mut self.names).iter().map(|name| Ok(Entry::file(name)?.into())).collect()
    }

    async fn open(&self, _: &Entry) -> Result<Content> {
        let content = Content::from_bytes("content".repeat(100));
        Ok(match self.fixed {
            Some(bytes) => content.fixed(bytes),
            None => content,
        })
    }
}

async fn refused(source: &dyn Source) -> Error {
    let (repository, sink) = repository().await;
    let error = ends(repository.backup(source, &BackupOptions::default(), &job())).await.unwrap_err();
    is_valid(&repository, Arc::new(sink), 0).await;
    error
}

#[tokio::test]
async fn entries_out_of_order_or_given_twice_are_refused_by_name() {
    for names in [["a", "c", "b"], ["a", "b", "b"]] {
        let error = refused(&Names::new(names)).await;
        assert!(error.to_string().contains('b'), "{error}");
        assert!(!error.is_corruption() && !error.is_cancelled(), "{error:?}");
    }
    let error = refused(&Names { sorted: false, ..Names::new(["b", "a", "b"]) }).await;
    assert!(error.to_string().contains('b'), "{error}");
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let error = refused(&Names::new(["../etc/passwd"])).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("../etc/passwd"));
}

#[tokio::test]
async fn a_source_that_yields_more_than_it_was_asked_for_is_served_all_the_same() {
    let (repository, sink) = repository().await;
    let source = Names::new((0..5000).map(|n| format!("{n:05}")));
    let report = ends(repository.backup(&source, &BackupOptions::default(), &job())).await.unwrap();
    assert_eq!(report.entries, 5000);
    is_valid(&repository, Arc::new(sink), 1).await;
}

#[tokio::test]
async fn chunks_of_no_size_or_too_large_are_refused() {
    for bytes in [0, 1, u32::MAX] {
        let error = refused(&Names { fixed: Some(bytes), ..Names::new(["a"]) }).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&bytes.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_snapshot_that_does_not_exist_is_not_found() {
    let (repository, _) = repository().await;
    let id = SnapshotId::from_bytes([1; 16]);
    let error = repository.snapshot(id, &job()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&id.to_string()), "{error}");
    let options = BackupOptions { parent: ParentChoice::Snapshot(id), ..BackupOptions::default() };
    let error = ends(repository.backup(&good_source(), &options, &job())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_snapshot_given_to_another_repository_is_refused() {
    let (a, _) = repository().await;
    let (b, _) = repository().await;
    let id = works(&a).await;
    let snapshot = a.snapshot(id, &job()).await.unwrap();
    let target = BadTarget { at: At::Begin, does: Does::Panic };
    let error = b.restore(&snapshot, &target, &Default::default(), &job()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains(&b.id().to_string()), "{error}");
    assert_eq!(b.diff(&snapshot, &snapshot, &job()).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_repository_opened_with_another_ones_keys_is_refused() {
    let (a, sink) = repository().await;
    let (b, _) = repository().await;
    let opened =
        Repository::open(Arc::new(sink), b.protection().clone(), TransformSet::builtin(), &job()).await;
    assert!(opened.is_err());
    works(&a).await;
}

/// Forgets the last byte, or claims to have another's name.
#[derive(Debug)]
struct Lossy;

impl Transform for Lossy {
    fn name(&self) -> &str {
        "x-lossy"
    }

    fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        output.extend_from_slice(&input[..input.len().saturating_sub(1)]);
        Ok(Encoded::Applied)
    }

    fn decode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, _: usize) -> Result<()> {
        output.extend_from_slice(input);
        Ok(())
    }
}

#[tokio::test]
async fn a_transform_that_nobody_registered_is_refused_before_anything_is_stored() {
    let (repository, sink) = repository().await;
    let before = sink.len();
    let options = BackupOptions { transforms: Some(vec![Arc::new(Lossy)]), ..BackupOptions::default() };
    let error = ends(repository.backup(&good_source(), &options, &job())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("x-lossy"), "{error}");
    assert_eq!(sink.len(), before);
}

#[tokio::test]
async fn a_transform_that_loses_bytes_gives_no_wrong_byte_back() {
    let (repository, sink) = repository().await;
    let known = TransformSet::builtin().with(Arc::new(Lossy));
    let open =
        Repository::open(Arc::new(sink), repository.protection().clone(), known, &job()).await.unwrap();
    let options = BackupOptions { transforms: Some(vec![Arc::new(Lossy)]), ..BackupOptions::default() };
    let Ok(report) = ends(open.backup(&good_source(), &options, &job())).await else { return };
    let verified = ends(open.verify(&Default::default(), &job())).await.unwrap();
    assert!(!verified.is_clean());
    let snapshot = open.snapshot(report.snapshot.unwrap(), &job()).await.unwrap();
    let name = EntryName::new("long").unwrap();
    let found = open_and_read(&snapshot, &name).await;
    assert!(found.is_err(), "wrong bytes were returned");
}

async fn open_and_read(
    snapshot: &backup_core::repository::Snapshot,
    name: &EntryName,
) -> std::io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt;
    let mut bytes = Vec::new();
    if let Some(stored) = snapshot.entry(name, &job()).await? {
        snapshot.open(&stored, &job()).await?.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
