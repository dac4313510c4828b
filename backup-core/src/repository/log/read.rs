//! Reading segments back, from wherever they are.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::format::log::{self, LogHead, LogKey};
use crate::repository::{Repository, guard};
use crate::{Error, ErrorKind, JobContext, LogContent, LogName, ObjectKey, Result, limits};

/// Looks at what is there, of which something has been deleted each time before it could be read.
const LOOKS_MAX: usize = 4;

/// What places have of a segment: the first whole, or the longest of the others.
pub(super) struct Best<T> {
    is_whole: fn(&T) -> bool,
    len: fn(&T) -> u64,
    best: Option<T>,
    failure: Option<Error>,
}

impl<T> Best<T> {
    pub(super) fn new(is_whole: fn(&T) -> bool, len: fn(&T) -> u64) -> Self {
        Self { is_whole, len, best: None, failure: None }
    }

    /// Takes what one place has; returns it if no other need be asked.
    pub(super) fn add(&mut self, found: Result<Option<T>>) -> Result<Option<T>> {
        match found {
            Ok(Some(whole)) if (self.is_whole)(&whole) => return Ok(Some(whole)),
            Ok(Some(found)) => {
                if self.best.as_ref().is_none_or(|best| (self.len)(&found) > (self.len)(best)) {
                    self.best = Some(found);
                }
            }
            Ok(None) => {}
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "a log segment cannot be read in one place");
                self.failure.get_or_insert(error);
            }
        }
        Ok(None)
    }

    /// What all places together have. What could not be read may be more than what could.
    pub(super) fn end(self) -> Result<Option<T>> {
        self.failure.map_or(Ok(self.best), Err)
    }
}

impl Repository {
    /// What is archived of a segment, in this place or in [others](Self::with_others): the whole, or what its pieces hold from its start on
    /// without a gap. None if nothing of it is archived in any place, which is proven then: all of them have answered.
    ///
    /// # Errors
    /// Those of the stores, and damage, where no place has the segment as a whole.
    pub async fn read_log(&self, name: &LogName, job: &JobContext) -> Result<Option<LogContent>> {
        guard::run(job, async move {
            let mut best = Best::new(LogContent::is_whole, |content| content.content.len() as u64);
            for place in std::iter::once(self).chain(self.others.iter()) {
                if let Some(whole) = best.add(place.read_log_here(name, job).await)? {
                    return Ok(Some(whole));
                }
            }
            best.end()
        })
        .await
    }

    async fn read_log_here(&self, name: &LogName, job: &JobContext) -> Result<Option<LogContent>> {
        for _ in 0..LOOKS_MAX {
            job.check()?;
            let listed = self.list_segments(&[name]).await?;
            let mut failure = None;
            if let Some(whole) = listed.counting(name, None, |_| false) {
                match self.log_object(&whole.key, job).await {
                    Ok(Some((head, content))) => return Ok(Some(content_of(head, content))),
                    Ok(None) => continue,
                    // Its pieces may stand there still.
                    Err(error) if error.is_corruption() => failure = Some(error),
                    Err(error) => return Err(error),
                }
            }
            let pieces = listed.pieces(name, |_| false);
            if pieces.is_empty() {
                return failure.map_or(Ok(None), Err);
            }
            let mut read = Vec::with_capacity(pieces.len());
            let listed = pieces.len();
            for meta in pieces {
                read.extend(self.log_object(&meta.key, job).await?);
            }
            // A collection deletes pieces once the whole is there.
            if read.len() != listed {
                continue;
            }
            let joined = join(name, read)?;
            return match failure {
                Some(error) if !joined.is_whole() => Err(error),
                _ => Ok(Some(joined)),
            };
        }
        let message = format!("{name} is deleted and archived again all the time");
        Err(Error::new(ErrorKind::Transient, message))
    }

    /// An object of a log, all of it checked; none if it is gone.
    pub(super) async fn log_object(
        &self,
        key: &ObjectKey,
        job: &JobContext,
    ) -> Result<Option<(LogHead, Bytes)>> {
        let store = self.store().clone();
        let bytes = match store.get_whole(key, limits::OBJECT_BYTES_MAX, job).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let opened = guard::blocking(move || log::open(&*store.protection, &store.transforms, &bytes));
        let (head, content) = opened.await.map_err(|e| e.with_object(key))?;
        let offset = (!head.is_whole()).then_some(head.offset);
        if LogKey::parse(key).is_none_or(|key| key.name != head.name() || key.offset != offset) {
            let message = "is another log segment than its name says";
            return Err(Error::corruption(message).with_object(key));
        }
        Ok(Some((head, content.into())))
    }
}

fn content_of(head: LogHead, content: Bytes) -> LogContent {
    LogContent { content, segment_bytes: head.segment_bytes, position: head.position }
}

/// Joins pieces by offset, up to the first gap. Where they overlap they must agree, and so must what they say of the length.
fn join(name: &LogName, mut pieces: Vec<(LogHead, Bytes)>) -> Result<LogContent> {
    pieces.sort_by_key(|(head, _)| head.offset);
    let mut joined = BytesMut::new();
    let mut segment_bytes: Option<u64> = None;
    let mut position = BTreeMap::new();
    let disagree = || Error::corruption(format!("the pieces of {name} do not agree"));
    for (head, content) in pieces {
        if let Some(said) = head.segment_bytes
            && segment_bytes.replace(said).is_some_and(|before| before != said)
        {
            return Err(disagree());
        }
        position.extend(head.position);
        let Some(overlap) = (joined.len() as u64).checked_sub(head.offset) else { break };
        let overlap = usize::try_from(overlap).unwrap_or(usize::MAX).min(content.len());
        let start = usize::try_from(head.offset).unwrap_or(usize::MAX);
        if joined.get(start..start.saturating_add(overlap)) != content.get(..overlap) {
            return Err(disagree());
        }
        joined.extend_from_slice(content.get(overlap..).unwrap_or_default());
        if joined.len() > limits::LOG_SEGMENT_BYTES_MAX {
            let message = format!("{name} is longer than a log segment may be");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
    }
    Ok(LogContent { content: joined.freeze(), segment_bytes, position })
}
