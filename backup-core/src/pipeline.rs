//! The front door: source, transforms, repository and policy in one sentence.
//!
//! A [`Pipeline`] says what is to be backed up and how; [`Pipeline::run`] does it, as often as one likes, and says what
//! its policy would keep. It adds nothing to [`Repository::backup`] but that sentence and the plan.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::report::BackupReport;
use crate::repository::{BackupOptions, ParentChoice, Repository};
use crate::retention::{Decision, RetentionPolicy};
use crate::{Error, JobContext, Result, SnapshotInfo, Source, SourceInfo, Transform};

/// What is backed up, how, and what is kept of it.
///
/// ```
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use backup_core::{
///     Content, CreateOptions, Entry, Item, JobContext, Pipeline, RepositoryId, Repository, Result, Source, SourceInfo,
///     SourceRun, SystemRandom, Unprotected,
/// };
/// use backup_sinks::MemorySink;
///
/// #[derive(Debug)]
/// struct Greeting;
///
/// #[async_trait]
/// impl Source for Greeting {
///     fn info(&self) -> SourceInfo {
///         SourceInfo::new("greeting", ["hello"])
///     }
///     async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
///         Ok(Box::new(Run(vec![Entry::file("greeting.txt")?.into()])))
///     }
/// }
///
/// struct Run(Vec<Item>);
///
/// #[async_trait]
/// impl SourceRun for Run {
///     async fn next(&mut self, _: usize) -> Result<Vec<Item>> {
///         Ok(std::mem::take(&mut self.0))
///     }
///     async fn open(&self, _: &Entry) -> Result<Content> {
///         Ok(Content::from_bytes("hello, world\n"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let job = JobContext::new();
/// let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
/// let sink = Arc::new(MemorySink::new());
/// let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
///
/// let pipeline = Pipeline::new(Greeting).label("daily").tag("tier", "gold");
/// let report = pipeline.run(&repository, &job).await?;
/// assert_eq!(report.backup.entries, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Pipeline {
    source: Arc<dyn Source>,
    options: BackupOptions,
    policy: Option<Arc<dyn RetentionPolicy>>,
}

/// What a run of a [`Pipeline`] did, and what its policy says of the series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineReport {
    /// The backup.
    pub backup: BackupReport,
    /// A plan: what the policy would keep of the snapshots of this series, the oldest first, and why. Nothing was removed.
    /// Empty without a policy.
    pub retention: Vec<Decision>,
}

impl Pipeline {
    /// Backs up `source`, compressed with Zstandard at level 3, under no label, and plans nothing.
    pub fn new(source: impl Source) -> Self {
        Self::from_arc(Arc::new(source))
    }

    /// As [`new`](Self::new), for a source that is shared.
    pub fn from_arc(source: Arc<dyn Source>) -> Self {
        Self { source, options: BackupOptions::default(), policy: None }
    }

    /// Adds a transform before the seal. The first one given takes the place of Zstandard; add
    /// [`Zstd`](crate::Zstd) where both are wanted. The repository must have been opened with it, or the run fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    #[must_use]
    pub fn transform(mut self, transform: impl Transform) -> Self {
        self.options.transforms.get_or_insert_default().push(Arc::new(transform));
        self
    }

    /// Names the series that the snapshots belong to.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.options.label = Some(label.into());
        self
    }

    /// Adds a tag; a later one of the same key replaces the earlier.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.tags.insert(key.into(), value.into());
        self
    }

    /// Names the host that the snapshots are taken on.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.options.host = host.into();
        self
    }

    /// Names the tenant whose data the snapshots hold.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.options.tenant = Some(tenant.into());
        self
    }

    /// Says which snapshot unchanged entries are taken from.
    #[must_use]
    pub fn parent(mut self, parent: ParentChoice) -> Self {
        self.options.parent = parent;
        self
    }

    /// Finds out what would be stored, and plans, without storing.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.options.dry_run = true;
        self
    }

    /// Has `policy` say after each run what it would keep.
    #[must_use]
    pub fn policy(self, policy: impl RetentionPolicy) -> Self {
        self.policy_arc(Arc::new(policy))
    }

    /// As [`policy`](Self::policy), for a policy that is shared or was built from a configuration.
    #[must_use]
    pub fn policy_arc(mut self, policy: Arc<dyn RetentionPolicy>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Backs up the source, then asks the policy.
    ///
    /// The policy judges the snapshots of this series alone: those of the same source, host, label and tenant, dated by the
    /// store's clock where the store tells it, and counts back from [its time](Repository::now). Snapshots that cannot be read are
    /// left out of the plan.
    ///
    /// Errors and cancellation are those of [`Repository::backup`]. An error of the planning names the snapshot, which is
    /// stored by then.
    pub async fn run(&self, repository: &Repository, job: &JobContext) -> Result<PipelineReport> {
        let backup = repository.backup(&*self.source, &self.options, job).await?;
        let retention = match self.plan(repository, job).await {
            Ok(plan) => plan,
            Err(error) => return Err(after(&backup, error)),
        };
        Ok(PipelineReport { backup, retention })
    }

    async fn plan(&self, repository: &Repository, job: &JobContext) -> Result<Vec<Decision>> {
        let Some(policy) = &self.policy else { return Ok(Vec::new()) };
        let info = self.source.info();
        let (snapshots, _) = repository.snapshots_and_damage(job).await?;
        let (series, others): (Vec<_>, Vec<_>) =
            snapshots.into_iter().partition(|snapshot| self.is_of_series(&info, snapshot));
        drop(others);
        let facts = repository.facts(&series, job).await?;
        Ok(policy.decide(&facts, repository.now(job).await?))
    }

    fn is_of_series(&self, info: &SourceInfo, snapshot: &SnapshotInfo) -> bool {
        snapshot.source == info.kind
            && snapshot.identity == info.identity
            && snapshot.host == self.options.host
            && snapshot.label == self.options.label
            && snapshot.tenant == self.options.tenant
    }
}

fn after(backup: &BackupReport, error: Error) -> Error {
    match backup.snapshot {
        None => error,
        Some(id) => {
            let message =
                format!("the snapshot {id} is stored, but which snapshots to keep could not be decided");
            Error::new(error.kind(), message).with_source(error)
        }
    }
}
