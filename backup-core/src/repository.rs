//! The engine: one deduplicating, compressing, encrypting repository on a sink.
//!
//! [`Repository`] is the handle; [`Repository::backup`] makes a snapshot, [`Repository::restore`] writes one to a target,
//! [`Snapshot`] reads one. In the sources, read `backup.rs` and `restore.rs` first; the rest serves them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream;

use crate::chunker::{Chunker, ChunkerParameters};
use crate::format::document::{self, SessionOutcome, SnapshotDocument};
pub use crate::format::document::{RepositoryParameters, SetComponent, SnapshotSet};
pub use crate::format::entries::StoredEntry;
use crate::limits;
use crate::protection::{Protection, RepositoryId};
use crate::transform::{ObjectType, TransformSet};
use crate::{
    Error, ErrorKind, JobContext, ObjectKey, PutOutcome, Result, Sink, SinkExt, SnapshotId, SnapshotInfo,
};

mod backup;
mod content;
mod diff;
mod entries;
mod file;
mod frames;
mod guard;
mod index;
mod keys;
mod known;
mod listing;
mod merge;
mod reader;
mod repair;
mod restore;
mod scratch;
mod segment;
mod snapshot;
mod source;
mod stats;
mod store;
mod tree;
mod verify;

pub use backup::{BackupOptions, ParentChoice};
pub use diff::{Change, ChangeKind, DiffStream};
pub use entries::EntryStream;
pub use file::StoredFile;
pub use restore::{RestoreOptions, Selection};
pub use snapshot::Snapshot;
pub use source::SnapshotSource;
pub use verify::{VerifyLevel, VerifyOptions, verify_keyless};

use frames::FrameCache;
use index::Index;
use reader::Reader;
use store::{PutCounters, Store};

/// How a repository is made. What is chosen here holds for its whole life.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// How content is cut.
    pub chunker: ChunkerParameters,
    /// The transforms that the handle returned can undo and so may write: the built-in ones and a user's own. Not part
    /// of the repository: whoever opens it gives them again.
    pub transforms: TransformSet,
}

/// What the object `config` says in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigHeader {
    /// The repository.
    pub repository: RepositoryId,
    /// Whether keys are needed.
    pub encrypted: bool,
}

/// Reads what is in clear of a repository's configuration: enough to find its keys.
pub async fn peek_config(sink: &dyn Sink) -> Result<ConfigHeader> {
    let key = keys::config()?;
    let bytes = sink
        .get_whole(&key, limits::CONTROL_BYTES_MAX)
        .await
        .map_err(|error| no_repository(error).with_object(&key))?;
    let header = document::peek(&bytes).map_err(|e| e.with_object(&key))?;
    Ok(ConfigHeader { repository: header.repository, encrypted: header.protection.epoch != 0 })
}

/// A repository on a sink. Cheap to clone; clones share the index and the cache.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    parameters: RepositoryParameters,
    index: tokio::sync::Mutex<Option<Arc<Index>>>,
    cache: Arc<FrameCache>,
    /// Opened snapshots: they never change, so each is read once.
    snapshots: Mutex<HashMap<SnapshotId, Arc<SnapshotDocument>>>,
    /// Sessions known to be shut out: their outcome is a fence, which never changes either.
    fenced: Mutex<HashSet<SnapshotId>>,
}

/// Snapshot documents held in memory; beyond that they are read again.
const SNAPSHOTS_CACHED_MAX: usize = 20_000;

impl Repository {
    /// Creates a repository on an empty sink, protected by `protection`, whose key slots must be stored already.
    ///
    /// Proves first that the sink creates once. Fails with [`ErrorKind::AlreadyExists`] where a repository exists.
    pub async fn create(
        sink: Arc<dyn Sink>,
        protection: Arc<dyn Protection>,
        options: CreateOptions,
        job: &JobContext,
    ) -> Result<Self> {
        guard::run(job, async move {
        options.chunker.validate()?;
        let parameters = RepositoryParameters {
            repository: protection.repository(),
            created: job.now(),
            required_features: Vec::new(),
            chunker: options.chunker,
        };
        let store = Store { sink, protection, transforms: options.transforms };
        let key = keys::config()?;
        let bytes = document::seal(&*store.protection, ObjectType::Config, Store::salt(job)?, &parameters)?;
        match store.sink.put(&key, bytes.clone()).await.map_err(|e| e.with_object(&key))? {
            PutOutcome::Created => {}
            PutOutcome::AlreadyExists => {
                let there = store.sink.get_whole(&key, limits::CONTROL_BYTES_MAX).await;
                if !matches!(&there, Ok(there) if *there == bytes) {
                    let message = "there is a repository already; choose another place or open this one";
                    return Err(Error::new(ErrorKind::AlreadyExists, message).with_object(&key));
                }
            }
        }
        // The same create once more: a store that claims to have made it again would overwrite snapshots, too.
        if store.sink.put(&key, bytes).await.map_err(|e| e.with_object(&key))? == PutOutcome::Created {
            let message = "the store overwrites objects although asked to create them only; it cannot hold a repository";
            return Err(Error::new(ErrorKind::Unsupported, message).with_object(&key));
        }
        Ok(Self::with(store, parameters))
    }).await
    }

    /// Opens a repository. `transforms` are those that its packs may need.
    pub async fn open(
        sink: Arc<dyn Sink>,
        protection: Arc<dyn Protection>,
        transforms: TransformSet,
        job: &JobContext,
    ) -> Result<Self> {
        guard::run(job, async move {
            let store = Store { sink, protection, transforms };
            let key = keys::config()?;
            let parameters: RepositoryParameters = store
                .get_document(&key, ObjectType::Config, limits::CONTROL_BYTES_MAX, job)
                .await
                .map_err(|error| no_repository(error).with_object(&key))?;
            if parameters.repository != store.protection.repository() {
                return Err(
                    Error::corruption("the parameters are those of another repository").with_object(&key)
                );
            }
            if let Some(feature) = parameters.required_features.first() {
                let message = format!("the repository needs the feature `{feature}`, which this build lacks");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            parameters.chunker.validate().map_err(|e| Error::corruption(e.message()).with_object(&key))?;
            Ok(Self::with(store, parameters))
        })
        .await
    }

    fn with(store: Store, parameters: RepositoryParameters) -> Self {
        let index = tokio::sync::Mutex::new(None);
        let inner = Inner {
            store,
            parameters,
            index,
            cache: Arc::default(),
            snapshots: Mutex::default(),
            fenced: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The repository's identity.
    pub fn id(&self) -> RepositoryId {
        self.inner.parameters.repository
    }

    /// What was chosen when it was created.
    pub fn parameters(&self) -> &RepositoryParameters {
        &self.inner.parameters
    }

    /// The sink it is on.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.inner.store.sink
    }

    /// Its protection.
    pub fn protection(&self) -> &Arc<dyn Protection> {
        &self.inner.store.protection
    }

    /// All snapshots, the oldest first. One that cannot be read is an error that names its object.
    pub async fn snapshots(&self, job: &JobContext) -> Result<Vec<SnapshotInfo>> {
        guard::run(job, async move {
            let (snapshots, failures) = self.load_snapshots(job).await?;
            match failures.into_iter().next() {
                None => Ok(snapshots),
                Some((_, error)) => Err(error),
            }
        })
        .await
    }

    /// The snapshots that can be read, the oldest first, and the objects that cannot, with the reason.
    pub async fn snapshots_and_damage(
        &self,
        job: &JobContext,
    ) -> Result<(Vec<SnapshotInfo>, Vec<(ObjectKey, Error)>)> {
        guard::run(job, async move { self.load_snapshots(job).await }).await
    }

    /// Opens a snapshot for reading.
    pub async fn snapshot(&self, id: SnapshotId, job: &JobContext) -> Result<Snapshot> {
        guard::run(job, async move {
            let document = self.snapshot_document(id, job).await?;
            Ok(Snapshot::new(self.clone(), document))
        })
        .await
    }

    /// Stores a set. Its snapshots must be stored already.
    pub async fn create_set(&self, set: &SnapshotSet, job: &JobContext) -> Result<()> {
        guard::run(job, async move {
            self.control_for_writing().await?;
            for component in &set.components {
                if let Some(id) = component.snapshot {
                    self.snapshot_document(id, job).await?;
                }
            }
            self.store()
                .put_document(&keys::set(set.id)?, ObjectType::Set, set, &PutCounters::default(), job)
                .await
        })
        .await
    }

    /// All sets, the oldest first.
    pub async fn sets(&self, job: &JobContext) -> Result<Vec<SnapshotSet>> {
        guard::run(job, async move {
            let mut sets = Vec::new();
            for meta in self.store().sink.list_all(keys::SETS).await? {
                let set: SnapshotSet = self
                    .store()
                    .get_document(&meta.key, ObjectType::Set, limits::SNAPSHOT_BYTES_MAX, job)
                    .await?;
                if keys::id_of(&meta.key)? != set.id {
                    return Err(
                        Error::corruption("holds another set than its name says").with_object(&meta.key)
                    );
                }
                sets.push(set);
            }
            sets.sort_by_key(|set| (set.time, set.id));
            Ok(sets)
        })
        .await
    }

    // A snapshot reads from the repository that it came from, whichever handle it is given to.
    pub(crate) fn check_own(&self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.repository().id() == self.id() {
            return Ok(());
        }
        let message = format!(
            "the snapshot {} is of the repository {}, not of {}",
            snapshot.info().id,
            snapshot.repository().id(),
            self.id()
        );
        Err(Error::invalid_input(message))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn chunker(&self) -> Result<Chunker> {
        Chunker::new(&self.store().protection.chunker_key()?, self.parameters().chunker)
    }

    /// A view for reading: the index as it is listed now.
    pub(crate) async fn view(&self, job: &JobContext) -> Result<Reader> {
        let index = self.refresh_index(job).await?;
        Ok(self.reader(index))
    }

    /// A view that also knows the packs that no segment names: for when the index is incomplete.
    pub(crate) async fn full_view(&self, job: &JobContext) -> Result<Reader> {
        let index = self.refresh_index(job).await?;
        // Also after an earlier look: meanwhile another session may have been interrupted.
        *self.inner.index.lock().await = None;
        let (scanned, lost) = Index::scan(index, self.store(), job).await?;
        for (key, reason) in lost {
            tracing::warn!(%key, reason, "a pack cannot be read");
        }
        *self.inner.index.lock().await = Some(scanned.clone());
        Ok(self.reader(scanned))
    }

    /// The view of a writer: it also knows what interrupted sessions left behind.
    pub(crate) async fn view_for_writing(&self, job: &JobContext) -> Result<Reader> {
        let fenced = self.held_fences().len();
        // What a writer builds upon must be committed: it looks at every outcome, not only at their names.
        self.load_snapshots(job).await?;
        if self.held_fences().len() != fenced {
            *self.inner.index.lock().await = None;
        }
        let control = self.control_for_writing().await?;
        let outcomes = self.committed_sessions(job).await?;
        let unfinished = control.iter().filter_map(|meta| {
            let name = meta.key.as_str().strip_prefix(keys::SESSIONS)?.strip_suffix("/open")?;
            name.parse::<SnapshotId>().ok().filter(|id| !outcomes.contains(id))
        });
        // This writer's own session is always among them.
        if unfinished.count() > 1 { self.full_view(job).await } else { self.view(job).await }
    }

    /// What stands under `control/`, for a writer: it stops where a collection was begun, because it does not know what
    /// may have been condemned.
    pub(crate) async fn control_for_writing(&self) -> Result<Vec<crate::ObjectMeta>> {
        let control = self.store().sink.list_all(keys::CONTROL).await?;
        match control.iter().find(|meta| meta.key.as_str().starts_with(keys::COLLECTIONS)) {
            None => Ok(control),
            Some(collection) => {
                let message = "a collection was begun in this repository, and this version cannot write beside collections; \
                               use the version that began it";
                Err(Error::new(ErrorKind::Unsupported, message).with_object(&collection.key))
            }
        }
    }

    pub(crate) fn reader(&self, index: Arc<Index>) -> Reader {
        Reader { store: self.store().clone(), index, cache: self.inner.cache.clone() }
    }

    /// Lets go of an index that is large, for who is about to load one of its own. It is loaded again when it is needed.
    pub(crate) async fn release_large_index(&self) {
        let mut held = self.inner.index.lock().await;
        if held.as_ref().is_some_and(|index| index.is_spilled()) {
            *held = None;
        }
    }

    async fn refresh_index(&self, job: &JobContext) -> Result<Arc<Index>> {
        let mut held = self.inner.index.lock().await;
        let listed: Vec<_> = self.store().sink.list_all(keys::INDEX).await?;
        if let Some(index) = &*held {
            let unreadable = index.unreadable.len();
            let same = index.segments.len().saturating_add(unreadable) == listed.len()
                && listed.iter().all(|meta| {
                    index.segments.contains(&meta.key)
                        || index.unreadable.iter().any(|(key, _)| *key == meta.key)
                });
            if same {
                return Ok(index.clone());
            }
        }
        let committed = self.committed_sessions(job).await?;
        // Two of them side by side would need twice the memory.
        *held = None;
        let index = Arc::new(Index::load(self.store(), &committed, job).await?);
        for (key, reason) in &index.unreadable {
            tracing::warn!(%key, reason, "an index segment cannot be read; packs say the same");
        }
        let index =
            if index.unreadable.is_empty() { index } else { Index::scan(index, self.store(), job).await?.0 };
        *held = Some(index.clone());
        Ok(index)
    }

    /// The sessions that have committed, as far as is known: by a snapshot, or by a decision where they make none. Those
    /// known to be fenced are not among them.
    pub(crate) async fn committed_sessions(&self, job: &JobContext) -> Result<HashSet<SnapshotId>> {
        let mut committed: HashSet<_> = self.list_snapshot_ids(job).await?.into_keys().collect();
        for meta in self.store().sink.list_all(keys::SESSIONS).await? {
            let name = meta
                .key
                .as_str()
                .strip_prefix(keys::SESSIONS)
                .and_then(|rest| rest.strip_suffix("/decision"));
            committed.extend(name.and_then(|name| name.parse::<SnapshotId>().ok()));
        }
        let fenced = self.held_fences();
        committed.retain(|id| !fenced.contains(id));
        Ok(committed)
    }

    pub(crate) async fn list_snapshot_ids(
        &self,
        job: &JobContext,
    ) -> Result<BTreeMap<SnapshotId, crate::ObjectMeta>> {
        job.check()?;
        let listed = self.store().sink.list_all(keys::SNAPSHOTS).await?;
        Ok(listed.into_iter().filter_map(|meta| Some((keys::id_of(&meta.key).ok()?, meta))).collect())
    }

    pub(crate) async fn readable_snapshots(&self, job: &JobContext) -> Result<Vec<SnapshotInfo>> {
        let (snapshots, failures) = self.load_snapshots(job).await?;
        for (key, error) in failures {
            tracing::warn!(%key, %error, "a snapshot cannot be read");
        }
        Ok(snapshots)
    }

    async fn load_snapshots(&self, job: &JobContext) -> Result<(Vec<SnapshotInfo>, Vec<(ObjectKey, Error)>)> {
        let listed = self.store().sink.list_all(keys::SNAPSHOTS).await?;
        let requests = job.resources().requests();
        let mut reads = stream::iter(listed.into_iter().map(|meta| async move {
            let document = match keys::id_of(&meta.key) {
                Ok(id) => self.snapshot_document(id, job).await,
                Err(error) => Err(error),
            };
            (meta, document)
        }))
        .buffer_unordered(requests);
        let mut snapshots = Vec::new();
        let mut failures = Vec::new();
        while let Some((meta, document)) = reads.next().await {
            match document {
                Ok(document) => {
                    let mut info = document.info.clone();
                    info.stored = meta.created;
                    snapshots.push(info);
                }
                Err(error)
                    if error.is_corruption()
                        || matches!(
                            error.kind(),
                            // The last two also come of a damaged header, or of bytes that were added.
                            ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::LimitExceeded
                        ) =>
                {
                    failures.push((meta.key, error))
                }
                // Fenced, or deleted since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by_key(|info| (info.time, info.id));
        failures.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok((snapshots, failures))
    }

    pub(crate) async fn snapshot_document(
        &self,
        id: SnapshotId,
        job: &JobContext,
    ) -> Result<Arc<SnapshotDocument>> {
        let cached =
            self.inner.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&id).cloned();
        if let Some(document) = cached {
            return Ok(document);
        }
        let key = keys::snapshot(id)?;
        if self.held_fences().contains(&id) {
            return Err(fenced(&key));
        }
        let document = match self.read_outcome(&key, id, job).await? {
            SessionOutcome::Snapshot(document) => Arc::new(*document),
            SessionOutcome::Fence(_) => {
                self.held_fences().insert(id);
                return Err(fenced(&key));
            }
        };
        let mut held = self.inner.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if held.len() < SNAPSHOTS_CACHED_MAX {
            held.insert(id, document.clone());
        }
        Ok(document)
    }

    /// The outcome of a session, from the store and not from memory.
    pub(crate) async fn read_outcome(
        &self,
        key: &ObjectKey,
        id: SnapshotId,
        job: &JobContext,
    ) -> Result<SessionOutcome> {
        let store = self.store();
        let bytes = store.get_whole(key, limits::SNAPSHOT_BYTES_MAX, job).await?;
        let outcome = document::open_outcome(&*store.protection, &bytes).map_err(|e| e.with_object(key))?;
        let (said, repository) = match &outcome {
            SessionOutcome::Snapshot(document) => (document.info.id, document.repository),
            SessionOutcome::Fence(fence) => (fence.session, fence.repository),
        };
        if said != id || repository != self.id() {
            return Err(
                Error::corruption("holds another session's outcome than its name says").with_object(key)
            );
        }
        Ok(outcome)
    }

    fn held_fences(&self) -> std::sync::MutexGuard<'_, HashSet<SnapshotId>> {
        self.inner.fenced.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn fenced(key: &ObjectKey) -> Error {
    let message = "is no snapshot: its session stopped, was shut out, and began anew under another name";
    Error::new(ErrorKind::NotFound, message).with_object(key)
}

fn no_repository(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        Error::new(ErrorKind::NotFound, "there is no repository here; create one first")
    } else {
        error
    }
}
