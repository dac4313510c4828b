//! The stages of the hot path, each by itself and on one thread: cut, identify, compress, seal, pack, and back.

#![allow(clippy::expect_used, reason = "what is measured must not fail, and a bench may say so by ending")]

use std::hint::black_box;
use std::sync::Arc;

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
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::Kind;

const REPOSITORY: [u8; 16] = [1; 16];
const SALT: [u8; 32] = [2; 32];

/// What is done once, over and over, or counted; made by [`Stage::prepare`].
pub type Work = Box<dyn FnMut()>;

/// One step, in one way, over one kind of data.
pub struct Stage {
    /// The step, as `cut`.
    pub group: &'static str,
    /// In which way, as `128K-512K-2M/mixed`.
    pub name: String,
    /// Bytes of plaintext that it is done to.
    pub bytes: usize,
    prepare: Box<dyn Fn() -> Work>,
}

impl Stage {
    fn new(
        group: &'static str,
        name: impl Into<String>,
        bytes: usize,
        prepare: impl Fn() -> Work + 'static,
    ) -> Self {
        Self { group, name: name.into(), bytes, prepare: Box::new(prepare) }
    }

    /// Makes the data, and everything that a backup makes once and not for each chunk.
    pub fn prepare(&self) -> Work {
        (self.prepare)()
    }
}

/// All stages, those of a group in a row.
pub fn all() -> Vec<Stage> {
    [cut(), identify(), compress(), seal(), pack()].into_iter().flatten().collect()
}

fn cut() -> Vec<Stage> {
    const BYTES: usize = 16 * MIB;
    let sizes = |min_bytes, avg_bytes, max_bytes| ChunkerParameters { min_bytes, avg_bytes, max_bytes };
    let cut = |parameters: ChunkerParameters, data: Vec<u8>| -> Work {
        let chunker = Chunker::new(&[3; 32], parameters).expect("sizes of chunks");
        let mut cuts = Vec::new();
        Box::new(move || {
            cuts.clear();
            black_box(chunker.cuts(black_box(&data), true, &mut cuts));
        })
    };
    let mut stages = Vec::new();
    for (name, parameters) in [
        ("128K-512K-2M", ChunkerParameters::default()),
        ("16K-64K-256K", sizes(16 << 10, 64 << 10, 256 << 10)),
        ("512K-1M-8M", sizes(512 << 10, 1 << 20, 8 << 20)),
    ] {
        for kind in Kind::ALL {
            let prepare = move || cut(parameters, kind.generate(BYTES, 1));
            stages.push(Stage::new("cut", format!("{name}/{kind}"), BYTES, prepare));
        }
    }
    let zeros = move || cut(ChunkerParameters::default(), vec![0; BYTES]);
    stages.push(Stage::new("cut", "128K-512K-2M/zeros", BYTES, zeros));
    stages
}

fn identify() -> Vec<Stage> {
    let mut stages = Vec::new();
    for (group, len) in [("identify/4K", 4096), ("identify/512K", 512 * 1024)] {
        let data = move || Kind::Incompressible.generate(len, 2);
        stages.push(Stage::new(group, "blake3", len, move || {
            let (unprotected, data) = (Unprotected::new(RepositoryId(REPOSITORY)), data());
            Box::new(move || {
                let _ = black_box(unprotected.chunk_id(black_box(&data)));
            })
        }));
        stages.push(Stage::new(group, "blake3-keyed", len, move || {
            let data = data();
            Box::new(move || {
                let _ = black_box(blake3::keyed_hash(&SALT, black_box(&data)));
            })
        }));
        stages.push(Stage::new(group, "sha256", len, move || {
            let data = data();
            Box::new(move || {
                let _ = black_box(Sha256::digest(black_box(&data)));
            })
        }));
        stages.push(Stage::new(group, "hmac-sha256", len, move || {
            let (hmac, data) = (Hmac::<Sha256>::new_from_slice(&SALT).expect("any key"), data());
            Box::new(move || {
                let _ = black_box(hmac.clone().chain_update(black_box(&data)).finalize());
            })
        }));
    }
    stages
}

fn compress() -> Vec<Stage> {
    let mut stages = Vec::new();
    for (group, back) in [("compress", false), ("decompress", true)] {
        for kind in Kind::ALL {
            // What it does not apply to has no way back.
            if back && kind == Kind::Incompressible {
                continue;
            }
            for level in [-3, 1, 3] {
                stages.push(Stage::new(
                    group,
                    format!("zstd{level}/{kind}"),
                    FRAME_TARGET_BYTES,
                    move || {
                        let zstd = Zstd::new(level).expect("a level");
                        let data = kind.generate(FRAME_TARGET_BYTES, 3);
                        transform(Arc::new(zstd), RepositoryId(REPOSITORY), data, back)
                    },
                ));
            }
        }
    }
    stages
}

fn seal() -> Vec<Stage> {
    let data = || Kind::Incompressible.generate(FRAME_TARGET_BYTES, 4);
    let seal = Stage::new("seal", "aes-gcm", FRAME_TARGET_BYTES, move || {
        let (protection, data, mut out) = (keyring(), data(), Vec::with_capacity(2 * FRAME_TARGET_BYTES));
        let (repository, mut objects) = (protection.repository(), 0_u64);
        Box::new(move || {
            out.clear();
            // No frame is sealed twice under one salt: each time it is the first of another object.
            let mut salt = SALT;
            objects += 1;
            salt[..8].copy_from_slice(&objects.to_le_bytes());
            let seal = protection.seal(ObjectType::Data, salt).expect("a fresh salt").seal;
            let frame = FrameContext { salt: &salt, ..frame(&repository.0, data.len()) };
            let sealed = seal.encode(&frame, black_box(&data), &mut out);
            assert!(matches!(sealed, Ok(Encoded::Applied)), "{sealed:?}");
        })
    });
    let unseal = Stage::new("unseal", "aes-gcm", FRAME_TARGET_BYTES, move || {
        let protection = keyring();
        let seal = protection.seal(ObjectType::Data, SALT).expect("a fresh salt").seal;
        transform(seal, protection.repository(), data(), true)
    });
    vec![seal, unseal]
}

/// A pack from its header to the hash of its bytes, and from its directory to its plaintext.
fn pack() -> Vec<Stage> {
    const BYTES: usize = 8 * FRAME_TARGET_BYTES;
    let mut stages = Vec::new();
    for (group, back) in [("pack", false), ("unpack", true)] {
        for (name, protection) in PROTECTIONS {
            for kind in Kind::ALL {
                stages.push(Stage::new(group, format!("{name}/{kind}"), BYTES, move || {
                    let (protection, plain) = (protection(), kind.generate(BYTES, 5));
                    if !back {
                        return Box::new(move || drop(black_box(packed(&*protection, black_box(&plain)))));
                    }
                    let (pack, mut scratch) = (packed(&*protection, &plain), Scratch::default());
                    Box::new(move || unpack(&*protection, black_box(&pack), &mut scratch))
                }));
            }
        }
    }
    stages
}

type Protect = fn() -> Arc<dyn Protection>;

/// Without encryption and with it.
const PROTECTIONS: [(&str, Protect); 2] =
    [("unprotected", || Arc::new(Unprotected::new(RepositoryId(REPOSITORY)))), ("aes-gcm", keyring)];

fn keyring() -> Arc<dyn Protection> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let recipient = Recipient::key_file(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a key file");
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    runtime.block_on(Keyring::create(&sink, &[recipient], &JobContext::new())).expect("keys can be made")
}

fn packed(protection: &dyn Protection, plain: &[u8]) -> Vec<u8> {
    let chain: [Arc<dyn Transform>; 1] = [Arc::new(Zstd::default())];
    let writer = ObjectWriter::new(protection, ObjectType::Data, &chain, SALT, Vec::new());
    let mut writer = writer.expect("a fresh salt");
    for frame in plain.chunks(FRAME_TARGET_BYTES) {
        let id = protection.chunk_id(frame).short();
        let chunk = ChunkRecord { id, len: frame.len() as u32 };
        writer.push_frame(frame, &[chunk]).expect("there is room");
    }
    writer.finish().expect("a pack").bytes.to_vec()
}

fn unpack(protection: &dyn Protection, pack: &[u8], scratch: &mut Scratch) {
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
}

fn frame(repository: &[u8; 16], plain_len: usize) -> FrameContext<'_> {
    FrameContext {
        chunks: 1,
        repository,
        object_type: ObjectType::Data,
        salt: &SALT,
        ordinal: 0,
        plain_len,
        associated_data: b"sixty-four bytes stand in for what the header and the place say.",
    }
}

/// One direction of a transform over `data`.
fn transform(transform: Arc<dyn Transform>, repository: RepositoryId, data: Vec<u8>, back: bool) -> Work {
    let len = data.len();
    let mut out = Vec::with_capacity(len * 2);
    if !back {
        return Box::new(move || {
            out.clear();
            let encoded = transform.encode(&frame(&repository.0, len), black_box(&data), &mut out);
            assert!(encoded.is_ok(), "it encodes");
        });
    }
    let mut encoded = Vec::new();
    let applied = transform.encode(&frame(&repository.0, len), &data, &mut encoded).expect("it encodes");
    assert!(matches!(applied, Encoded::Applied), "there is nothing to undo");
    Box::new(move || {
        out.clear();
        transform.decode(&frame(&repository.0, len), black_box(&encoded), &mut out, len).expect("it decodes");
    })
}
