//! Each stage of the hot path by itself, on one thread: cut, identify, compress, seal, pack, and back.

#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use backup_benches::Kind;
use backup_core::chunker::{Chunker, ChunkerParameters};
use backup_core::format::directory::ChunkRecord;
use backup_core::format::object::{ObjectOpener, ObjectWriter, Scratch};
use backup_core::limits::{FRAME_TARGET_BYTES, MIB};
use backup_core::{
    Encoded, FrameContext, JobContext, ObjectType, Protection, RepositoryId, Sink, Transform, TransformSet,
    Unprotected, Zstd,
};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::MemorySink;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const REPOSITORY: [u8; 16] = [1; 16];
const SALT: [u8; 32] = [2; 32];

fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::BytesDecimal(bytes as u64));
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn frame(ordinal: u32, plain_len: usize) -> FrameContext<'static> {
    FrameContext {
        repository: &REPOSITORY,
        object_type: ObjectType::Data,
        salt: &SALT,
        ordinal,
        plain_len,
        associated_data: b"sixty-four bytes stand in for what the header and the place say.",
    }
}

fn cut(criterion: &mut Criterion) {
    let mut group = group(criterion, "cut", 16 * MIB);
    let sizes = |min_bytes, avg_bytes, max_bytes| ChunkerParameters { min_bytes, avg_bytes, max_bytes };
    for (name, parameters) in [
        ("128K-512K-2M", ChunkerParameters::default()),
        ("16K-64K-256K", sizes(16 << 10, 64 << 10, 256 << 10)),
        ("512K-1M-8M", sizes(512 << 10, 1 << 20, 8 << 20)),
    ] {
        let Ok(chunker) = Chunker::new(&[3; 32], parameters) else { continue };
        for kind in Kind::ALL {
            let data = kind.generate(16 * MIB, 1);
            let mut cuts = Vec::new();
            group.bench_function(BenchmarkId::new(name, kind), |bencher| {
                bencher.iter(|| {
                    cuts.clear();
                    chunker.cuts(black_box(&data), true, &mut cuts)
                });
            });
        }
    }
    let Ok(chunker) = Chunker::new(&[3; 32], ChunkerParameters::default()) else { return };
    let zeros = vec![0; 16 * MIB];
    group.bench_function(BenchmarkId::new("128K-512K-2M", "zeros"), |bencher| {
        bencher.iter(|| chunker.cuts(black_box(&zeros), true, &mut Vec::new()));
    });
}

fn identify(criterion: &mut Criterion) {
    for (name, len) in [("identify/4K", 4096), ("identify/512K", 512 * 1024)] {
        let mut group = group(criterion, name, len);
        let data = Kind::Incompressible.generate(len, 2);
        let unprotected = Unprotected::new(RepositoryId(REPOSITORY));
        group.bench_function("blake3", |bencher| bencher.iter(|| unprotected.chunk_id(black_box(&data))));
        group.bench_function("blake3-keyed", |bencher| {
            bencher.iter(|| blake3::keyed_hash(&SALT, black_box(&data)));
        });
        group.bench_function("sha256", |bencher| bencher.iter(|| Sha256::digest(black_box(&data))));
        let Ok(hmac) = Hmac::<Sha256>::new_from_slice(&SALT) else { continue };
        group.bench_function("hmac-sha256", |bencher| {
            bencher.iter(|| hmac.clone().chain_update(black_box(&data)).finalize());
        });
    }
}

fn compress(criterion: &mut Criterion) {
    for (name, back) in [("compress", false), ("decompress", true)] {
        let mut group = group(criterion, name, FRAME_TARGET_BYTES);
        for kind in Kind::ALL {
            let data = kind.generate(FRAME_TARGET_BYTES, 3);
            for level in [-3, 1, 3] {
                let Ok(zstd) = Zstd::new(level) else { continue };
                transform(&mut group, BenchmarkId::new(format!("zstd{level}"), kind), &zstd, &data, back);
            }
        }
    }
}

/// Without encryption and with it.
fn protections() -> [(&'static str, Arc<dyn Protection>); 2] {
    [("unprotected", Arc::new(Unprotected::new(RepositoryId(REPOSITORY)))), ("aes-gcm", keyring())]
}

fn keyring() -> Arc<dyn Protection> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let recipient = Recipient::key_file(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a key file");
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    runtime.block_on(Keyring::create(&sink, &[recipient], &JobContext::new())).expect("keys can be made")
}

fn seal(criterion: &mut Criterion) {
    let data = Kind::Incompressible.generate(FRAME_TARGET_BYTES, 4);
    for (stage, back) in [("seal", false), ("unseal", true)] {
        let mut group = group(criterion, stage, FRAME_TARGET_BYTES);
        for (name, protection) in protections() {
            let object = protection.seal(ObjectType::Data, SALT).expect("a fresh salt");
            transform(&mut group, BenchmarkId::from_parameter(name), &*object.seal, &data, back);
        }
    }
}

/// A pack from its header to the hash of its bytes, and from its directory to its plaintext.
fn pack(criterion: &mut Criterion) {
    const FRAMES: usize = 8;
    let chain: [Arc<dyn Transform>; 1] = [Arc::new(Zstd::default())];
    for (name, protection) in protections() {
        for kind in Kind::ALL {
            let plain = kind.generate(FRAMES * FRAME_TARGET_BYTES, 5);
            let seal = || {
                let writer = ObjectWriter::new(&*protection, ObjectType::Data, &chain, SALT, Vec::new());
                let mut writer = writer.expect("a fresh salt");
                for frame in plain.chunks(FRAME_TARGET_BYTES) {
                    let id = protection.chunk_id(frame).short();
                    let chunk = ChunkRecord { id, len: frame.len() as u32 };
                    writer.push_frame(frame, &[chunk]).expect("there is room");
                }
                writer.finish().expect("a pack").bytes
            };
            let mut packing = group(criterion, "pack", plain.len());
            packing.bench_function(BenchmarkId::new(name, kind), |bencher| bencher.iter(seal));
            packing.finish();

            let pack = seal();
            let mut unpacking = group(criterion, "unpack", plain.len());
            unpacking.bench_function(BenchmarkId::new(name, kind), |bencher| {
                let mut scratch = Scratch::default();
                bencher.iter(|| unpack(&*protection, &pack, &mut scratch));
            });
        }
    }
}

fn unpack(protection: &dyn Protection, pack: &[u8], scratch: &mut Scratch) -> usize {
    let opener =
        ObjectOpener::new(protection, &TransformSet::builtin(), ObjectType::Data, pack).expect("a header");
    let directory = opener.open_directory(pack, pack.len() as u64).expect("a directory");
    let mut start = opener.header_len();
    let mut plain = Vec::new();
    for (ordinal, record) in directory.frames.iter().enumerate() {
        plain.clear();
        let end = start + record.stored_len as usize;
        opener.open_frame(ordinal as u32, record, &pack[start..end], scratch, &mut plain).expect("a frame");
        assert_eq!(protection.chunk_id(&plain).short(), directory.chunks[ordinal].id);
        start = end;
    }
    directory.frames.len()
}

/// Measures one direction of a transform over `data`. What it does not apply to has no way back.
fn transform(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    transform: &dyn Transform,
    data: &[u8],
    back: bool,
) {
    let frame = frame(0, data.len());
    let mut encoded = Vec::new();
    let applied = matches!(transform.encode(&frame, data, &mut encoded), Ok(Encoded::Applied));
    let mut out = Vec::with_capacity(data.len() * 2);
    if !back {
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                out.clear();
                transform.encode(&frame, black_box(data), &mut out)
            });
        });
    } else if applied {
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                out.clear();
                transform.decode(&frame, black_box(&encoded), &mut out, data.len())
            });
        });
    }
}

criterion_group!(stages, cut, identify, compress, seal, pack);
criterion_main!(stages);
