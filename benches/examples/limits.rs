//! What a backup of a directory costs at least: each stage of the hot path over its files, one after the other, on one thread.
//!
//! ```text
//! cargo run --release -p backup-benches --features aws-lc --example limits -- DIRECTORY
//! ```
//!
//! No engine is in between: no queues, no index, no metadata, no snapshot. The sum over the processors is what no backup that does the same
//! work can be faster than; how far `backup` is from it is what the engine costs. Run it twice, so that the files are cached.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a program for measuring")]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::chunker::{Chunker, ChunkerParameters};
use backup_core::limits::{FRAME_TARGET_BYTES, INLINE_BYTES_MAX, MIB, SMALL_FILES_FRAME_TARGET_BYTES};
use backup_core::transform::is_long_content;
use backup_core::{Encoded, FrameContext, JobContext, ObjectType, Protection, Sink, Transform, Zstd};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::MemorySink;
use sha2::{Digest, Sha256};

/// Content that goes through the stages at once, as in a worker.
const BATCH_BYTES: usize = 4 * MIB;
/// Frames in a pack.
const FRAMES: u32 = 16;
/// The longest that is read at once.
const READ_BYTES: u64 = 16 * MIB as u64;

fn main() {
    let directory = std::env::args_os().nth(1).expect("a directory to read");
    let mut stages = Stages::new();
    let mut files = Vec::new();
    stages.walk(Path::new(&directory), &mut files);
    for path in &files {
        stages.file(path);
    }
    stages.batch();
    stages.frame();
    stages.end();
    stages.print(files.len());
}

struct Stages {
    chunker: Chunker,
    protection: Arc<dyn Protection>,
    seal: Option<Arc<dyn Transform>>,
    /// Frames so far; sixteen are a pack, and each pack has a salt of its own.
    frames: u32,
    zstd: Zstd,
    seen: HashSet<[u8; 16]>,
    /// Files that were read and not cut yet, and where each ends.
    content: Vec<u8>,
    ends: Vec<usize>,
    frame: Vec<u8>,
    chunks: usize,
    compressed: Vec<u8>,
    sealed: Vec<u8>,
    hash: Sha256,
    out: File,
    took: BTreeMap<&'static str, (Duration, u64)>,
}

impl Stages {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let recipient =
            Recipient::key_file(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a key file");
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
        let created = runtime.block_on(Keyring::create(&sink, &[recipient], &JobContext::new()));
        let protection: Arc<dyn Protection> = created.expect("keys can be made");
        Self {
            chunker: Chunker::new(&[3; 32], ChunkerParameters::default()).expect("sizes of chunks"),
            seal: None,
            frames: 0,
            protection,
            zstd: Zstd::default(),
            seen: HashSet::new(),
            content: Vec::new(),
            ends: Vec::new(),
            frame: Vec::new(),
            chunks: 0,
            compressed: Vec::new(),
            sealed: Vec::new(),
            hash: Sha256::new(),
            out: tempfile::tempfile_in(".").expect("a temporary file"),
            took: BTreeMap::new(),
        }
    }

    fn count(&mut self, stage: &'static str, began: Instant, bytes: usize) {
        let (took, all) = self.took.entry(stage).or_default();
        *took += began.elapsed();
        *all += bytes as u64;
    }

    fn walk(&mut self, root: &Path, files: &mut Vec<PathBuf>) {
        let began = Instant::now();
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let entry = entry.expect("an entry");
                let meta = entry.metadata().expect("metadata");
                if meta.is_dir() {
                    directories.push(entry.path());
                } else if meta.is_file() {
                    files.push(entry.path());
                }
            }
        }
        self.count("1 walk", began, 0);
        files.sort();
    }

    fn file(&mut self, path: &Path) {
        let mut file = None;
        loop {
            let began = Instant::now();
            let file = file.get_or_insert_with(|| File::open(path).expect("a file"));
            let before = self.content.len();
            let read = file.take(READ_BYTES).read_to_end(&mut self.content).expect("content");
            self.ends.push(self.content.len());
            self.count("2 read", began, self.content.len() - before);
            if self.content.len() >= BATCH_BYTES {
                self.batch();
            }
            if (read as u64) < READ_BYTES {
                return;
            }
        }
    }

    fn batch(&mut self) {
        let (content, ends) = (std::mem::take(&mut self.content), std::mem::take(&mut self.ends));
        let began = Instant::now();
        let (mut chunks, mut cuts, mut start) = (Vec::new(), Vec::new(), 0);
        for end in &ends {
            let file = &content[start..*end];
            if file.len() > INLINE_BYTES_MAX {
                cuts.clear();
                self.chunker.cuts(file, true, &mut cuts);
                let mut from = 0;
                for cut in &cuts {
                    chunks.push(start + from..start + cut);
                    from = *cut;
                }
            }
            start = *end;
        }
        self.count("3 cut", began, content.len());
        let began = Instant::now();
        let ids: Vec<_> =
            chunks.iter().map(|chunk| self.protection.chunk_id(&content[chunk.clone()])).collect();
        self.count("4 identify", began, content.len());
        for (chunk, id) in chunks.into_iter().zip(ids) {
            if self.seen.insert(id.short().0.to_be_bytes()) {
                self.frame.extend_from_slice(&content[chunk]);
                self.chunks += 1;
                // As the engine closes them.
                let long = is_long_content(self.frame.len(), self.chunks);
                let target = if long { FRAME_TARGET_BYTES } else { SMALL_FILES_FRAME_TARGET_BYTES };
                if self.frame.len() >= target {
                    self.frame();
                }
            }
        }
        self.content = content;
        self.content.clear();
        self.ends = ends;
        self.ends.clear();
    }

    fn frame(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        let repository = self.protection.repository().0;
        let (pack, ordinal) = (self.frames / FRAMES, self.frames % FRAMES);
        self.frames += 1;
        let mut salt = [2; 32];
        salt[..4].copy_from_slice(&pack.to_le_bytes());
        if ordinal == 0 {
            self.seal = None;
        }
        let context = FrameContext {
            chunks: std::mem::take(&mut self.chunks),
            repository: &repository,
            object_type: ObjectType::Data,
            salt: &salt,
            ordinal,
            plain_len: frame.len(),
            associated_data: b"sixty-four bytes stand in for what the header and the place say.",
        };
        let began = Instant::now();
        self.compressed.clear();
        let encoded = self.zstd.encode(&context, &frame, &mut self.compressed).expect("it compresses");
        self.count("5 compress", began, frame.len());
        let stored = if matches!(encoded, Encoded::Applied) { &self.compressed } else { &frame };
        let began = Instant::now();
        self.sealed.clear();
        let protection = &self.protection;
        let seal = self
            .seal
            .get_or_insert_with(|| protection.seal(ObjectType::Data, salt).expect("a fresh salt").seal);
        seal.encode(&context, stored, &mut self.sealed).expect("it seals");
        self.count("6 seal", began, self.sealed.len());
        let began = Instant::now();
        self.hash.update(&self.sealed);
        self.count("7 name packs", began, self.sealed.len());
        let began = Instant::now();
        self.out.write_all(&self.sealed).expect("there is space");
        self.count("8 write", began, self.sealed.len());
        self.frame = frame;
        self.frame.clear();
    }

    fn end(&mut self) {
        let began = Instant::now();
        self.out.sync_all().expect("it syncs");
        self.count("9 sync", began, 0);
    }

    fn print(&self, files: usize) {
        println!("{files} files, {} different chunks", self.seen.len());
        println!("{:14} {:>8} {:>10} {:>8}", "stage", "s", "MB", "GB/s");
        let mut all = Duration::ZERO;
        for (stage, (took, bytes)) in &self.took {
            let (seconds, megabytes) = (took.as_secs_f64(), *bytes as f64 / 1e6);
            println!("{stage:14} {seconds:8.2} {megabytes:10.0} {:8.2}", megabytes / 1e3 / seconds);
            // Waiting for the disk takes no processor.
            if !stage.starts_with('9') {
                all += *took;
            }
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let least = all.as_secs_f64() / processors as f64;
        println!("{:14} {:8.2}, on {processors} processors {least:.2}", "all but sync", all.as_secs_f64());
    }
}
