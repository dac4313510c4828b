//! Packs that no segment names: they are found by listing, and their directories say what they hold.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use super::build::IndexBuilder;
use super::{Index, is_damage, not_ours};
use crate::format::directory::Directory;
use crate::format::object::{ObjectHeader, ObjectOpener, Trailer};
use crate::format::segment::{IndexRow, PackRecord};
use crate::repository::listing::Listing;
use crate::repository::store::Store;
use crate::repository::{guard, keys};
use crate::transform::ObjectType;
use crate::{Error, GetRange, JobContext, ObjectKey, ObjectMeta, Result, limits};

/// Bytes fetched from the end of a pack to read its directory in one request, where it fits.
const DIRECTORY_GUESS_BYTES: u64 = 64 * 1024;

/// An index that is copied and opened for additions only if there are any.
enum Growing {
    Shared(Arc<Index>),
    Own(Box<IndexBuilder>),
}

impl Growing {
    fn number_of(&self, digest: &[u8; 32]) -> Result<Option<u32>> {
        match self {
            Self::Shared(index) => index.number_of(digest),
            Self::Own(builder) => builder.number_of(digest),
        }
    }

    fn add(self, record: PackRecord, directory: &Directory, job: &JobContext) -> Result<Self> {
        let mut builder = match self {
            Self::Own(builder) => builder,
            Self::Shared(index) => Box::new(IndexBuilder::extend(index, job.resources())?),
        };
        let header_len = record.header.len() as u64;
        let number = builder.push_pack(record, false, true)?;
        rows_of(number, header_len, directory).into_iter().try_for_each(|row| builder.push_row(row))?;
        Ok(Self::Own(builder))
    }
}

impl Index {
    /// The same index with the packs that no segment names. Packs that cannot be read are returned beside it.
    pub(crate) async fn scan(
        index: Arc<Self>,
        store: &Store,
        job: &JobContext,
    ) -> Result<(Arc<Self>, Vec<(ObjectKey, String)>)> {
        let mut growing = Growing::Shared(index);
        let mut lost = Vec::new();
        for (prefix, object_type) in [(keys::META, ObjectType::Meta), (keys::DATA, ObjectType::Data)] {
            let mut listing = Listing::new(&*store.sink, prefix);
            while let Some(page) = listing.next().await? {
                let mut unknown = Vec::new();
                for meta in page {
                    match keys::digest_of(&meta.key) {
                        Ok(digest) if growing.number_of(&digest)?.is_some() => {}
                        Ok(digest) => unknown.push((digest, meta)),
                        Err(error) => lost.push((meta.key, error.to_string())),
                    }
                }
                let reads = unknown.into_iter().map(|(digest, meta)| async move {
                    let key = meta.key.clone();
                    (key, read_directory(store, object_type, digest, meta, job).await)
                });
                let mut reads = stream::iter(reads).buffered(job.resources().requests());
                while let Some((key, read)) = reads.next().await {
                    match read {
                        Ok((record, directory)) => {
                            let job = job.clone();
                            growing = guard::blocking(move || growing.add(record, &directory, &job)).await?;
                        }
                        Err(error) if !is_damage(&error) => return Err(error),
                        Err(error) => lost.push((key, error.to_string())),
                    }
                }
            }
        }
        let index = match growing {
            Growing::Shared(index) => index,
            Growing::Own(builder) => Arc::new(guard::blocking(move || builder.finish()).await?),
        };
        Ok((index, lost))
    }
}

/// The rows of a pack's chunks.
pub(crate) fn rows_of(pack: u32, header_len: u64, directory: &Directory) -> Vec<IndexRow> {
    let mut rows = Vec::with_capacity(directory.chunks.len());
    for frame in directory.iter(header_len) {
        let mut offset = 0_u32;
        for chunk in frame.chunks {
            rows.push(IndexRow { id: chunk.id, pack, frame: frame.ordinal, offset, len: chunk.len });
            offset = offset.saturating_add(chunk.len);
        }
    }
    rows
}

/// The header and directory of a pack, without its content.
pub(crate) async fn read_directory(
    store: &Store,
    object_type: ObjectType,
    digest: [u8; 32],
    meta: ObjectMeta,
    job: &JobContext,
) -> Result<(PackRecord, Directory)> {
    let front = meta.len.min(crate::format::object::HEADER_BYTES_MAX as u64);
    let front = store.get(&meta.key, GetRange::Bounded(0..front), job).await?.bytes;
    let (_, header_len) = ObjectHeader::decode(&front).map_err(|e| e.with_object(&meta.key))?;
    let header = front.get(..header_len).unwrap_or_default().to_vec();
    let opener = ObjectOpener::new(&*store.protection, &store.transforms, object_type, &header)
        .map_err(|e| not_ours(e).with_object(&meta.key))?;
    let mut tail = store.get(&meta.key, GetRange::Suffix(DIRECTORY_GUESS_BYTES), job).await?;
    let needed = Trailer::decode(&tail.bytes).map_err(|e| e.with_object(&meta.key))?.tail_len();
    if needed > tail.bytes.len() as u64 {
        if needed > limits::OBJECT_BYTES_MAX as u64 {
            return Err(Error::corruption("the directory claims to exceed the limits").with_object(&meta.key));
        }
        tail = store.get(&meta.key, GetRange::Suffix(needed), job).await?;
    }
    let directory =
        opener.open_directory(&tail.bytes, tail.object_len).map_err(|e| e.with_object(&meta.key))?;
    let record = PackRecord {
        digest,
        object_type,
        object_len: tail.object_len,
        header,
        frames: directory.frames.clone(),
    };
    Ok((record, directory))
}
