//! The front door: what is said of a pipeline arrives in the snapshot, and its policy judges its own series alone.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::retention::{Decision, SnapshotFacts};
use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{
    Content, CreateOptions, Encoded, Entry, ErrorKind, FrameContext, Item, JobContext, Pipeline, Repository,
    RepositoryId, Result, RetentionPolicy, Sink, SinkExt, Source, SourceInfo, SourceRun, Timestamp,
    Transform, TransformSet, Unprotected,
};
use backup_sinks::MemorySink;

#[derive(Debug)]
struct Named(&'static str);

#[async_trait]
impl Source for Named {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("named", [self.0])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(Run(vec![Entry::file("file")?.into()])))
    }
}

struct Run(Vec<Item>);

#[async_trait]
impl SourceRun for Run {
    async fn next(&mut self, _: usize) -> Result<Vec<Item>> {
        Ok(std::mem::take(&mut self.0))
    }

    async fn open(&self, _: &Entry) -> Result<Content> {
        Ok(Content::from_bytes(vec![7; 10_000]))
    }
}

/// Keeps the newest, which is the last one given.
#[derive(Debug)]
struct Newest;

impl RetentionPolicy for Newest {
    fn decide(&self, snapshots: &[SnapshotFacts], _: Timestamp) -> Vec<Decision> {
        let newest = snapshots.iter().map(|snapshot| snapshot.time).max();
        let reasons = |snapshot: &SnapshotFacts| match Some(snapshot.time) == newest {
            true => vec!["it is the newest".to_owned()],
            false => Vec::new(),
        };
        snapshots.iter().map(|snapshot| Decision { id: snapshot.id, reasons: reasons(snapshot) }).collect()
    }
}

/// Adds one to every byte.
#[derive(Debug)]
struct PlusOne;

impl Transform for PlusOne {
    fn name(&self) -> &str {
        "x-plus-one"
    }

    fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        output.extend(input.iter().map(|byte| byte.wrapping_add(1)));
        Ok(Encoded::Applied)
    }

    fn decode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, _: usize) -> Result<()> {
        output.extend(input.iter().map(|byte| byte.wrapping_sub(1)));
        Ok(())
    }
}

async fn repository(sink: Arc<dyn Sink>, job: &JobContext) -> Repository {
    let protection = Arc::new(Unprotected::new(RepositoryId([5; 16])));
    Repository::create(sink.clone(), protection.clone(), CreateOptions::default(), job).await.unwrap();
    let transforms = TransformSet::builtin().with(Arc::new(PlusOne));
    Repository::open(sink, protection, transforms, job).await.unwrap()
}

#[tokio::test]
async fn what_a_pipeline_says_stands_in_its_snapshot() {
    let job = JobContext::new();
    let sink = Arc::new(MemorySink::new());
    let repository = repository(sink.clone(), &job).await;
    let pipeline = Pipeline::new(Named("a"))
        .transform(PlusOne)
        .label("daily")
        .tag("tier", "gold")
        .host("db1")
        .tenant("t");
    let report = pipeline.run(&repository, &job).await.unwrap();
    assert!(report.retention.is_empty());
    let snapshot = repository.snapshot(report.backup.snapshot.unwrap(), &job).await.unwrap();
    let info = snapshot.info();
    assert_eq!(
        (info.label.as_deref(), info.host.as_str(), info.tenant.as_deref()),
        (Some("daily"), "db1", Some("t"))
    );
    assert_eq!(info.tags.get("tier").map(String::as_str), Some("gold"));
    for pack in sink.list_all("data/").await.unwrap() {
        let bytes = sink.get_whole(&pack.key, 1 << 20).await.unwrap();
        assert!(bytes.windows(10).any(|window| window == b"x-plus-one"));
        assert!(bytes.len() > 10_000, "the transform given stands in place of compression");
    }
}

#[tokio::test]
async fn the_policy_judges_the_pipelines_own_series_and_removes_nothing() {
    let job = JobContext::new();
    let repository = repository(Arc::new(MemorySink::new()), &job).await;
    let other = Pipeline::new(Named("b")).run(&repository, &job).await.unwrap();
    Pipeline::new(Named("a")).label("weekly").run(&repository, &job).await.unwrap();
    let pipeline = Pipeline::new(Named("a")).policy(Newest);
    let first = pipeline.run(&repository, &job).await.unwrap();
    let second = pipeline.run(&repository, &job).await.unwrap();
    let ids: Vec<_> = second.retention.iter().map(|decision| (Some(decision.id), decision.keep())).collect();
    assert_eq!(ids, [(first.backup.snapshot, false), (second.backup.snapshot, true)]);
    assert!(!ids.iter().any(|(id, _)| *id == other.backup.snapshot));
    assert_eq!(repository.snapshots(&job).await.unwrap().len(), 4);

    let planned = pipeline.dry_run().run(&repository, &job).await.unwrap();
    assert_eq!(planned.backup.snapshot, None);
    assert_eq!(planned.retention, second.retention);
    let json = serde_json::to_string(&second).unwrap();
    assert_eq!(serde_json::from_str::<backup_core::PipelineReport>(&json).unwrap(), second);
}

#[tokio::test]
async fn an_unknown_transform_is_refused_before_anything_is_stored() {
    let job = JobContext::new();
    let sink = Arc::new(MemorySink::new());
    let protection = Arc::new(Unprotected::new(RepositoryId([5; 16])));
    let repository =
        Repository::create(sink.clone(), protection, CreateOptions::default(), &job).await.unwrap();
    let before = sink.list_all("").await.unwrap();
    let error = Pipeline::new(Named("a")).transform(PlusOne).run(&repository, &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(sink.list_all("").await.unwrap(), before);
}

#[tokio::test]
async fn an_error_of_the_plan_names_the_snapshot_that_is_stored() {
    let job = JobContext::new();
    // Listings fail one after the other, until one fails that serves the plan: then the backup is stored by then.
    for nth in 1..10 {
        let sink = Arc::new(MemorySink::new());
        repository(sink.clone(), &job).await;
        let fault = Fault::at(nth).of(Operation::List).below("snapshots/");
        let failing = Arc::new(FailingSink::over(sink.clone(), [fault]));
        let protection = Arc::new(Unprotected::new(RepositoryId([5; 16])));
        let repository = Repository::open(failing, protection, TransformSet::builtin(), &job).await.unwrap();
        let error = Pipeline::new(Named("a")).policy(Newest).run(&repository, &job).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        if let [stored] = &sink.list_all("snapshots/").await.unwrap()[..] {
            assert!(error.to_string().contains(stored.key.name()), "{error}");
            return;
        }
    }
    panic!("no listing served the plan");
}
