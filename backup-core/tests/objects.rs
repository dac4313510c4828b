//! Objects at the limits of the format: what just fits comes back, what does not is refused, and no object is made of what
//! went wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::sync::Arc;

use backup_core::format::directory::{ChunkRecord, Directory};
use backup_core::format::object::{
    HEADER_BYTES_MAX, ObjectHeader, ObjectOpener, ObjectWriter, Scratch, SealedObject,
};
use backup_core::protection::ProtectionHeader;
use backup_core::transform::Encoded;
use backup_core::{
    Error, ErrorKind, FrameContext, ObjectType, RepositoryId, Result, ShortId, Transform, TransformSet,
    Unprotected, limits,
};

fn protection() -> Unprotected {
    Unprotected::new(RepositoryId([3; 16]))
}

/// Adds a byte of its own in front. Told to, it fails, leaves the byte there, or takes one too many.
#[derive(Debug)]
struct Mark {
    name: String,
    byte: u8,
    fails: bool,
    takes: usize,
}

impl Mark {
    fn new(byte: u8) -> Self {
        Self { name: format!("x-mark-{byte}"), byte, fails: false, takes: 1 }
    }
}

impl Transform for Mark {
    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        if self.fails {
            return Err(Error::internal("told to fail"));
        }
        if input.len() % 7 == usize::from(self.byte) {
            return Ok(Encoded::Skipped);
        }
        output.push(self.byte);
        output.extend_from_slice(input);
        Ok(Encoded::Applied)
    }

    fn decode(&self, frame: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, _: usize) -> Result<()> {
        if input.first() != Some(&self.byte) {
            return Err(Error::corruption("another mark stands in front"));
        }
        // The directory comes after the frames.
        let takes = if frame.ordinal == 0 { self.takes } else { 1 };
        output.extend_from_slice(input.get(takes..).unwrap_or_default());
        Ok(())
    }
}

fn writer(transforms: &[Arc<dyn Transform>]) -> ObjectWriter {
    ObjectWriter::new(&protection(), ObjectType::Data, transforms, [5; 32], vec![9; 100]).unwrap()
}

fn set(transforms: &[Arc<dyn Transform>]) -> TransformSet {
    transforms.iter().fold(TransformSet::builtin(), |set, transform| set.with(transform.clone()))
}

fn directory_of(sealed: &SealedObject) -> Result<Directory> {
    let set = TransformSet::builtin();
    let opener = ObjectOpener::new(&protection(), &set, ObjectType::Data, &sealed.bytes)?;
    opener.open_directory(&sealed.bytes, sealed.bytes.len() as u64)
}

/// The frames of an object, opened behind what the buffer holds already.
fn frames_of(sealed: &SealedObject, set: &TransformSet) -> Vec<Result<Vec<u8>>> {
    let opener = ObjectOpener::new(&protection(), set, ObjectType::Data, &sealed.bytes).unwrap();
    let directory = opener.open_directory(&sealed.bytes, sealed.bytes.len() as u64).unwrap();
    let (_, mut at) = ObjectHeader::decode(&sealed.bytes).unwrap();
    // Used again and again, as readers do.
    let mut scratch = Scratch::default();
    let open = |(ordinal, record): (usize, &backup_core::format::directory::FrameRecord)| {
        let stored = &sealed.bytes[at..at + record.stored_len as usize];
        at += record.stored_len as usize;
        let mut plain = b"kept".to_vec();
        let opened = opener.open_frame(ordinal as u32, record, stored, &mut scratch, &mut plain);
        assert!(plain.starts_with(b"kept") && (opened.is_ok() || plain == b"kept"));
        opened.map(|()| plain.split_off(4))
    };
    directory.frames.iter().enumerate().map(open).collect()
}

#[test]
fn frames_come_back_through_as_many_transforms_as_there_may_be_whichever_were_applied() {
    // The last of the chain is the seal.
    for count in 0..limits::CHAIN_TRANSFORMS_MAX {
        let transforms: Vec<Arc<dyn Transform>> =
            (0..count).map(|byte| Arc::new(Mark::new(byte as u8)) as Arc<dyn Transform>).collect();
        let mut writer = writer(&transforms);
        let frames: Vec<Vec<u8>> = (0..40).map(|len| vec![len as u8; len]).collect();
        for frame in &frames {
            writer.push_frame_checked(frame, &[], &mut Scratch::default(), Some(&mut Vec::new())).unwrap();
        }
        let sealed = writer.finish().unwrap();
        let opened: Vec<_> = frames_of(&sealed, &set(&transforms)).into_iter().map(Result::unwrap).collect();
        assert_eq!(opened, frames, "{count} transforms");
    }
    let many: Vec<Arc<dyn Transform>> =
        (0..limits::CHAIN_TRANSFORMS_MAX).map(|byte| Arc::new(Mark::new(byte as u8)) as _).collect();
    let error = ObjectWriter::new(&protection(), ObjectType::Data, &many, [5; 32], Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_transforms_give_back_too_short_is_damage_and_nothing_of_it_is_released() {
    let transforms: [Arc<dyn Transform>; 2] = [Arc::new(Mark::new(1)), Arc::new(Mark::new(2))];
    let mut writer = writer(&transforms);
    writer.push_frame(b"content", &[]).unwrap();
    let sealed = writer.finish().unwrap();
    let greedy = Arc::new(Mark { takes: 2, ..Mark::new(1) });
    let [opened] = &frames_of(&sealed, &set(&[greedy, transforms[1].clone()]))[..] else {
        panic!("one frame")
    };
    assert!(opened.as_ref().unwrap_err().is_corruption());
}

#[test]
fn a_writer_takes_as_many_frames_and_chunks_as_the_format_allows() {
    let mut frames = writer(&[]);
    assert!(frames.is_empty());
    for _ in 0..limits::PACK_FRAMES_MAX {
        assert!(frames.has_room(0));
        frames.push_frame(b"", &[]).unwrap();
    }
    assert!(!frames.is_empty() && !frames.has_room(0));
    assert_eq!(frames.push_frame(b"", &[]).unwrap_err().kind(), ErrorKind::Internal);
    let sealed = frames.finish().unwrap();
    assert_eq!(directory_of(&sealed).unwrap().frames.len(), limits::PACK_FRAMES_MAX);

    let chunks = vec![ChunkRecord { id: ShortId(1), len: 0 }; limits::PACK_CHUNKS_MAX];
    let mut writer = writer(&[]);
    assert!(writer.has_room(limits::PACK_CHUNKS_MAX) && !writer.has_room(limits::PACK_CHUNKS_MAX + 1));
    writer.push_frame(b"", &chunks[1..]).unwrap();
    assert!(writer.has_room(1) && !writer.has_room(2));
    assert_eq!(writer.push_frame(b"", &chunks[..2]).unwrap_err().kind(), ErrorKind::Internal);
    writer.push_frame(b"", &chunks[..1]).unwrap();
    let sealed = writer.finish().unwrap();
    assert_eq!(directory_of(&sealed).unwrap().chunks.len(), limits::PACK_CHUNKS_MAX);
}

#[test]
fn a_frame_is_no_longer_than_the_format_allows() {
    let mut writer = writer(&[]);
    let before = writer.len();
    let plain = vec![1; limits::FRAME_PLAIN_BYTES_MAX + 1];
    assert_eq!(writer.push_frame(&plain, &[]).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(writer.len(), before, "what is refused leaves nothing behind");
    writer.push_frame(&plain[1..], &[]).unwrap();
    assert!(writer.len() > limits::FRAME_PLAIN_BYTES_MAX);
    writer.finish().unwrap();
}

#[test]
fn no_object_is_made_of_what_went_wrong() {
    let failing: [Arc<dyn Transform>; 1] = [Arc::new(Mark { fails: true, ..Mark::new(1) })];
    let mut writer = writer(&failing);
    writer.push_frame(b"content", &[]).unwrap_err();
    assert_eq!(writer.push_frame(b"content", &[]).unwrap_err().kind(), ErrorKind::Internal);
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("after an error"), "{error}");
}

#[test]
fn headers_are_read_up_to_their_longest_and_no_further() {
    let header = |encapsulation: usize, chain: usize| ObjectHeader {
        object_type: ObjectType::Data,
        repository: RepositoryId([3; 16]),
        protection: ProtectionHeader {
            epoch: 7,
            salt: [1; 32],
            commitment: [2; 32],
            encapsulation: vec![6; encapsulation],
        },
        chain: vec!["seal".to_owned(); chain],
    };
    let empty = header(0, 1).encode().unwrap().len();
    for (encapsulation, chain) in
        [(0, 1), (77, 2), (0, limits::CHAIN_TRANSFORMS_MAX), (HEADER_BYTES_MAX - empty, 1)]
    {
        let header = header(encapsulation, chain);
        let bytes = header.encode().unwrap();
        assert_eq!(ObjectHeader::decode(&bytes).unwrap(), (header, bytes.len()));
        // Bytes after it are not its own, and none of its own may be missing.
        let followed = [&bytes[..], b"frames"].concat();
        assert_eq!(ObjectHeader::decode(&followed).unwrap().1, bytes.len());
        for len in 0..bytes.len() {
            assert!(ObjectHeader::decode(&bytes[..len]).unwrap_err().is_corruption());
        }
        let mut longer = followed;
        let len = u16::from_le_bytes([longer[10], longer[11]]) + 1;
        longer[10..12].copy_from_slice(&len.to_le_bytes());
        assert!(ObjectHeader::decode(&longer).unwrap_err().is_corruption());
    }
    for (encapsulation, chain) in
        [(HEADER_BYTES_MAX - empty + 1, 1), (70_000, 1), (0, limits::CHAIN_TRANSFORMS_MAX + 1), (0, 300)]
    {
        let error = header(encapsulation, chain).encode().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    // No chain at all names no seal.
    assert!(ObjectHeader::decode(&header(0, 0).encode().unwrap()).unwrap_err().is_corruption());
}
