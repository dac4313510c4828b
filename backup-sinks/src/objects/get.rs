//! Reading objects and parts of them.

use std::ops::Range;
use std::sync::atomic::Ordering;

use backup_core::{Error, ErrorKind, Fetched, GetRange, ObjectKey, Result, limits};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::{GetOptions, GetResult, ObjectStore};

use super::{ObjectStoreSink, error};

pub(super) async fn get(sink: &ObjectStoreSink, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
    match range {
        GetRange::Full => read(sink, key, None).await,
        GetRange::Bounded(range) => bounded(sink, key, range).await,
        GetRange::Suffix(count) => suffix(sink, key, count).await,
    }
}

/// Whether a failure is not about which bytes were asked for.
fn is_final(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Transient | ErrorKind::Denied | ErrorKind::Cold)
}

async fn bounded(sink: &ObjectStoreSink, key: &ObjectKey, range: Range<u64>) -> Result<Fetched> {
    // Nothing, and what no object here can have, cannot be asked for over HTTP: servers differ in what they make of it.
    let most = u64::try_from(limits::OBJECT_BYTES_MAX).unwrap_or(u64::MAX);
    if range.start >= range.end || range.end > most {
        return unread(sink, key, GetRange::Bounded(range)).await;
    }
    match read(sink, key, Some(object_store::GetRange::Bounded(range.clone()))).await {
        // Of a range that ends beyond the object, servers send what there is, or refuse if it starts there, too.
        Ok(fetched) => GetRange::Bounded(range).resolve(fetched.object_len).map(|_| fetched),
        Err(e) if is_final(e.kind()) => Err(e),
        Err(e) => {
            let len = sink.head(key).await?.meta.size;
            GetRange::Bounded(range).resolve(len)?;
            Err(e)
        }
    }
}

async fn suffix(sink: &ObjectStoreSink, key: &ObjectKey, count: u64) -> Result<Fetched> {
    if count == 0 {
        return unread(sink, key, GetRange::Suffix(0)).await;
    }
    let most = u64::try_from(limits::OBJECT_BYTES_MAX).unwrap_or(u64::MAX);
    if count >= most {
        return read(sink, key, None).await;
    }
    if !sink.learnt.no_suffixes.load(Ordering::Relaxed) {
        match read(sink, key, Some(object_store::GetRange::Suffix(count))).await {
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                sink.learnt.no_suffixes.store(true, Ordering::Relaxed);
            }
            Err(e) if is_final(e.kind()) => {
                return Err(e);
            }
            // An empty object has no last bytes, which servers refuse.
            Err(e) => {
                let len = sink.head(key).await?.meta.size;
                return if len == 0 { Ok(nothing(0)) } else { Err(e) };
            }
            done => return done,
        }
    }
    // Azure knows no suffixes. Mostly whole objects are asked for that are shorter than `count`: one request does.
    let first = read(sink, key, Some(object_store::GetRange::Bounded(0..count))).await;
    let len = match first {
        Ok(fetched) if fetched.object_len <= count => return Ok(fetched),
        Ok(fetched) => fetched.object_len,
        Err(e) if is_final(e.kind()) => {
            return Err(e);
        }
        Err(e) => match sink.head(key).await?.meta.size {
            0 => return Ok(nothing(0)),
            _ => return Err(e),
        },
    };
    let range = len.saturating_sub(count)..len;
    read(sink, key, Some(object_store::GetRange::Bounded(range))).await
}

/// An empty part, or the error for one that is not there, by the object's length alone.
async fn unread(sink: &ObjectStoreSink, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
    let len = sink.head(key).await?.meta.size;
    let resolved = range.resolve(len).map_err(|e| e.with_object(key))?;
    if resolved.is_empty() {
        return Ok(nothing(len));
    }
    read(sink, key, Some(object_store::GetRange::Bounded(resolved))).await
}

fn nothing(object_len: u64) -> Fetched {
    Fetched { bytes: Bytes::new(), object_len }
}

async fn read(
    sink: &ObjectStoreSink,
    key: &ObjectKey,
    range: Option<object_store::GetRange>,
) -> Result<Fetched> {
    let options = GetOptions { range, ..GetOptions::default() };
    let path = sink.path(key)?;
    let answer = sink.within(0, sink.store.get_opts(&path, options), "read", key).await?;
    let object_len = answer.meta.size;
    let bytes = body(sink, key, answer).await?;
    Ok(Fetched { bytes, object_len })
}

async fn body(sink: &ObjectStoreSink, key: &ObjectKey, answer: GetResult) -> Result<Bytes> {
    let expected = answer.range.end.saturating_sub(answer.range.start);
    let length = usize::try_from(expected).unwrap_or(usize::MAX);
    if length > limits::OBJECT_BYTES_MAX {
        let message = format!("has {expected} bytes; at most {} are read at once", limits::OBJECT_BYTES_MAX);
        return Err(Error::new(ErrorKind::LimitExceeded, message).with_object(key));
    }
    let collect = async {
        let mut stream = answer.into_stream();
        let mut first: Option<Bytes> = None;
        let mut all = BytesMut::new();
        loop {
            let part = sink.timed(0, stream.next()).await?;
            let Some(part) = part else { break };
            let part = part.map_err(|e| error::of(&e, &sink.place, "read"))?;
            // Most answers come in one part, which is not copied.
            if first.is_none() && part.len() >= length {
                first = Some(part);
                continue;
            }
            if all.is_empty() {
                all.reserve(length);
            }
            if let Some(first) = first.take() {
                all.extend_from_slice(&first);
            }
            if all.len().saturating_add(part.len()) > length {
                return Err(short(sink, expected));
            }
            all.extend_from_slice(&part);
        }
        Ok(first.unwrap_or_else(|| all.freeze()))
    };
    let bytes = sink.timed(expected, collect).await.and_then(|read| read).map_err(|e| e.with_object(key))?;
    if bytes.len() == length { Ok(bytes) } else { Err(short(sink, expected).with_object(key)) }
}

fn short(sink: &ObjectStoreSink, expected: u64) -> Error {
    let message =
        format!("{}: the answer has another length than the {expected} bytes announced", sink.place);
    Error::new(ErrorKind::Transient, message)
}
