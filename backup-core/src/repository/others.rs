//! Where to ask for what cannot be read where the index says: in packs that no segment names, and in other places of the
//! same repository.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Repository;
use super::frames::read_chunk;
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
    own_reader: OnceCell<Option<Reader>>,
    readers: OnceCell<Vec<Reader>>,
}

impl Others {
    pub(super) fn new(own: Option<Repository>, places: Arc<[Repository]>) -> Self {
        Self { own, places, own_reader: OnceCell::new(), readers: OnceCell::new() }
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

    /// A reader that knows this place's packs that no segment names; none where there are none.
    async fn own_reader(&self, known: u32, job: &JobContext) -> Result<Option<&Reader>> {
        let Some(own) = &self.own else { return Ok(None) };
        let reader = self.own_reader.get_or_try_init(|| async {
            let reader = own.scanned_view(job).await?;
            Ok::<_, Error>(
                (reader.index.pack_count() > known || reader.index.has_orphans()).then_some(reader),
            )
        });
        reader.await.map(Option::as_ref)
    }

    /// The chunk from wherever it is; `failure` is why it is needed, and what is said where nobody has it. `known` are the packs
    /// that were asked.
    pub(crate) async fn chunk(
        &self,
        id: &ChunkId,
        len: u32,
        known: u32,
        failure: Error,
        job: &JobContext,
    ) -> Result<Vec<u8>> {
        if failure.is_cancelled() {
            return Err(failure);
        }
        if failure.is_corruption() {
            let read = match self.own_reader(known, job).await {
                Ok(Some(Reader { store, index, cache, .. })) => {
                    read_chunk(store, index, cache, id, len, job).await.map(Some)
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
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
