//! What a backup costs: what is opened, what is stored, in how many objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use backup_core::chunker::ChunkerParameters;
use backup_core::repository::{BackupOptions, VerifyLevel};
use backup_core::source::{BlockingContent, Content};
use backup_core::testing::{Operation, RecordingSink};
use backup_core::{
    Entry, Fetched, GetRange, Item, JobContext, ObjectKey, ObjectMeta, PutOutcome, Result, Sink, Source,
    SourceInfo, SourceRun,
};
use backup_sinks::MemorySink;
use backup_sources::FilesSource;
use bytes::Bytes;
use common::{BOTH, Protect, Rng, SMALL, TestEntry, TestSource, in_memory, objects, random, text, tree};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

#[tokio::test]
async fn an_unchanged_second_backup_opens_nothing_and_stores_next_to_nothing() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, ChunkerParameters::default()).await;
        let mut entries: Vec<_> =
            tree(3, 5000, 3000).into_iter().map(|test| test.sized_as_is().stamped()).collect();
        entries.push(TestEntry::file("large", random(1, 30_000_000)).stamped());
        let source = TestSource::new(entries);
        let files = source.entries.iter().filter(|test| test.entry.kind.has_content()).count() as u64;
        let first = setup.backup(&source).await.unwrap();
        assert_eq!(source.opened(), files);
        // The same handle and a new one.
        for setup in [setup.clone(), setup.reopen(Arc::new(sink.clone())).await.unwrap()] {
            let stored_before = sink.total_bytes();
            let second = setup.backup(&source).await.unwrap();
            assert_eq!(source.opened(), files, "nothing was opened again");
            assert_eq!((second.bytes_read, second.bytes_added), (0, 0));
            assert_eq!(second.entries_unchanged, files);
            assert_eq!((second.entries, second.bytes_logical), (first.entries, first.bytes_logical));
            let stored = sink.total_bytes() - stored_before;
            println!("{protect:?}: an unchanged backup of {} entries stored {stored} bytes", second.entries);
            assert!(stored < 64 * KIB, "{stored}");
            setup.assert_restores(second.snapshot.unwrap(), &source).await;
        }
        // Without stamps everything is read, and stored no second time.
        let mut unstamped = source.clone();
        unstamped.entries.iter_mut().for_each(|test| test.entry.stamp = None);
        let again = setup.backup(&unstamped).await.unwrap();
        assert_eq!(again.bytes_added, 0);
        assert_eq!(again.entries_unchanged, 0);
    }
}

#[tokio::test]
async fn a_tree_backed_up_as_soon_as_it_is_made_is_not_read_by_the_second_backup() {
    let tree = tempfile::tempdir().unwrap();
    (0..50).for_each(|number| {
        std::fs::write(tree.path().join(number.to_string()), random(number, 500)).unwrap()
    });
    let source = FilesSource::new(tree.path()).unwrap();
    let (setup, _) = in_memory(Protect::Plain, ChunkerParameters::default()).await;
    let options = BackupOptions::default();
    let backup = || setup.repository.backup(&source, &options, &setup.job);
    assert_eq!(backup().await.unwrap().entries_unchanged, 0);
    let second = backup().await.unwrap();
    assert_eq!((second.entries_unchanged, second.bytes_read), (50, 0));
    // What changed in between is, however quickly.
    std::fs::write(tree.path().join("7"), random(99, 500)).unwrap();
    let third = backup().await.unwrap();
    assert_eq!((third.entries_unchanged, third.bytes_read), (49, 500));
    assert_eq!(backup().await.unwrap().bytes_read, 0);
}

#[tokio::test]
async fn one_changed_file_in_a_directory_of_100_000_stores_little_beyond_its_chunks() {
    let (setup, sink) = in_memory(Protect::Encrypted, ChunkerParameters::default()).await;
    let mut entries: Vec<_> = (0..100_000_u64)
        .map(|number| {
            let len = 100 + (number * 7919 % 400) as usize;
            TestEntry::file(&format!("all/in-one/file-{:08}.txt", number * 37), random(number, len)).stamped()
        })
        .collect();
    setup.store(&TestSource::new(entries.clone())).await;
    for (at, bytes) in [(50_000, 10_000), (3, 500), (99_999, 3_000_000)] {
        let name = entries[at].entry.name.to_string();
        entries[at] = TestEntry::file(&name, random(1_000_000 + at as u64, bytes)).stamped();
        let source = TestSource::new(entries.clone());
        let before = sink.total_bytes();
        let report = setup.backup(&source).await.unwrap();
        assert_eq!(source.opened(), 1);
        assert_eq!(report.bytes_added, bytes as u64);
        let beyond = sink.total_bytes() - before - bytes as u64;
        println!("a changed file of {bytes} bytes among 100,000 stored {beyond} bytes beyond it");
        assert!(beyond < 128 * KIB, "{beyond}");
        // The registration of the session before goes with each backup.
        let stored = sink.total_bytes() - before;
        assert!(stored.abs_diff(report.bytes_stored) < KIB, "the report counts what is put");
    }
    // A file more and a file less are no worse.
    entries.remove(70_000);
    entries.push(TestEntry::file("all/in-one/file-0000", text(1, 5000)).stamped());
    let before = sink.total_bytes();
    setup.store(&TestSource::new(entries)).await;
    assert!(sink.total_bytes() - before < 128 * KIB);
}

#[tokio::test]
async fn one_entry_in_a_hundred_changed_evenly_writes_less_than_a_quarter_of_the_pages_again() {
    let (setup, sink) = in_memory(Protect::Encrypted, ChunkerParameters::default()).await;
    let file = |number: u64, version: u64| {
        let name =
            format!("tree/{:03}/{:02}/file-{}.txt", number / 400, number / 20 % 20, number * 37 % 1009);
        TestEntry::file(&name, random(number + version, 120)).stamped()
    };
    let pages = async || {
        let all = objects(&sink).await;
        all.iter()
            .filter(|(key, _)| key.starts_with("meta/"))
            .map(|(_, bytes)| bytes.len() as u64)
            .sum::<u64>()
    };
    setup.store(&TestSource::new((0..20_000).map(|number| file(number, 0)).collect())).await;
    let whole = pages().await;
    let changed = |number: u64| if number % 100 == 50 { 1_000_000 } else { 0 };
    let source = TestSource::new((0..20_000).map(|number| file(number, changed(number))).collect());
    setup.store(&source).await;
    assert_eq!(source.opened(), 200);
    let again = pages().await - whole;
    println!("{again} bytes of pages again of {whole}");
    assert!(again < whole / 4, "{again} of {whole}");
}

#[tokio::test]
async fn a_licence_in_every_directory_is_not_fetched_again_and_again() {
    let (setup, sink) = in_memory(Protect::Plain, ChunkerParameters::default()).await;
    let content = |number: u64| TestEntry::file(&format!("{number:04}/content"), random(number, 60_000));
    let licence = |number: u64| {
        let name = format!("{number:04}/{}", if number.is_multiple_of(2) { "COPYING" } else { "LICENSE" });
        TestEntry::file(&name, random(1_000_000 + number % 2, 20_000))
    };
    let without = setup.store(&TestSource::new((0..1200).map(content).collect())).await;
    let with =
        setup.store(&TestSource::new((0..1200).flat_map(|n| [content(n), licence(n)]).collect())).await;
    let fetched = async |id| {
        let recording = Arc::new(RecordingSink::over(Arc::new(sink.clone())));
        let setup = setup.reopen(recording.clone()).await.unwrap();
        let (found, report) = setup.restore(id).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        let gets = recording.take().into_iter();
        let gets = gets.filter(|call| call.operation == Operation::Get && call.key.starts_with("data/"));
        (found.len(), gets.map(|call| call.amount).sum::<u64>())
    };
    let ((plain, alone), (more, together)) = (fetched(without).await, fetched(with).await);
    assert_eq!((plain, more), (1200, 2400));
    println!("{alone} bytes fetched without licences, {together} with them");
    assert!(together < alone + alone / 10 + 8 * MIB, "{together}");
}

/// Incompressible content that is made as it is read.
#[derive(Debug)]
struct Stream {
    front: &'static [u8],
    len: u64,
}

struct StreamReader {
    front: &'static [u8],
    rng: Rng,
    left: u64,
    rest: Vec<u8>,
}

impl BlockingContent for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.front.is_empty() {
            return self.front.read(buffer);
        }
        if self.rest.is_empty() {
            self.rest.resize(self.left.min(256 * KIB) as usize, 0);
            self.left -= self.rest.len() as u64;
            self.rng.fill(&mut self.rest);
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Ok(count)
    }
}

#[async_trait]
impl Source for Stream {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("stream", ["generated"])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        let entry = Entry::file("stream")?.with_size(self.front.len() as u64 + self.len);
        Ok(Box::new(StreamRun { front: self.front, len: self.len, entry: Some(entry) }))
    }
}

struct StreamRun {
    front: &'static [u8],
    len: u64,
    entry: Option<Entry>,
}

#[async_trait]
impl SourceRun for StreamRun {
    async fn next(&mut self, _: usize) -> Result<Vec<Item>> {
        Ok(self.entry.take().map(Item::from).into_iter().collect())
    }

    async fn open(&self, _: &Entry) -> Result<Content> {
        let reader = StreamReader { front: self.front, rng: Rng::new(1), left: self.len, rest: Vec::new() };
        Ok(Content::blocking(move || Ok(reader)))
    }
}

/// Counts the bytes of data packs and forgets them.
#[derive(Debug, Default)]
struct Forgetful {
    inner: MemorySink,
    forgotten: std::sync::atomic::AtomicU64,
}

#[async_trait]
impl Sink for Forgetful {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        if key.as_str().starts_with("data/") {
            self.forgotten.fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
            return Ok(PutOutcome::Created);
        }
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }
}

impl Forgetful {
    fn stored(&self) -> u64 {
        self.inner.total_bytes() + self.forgotten.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_inserted_at_the_front_of_a_gibibyte_stores_at_most_8_mib() {
    let started = Instant::now();
    let sink = Arc::new(Forgetful::default());
    let setup = common::create(sink.clone(), Protect::Encrypted, ChunkerParameters::default()).await;
    let len = 1024 * MIB;
    let first = Stream { front: b"", len };
    let report = setup.repository.backup(&first, &BackupOptions::default(), &setup.job).await.unwrap();
    assert_eq!(report.bytes_added, len);
    assert!(sink.stored() > len && sink.stored() < len + len / 100, "{}", sink.stored());
    let before = sink.stored();
    let shifted = Stream { front: b"!", len };
    let report = setup.repository.backup(&shifted, &BackupOptions::default(), &setup.job).await.unwrap();
    assert_eq!((report.bytes_read, report.bytes_logical), (len + 1, len + 1));
    let stored = sink.stored() - before;
    println!("a byte in front of 1 GiB stored {stored} bytes; both backups took {:?}", started.elapsed());
    assert!(stored <= 8 * MIB, "{stored}");
}

/// Files of this machine with real content, always the same ones in the same order.
fn corpus(bytes: usize) -> Vec<u8> {
    let mut files = Vec::new();
    let mut dirs: Vec<PathBuf> = ["/usr/share", "/usr/lib", "/usr/include"].map(PathBuf::from).into();
    while let Some(dir) = dirs.pop() {
        let Ok(read) = std::fs::read_dir(&dir) else { continue };
        for item in read.flatten() {
            let Ok(kind) = item.file_type() else { continue };
            match item.metadata() {
                Ok(_) if kind.is_dir() => dirs.push(item.path()),
                Ok(meta) if kind.is_file() && meta.len() > 0 => files.push((item.path(), meta.len())),
                _ => {}
            }
        }
    }
    files.sort();
    let total: u64 = files.iter().map(|(_, len)| len.min(&(256 * KIB))).sum();
    // Evenly over all of them: text, tables, source, programs.
    let share = (bytes as f64 / total as f64).min(1.0);
    let mut out = Vec::with_capacity(bytes + bytes / 8);
    for (path, len) in files {
        let take = ((len.min(256 * KIB)) as f64 * share).ceil() as u64;
        if let Ok(file) = std::fs::File::open(path) {
            let _ = file.take(take).read_to_end(&mut out);
        }
    }
    out
}

fn write_small_files(root: &Path, count: usize) -> u64 {
    let mut rng = Rng::new(11);
    let corpus = corpus(count * 2048);
    assert!(corpus.len() > 1_000_000, "this machine has too few files to take content from");
    let (mut at, mut total) = (0, 0);
    for number in 0..count {
        let dir = root.join(format!("{:03}", number / 500));
        if number % 500 == 0 {
            std::fs::create_dir(&dir).unwrap();
        }
        let len = rng.below(4097) as usize;
        if at + len > corpus.len() {
            at = 0;
        }
        let suffix = ["txt", "json", "rs", "bin"][number % 4];
        std::fs::write(dir.join(format!("file-{number:06}.{suffix}")), &corpus[at..at + len]).unwrap();
        at += len;
        total += len as u64;
    }
    total
}

fn tar_zstd_bytes(root: &Path) -> u64 {
    let mut tar = Command::new("tar")
        .args(["--sort=name", "-cf", "-", "-C"])
        .arg(root)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar is needed for this comparison");
    let mut zstd = Command::new("zstd")
        .args(["-3", "-q", "-c"])
        .stdin(tar.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .expect("zstd is needed for this comparison");
    let bytes = io::copy(&mut zstd.stdout.take().unwrap(), &mut io::sink()).unwrap();
    assert!(tar.wait().unwrap().success() && zstd.wait().unwrap().success());
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_small_files_make_few_objects_and_compress_like_an_archive() {
    let count = 200_000;
    // In memory where the system has such a place: the files are many, and no disk is measured here.
    let shared = Path::new("/dev/shm");
    let root = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    let root = root.unwrap();
    let started = Instant::now();
    let total = write_small_files(root.path(), count);
    let written = started.elapsed();
    let source = FilesSource::new(root.path()).unwrap();
    let (setup, sink) = in_memory(Protect::Encrypted, ChunkerParameters::default()).await;
    let started = Instant::now();
    let report = setup.repository.backup(&source, &BackupOptions::default(), &setup.job).await.unwrap();
    let backed_up = started.elapsed();
    assert!(report.entries >= count as u64 && report.skipped.is_empty());
    let (stored, made) = (sink.total_bytes(), sink.len());
    let archive = tar_zstd_bytes(root.path());
    println!(
        "{count} files of {total} bytes: {stored} bytes in {made} objects, tar and zstd {archive} ({:.3}); written in \
         {written:?}, backed up in {backed_up:?}",
        stored as f64 / archive as f64
    );
    assert!(made < 100, "{made} objects");
    assert!(stored as f64 <= archive as f64 * 1.15, "{stored} bytes, the archive has {archive}");
    let verified = setup.verify(VerifyLevel::Structure).await.unwrap();
    assert!(verified.is_clean());
    let again = setup.repository.backup(&source, &BackupOptions::default(), &setup.job).await.unwrap();
    assert_eq!(again.bytes_read, 0);
    let unchanged = sink.total_bytes() - stored;
    assert!(unchanged < 64 * KIB, "{unchanged} bytes for nothing new");
}

#[tokio::test]
async fn content_known_already_is_stored_once_however_it_is_read_and_called() {
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    let content = random(9, 3_000_000);
    let mut entries = Vec::new();
    for number in 0..6 {
        let body = [common::Body::Blocking, common::Body::Async, common::Body::Random][number % 3];
        let size = [Some(3_000_000), None, Some(1)][number / 2 % 3];
        entries.push(TestEntry::file(&format!("copy-{number}"), content.clone()).body(body).sized(size));
    }
    let before = sink.total_bytes();
    let report = setup.backup(&TestSource::new(entries)).await.unwrap();
    assert_eq!(report.bytes_added, 3_000_000);
    assert_eq!(report.bytes_logical, 18_000_000);
    assert!(sink.total_bytes() - before < 3_100_000);
}
