//! Sessions: a writer registers before it lists anything, gives signs of life, and decides by one create.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::control::ControlListing;
use super::keys::{self, ControlKey};
use super::store::PutCounters;
use super::{Repository, Store, process};
use crate::format::control::BeatDocument;
use crate::format::document::{self, FenceDocument, SessionDocument, SessionOutcome};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectKey, Result, SinkExt, SnapshotId, Timestamp, limits};

/// How often a session gives a sign of life.
const BEAT_EVERY: Duration = Duration::from_secs(limits::SESSION_BEAT_SECONDS as u64);
/// Files of others' decided sessions that one session deletes in passing.
const TIDIED_MAX: usize = 64;
const TIDIED_AT_ONCE: usize = 16;

/// A registered writer.
#[derive(Debug)]
pub(crate) struct Session {
    id: SnapshotId,
    document: SessionDocument,
    beats: AtomicU64,
    /// The first sign of life of this process's own, where somebody else registered it.
    taken_over: Option<u64>,
}

/// What came of a session's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Committed,
    /// Somebody had shut it out. What it stored serves whoever begins anew.
    Fenced,
}

impl Session {
    /// Registers a writer. Nothing that it relies upon may have been listed before.
    pub(crate) async fn open(
        store: &Store,
        purpose: &str,
        makes_snapshot: bool,
        host: &str,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Self> {
        let id = SnapshotId::random(&**job.random())?;
        Self::register(store, id, (purpose, makes_snapshot, host), put, job).await
    }

    /// Registers a writer whose outcome is to have this identity. Fails with [`ErrorKind::AlreadyExists`] where it is
    /// registered.
    pub(crate) async fn register(
        store: &Store,
        id: SnapshotId,
        (purpose, makes_snapshot, host): (&str, bool, &str),
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Self> {
        let document = SessionDocument {
            session: id,
            opened: job.now(),
            host: host.to_owned(),
            purpose: purpose.to_owned(),
            makes_snapshot,
            process: process::registration(),
        };
        document.process.iter().for_each(|registration| process::begin(registration));
        let session = Self { id, document, beats: AtomicU64::new(0), taken_over: None };
        let key = ControlKey::SessionOpen(id).key()?;
        store.put_document(&key, ObjectType::Session, &session.document, put, job).await?;
        Ok(session)
    }

    /// Goes on with the session of a process that is known to be gone: what it registered holds up collectors still, so that
    /// whatever is listed from here on may be relied upon. None where it may be at work.
    pub(crate) async fn take_over(
        store: &Store,
        id: SnapshotId,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Option<Self>> {
        let key = ControlKey::SessionOpen(id).key()?;
        let max = limits::CONTROL_BYTES_MAX;
        let document: SessionDocument = store.get_document(&key, ObjectType::Session, max, job).await?;
        if !document.process.as_ref().is_some_and(|process| process::is_gone(process)) {
            return Ok(None);
        }
        let prefix = key.as_str().strip_suffix("open").unwrap_or_default();
        let listing = ControlListing::of(&store.sink.list_all(prefix).await?);
        let last = listing.sessions.get(&id).and_then(|session| session.beats.last().copied());
        document.process.iter().for_each(|registration| process::begin(registration));
        let first = last.map_or(0, |last| last.saturating_add(1));
        let session = Self { id, document, beats: AtomicU64::new(first), taken_over: Some(first) };
        session.beat(store, put, job).await?;
        Ok(Some(session))
    }

    pub(crate) fn id(&self) -> SnapshotId {
        self.id
    }

    /// Whether another process, which is gone, registered it.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.taken_over.is_some()
    }

    /// Does some work of the session, with signs of life as long as it takes.
    pub(crate) async fn alive<T>(
        &self,
        store: &Store,
        put: &PutCounters,
        job: &JobContext,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let beating = async {
            loop {
                tokio::time::sleep(BEAT_EVERY).await;
                // Without it the session may be shut out, no more.
                if let Err(error) = self.beat(store, put, job).await {
                    tracing::warn!(%error, session = %self.id, "a sign of life could not be put");
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = beating => Err(Error::internal("signs of life ended")),
        }
    }

    async fn beat(&self, store: &Store, put: &PutCounters, job: &JobContext) -> Result<()> {
        let number = self.beats.fetch_add(1, Ordering::Relaxed);
        let key = ControlKey::SessionBeat(self.id, number).key()?;
        let document = BeatDocument { session: self.id, number };
        store.put_document(&key, ObjectType::Session, &document, put, job).await
    }

    /// The outcome of a session that makes a snapshot.
    pub(crate) async fn commit<T: Serialize + Sync>(
        &self,
        repository: &Repository,
        snapshot: &T,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Decided> {
        let store = repository.store();
        let bytes = document::seal(&*store.protection, ObjectType::Snapshot, Store::salt(job)?, snapshot)?;
        self.commit_object(repository, bytes, put, job).await
    }

    /// The same of a snapshot whose object is there already, to be put byte for byte.
    pub(crate) async fn commit_object(
        &self,
        repository: &Repository,
        object: Bytes,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Decided> {
        let key = keys::snapshot(self.id)?;
        match repository.store().put(&key, object, put, job).await {
            Ok(()) => Ok(Decided::Committed),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                match repository.read_outcome(&key, self.id, job).await? {
                    SessionOutcome::Fence(_) => Ok(Decided::Fenced),
                    SessionOutcome::Snapshot(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The outcome of a session that makes none.
    pub(crate) async fn decide(
        &self,
        repository: &Repository,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Decided> {
        let store = repository.store();
        let key = ControlKey::SessionDecision(self.id).key()?;
        match store.put_document(&key, ObjectType::Session, &self.document, put, job).await {
            Ok(()) => Ok(Decided::Committed),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let bytes = store.get_whole(&key, limits::CONTROL_BYTES_MAX, job).await?;
                let opened = crate::format::document::open_decision(&*store.protection, &bytes);
                match opened.map_err(|e| e.with_object(&key))? {
                    (session, false) if session == self.id => Ok(Decided::Fenced),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back the registration of a session that stored nothing else and did not try to commit. Of one that was taken over
    /// these are only its own signs of life, which each attempt would leave behind.
    pub(crate) async fn withdraw(&self, store: &Store) {
        let open = self.taken_over.is_none().then_some(ControlKey::SessionOpen(self.id));
        let own = self.taken_over.unwrap_or(0)..self.beats.load(Ordering::Relaxed);
        let beats = own.map(|number| ControlKey::SessionBeat(self.id, number));
        let names: Vec<ControlKey> = open.into_iter().chain(beats).collect();
        for name in names {
            delete(store, name).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.document.process.iter().for_each(|registration| process::end(registration));
    }
}

impl Repository {
    /// Whether the process that opened a session is known to be gone.
    pub(crate) async fn is_abandoned(&self, id: SnapshotId, job: &JobContext) -> Result<bool> {
        let key = ControlKey::SessionOpen(id).key()?;
        let max = limits::CONTROL_BYTES_MAX;
        match self.store().get_document(&key, ObjectType::Session, max, job).await {
            Ok(SessionDocument { process: Some(process), .. }) => Ok(process::is_gone(&process)),
            Ok(_) => Ok(false),
            Err(error) if error.is_corruption() || error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether no sign of life has come for so long, by the store's clock, that a session may be shut out. `now` is when the
    /// store had something that was put a moment ago; without its times no session ever seems to have stopped.
    pub(crate) fn has_stopped(last_sign: Option<Timestamp>, now: Option<Timestamp>) -> bool {
        let (Some(last), Some(now)) = (last_sign, now) else { return false };
        now > last.saturating_add_seconds(limits::SESSION_STOPPED_SECONDS)
    }

    /// Shuts a session out, unless it is decided.
    pub(crate) async fn fence(&self, id: SnapshotId, put: &PutCounters, job: &JobContext) -> Result<()> {
        let store = self.store();
        let open: Option<SessionDocument> = match store
            .get_document(
                &ControlKey::SessionOpen(id).key()?,
                ObjectType::Session,
                limits::CONTROL_BYTES_MAX,
                job,
            )
            .await
        {
            Ok(document) => Some(document),
            Err(error) if error.is_corruption() || error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let makes_snapshot = open.map(|document| document.makes_snapshot);
        let fence = FenceDocument { fence: true, session: id, repository: self.id(), time: job.now() };
        // Of which kind the session is nobody can tell where its registration is damaged: then at both places.
        let places: [(bool, ObjectKey, ObjectType); 2] = [
            (makes_snapshot != Some(false), keys::snapshot(id)?, ObjectType::Snapshot),
            (makes_snapshot != Some(true), ControlKey::SessionDecision(id).key()?, ObjectType::Session),
        ];
        for (_, key, object_type) in places.iter().filter(|(here, ..)| *here) {
            match store.put_document(key, *object_type, &fence, put, job).await {
                Ok(()) => tracing::info!(session = %id, "a session that had stopped was shut out"),
                // It is decided, or somebody else has done it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The registered sessions without an outcome, with the last sign of life of each. Sessions are listed before outcomes: what
    /// is decided meanwhile is decided.
    pub(crate) async fn undecided_sessions(
        &self,
        job: &JobContext,
    ) -> Result<Vec<(SnapshotId, Option<Timestamp>)>> {
        job.check()?;
        let sessions = ControlListing::of(&self.store().sink.list_all(keys::SESSIONS).await?).sessions;
        let outcomes = self.list_snapshot_ids(job).await?;
        let digests = self.store().sink.list_all(keys::DIGESTS).await?;
        let control = self.read_decisions(&digests, job).await?;
        let undecided = sessions.into_iter().filter(|(id, session)| {
            session.open && !session.decision && !outcomes.contains_key(id) && !control.is_digested(*id)
        });
        Ok(undecided.map(|(id, session)| (id, session.last_sign)).collect())
    }

    /// Deletes what decided sessions among these leave behind, a little of it: nobody waits for them any more.
    pub(crate) async fn tidy_sessions(&self, decided: &[SnapshotId], listing: &ControlListing) {
        let names = decided.iter().flat_map(|id| {
            let session = listing.sessions.get(id);
            session.into_iter().flat_map(|session| files_of(*id, session.open, &session.beats))
        });
        let names: Vec<ControlKey> = names.take(TIDIED_MAX).collect();
        let deletes = stream::iter(names);
        deletes.for_each_concurrent(TIDIED_AT_ONCE, |name| delete(self.store(), name)).await;
    }
}

/// The files of a session but for its outcome: signs of life first, so that none is left without its session.
pub(crate) fn files_of(
    id: SnapshotId,
    open: bool,
    beats: &std::collections::BTreeSet<u64>,
) -> impl Iterator<Item = ControlKey> {
    let beats = beats.iter().map(move |number| ControlKey::SessionBeat(id, *number));
    beats.chain(open.then_some(ControlKey::SessionOpen(id)))
}

/// Deletes what nobody needs; that it stays does no harm.
async fn delete(store: &Store, name: ControlKey) {
    let deleted = match name.key() {
        Ok(key) => store.sink.delete(&key).await,
        Err(error) => Err(error),
    };
    if let Err(error) = deleted {
        tracing::debug!(%error, ?name, "a file of a session stays");
    }
}
