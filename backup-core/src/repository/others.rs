//! Where to ask for what cannot be read where the index says: in packs that no segment names, and in other places of the
//! same repository.

use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell};

use super::Repository;
use super::frames::read_chunk;
use super::index::Index;
use super::reader::Reader;
use crate::format::document::SnapshotDocument;
use crate::{ChunkId, Error, JobContext, Result, SnapshotId};

/// Asked when the first thing is missing, and not before: listing packs and reading other indexes takes time.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// This place, whose packs may hold what no segment names.
    own: Option<Repository>,
    /// Places that hold the same repository.
    places: Arc<[Repository]>,
    looked: Mutex<Looked>,
    readers: OnceCell<Vec<Reader>>,
}

/// What later looks at this place found.
#[derive(Debug, Default)]
struct Looked {
    /// What is there now, if it is more than was known.
    reader: Option<Reader>,
    /// Looks that found nothing more.
    fruitless: u32,
}

/// Looks in vain, after which what is missing counts as missing.
const FRUITLESS_MAX: u32 = 3;

impl Others {
    pub(super) fn new(own: Option<Repository>, places: Arc<[Repository]>) -> Self {
        Self { own, places, looked: Mutex::default(), readers: OnceCell::new() }
    }

    /// Whether there is anybody to ask for what is damaged or missing.
    pub(crate) fn are_there(&self) -> bool {
        self.own.is_some() || !self.places.is_empty()
    }

    /// Whether there is anybody to ask while this place does not answer.
    pub(crate) fn are_elsewhere(&self) -> bool {
        !self.places.is_empty()
    }

    /// Readers of the other places that answer.
    pub(super) async fn readers(&self, job: &JobContext) -> Result<&[Reader]> {
        let readers = self.readers.get_or_try_init(|| async {
            let mut readers = Vec::with_capacity(self.places.len());
            for place in self.places.iter() {
                match place.own_view(job).await {
                    Ok(reader) => readers.push(reader),
                    Err(error) if error.is_cancelled() => return Err(error),
                    Err(error) => tracing::warn!(%error, "another place cannot be read, either"),
                }
            }
            Ok(readers)
        });
        readers.await.map(Vec::as_slice)
    }

    /// The chunk from where this place has it now: in a pack that no segment names, or one into which it was written anew since the index
    /// `known` was read. None where there is nothing new.
    async fn own_chunk(
        &self,
        id: &ChunkId,
        len: u32,
        known: &Arc<Index>,
        job: &JobContext,
    ) -> Result<Option<Vec<u8>>> {
        let Some(own) = &self.own else { return Ok(None) };
        loop {
            let current = self.looked.lock().await.reader.clone();
            if let Some(Reader { store, index, cache, .. }) = &current {
                match read_chunk(store, index, cache, id, len, job).await {
                    Err(error) if error.is_corruption() => {}
                    read => return read.map(Some),
                }
            }
            let mut looked = self.looked.lock().await;
            let index_of = |reader: &Option<Reader>| reader.as_ref().map(|reader| Arc::as_ptr(&reader.index));
            if index_of(&looked.reader) != index_of(&current) {
                // Somebody else has looked meanwhile.
                continue;
            }
            if looked.fruitless >= FRUITLESS_MAX {
                return Ok(None);
            }
            let index = own.refresh_index(job).await?;
            let was = current.as_ref().map_or(known, |reader| &reader.index);
            let mut is_new = !Arc::ptr_eq(&index, was);
            let index = own.scanned(index, job).await?;
            // Packs that no segment names are news once.
            is_new |= current.is_none() && index.has_orphans();
            if !is_new {
                looked.fruitless = looked.fruitless.saturating_add(1);
                return Ok(None);
            }
            looked.reader = Some(own.reader(index));
        }
    }

    /// The chunk from wherever it is; `failure` is why it is needed, and what is said where nobody has it. `known` is the index that
    /// was asked.
    pub(crate) async fn chunk(
        &self,
        id: &ChunkId,
        len: u32,
        known: &Arc<Index>,
        failure: Error,
        job: &JobContext,
    ) -> Result<Vec<u8>> {
        if failure.is_cancelled() {
            return Err(failure);
        }
        if failure.is_corruption() {
            let read = self.own_chunk(id, len, known, job).await;
            match read {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                Err(error) if error.is_corruption() => {}
                // This place does not answer; others may.
                Err(error) if self.are_elsewhere() && !error.is_cancelled() => {
                    tracing::debug!(%error, "packs that no segment names cannot be looked at");
                }
                Err(error) => return Err(error),
            }
        }
        if self.places.is_empty() {
            return Err(failure);
        }
        for Reader { store, index, cache, .. } in self.readers(job).await? {
            match read_chunk(store, index, cache, id, len, job).await {
                Ok(bytes) => {
                    tracing::debug!(chunk = %id, error = %failure, "a chunk was read from another place");
                    return Ok(bytes);
                }
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => tracing::debug!(%error, "another place does not have it, either"),
            }
        }
        Err(failure)
    }
}

impl Repository {
    /// The same repository, which reads what is missing or damaged here, or cannot be read for now, from these other places of
    /// it. What is written goes here alone, and verification, repair and collection look here alone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where one of them is another repository.
    pub fn with_others(&self, places: impl IntoIterator<Item = Repository>) -> Result<Self> {
        let places: Vec<Repository> = places.into_iter().collect();
        places.iter().try_for_each(|place| self.check_place(place))?;
        Ok(Self { inner: self.inner.clone(), others: places.into() })
    }

    /// The same without the other places: for what must rely upon nothing but what is here.
    pub(super) fn alone(&self) -> Self {
        Self { inner: self.inner.clone(), others: Arc::default() }
    }

    /// Another place must hold the same repository.
    pub(super) fn check_place(&self, place: &Repository) -> Result<()> {
        if place.id() == self.id() {
            return Ok(());
        }
        let message = format!(
            "another place of the repository {} must hold the same one, not {}; a copy has keys and names of its own",
            self.id(),
            place.id()
        );
        Err(Error::invalid_input(message))
    }

    /// A snapshot's document from another place; `failure` is why it is needed, and what is said where none has it.
    pub(super) async fn document_from_others(
        &self,
        id: SnapshotId,
        failure: Error,
        job: &JobContext,
    ) -> Result<Arc<SnapshotDocument>> {
        if failure.is_cancelled() {
            return Err(failure);
        }
        for place in self.others.iter() {
            match place.snapshot_document(id, job).await {
                Ok(document) => return Ok(document),
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => tracing::debug!(%error, "another place does not have it, either"),
            }
        }
        Err(failure)
    }
}
