//! Log segments: an object of a head and the bytes of a segment, or of a piece of one.
//!
//! A log (write-ahead log, oplog, binlog) is a sequence of segments in a lineage. Each is sealed by itself and written
//! once. What is not a whole segment yet, or longer than one object may be, is stored as pieces, each with its offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::object::{ObjectOpener, ObjectWriter, Scratch, SealedObject, Trailer};
use crate::limits;
use crate::protection::{Protection, RepositoryId};
use crate::transform::{ObjectType, Transform, TransformSet};
use crate::{ChunkId, Error, ErrorKind, LogName, ObjectKey, Result, Timestamp};

/// The first frame of a log object, as JSON: what the bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// The repository; filled in by [`seal`].
    pub repository: RepositoryId,
    /// The kind of source: `postgres`, `mongodb` ...
    pub source: String,
    /// What tells this log from every other: for PostgreSQL the system identifier.
    pub lineage: String,
    /// The branch of the lineage: for PostgreSQL the timeline.
    pub timeline: String,
    /// The segment's name.
    pub segment: String,
    /// Where in the segment the bytes start.
    pub offset: u64,
    /// How many bytes there are; filled in by [`seal`].
    pub bytes: u64,
    /// Bytes of the whole segment; none while it is still growing.
    pub segment_bytes: Option<u64>,
    /// The keyed hash of the bytes, made like a chunk id, so that equal content is recognised without reading it back;
    /// filled in by [`seal`].
    #[serde(with = "super::page::hex_id")]
    pub plain_hash: ChunkId,
    /// Named positions and times in the segment, as far as its writer knows them.
    pub position: BTreeMap<String, String>,
    /// When it was archived, by its writer's clock.
    pub time: Timestamp,
}

impl LogHead {
    /// The head of a segment that starts at its beginning and whose length is not known.
    pub fn new(
        source: impl Into<String>,
        lineage: impl Into<String>,
        timeline: impl Into<String>,
        segment: impl Into<String>,
        time: Timestamp,
    ) -> Self {
        Self {
            repository: RepositoryId([0; 16]),
            source: source.into(),
            lineage: lineage.into(),
            timeline: timeline.into(),
            segment: segment.into(),
            offset: 0,
            bytes: 0,
            segment_bytes: None,
            plain_hash: ChunkId([0; 32]),
            position: BTreeMap::new(),
            time,
        }
    }

    /// Whether the bytes are the segment from its first to its last.
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && self.segment_bytes == Some(self.bytes)
    }

    /// Where it stands: see [`LogKey`]. `n` counts from 0; `n + 1` may be created only once `n` is condemned.
    pub fn key(&self, n: u32) -> Result<ObjectKey> {
        LogKey { name: self.name(), offset: (!self.is_whole()).then_some(self.offset), n }.key()
    }

    /// What the segment is called.
    pub fn name(&self) -> LogName {
        LogName::new(&self.lineage, &self.timeline, &self.segment)
    }

    /// Checks the head by itself: names that fit in keys, lengths within the limits.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |what: &str| Err(Error::invalid_input(format!("the log segment `{}` {what}", self.segment)));
        for name in [&self.lineage, &self.timeline, &self.segment] {
            if name.contains('/') || ObjectKey::new(name).is_err() {
                return wrong("has a lineage, timeline or name that cannot stand in an object's key");
            }
        }
        // Otherwise a whole segment could stand where a piece of another belongs.
        if offset_of(&self.segment).is_some() {
            return wrong("has a name that ends like the offset of a piece");
        }
        let end = self.offset.checked_add(self.bytes);
        if end.is_none() || end.zip(self.segment_bytes).is_some_and(|(end, segment)| end > segment) {
            return wrong("has bytes beyond its end");
        }
        if self.bytes > limits::LOG_PIECE_BYTES_MAX as u64 {
            return wrong("has more bytes than one object may hold; store it in pieces");
        }
        Ok(())
    }
}

/// What the key of a log object says: `logs/<lineage>/<timeline>/<segment>/<n>`, or for a piece
/// `logs/<lineage>/<timeline>/<segment>.<offset>/<n>`, the offset as 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogKey {
    /// The segment.
    pub name: LogName,
    /// Where a piece starts; none of a whole segment.
    pub offset: Option<u64>,
    /// Of several objects of this name the highest counts.
    pub n: u32,
}

impl LogKey {
    /// What an object of this key is; none if it is none of a log.
    pub fn parse(key: &ObjectKey) -> Option<Self> {
        let mut parts = key.as_str().strip_prefix("logs/")?.split('/');
        let (lineage, timeline, segment, n) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (segment, offset) = match offset_of(segment) {
            Some((segment, offset)) => (segment, Some(offset)),
            None => (segment, None),
        };
        let parsed = Self { name: LogName::new(lineage, timeline, segment), offset, n: n.parse().ok()? };
        // One object has one name: leading zeros are others' objects.
        (parts.next().is_none() && parsed.key().ok()? == *key).then_some(parsed)
    }

    /// The key.
    pub fn key(&self) -> Result<ObjectKey> {
        let LogName { lineage, timeline, segment } = &self.name;
        let piece = self.offset.map(|offset| format!(".{offset:016x}")).unwrap_or_default();
        ObjectKey::new(format!("logs/{lineage}/{timeline}/{segment}{piece}/{}", self.n))
    }
}

/// A piece's segment and offset; none of what is no piece's name.
fn offset_of(component: &str) -> Option<(&str, u64)> {
    let (segment, offset) = component.rsplit_once('.')?;
    let is_offset = offset.len() == 16 && offset.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let offset = u64::from_str_radix(offset, 16).ok().filter(|_| is_offset)?;
    Some((segment, offset))
}

/// Seals `content`, of which `head` says everything but repository, length and hash; returns the head with them.
pub fn seal(
    protection: &dyn Protection,
    transforms: &[Arc<dyn Transform>],
    salt: [u8; 32],
    mut head: LogHead,
    content: &[u8],
) -> Result<(LogHead, SealedObject)> {
    head.repository = protection.repository();
    head.bytes = content.len() as u64;
    head.check()?;
    head.plain_hash = protection.chunk_id(content);
    let json = serde_json::to_vec(&head)
        .map_err(|e| Error::internal("the head of a log segment has no JSON form").with_source(e))?;
    if json.len() > limits::CONTROL_BYTES_MAX {
        let message = "the head of a log segment would exceed the largest allowed length";
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    // Logs shrink to less, as a rule; what does not moves a few times.
    let buffer = Vec::with_capacity(content.len() / 8);
    let mut writer = ObjectWriter::new(protection, ObjectType::Log, transforms, salt, buffer)?;
    writer.push_frame(&json, &[])?;
    for part in content.chunks(limits::FRAME_TARGET_BYTES) {
        writer.push_frame(part, &[])?;
    }
    Ok((head, writer.finish()?))
}

/// Opens a log object, of which `object` is the whole; every byte of it is checked.
pub fn open(
    protection: &dyn Protection,
    transforms: &TransformSet,
    object: &[u8],
) -> Result<(LogHead, Vec<u8>)> {
    let opener = ObjectOpener::new(protection, transforms, ObjectType::Log, object)?;
    let directory = opener.open_directory(object, object.len() as u64)?;
    let mut scratch = Scratch::default();
    let mut head: Option<LogHead> = None;
    let mut content = Vec::new();
    for frame in directory.iter(opener.header_len() as u64) {
        let start = usize::try_from(frame.offset).unwrap_or(usize::MAX);
        let stored = object
            .get(start..start.saturating_add(frame.record.stored_len as usize))
            .ok_or_else(|| Error::corruption("a frame is cut short"))?;
        let Some(head) = &head else {
            if frame.record.plain_len as usize > limits::CONTROL_BYTES_MAX {
                return Err(Error::corruption("the head of a log segment exceeds the limit"));
            }
            let mut json = Vec::new();
            opener.open_frame(frame.ordinal, &frame.record, stored, &mut scratch, &mut json)?;
            head = Some(open_head(protection, &json)?);
            continue;
        };
        // Before anything is opened: what does not fit the head is not worth its memory.
        let after = (content.len() as u64).saturating_add(u64::from(frame.record.plain_len));
        if after > head.bytes {
            return Err(Error::corruption("a log segment is longer than its head says"));
        }
        opener.open_frame(frame.ordinal, &frame.record, stored, &mut scratch, &mut content)?;
    }
    let head = head.ok_or_else(|| Error::corruption("a log segment has no head"))?;
    if content.len() as u64 != head.bytes || protection.chunk_id(&content) != head.plain_hash {
        return Err(Error::corruption("a log segment is not what its head says"));
    }
    Ok((head, content))
}

/// Opens only the head of a log object, from its first bytes and its last. None if there are too few of either.
pub fn open_head_of(
    protection: &dyn Protection,
    transforms: &TransformSet,
    front: &[u8],
    tail: &[u8],
    object_len: u64,
) -> Result<Option<LogHead>> {
    let opener = ObjectOpener::new(protection, transforms, ObjectType::Log, front)?;
    if Trailer::decode(tail)?.tail_len() > tail.len() as u64 {
        return Ok(None);
    }
    let directory = opener.open_directory(tail, object_len)?;
    let Some(frame) = directory.iter(opener.header_len() as u64).next() else {
        return Err(Error::corruption("a log segment has no head"));
    };
    if frame.record.plain_len as usize > limits::CONTROL_BYTES_MAX {
        return Err(Error::corruption("the head of a log segment exceeds the limit"));
    }
    let start = usize::try_from(frame.offset).unwrap_or(usize::MAX);
    let Some(stored) = front.get(start..start.saturating_add(frame.record.stored_len as usize)) else {
        return Ok(None);
    };
    let mut json = Vec::new();
    opener.open_frame(frame.ordinal, &frame.record, stored, &mut Scratch::default(), &mut json)?;
    open_head(protection, &json).map(Some)
}

fn open_head(protection: &dyn Protection, json: &[u8]) -> Result<LogHead> {
    let head: LogHead = serde_json::from_slice(json)
        .map_err(|e| Error::corruption("the head of a log segment cannot be read").with_source(e))?;
    if head.repository != protection.repository() {
        return Err(Error::corruption("the log segment is another repository's"));
    }
    head.check().map_err(|e| Error::corruption(e.message()))?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Unprotected, Zstd};
    use proptest::prelude::*;

    fn repository() -> Unprotected {
        Unprotected::new(RepositoryId([7; 16]))
    }

    fn head() -> LogHead {
        LogHead::new("postgres", "7412", "00000001", "000000010000000000000002", Timestamp::new(0, 0))
    }

    fn zstd() -> [Arc<dyn Transform>; 1] {
        [Arc::new(Zstd::default())]
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at / 64) as u8).collect()
    }

    #[test]
    fn a_head_is_read_from_the_ends_of_an_object() {
        let mut head = head();
        head.position.insert("end".into(), "0/3000000".into());
        let content = content(3 * limits::MIB + 1);
        let (head, sealed) = seal(&repository(), &zstd(), [1; 32], head, &content).unwrap();
        let (bytes, len) = (&sealed.bytes[..], sealed.bytes.len());
        let read = |front: usize, tail: usize| {
            let (front, tail) = (&bytes[..front], &bytes[len - tail..]);
            open_head_of(&repository(), &TransformSet::builtin(), front, tail, len as u64)
        };
        assert_eq!(read(4096, 4096).unwrap(), Some(head.clone()));
        assert_eq!(read(len, len).unwrap(), Some(head));
        assert_eq!(read(200, 4096).unwrap(), None);
        assert_eq!(read(4096, 60).unwrap(), None);
        let mut damaged = sealed.bytes.to_vec();
        damaged[300] ^= 1;
        let opened = open_head_of(&repository(), &TransformSet::builtin(), &damaged, bytes, len as u64);
        assert!(opened.unwrap_err().is_corruption());
    }

    #[test]
    fn segments_of_none_one_and_many_frames_survive() {
        for len in [0, 1, limits::FRAME_TARGET_BYTES, 16 * limits::MIB, 3 * limits::MIB + 1] {
            let mut head = head();
            head.segment_bytes = Some(len as u64);
            head.position.insert("start".into(), "0/2000000".into());
            let content = content(len);
            let (head, sealed) = seal(&repository(), &zstd(), [1; 32], head, &content).unwrap();
            assert!(head.is_whole());
            let (head_back, back) = open(&repository(), &TransformSet::builtin(), &sealed.bytes).unwrap();
            assert_eq!(head_back, head);
            assert!(back == content);
        }
    }

    #[test]
    fn a_piece_is_named_by_its_offset_and_a_whole_segment_is_not() {
        let mut head = head();
        head.offset = 4096;
        let (mut head, _) = seal(&repository(), &zstd(), [1; 32], head, b"tail").unwrap();
        let expected = "logs/7412/00000001/000000010000000000000002.0000000000001000/0";
        assert_eq!(head.key(0).unwrap().as_str(), expected);
        head.offset = 0;
        head.segment_bytes = Some(4);
        assert_eq!(head.key(1).unwrap().as_str(), "logs/7412/00000001/000000010000000000000002/1");
    }

    #[test]
    fn keys_say_what_they_were_made_of_and_others_say_nothing() {
        for segment in [
            "000000010000000000000002",
            "00000002.history",
            "a.0000000000000001x",
            "000000010000000000000002.partial",
        ] {
            for offset in [None, Some(0), Some(u64::MAX)] {
                let key = LogKey { name: LogName::new("7412", "00000001", segment), offset, n: 10 };
                assert_eq!(LogKey::parse(&key.key().unwrap()), Some(key));
            }
        }
        for text in [
            "logs/a/b/c/01",
            "logs/a/b/c",
            "logs/a/b/c/d",
            "logs/a/b/c/0/1",
            "data/a/b/c/0",
            "logs/a/b/c/4294967296",
        ] {
            assert_eq!(LogKey::parse(&ObjectKey::new(text).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn heads_that_fit_no_key_or_no_length_are_refused() {
        let refused = |change: fn(&mut LogHead)| {
            let mut head = head();
            change(&mut head);
            assert!(seal(&repository(), &zstd(), [1; 32], head, b"content").is_err());
        };
        refused(|head| head.lineage = "..".into());
        refused(|head| head.timeline = "a/b".into());
        refused(|head| head.segment = String::new());
        refused(|head| head.segment = "segment.0000000000001000".into());
        refused(|head| head.segment_bytes = Some(6));
        refused(|head| head.offset = u64::MAX);
        let long = vec![0; limits::LOG_PIECE_BYTES_MAX + 1];
        assert!(seal(&repository(), &zstd(), [1; 32], head(), &long).is_err());
    }

    #[test]
    fn names_that_postgresql_uses_are_allowed() {
        for name in [
            "00000002.history",
            "000000010000000000000002.00000028.backup",
            "000000010000000000000002.partial",
        ] {
            let mut head = head();
            head.segment = name.into();
            head.check().unwrap();
        }
    }

    #[test]
    fn another_repositorys_segment_is_refused() {
        let (_, sealed) = seal(&repository(), &zstd(), [1; 32], head(), b"content").unwrap();
        let other = Unprotected::new(RepositoryId([8; 16]));
        assert!(open(&other, &TransformSet::builtin(), &sealed.bytes).is_err());
    }

    proptest! {
        #[test]
        fn every_changed_byte_and_every_truncation_is_noticed(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let (_, sealed) = seal(&repository(), &zstd(), [1; 32], head(), &content(5000)).unwrap();
            let mut bytes = sealed.bytes.to_vec();
            let at = at.index(bytes.len());
            prop_assert!(open(&repository(), &TransformSet::builtin(), &bytes[..at]).is_err());
            bytes[at] ^= flip;
            prop_assert!(open(&repository(), &TransformSet::builtin(), &bytes).is_err());
        }
    }
}
