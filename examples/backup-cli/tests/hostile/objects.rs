//! The envelope of objects, packs, and the index that names them.

use std::sync::Arc;

use backup_core::format::chunks::{ChunkRef, StoredContent};
use backup_core::format::codec::put_varint;
use backup_core::format::directory::ChunkRecord;
use backup_core::format::segment::{IndexRow, PackRecord, SegmentHead, encode_rows};
use backup_core::{ErrorKind, ObjectType, ShortId, Transform};

use crate::case::Verdict::{Named, Refused, Restored};
use crate::case::{Case, Verify, case};
use crate::forge::{FORGED, Forge, Lies, named, zstd};

/// The content of the file whose pack is attacked.
fn text() -> Vec<u8> {
    b"what stands in the pack that somebody changed\n".repeat(100)
}

/// A snapshot of one file, and its pack changed by somebody without a key.
fn pack(f: &mut Forge, change: impl FnOnce(&mut Vec<u8>)) {
    let before: Vec<_> = f.objects.keys().cloned().collect();
    let chunk = f.chunk(&text());
    f.file(StoredContent::Chunks(vec![chunk]));
    f.indexed = false;
    let key = f.objects.keys().find(|key| key.starts_with("data/") && !before.contains(key)).unwrap().clone();
    let mut bytes = f.objects.remove(&key).unwrap();
    change(&mut bytes);
    f.objects.insert(named("data", &bytes), bytes);
}

/// A snapshot of one file of this content, in a pack whose frame is what `output` decodes to.
fn frame(f: &mut Forge, plain: &[u8], transforms: Vec<Arc<dyn Transform>>) {
    let id = f.protection.chunk_id(plain);
    let len = plain.len() as u32;
    let mut writer = f.writer(ObjectType::Data, transforms);
    writer.push_frame(plain, &[ChunkRecord { id: id.short(), len }]).unwrap();
    f.finish(ObjectType::Data, writer);
    f.file(StoredContent::Chunks(vec![ChunkRef { id, len }]));
}

fn lies(output: Vec<u8>) -> Arc<dyn Transform> {
    Arc::new(Lies { name: "zstd", output })
}

/// A snapshot of one whole file; its chunk.
fn whole(f: &mut Forge) -> ChunkRef {
    let chunk = f.chunk(&text());
    f.file(StoredContent::Chunks(vec![chunk]));
    chunk
}

/// A whole file whose chunk another segment places elsewhere.
fn misplaced(f: &mut Forge, change: impl FnOnce(&mut PackRecord, &mut IndexRow)) {
    let chunk = whole(f);
    let mut record = f.records().into_iter().find(|record| record.object_type == ObjectType::Meta).unwrap();
    let mut row = IndexRow { id: chunk.id.short(), pack: 0, frame: 0, offset: 0, len: chunk.len };
    change(&mut record, &mut row);
    f.segment(&[], &[record], &[row], &[(row.id, 1)]);
}

/// The digest of the honest index segment.
fn honest_segment(f: &Forge) -> [u8; 32] {
    let key = f.key("index/");
    let mut digest = [0; 32];
    hex::decode_to_slice(key.trim_start_matches("index/"), &mut digest).unwrap();
    digest
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Sets a field of the trailer, counted from the end.
fn trailer(f: &mut Forge, from_end: usize, value: &[u8]) {
    pack(f, |bytes| {
        let at = bytes.len() - from_end;
        set(bytes, at, value);
    });
}

/// A zstd frame (RFC 8878) of one block that repeats `x`, with this descriptor and what belongs to it.
fn zstd_frame(descriptor: u8, fields: &[u8], repeats: u32) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor];
    frame.extend_from_slice(fields);
    frame.extend_from_slice(&((repeats << 3) | 0b11).to_le_bytes()[..3]);
    frame.push(b'x');
    frame
}

pub fn cases() -> Vec<Case> {
    let lost = Named(&[("file", "")]);
    let mut cases = vec![
        case("magic", "an object that begins like none", |f| pack(f, |b| b[0] ^= 1), lost),
        case("format version", "an object of a later version of the format", |f| pack(f, |b| b[8] = 9), lost),
        case("type", "an object of another type than its place", |f| pack(f, |b| b[9] = 3), lost),
        case(
            "length of a header",
            "a header that claims 65,535 bytes",
            |f| pack(f, |b| set(b, 10, &[255, 255])),
            lost,
        ),
        case("epoch", "an object of an epoch that has no keys", |f| pack(f, |b| set(b, 12, &[7])), lost),
        case(
            "no epoch",
            "an object that claims not to be encrypted",
            |f| pack(f, |b| set(b, 12, &[0])),
            lost,
        ),
        case(
            "repository",
            "an object that claims to be of another repository",
            |f| pack(f, |b| b[16] ^= 1),
            lost,
        ),
        case("salt", "an object with another salt", |f| pack(f, |b| b[32] ^= 1), lost),
        case("commitment", "an object that commits to another key", |f| pack(f, |b| b[64] ^= 1), lost),
        case(
            "encapsulation",
            "a header whose encapsulation is longer than the object",
            |f| pack(f, |b| set(b, 96, &[255, 255])),
            lost,
        ),
        case("no chain", "an object without a seal", |f| pack(f, |b| b[98] = 0), lost),
        case("chain", "an object with 255 transforms", |f| pack(f, |b| b[98] = 255), lost),
        case(
            "transform",
            "an object with a transform that nobody knows",
            |f| pack(f, |b| set(b, 100, b"x-ev")),
            lost,
        ),
        case(
            "transform's name",
            "an object with a transform whose name is no text",
            |f| pack(f, |b| b[100] = 0xff),
            lost,
        ),
        case(
            "seal",
            "an object that names a weaker seal",
            |f| pack(f, |b| set(b, 105, b"sha256\0\0\0\0\0")),
            lost,
        ),
        case("directory", "a trailer that claims a directory of 4 GiB", |f| trailer(f, 19, &[255; 4]), lost),
        case(
            "plain directory",
            "a trailer that claims a directory of 4 GiB before its compression",
            |f| trailer(f, 15, &[255; 4]),
            lost,
        ),
        case(
            "mask of the directory",
            "a trailer that claims transforms which the header does not name",
            |f| trailer(f, 11, &[255]),
            lost,
        ),
        case("number of frames", "a trailer that claims 2^32 frames", |f| trailer(f, 10, &[255; 4]), lost),
        case("signature", "a trailer that claims a signature", |f| trailer(f, 6, &[4]), lost),
        case("signature block", "a signature block that is not empty", |f| trailer(f, 20, &[1]), lost),
        case("end", "an object that ends like none", |f| trailer(f, 1, &[0]), lost),
        case("cut", "an object cut short by one byte", |f| pack(f, |b| b.truncate(b.len() - 1)), lost),
        case("cut to nothing", "an object without a byte", |f| pack(f, Vec::clear), lost),
        case("longer", "an object with a byte more", |f| pack(f, |b| b.push(0)), lost),
        case(
            "longer in the middle",
            "an object with bytes between its frames and its directory",
            |f| {
                pack(f, |b| {
                    let at = b.len() - 90;
                    b.splice(at..at, [0; 64]);
                });
            },
            lost,
        ),
        case(
            "beyond the limit",
            "an object of more than 64 MiB",
            |f| pack(f, |b| b.resize(65 << 20, 0)),
            lost,
        ),
    ];
    // Each of these is one look at a header or a trailer: the program does the same as the library.
    cases.iter_mut().for_each(|case| (case.program, case.verify) = (false, Verify::Damaged));
    cases.extend([
        case(
            "frame changed in its place",
            "a bit of a sealed frame turned in its place, where the index still names it",
            |f| {
                let before: Vec<_> = f.objects.keys().cloned().collect();
                whole(f);
                let pack = f.objects.iter_mut().find(|(key, _)| key.starts_with("data/") && !before.contains(key));
                pack.unwrap().1[150] ^= 1;
            },
            lost,
        )
        .damaged(),
        case(
            "compression bomb",
            "a frame of a few bytes that unpacks to 100 MiB and claims 4,600",
            |f| frame(f, &text(), vec![lies(zstd(&vec![0; 100 << 20]))]),
            lost,
        )
        .damaged(),
        case(
            "bomb in a bomb",
            "a bomb packed seven times over, by a chain of seven transforms",
            |f| {
                let mut layers = vec![zstd(&vec![0; 100 << 20])];
                for _ in 0..6 {
                    layers.push(zstd_stored(layers.last().unwrap()));
                }
                frame(f, &text(), layers.into_iter().map(lies).collect());
            },
            lost,
        )
        .damaged(),
        case(
            "frame that claims too much",
            "a frame that claims 16 MiB and unpacks to a few bytes",
            |f| frame(f, &vec![1; 8 << 20], vec![lies(zstd(&text()))]),
            lost,
        )
        .damaged(),
        case(
            "window",
            "a frame that asks its reader for a window of 2 GiB and has the right content",
            |f| frame(f, &[b'x'; 4000], vec![lies(zstd_frame(0, &[0xa8], 4000))]),
            Restored,
        ),
        case(
            "content size",
            "a frame whose packed form claims 2^62 bytes",
            |f| frame(f, &[b'x'; 4000], vec![lies(zstd_frame(0xe0, &(1_u64 << 62).to_le_bytes(), 4000))]),
            lost,
        )
        .damaged(),
        case(
            "dictionary",
            "a frame that needs a dictionary",
            |f| frame(f, &[b'x'; 4000], vec![lies(zstd_frame(0x23, &[1, 2, 3, 4, 200], 4000))]),
            lost,
        )
        .damaged(),
        case(
            "chunks that do not fill their frame",
            "a directory whose chunks are longer than their frame",
            |f| {
                let id = f.protection.chunk_id(&text());
                let mut writer = f.writer(ObjectType::Data, Vec::new());
                writer.push_frame(&text(), &[ChunkRecord { id: id.short(), len: 8 << 20 }]).unwrap();
                f.finish(ObjectType::Data, writer);
                f.indexed = false;
                f.file(StoredContent::Chunks(vec![ChunkRef { id, len: 4600 }]));
            },
            lost,
        )
        .damaged(),
        case(
            "millions of chunks",
            "packs of a few kilobytes whose directories name a million chunks each",
            |f| {
                for pack in 0..3_u128 {
                    let records: Vec<_> =
                        (0..1_000_000).map(|n| ChunkRecord { id: ShortId(pack << 64 | n), len: 0 }).collect();
                    let mut writer = f.writer(ObjectType::Data, vec![Arc::new(backup_core::Zstd::default())]);
                    writer.push_frame(&[], &records).unwrap();
                    f.finish(ObjectType::Data, writer);
                }
                f.indexed = false;
                whole(f);
            },
            Restored,
        )
        .damaged()
        .library_only(),
        case(
            "row to another pack",
            "an index that places a chunk in another pack",
            |f| misplaced(f, |_, _| {}),
            Restored,
        ).damaged(),
        case(
            "row beyond a pack",
            "an index that places a chunk in a frame that its pack does not have",
            |f| misplaced(f, |_, row| row.frame = 60_000),
            Restored,
        ).damaged(),
        case(
            "row beyond a frame",
            "an index that places a chunk at the end of 4 GiB of a frame",
            |f| misplaced(f, |_, row| row.offset = u32::MAX),
            Restored,
        ).damaged(),
        case(
            "row to no pack",
            "an index that places a chunk in a pack whose number names none",
            |f| misplaced(f, |_, row| row.pack = u32::MAX),
            Restored,
        ),
        case(
            "pack that is not there",
            "an index that places a chunk in a pack that does not exist",
            |f| misplaced(f, |record, _| record.digest = [7; 32]),
            Restored,
        ).damaged(),
        case(
            "index without its pack",
            "an index that replaces the honest one and names its packs without a chunk in them",
            |f| {
                let honest = honest_segment(f);
                let mut records = Vec::new();
                for (kind, object_type) in [("data/", ObjectType::Data), ("meta/", ObjectType::Meta)] {
                    let key = f.key(kind);
                    let bytes = &f.objects[&key];
                    let mut digest = [0; 32];
                    hex::decode_to_slice(key.rsplit('/').next().unwrap(), &mut digest).unwrap();
                    let header = bytes[..usize::from(u16::from_le_bytes([bytes[10], bytes[11]]))].to_vec();
                    let object_len = bytes.len() as u64;
                    records.push(PackRecord { digest, object_type, object_len, header, frames: Vec::new() });
                }
                whole(f);
                f.segment(&[honest], &records, &[], &[]);
            },
            Restored,
        )
        .damaged()
        .honest_is_lost(),
        case(
            "index of nothing",
            "an index that replaces the honest one and names nothing",
            |f| {
                let honest = honest_segment(f);
                whole(f);
                f.segment(&[honest], &[], &[], &[]);
            },
            Restored,
        )
        .damaged(),
        case(
            "index bomb",
            "an index segment of a few kilobytes that unpacks to 80 MiB",
            |f| {
                whole(f);
                f.frames(&vec![vec![0; 16 << 20]; 5]);
            },
            Restored,
        )
        .damaged(),
        case(
            "head of an index",
            "an index segment that claims 2^32 frames of packs",
            |f| {
                whole(f);
                let head =
                    SegmentHead { session: FORGED, supersedes: Vec::new(), pack_frames: u32::MAX, pages: Vec::new() };
                f.frames(&[head.encode()]);
            },
            Restored,
        )
        .damaged(),
        case(
            "claims of an index",
            "an index segment that claims to replace 2^60 others",
            |f| {
                whole(f);
                let mut head = vec![7; 16];
                put_varint(&mut head, 1 << 60);
                f.frames(&[head]);
            },
            Restored,
        )
        .damaged(),
        case(
            "rows out of order",
            "an index whose rows descend, so that a search finds nothing",
            |f| {
                whole(f);
                let rows = [9, 3].map(|id| IndexRow { id: ShortId(id), pack: 0, frame: 0, offset: 0, len: 1 });
                f.segment(&[], &[], &rows, &[(ShortId(9), 2)]);
            },
            Restored,
        )
        .damaged(),
        case(
            "a hundred thousand packs",
            "an index segment that names a hundred thousand packs without a frame, each of which takes a kilobyte in memory",
            |f| {
                whole(f);
                let mut frames = Vec::new();
                for part in 0..4_u32 {
                    let mut packs = Vec::new();
                    for number in 0..25_000_u32 {
                        let mut digest = [0; 32];
                        digest[..8].copy_from_slice(&(u64::from(part) << 32 | u64::from(number)).to_le_bytes());
                        let object_type = ObjectType::Data;
                        PackRecord { digest, object_type, object_len: 0, header: Vec::new(), frames: Vec::new() }
                            .encode(&mut packs);
                    }
                    frames.push(packs);
                }
                let pack_frames = frames.len() as u32;
                let head = SegmentHead { session: FORGED, supersedes: Vec::new(), pack_frames, pages: Vec::new() };
                frames.insert(0, head.encode());
                f.frames(&frames);
            },
            Restored,
        ).damaged()
        .library_only(),
        case(
            "two million rows",
            "an index segment of two million rows",
            |f| {
                let chunk = whole(f);
                let record = f.records().into_iter().next().unwrap();
                let mut packs = Vec::new();
                record.encode(&mut packs);
                let mut frames = Vec::new();
                let mut pages = Vec::new();
                for page in 0..500_u128 {
                    let rows: Vec<_> = (0..4096_u128)
                        .map(|n| {
                            let id = ShortId(page << 100 | n);
                            IndexRow { id, pack: 0, frame: 0, offset: n as u32, len: chunk.len }
                        })
                        .collect();
                    pages.push((rows[0].id, 4096));
                    frames.push(encode_rows(&rows));
                }
                let head = SegmentHead { session: FORGED, supersedes: Vec::new(), pack_frames: 1, pages };
                frames.splice(0..0, [head.encode(), packs]);
                f.frames(&frames);
            },
            Restored,
        ).damaged()
        .library_only(),
        case(
            "index under another name",
            "an index segment that is not named by its hash",
            |f| {
                whole(f);
                let bytes = f.objects[&f.key("index/")].clone();
                f.objects.insert(format!("index/{}", "ab".repeat(32)), bytes);
            },
            Restored,
        )
        .damaged(),
        case(
            "pack under another name",
            "a pack that is not named by its hash",
            |f| {
                whole(f);
                let bytes = f.objects[&f.key("data/")[..]].clone();
                f.objects.insert(format!("data/ab/{}", "ab".repeat(32)), bytes);
            },
            Restored,
        )
        .damaged(),
        case(
            "pack of another repository",
            "packs of another repository that has the same key file",
            |f| {
                whole(f);
                for (key, bytes) in Forge::other() {
                    if key.starts_with("data/") || key.starts_with("meta/") {
                        f.objects.insert(key.clone(), bytes.clone());
                    }
                }
            },
            Restored,
        )
        .damaged(),
        case(
            "snapshot of another repository",
            "a snapshot of another repository that has the same key file",
            |f| {
                let (_, bytes) = Forge::other().iter().find(|(key, _)| key.starts_with("snapshots/")).unwrap();
                f.objects.insert(format!("snapshots/{FORGED}"), bytes.clone());
            },
            Refused(ErrorKind::Corruption, "another repository"),
        )
        .damaged(),
        case(
            "snapshot under another name",
            "an honest snapshot once more under another identity",
            |f| {
                let bytes = f.objects[&f.key("snapshots/")].clone();
                f.objects.insert(format!("snapshots/{FORGED}"), bytes);
            },
            Refused(ErrorKind::Corruption, "another session"),
        )
        .damaged(),
        case(
            "packs exchanged",
            "two packs of one repository, each in the other's place",
            |f| {
                whole(f);
                let honest = f.key("data/");
                let forged = f.objects.keys().find(|key| key.starts_with("data/") && **key != honest).unwrap().clone();
                let (one, two) = (f.objects[&honest].clone(), f.objects[&forged].clone());
                f.objects.insert(honest, two);
                f.objects.insert(forged, one);
            },
            lost,
        )
        .damaged()
        .honest_is_lost(),
        case(
            "config of another repository",
            "the configuration of another repository that has the same key file",
            |f| {
                whole(f);
                f.objects.insert("config".into(), Forge::other()["config"].clone());
            },
            Refused(ErrorKind::Corruption, ""),
        )
        .verify(Verify::Refused),
    ]);
    cases
}

/// A zstd frame of stored blocks: packed again it stays as it is.
fn zstd_stored(input: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
    let mut blocks = input.chunks(100_000).peekable();
    while let Some(block) = blocks.next() {
        let header = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}
