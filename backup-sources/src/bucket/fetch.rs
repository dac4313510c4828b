//! Reads objects ahead of the workers that want them, in the order in which they are wanted.
//!
//! Whoever waits for content waits for what comes first among all that was asked for. So memory is given out in that order,
//! and kept until the content is taken: those that hold it never wait for those that do not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use backup_core::entry::CONTENT_PREFIX;
use backup_core::limits::{ATTRIBUTE_BYTES_MAX, MIB};
use backup_core::{Attribute, EntryName, Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use object_store::path::Path;
use object_store::{Attributes, GetOptions, GetRange, ObjectMeta};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::BucketSource;

/// Bytes of one request for a part of a long object.
const PART_BYTES: u64 = 4 * MIB as u64;
/// Parts of an object under way at once.
const PARTS_AHEAD: usize = 3;
/// Memory for what is read ahead, in KiB.
const MEMORY_KIB: u32 = 40 * 1024;
/// The least that an object counts for: what bounds how many are read at once.
const OBJECT_KIB_MIN: u32 = MEMORY_KIB / 16;
/// The most that an object holds: the parts under way, one that waits and one in hand.
const OBJECT_KIB_MAX: u32 = 20 * 1024;
/// Bytes of one request for what has come to an object since it was listed as a short one, whose memory is given out already.
const GROWN_BYTES: u64 = MIB as u64 / 2;
/// The slowest transfer that is waited for, in bytes a second.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 * 1024;
/// How often a request is repeated, for one part.
const TRIES: u32 = 5;
/// The wait before the first repetition; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// An object that is to be read.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) path: Path,
    /// What errors that fail the job call it.
    pub(super) name: EntryName,
    /// Its size when it was listed.
    pub(super) size: u64,
    /// Its ETag when it was listed.
    pub(super) etag: Option<String>,
}

/// What comes of an object, in this order: a head, content, the end.
#[derive(Debug)]
pub(super) enum Piece {
    /// What the first answer says, and whether it is of a newer version than was listed.
    Head { attributes: Vec<Attribute>, newer: bool },
    /// Content.
    Bytes(Bytes),
    /// There is no more; the memory is free again.
    End(OwnedSemaphorePermit),
}

/// Reads objects until it is dropped.
#[derive(Debug)]
pub(super) struct Fetcher {
    jobs: mpsc::UnboundedSender<Job>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Job {
    wanted: Wanted,
    pieces: Sender<Result<Piece>>,
}

impl Fetcher {
    pub(super) fn start(source: BucketSource) -> Self {
        // The engine bounds what it asks for: what is wanted is a path, what is read waits for memory.
        let (jobs, wanted) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(dispatch(Arc::new(source), wanted));
        Self { jobs, _tasks: tasks }
    }

    /// What comes of an object. Dropping it ends its requests.
    pub(super) fn fetch(&self, wanted: Wanted) -> Result<Receiver<Result<Piece>>> {
        // A short object comes whole without anyone having taken a part of it.
        let waiting = if wanted.size <= PART_BYTES { 3 } else { 1 };
        let (pieces, taken) = async_channel::bounded(waiting);
        let sent = self.jobs.send(Job { wanted, pieces });
        sent.map_err(|_| Error::internal("the reading of objects broke off"))?;
        Ok(taken)
    }
}

async fn dispatch(source: Arc<BucketSource>, mut wanted: mpsc::UnboundedReceiver<Job>) {
    let memory = Arc::new(Semaphore::new(usize::try_from(MEMORY_KIB).unwrap_or(usize::MAX)));
    let mut reads = JoinSet::new();
    while let Some(job) = wanted.recv().await {
        while reads.try_join_next().is_some() {}
        let kib = u32::try_from(job.wanted.size.div_ceil(1024)).unwrap_or(u32::MAX);
        let kib = kib.clamp(OBJECT_KIB_MIN, OBJECT_KIB_MAX);
        let Ok(permit) = Arc::clone(&memory).acquire_many_owned(kib).await else { return };
        let source = Arc::clone(&source);
        reads.spawn(async move {
            let Job { wanted, pieces } = job;
            let reading = Arc::new(Reading { source, wanted });
            let read = std::pin::pin!(reading.read(&pieces));
            let ended = match select(read, std::pin::pin!(pieces.closed())).await {
                Either::Left((Ok(()), _)) => Ok(Piece::End(permit)),
                // A store that does not answer fails the job, whose error has no entry of its own.
                Either::Left((Err(e), _)) if e.is_retryable() => Err(e.with_entry(&reading.wanted.name)),
                Either::Left((Err(e), _)) => Err(e),
                Either::Right(_) => return,
            };
            // Nobody may want it any more.
            let _ = pieces.send(ended).await;
        });
    }
    while reads.join_next().await.is_some() {}
}

/// An object being read.
struct Reading {
    source: Arc<BucketSource>,
    wanted: Wanted,
}

/// Bytes from `start` on, at most `len` of them.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u64,
    len: u64,
    /// Whether to ask for all there is, and take as much of it: an empty object has no ranges.
    whole: bool,
}

/// What the first answer said.
struct First {
    meta: ObjectMeta,
    attributes: Attributes,
}

impl Reading {
    /// Reads all of it, or until nobody takes it any more.
    async fn read(self: &Arc<Self>, pieces: &Sender<Result<Piece>>) -> Result<()> {
        let long = self.wanted.size > PART_BYTES;
        let (further, ahead) = if long { (PART_BYTES, PARTS_AHEAD) } else { (GROWN_BYTES, 1) };
        let part = Part { start: 0, len: self.wanted.size.clamp(GROWN_BYTES, PART_BYTES), whole: !long };
        let (first, bytes) = self.part(part, None).await?;
        let newer = match (&self.wanted.etag, &first.meta.e_tag) {
            // Azure lists ETags without their quotation marks.
            (Some(listed), Some(now)) => listed.trim_matches('"') != now.trim_matches('"'),
            _ => first.meta.size != self.wanted.size,
        };
        let head = Piece::Head { attributes: attributes(&first.attributes), newer };
        if pieces.send(Ok(head)).await.is_err() || pieces.send(Ok(Piece::Bytes(bytes))).await.is_err() {
            return Ok(());
        }
        let size = first.meta.size;
        let more = size.saturating_sub(part.len).div_ceil(further);
        let mut starts = (0..more).map(|number| part.len.saturating_add(number.saturating_mul(further)));
        let mut under_way = VecDeque::new();
        loop {
            while under_way.len() < ahead
                && let Some(start) = starts.next()
            {
                let part = Part { start, len: size.saturating_sub(start).min(further), whole: false };
                let (reading, expected) = (Arc::clone(self), first.meta.clone());
                // By itself: what is under way goes on while nobody takes what came before, or its time would run out.
                let mut task = JoinSet::new();
                task.spawn(async move { reading.part(part, Some(expected)).await });
                under_way.push_back(task);
            }
            let Some(mut next) = under_way.pop_front() else { return Ok(()) };
            let Some(Ok(part)) = next.join_next().await else {
                return Err(Error::internal("the reading of a part of an object broke off"));
            };
            if pieces.send(Ok(Piece::Bytes(part?.1))).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Reads a part, going on where a connection was lost.
    async fn part(&self, mut part: Part, mut expected: Option<ObjectMeta>) -> Result<(First, Bytes)> {
        let mut first = None;
        let mut bytes = BytesMut::new();
        let mut tries = 0_u32;
        loop {
            let transfer = Duration::from_secs(part.len / SLOWEST_BYTES_PER_SECOND);
            let limit = self.source.patience.saturating_add(transfer);
            let attempt = self.attempt(part, &mut expected, &mut first, &mut bytes);
            let attempt = self.within(limit, attempt).await.and_then(|done| done);
            let unranged = part.whole;
            // What was listed as long may be empty by now, and then has no ranges.
            part.whole |= expected.is_none();
            match (attempt, first.take()) {
                (Ok(()), Some(first)) => return Ok((first, bytes.freeze())),
                (Ok(()), None) => return Err(Error::internal("an answer says nothing of itself")),
                (Err(e), before) if e.is_retryable() && tries < TRIES => {
                    first = before;
                    tokio::time::sleep(PAUSE.saturating_mul(1 << tries.min(TRIES))).await;
                    tries = tries.saturating_add(1);
                }
                (Err(e), _) if e.kind() == ErrorKind::Io && part.whole && !unranged => {}
                (Err(e), _) => return Err(e),
            }
        }
    }

    async fn attempt(
        &self,
        part: Part,
        expected: &mut Option<ObjectMeta>,
        first: &mut Option<First>,
        bytes: &mut BytesMut,
    ) -> Result<()> {
        let have = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let size = expected.as_ref().map(|meta| meta.size);
        let end = part.start.saturating_add(part.len).min(size.unwrap_or(u64::MAX));
        let start = part.start.saturating_add(have);
        if size.is_some() && start >= end && first.is_some() {
            return Ok(());
        }
        let range = (have > 0 || !part.whole).then_some(GetRange::Bounded(start..end));
        // A weak ETag matches nothing; what comes is compared below in any case.
        let etag = expected.as_ref().and_then(|meta| meta.e_tag.clone());
        let if_match = etag.filter(|etag| !etag.starts_with("W/"));
        let options = GetOptions { range, if_match, ..GetOptions::default() };
        let answer = self.patiently(self.source.store.get_opts(&self.wanted.path, options)).await?;
        let answer = answer.map_err(|e| self.failed(&e, expected.is_some()))?;
        if expected.as_ref().is_some_and(|before| !same(before, &answer.meta)) {
            return Err(changed());
        }
        if answer.range.start != start {
            return Err(Error::new(ErrorKind::Io, "the store sent another range than was asked for"));
        }
        let end = end.min(answer.meta.size);
        *expected = Some(answer.meta.clone());
        if first.is_none() {
            *first = Some(First { meta: answer.meta.clone(), attributes: answer.attributes.clone() });
        }
        let mut missing = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        bytes.reserve(missing);
        let mut body = answer.into_stream();
        while missing > 0 {
            let piece = self.patiently(body.next()).await?;
            let Some(piece) = piece else {
                return Err(Error::new(ErrorKind::Transient, "an answer was shorter than announced"));
            };
            let piece = piece.map_err(|e| self.failed(&e, true))?;
            // Of a longer answer, which a newer version than the listed one can have, the next parts are asked for.
            let piece = piece.get(..piece.len().min(missing)).unwrap_or_default();
            bytes.extend_from_slice(piece);
            missing = missing.saturating_sub(piece.len());
        }
        Ok(())
    }

    async fn patiently<T>(&self, request: impl Future<Output = T>) -> Result<T> {
        self.within(self.source.patience, request).await
    }

    async fn within<T>(&self, limit: Duration, request: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(limit, request).await.map_err(|_| {
            let message = format!("{}: no answer within {} s", self.source.place, limit.as_secs_f32());
            Error::new(ErrorKind::Transient, message)
        })
    }

    fn failed(&self, failure: &object_store::Error, begun: bool) -> Error {
        match failure {
            object_store::Error::NotFound { .. } if begun => {
                Error::new(ErrorKind::NotFound, "it vanished while it was read")
            }
            object_store::Error::NotFound { .. } => {
                Error::new(ErrorKind::NotFound, "it vanished after it was listed")
            }
            object_store::Error::Precondition { .. } => changed(),
            other => (self.source.explain)(other, &self.source.place, "read"),
        }
    }
}

fn changed() -> Error {
    Error::new(ErrorKind::Io, "it changed while it was read")
}

/// Whether two answers are about the same version of an object.
fn same(before: &ObjectMeta, now: &ObjectMeta) -> bool {
    let version = match (&before.e_tag, &now.e_tag) {
        (Some(before), Some(now)) => before == now,
        _ => before.last_modified == now.last_modified,
    };
    version && before.size == now.size
}

/// What an answer says of an object beside its content, as attributes.
fn attributes(of: &Attributes) -> Vec<Attribute> {
    use object_store::Attribute as A;
    let attribute = |(name, value): (&A, &object_store::AttributeValue)| {
        let name = match name {
            A::ContentType => "content-type".to_owned(),
            A::ContentEncoding => "content-encoding".to_owned(),
            A::ContentLanguage => "content-language".to_owned(),
            A::ContentDisposition => "content-disposition".to_owned(),
            A::CacheControl => "cache-control".to_owned(),
            A::Metadata(name) => format!("metadata:{name}"),
            _ => return None,
        };
        let value: &str = value.as_ref();
        let name = [CONTENT_PREFIX, name.as_bytes()].concat();
        (value.len() <= ATTRIBUTE_BYTES_MAX)
            .then(|| Attribute { name: name.into(), value: value.as_bytes().into() })
    };
    let mut all: Vec<_> = of.iter().filter_map(attribute).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
