//! Creating an object, and finding out who did.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backup_core::{Error, ErrorKind, ObjectKey, PutOutcome, Result, limits};
use bytes::Bytes;
use object_store::{Attribute, Attributes, ObjectStore, PutMode, PutOptions};

use super::mark::Marks;
use super::{ObjectStoreSink, error};
use crate::jitter::jitter;

/// The metadata that holds an object's mark. Letters only: Azure takes identifiers, and some proxies drop underscores.
const MARK: &str = "backupmark";
/// Conflicts without an object after which a put gives up.
const CONFLICTS_MAX: u32 = 6;
/// The pause after the first of them; each later one may be twice as long.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);

/// What is at a key.
enum There {
    Nothing,
    Ours,
    Others,
}

pub(super) async fn put(sink: &ObjectStoreSink, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
    if bytes.len() > limits::OBJECT_BYTES_MAX {
        let message =
            format!("has {} bytes; an object has at most {}", bytes.len(), limits::OBJECT_BYTES_MAX);
        return Err(Error::new(ErrorKind::LimitExceeded, message).with_object(key));
    }
    let mut marks = Marks::begin(&sink.learnt.abandoned, key, &bytes)?;
    for conflict in 0..CONFLICTS_MAX {
        match create(sink, key, &bytes, &mut marks).await {
            Ok(true) => {
                marks.settle();
                return Ok(PutOutcome::Created);
            }
            // The store says that there is an object (which may be our own, if an answer was lost on the way), or that
            // another request for this key is under way, of which nothing may come.
            Ok(false) => match look(sink, key, &marks).await? {
                There::Nothing => tokio::time::sleep(jitter(CONFLICT_PAUSE, conflict)).await,
                There::Ours => {
                    marks.settle();
                    return Ok(PutOutcome::Created);
                }
                There::Others => {
                    marks.settle();
                    return Ok(PutOutcome::AlreadyExists);
                }
            },
            // It may have had its effect all the same. If looking fails as well, the first failure is what to tell.
            Err(e) if matches!(e.kind(), ErrorKind::Transient | ErrorKind::Io) => {
                return match look(sink, key, &marks).await {
                    Ok(There::Ours) => {
                        marks.settle();
                        Ok(PutOutcome::Created)
                    }
                    _ => Err(e),
                };
            }
            Err(e) => {
                marks.settle();
                return Err(e);
            }
        }
    }
    let message = format!(
        "{}: the store answered {CONFLICTS_MAX} times that another request for this object is under way, but there is none",
        sink.place
    );
    Err(Error::new(ErrorKind::Transient, message).with_object(key))
}

/// One request: whether it made the object, or found that there is one or may be one.
async fn create(
    sink: &ObjectStoreSink,
    key: &ObjectKey,
    bytes: &Bytes,
    marks: &mut Marks<'_>,
) -> Result<bool> {
    let path = sink.path(key)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    loop {
        let marked = !sink.learnt.no_metadata.load(Ordering::Relaxed);
        let mut attributes = Attributes::new();
        let mark = marks.send();
        if marked {
            attributes.insert(Attribute::Metadata(MARK.into()), mark.into());
        }
        if let Some(class) = sink.classes.of(key) {
            attributes.insert(Attribute::StorageClass, class.to_owned().into());
        }
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        let request = sink.store.put_opts(&path, bytes.clone().into(), options);
        return match sink.timed(length, request).await.map_err(|e| e.with_object(key))? {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            // A directory of the crate's own takes no metadata. It does without; a failure that is not about
            // metadata comes again.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })
                if marked =>
            {
                sink.learnt.no_metadata.store(true, Ordering::Relaxed);
                continue;
            }
            Err(e) => Err(error::of(&e, &sink.place, "create").with_object(key)),
        };
    }
}

async fn look(sink: &ObjectStoreSink, key: &ObjectKey, marks: &Marks<'_>) -> Result<There> {
    match sink.head(key).await {
        Ok(there) => {
            let mark = there.attributes.get(&Attribute::Metadata(MARK.into()));
            Ok(if mark.is_some_and(|mark| marks.owns(mark)) { There::Ours } else { There::Others })
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(There::Nothing),
        Err(e) => Err(e),
    }
}
