//! Taking a number, and settling the collections before.

use super::CollectOptions;
use crate::format::control::{
    CollectionDocument, CondemnedDocument, DecisionDocument, Names, Packed, Verdict,
};
use crate::repository::control::Control;
use crate::repository::keys::ControlKey;
use crate::repository::store::PutCounters;
use crate::repository::{Repository, keys};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, Result, SinkExt, SnapshotId, Timestamp};

/// Collectors that may be quicker, one after the other.
const NUMBERS_TRIED_MAX: usize = 100;

/// A collection whose number is taken, or one that is continued.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    /// When the store had something that was put a moment ago, where it says so.
    pub(super) now: Option<Timestamp>,
    /// What it condemned, if it is continued.
    pub(super) condemned: Option<CondemnedDocument>,
}

impl Repository {
    /// All that stands under `control/`, read.
    pub(in crate::repository) async fn listed_control(&self, job: &JobContext) -> Result<Control> {
        self.read_control(&self.store().sink.list_all(keys::CONTROL).await?, job).await
    }

    /// Takes the next number and settles every collection before it; or continues the last one, if that has condemned and not
    /// decided.
    pub(super) async fn begin_collection(
        &self,
        options: &CollectOptions,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Begun> {
        for _ in 0..NUMBERS_TRIED_MAX {
            let control = self.listed_control(job).await?;
            let last = control.listing.collections.keys().next_back().copied();
            let undecided = last.filter(|number| {
                let collection = control.collections.get(number);
                collection.is_some_and(|c| c.condemned.is_some() && c.decision.is_none())
            });
            let next = last.map_or(0, |last| last.saturating_add(1)).max(control.finished());
            let number = undecided.unwrap_or(next);
            let document = CollectionDocument {
                collection: number,
                collector: SnapshotId::random(&**job.random())?,
                opened: job.now(),
                host: options.host.clone(),
            };
            if undecided.is_none() {
                let key = ControlKey::CollectionOpen(number).key()?;
                let taken =
                    self.store().put_document(&key, ObjectType::Collection, &document, put, job).await;
                match taken {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                    Err(error) => return Err(error),
                }
            }
            // What is listed from here on knows the number.
            let listed = self.store().sink.list_all(keys::CONTROL).await?;
            let key = ControlKey::CollectionOpen(number).key()?;
            let now = listed.iter().find(|meta| meta.key == key).and_then(|meta| meta.created);
            let control = self.read_control(&listed, job).await?;
            if control.finished() > number {
                // The number was used, and forgotten.
                continue;
            }
            let mut settled = true;
            for earlier in control.finished()..number {
                let decided = control.collections.get(&earlier).is_some_and(|c| c.decision.is_some());
                if !decided {
                    settled &= self.abandon(earlier, put, job).await?;
                }
            }
            let condemned = match undecided {
                None => None,
                // A continued one needs a time of now, and not of when it was begun.
                Some(_) => control.collections.get(&number).and_then(|c| c.condemned.clone()),
            };
            let now = if undecided.is_some() { self.now_of_store(put, job).await? } else { now };
            tracing::debug!(number, settled, continued = condemned.is_some(), "a collection");
            return Ok(Begun { number, now, condemned });
        }
        Err(Error::new(ErrorKind::Transient, "other collectors were quicker each time; try again later"))
    }

    /// When the store has what is put now, by its clock: a session that is withdrawn at once.
    pub(in crate::repository) async fn now_of_store(
        &self,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<Option<Timestamp>> {
        let store = self.store();
        let session = super::super::session::Session::open(store, "clock", false, "", put, job).await?;
        let key = ControlKey::SessionOpen(session.id()).key()?;
        let listed = store.sink.list_all(key.as_str()).await;
        session.withdraw(store).await;
        Ok(listed?.into_iter().find(|meta| meta.key == key).and_then(|meta| meta.created))
    }

    /// Decides that a collection deletes nothing, unless it is decided. Returns whether that is what stands there now.
    pub(super) async fn abandon(&self, number: u64, put: &PutCounters, job: &JobContext) -> Result<bool> {
        let document = DecisionDocument {
            collection: number,
            decision: Verdict::Abandoned,
            parts: Packed::default(),
            rescued: Names::default(),
            time: job.now(),
        };
        let key = ControlKey::CollectionDecision(number).key()?;
        match self.store().put_document(&key, ObjectType::Collection, &document, put, job).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}
