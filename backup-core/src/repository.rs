//! The engine: one deduplicating, compressing, encrypting repository on a sink.
//!
//! [`Repository`] is the handle; [`Repository::backup`] makes a snapshot, [`Repository::restore`] writes one to a target,
//! [`Snapshot`] reads one. In the sources, read `backup.rs` and `restore.rs` first; the rest serves them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::chunker::{Chunker, ChunkerParameters};
use crate::format::document::{self, SnapshotDocument};
pub use crate::format::document::{RepositoryParameters, SetComponent, SnapshotSet};
pub use crate::format::entries::StoredEntry;
use crate::limits;
use crate::protection::{Protection, RepositoryId};
use crate::transform::{ObjectType, TransformSet};
use crate::{Error, ErrorKind, JobContext, PutOutcome, Result, Sink, SinkExt, SnapshotId};

mod anomalies;
mod backup;
mod collect;
mod compact;
mod content;
mod control;
mod copy;
mod diff;
mod entries;
mod evidence;
mod file;
mod forget;
mod frames;
mod guard;
mod health;
mod index;
mod keys;
mod known;
mod lane;
mod listing;
mod log;
mod merge;
mod observed;
mod others;
mod outcomes;
mod pieces;
mod places;
mod process;
mod reader;
mod repair;
mod replicate;
mod restore;
mod same;
mod scratch;
mod segment;
mod session;
mod sets;
mod snapshot;
mod source;
mod stats;
mod store;
mod thaw;
mod transfer;
mod tree;
mod tree_view;
mod verify;
mod views;
mod walk;

pub use backup::{BackupOptions, ParentChoice};
pub use collect::{CollectOptions, RepackOptions};
pub use diff::{Change, ChangeKind, DiffStream};
pub use entries::EntryStream;
pub use evidence::{Done, Evidence, Ledger};
pub use file::StoredFile;
pub use forget::ForgetOptions;
pub use health::HealthOptions;
pub use pieces::{Piece, PieceReader};
pub use places::{CaughtUp, Place, PlaceOptions, Places};
pub use replicate::ReplicateOptions;
pub use restore::{RestoreOptions, Selection};
pub use snapshot::Snapshot;
pub use source::SnapshotSource;
pub use thaw::ThawOptions;
pub use tree_view::{Children, SnapshotTree, TreeEntry};
pub use verify::{Slices, VerifyLevel, VerifyOptions, verify_keyless};

use control::DigestCache;
use frames::FrameCache;
use index::Index;
use store::Store;

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
    /// Other places of it, for what cannot be read in this one.
    others: Arc<[Repository]>,
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
    digests: DigestCache,
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
            let bytes =
                document::seal(&*store.protection, ObjectType::Config, Store::salt(job)?, &parameters)?;
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
            store.check_creates_once(&key, bytes).await?;
            let repository = Self::with(store, parameters);
            // The repository is there, with its reserve or without.
            if let Err(error) = repository.keep_reserve(job).await {
                tracing::warn!(%error, "no reserve is kept for a collection on a full disk");
            }
            Ok(repository)
        })
        .await
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
            let bytes = store.get_whole(&key, limits::CONTROL_BYTES_MAX, job).await;
            let bytes = bytes.map_err(|error| no_repository(error).with_object(&key))?;
            let parameters =
                document::open_config(&*store.protection, &bytes).map_err(|e| e.with_object(&key))?;
            if parameters.repository != store.protection.repository() {
                return Err(
                    Error::corruption("the parameters are those of another repository").with_object(&key)
                );
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
            digests: DigestCache::default(),
        };
        Self { inner: Arc::new(inner), others: Arc::default() }
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

    pub(crate) fn digest_cache(&self) -> &DigestCache {
        &self.inner.digests
    }

    pub(crate) fn chunker(&self) -> Result<Chunker> {
        Chunker::new(&self.store().protection.chunker_key()?, self.parameters().chunker)
    }
}

fn no_repository(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        Error::new(ErrorKind::NotFound, "there is no repository here; create one first")
    } else {
        error
    }
}
