//! Stored repositories of earlier builds stay readable, by the engine and by a decoder that shares no code with it.
//! See `golden/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backup_core::format::document::{self, FenceDocument};
use backup_core::format::log::{self, LogHead};
use backup_core::report::Outcome;
use backup_core::repository::{BackupOptions, CreateOptions, Repository, SetComponent, SnapshotSet};
use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{
    Attribute, Entry, EntryKind, EntryName, ObjectKey, ObjectType, OwnerNames, PosixMetadata, Protection,
    Random, Sink, Skipped, SnapshotId, SystemRandom, Timestamp, TransformSet, Unprotected, Zstd,
};
use backup_crypto::{ChunkIdFunction, Keyring, KeyringOptions, PassphraseCost, Recipient};
use backup_sinks::LocalSink;
use common::{Collected, Protect, SMALL, Setup, TINY, TestEntry, TestSource, job, mixed, random, text};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NAMES: [&str; 4] = ["unencrypted", "encrypted", "hmac", "history"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

// What is in them.

/// The snapshots of a golden repository and what each must restore to.
type Snapshots = Vec<(SnapshotId, BTreeMap<EntryName, Collected>)>;

fn posix(mode: u32, ids: (u32, u32), seconds: i64, nanoseconds: u32) -> PosixMetadata {
    PosixMetadata { mode, uid: ids.0, gid: ids.1, modified: Timestamp::new(seconds, nanoseconds) }
}

fn other(name: impl AsRef<[u8]>, kind: EntryKind, mode: u32) -> TestEntry {
    let entry = Entry::new(name, kind).unwrap().with_posix(posix(mode, (1000, 100), 1_795_161_600, 5));
    TestEntry::other(entry)
}

/// Every kind of entry, contents of every form, names and metadata at their edges.
fn odd_entries() -> Vec<TestEntry> {
    let file = |name: &[u8], content: Vec<u8>, mode, seconds, nanoseconds| {
        let mut made = TestEntry::file("x", content).stamped();
        made.entry.name = EntryName::new(name).unwrap();
        made.entry = made.entry.with_posix(posix(mode, (0, 65_534), seconds, nanoseconds));
        made
    };
    let mut sparse = file(b"sparse", [vec![0; 40_000], text(9, 300), vec![0; 9_000]].concat(), 0o600, 5, 0);
    sparse.entry.sparse = true;
    let mut attributed = file(b"attributed", text(3, 40), 0o640, 1_000_000_000, 1);
    attributed.entry.attributes = [
        ("file:born", &[0, 202, 154, 59, 0, 0, 0, 0, 1, 0, 0, 0][..]),
        ("file:flags", &[64, 0, 0, 0]),
        ("test:position", &[0, 255, 7]),
        ("xattr:user.note", "grün".as_bytes()),
    ]
    .map(|(name, value)| Attribute { name: name.as_bytes().into(), value: value.into() })
    .into();
    let deep = ["deep"; 40].join("/");
    let mut entries = vec![
        other("directory", EntryKind::Directory, 0o1777),
        other("directory/empty", EntryKind::Directory, 0o700),
        file(b"directory/none", Vec::new(), 0o000, -1, 999_999_999),
        file(b"directory/inline", b"few bytes".to_vec(), 0o644, 0, 0),
        file(b"directory/few", text(1, 700), 0o755, 4_102_444_800, 123_456_789),
        file(b"directory/many", mixed(2, 30_000), 0o4750, 2_147_483_648, 1),
        file(b"not \xff\xfe utf-8 \x01\n", random(3, 200), 0o644, -2_000_000_000, 0),
        file("ünïcödé \u{202e} name".as_bytes(), random(4, 97), 0o644, 1, 0),
        file(&[b'n'; 255], random(5, 96), 0o644, 1, 0),
        file(format!("{deep}/file").as_bytes(), text(6, 1000), 0o644, 1, 0),
        other("link", EntryKind::Symlink { target: (*b"directory/\xffnowhere").into() }, 0o777),
        other("link-to-many", EntryKind::HardLink { to: EntryName::new("directory/many").unwrap() }, 0o4750),
        other("pipe", EntryKind::Fifo, 0o600),
        other("socket", EntryKind::Socket, 0o755),
        other("character", EntryKind::CharDevice { device: (1, 3) }, 0o666),
        other("block", EntryKind::BlockDevice { device: (259, 1_048_575) }, 0o660),
        TestEntry::file("plain", text(8, 100)),
        attributed,
        sparse,
    ];
    // A link's metadata are those of what it names.
    let many = entries[5].entry.posix;
    entries[11].entry.posix = many;
    entries
}

fn owners() -> OwnerNames {
    let mut owners = OwnerNames::default();
    owners.users.insert(0, "root".into());
    owners.groups.insert(65_534, "nogroup".into());
    owners
}

async fn unencrypted(sink: Arc<dyn Sink>) -> Snapshots {
    let setup = common::create(sink, Protect::Plain, TINY).await;
    let mut first = TestSource::new(odd_entries());
    first.trailing =
        vec![TestEntry::file("label", text(3, 150)), TestEntry::file("manifest", text(4, 20_000))];
    first.position = vec![("lsn".into(), "0/16B3748".into())];
    first.owners = owners();
    let mut entries = odd_entries();
    entries.retain(|test| test.entry.name.as_bytes() != b"plain");
    entries.push(TestEntry::file("new", text(10, 5_000)));
    let second = TestSource::new(entries);
    let mut snapshots = Vec::new();
    for source in [first, second] {
        snapshots.push((setup.store(&source).await, source.expected()));
    }
    let component = |name: &str, snapshot| SetComponent {
        name: name.into(),
        snapshot,
        outcome: snapshot.map(|_| Outcome::Complete),
        reason: if snapshot.is_none() { Some("the host did not answer".into()) } else { None },
        restore_order: 7,
    };
    let set = SnapshotSet {
        id: SnapshotId::random(&SystemRandom).unwrap(),
        name: "all".into(),
        time: setup.job.now(),
        outcome: Outcome::Partial,
        components: vec![component("files", Some(snapshots[0].0)), component("database", None)],
        tags: BTreeMap::from([("tier".into(), "gold".into())]),
    };
    setup.repository.create_set(&set, &setup.job).await.unwrap();
    snapshots
}

fn passphrase() -> Recipient {
    Recipient::passphrase(PASSWORD.to_owned()).unwrap().with_cost(PassphraseCost::new(64, 2, 2).unwrap())
}

fn key_file() -> Recipient {
    Recipient::key_file(KEY.as_bytes()).unwrap().with_label("escrow").unwrap()
}

async fn encrypted(sink: Arc<dyn Sink>) -> Snapshots {
    let job = job();
    let keyring = Keyring::create(&sink, &[passphrase(), key_file()], &job).await.unwrap();
    let removed = Recipient::passphrase("gone".to_owned()).unwrap();
    let cost = PassphraseCost::new(8, 1, 1).unwrap();
    let id = keyring.add_recipient(&sink, &removed.with_cost(cost), &job).await.unwrap();
    keyring.remove_recipient(&sink, id, &job).await.unwrap();
    let options = CreateOptions { chunker: SMALL, ..CreateOptions::default() };
    let repository = Repository::create(sink.clone(), keyring.clone(), options, &job).await.unwrap();
    let setup = Setup { repository, protection: keyring.clone(), job };
    // So many that their pages have a page of references; and a file with a page of chunks.
    let few =
        |number: usize| TestEntry::file(&format!("many/{number:05}"), random(number as u64, number % 90));
    let mut entries: Vec<TestEntry> = (0..1_500).map(few).collect();
    entries.push(TestEntry::other(Entry::directory("many").unwrap()));
    let mut source = TestSource::new(entries);
    source.skipped = vec![Skipped::new("etc/shadow", "permission denied")];
    let options = BackupOptions {
        host: "db1".into(),
        label: Some("nightly".into()),
        tenant: Some("acme".into()),
        description: Some("before the upgrade".into()),
        tags: BTreeMap::from([("tier".into(), "gold".into())]),
        ..BackupOptions::default()
    };
    let report = setup.repository.backup(&source, &options, &setup.job).await.unwrap();
    let mut snapshots = vec![(report.snapshot.unwrap(), source.expected())];
    // Text compresses, so that this is little to store.
    let long = TestSource::new(vec![TestEntry::file("long", text(5, 100).repeat(6_000)).fixed(1024)]);
    snapshots.push((setup.store(&long).await, long.expected()));
    let whole = text(6, 3_000);
    for (n, (segment, range, known)) in [
        ("000000010000000000000001", 0..3_000, true),
        ("000000010000000000000002", 0..1_000, false),
        ("000000010000000000000002", 1_000..3_000, false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut head = LogHead::new("postgres", "7000000000000000001", "00000001", segment, setup.job.now());
        head.offset = range.start as u64;
        head.segment_bytes = known.then_some(3_000);
        head.position = BTreeMap::from([("lsn".to_owned(), "0/1000000".to_owned())]);
        let mut salt = [0; 32];
        SystemRandom.fill(&mut salt).unwrap();
        let zstd: [Arc<dyn backup_core::Transform>; 1] = [Arc::new(Zstd::default())];
        let (head, sealed) = log::seal(&*setup.protection, &zstd, salt, head, &whole[range]).unwrap();
        let key = head.key(if n == 2 { 1 } else { 0 }).unwrap();
        sink.put(&key, sealed.bytes).await.unwrap();
    }
    snapshots
}

async fn hmac(sink: Arc<dyn Sink>) -> Snapshots {
    let job = job();
    let options = KeyringOptions::default().with_chunk_ids(ChunkIdFunction::HmacSha256);
    let keyring = Keyring::create_with(&sink, &[key_file()], &options, &job).await.unwrap();
    let options = CreateOptions { chunker: SMALL, ..CreateOptions::default() };
    let repository = Repository::create(sink, keyring.clone(), options, &job).await.unwrap();
    let mut snapshots = Vec::new();
    for (number, times) in [0, 2].into_iter().enumerate() {
        let seed = number as u64;
        let source = TestSource::new(vec![
            TestEntry::other(Entry::directory("base").unwrap()),
            TestEntry::file("base/1", mixed(seed, 20_000)).fixed(8192),
            TestEntry::file("base/2", text(seed, 9_000)).fixed(8192),
            TestEntry::file("wal", random(7, 3_000)),
        ])
        .shuffled(seed + 1);
        let zstd = || Arc::new(Zstd::default()) as Arc<dyn backup_core::Transform>;
        let transforms = Some((0..times).map(|_| zstd()).collect());
        let options = BackupOptions { transforms, ..BackupOptions::default() };
        let report = repository.backup(&source, &options, &job).await.unwrap();
        snapshots.push((report.snapshot.unwrap(), source.expected()));
    }
    snapshots
}

async fn history(sink: Arc<dyn Sink>) -> Snapshots {
    let failing = FailingSink::over(sink.clone(), []);
    let setup = common::create(Arc::new(failing.clone()), Protect::Plain, SMALL).await;
    let source = |seed| {
        TestSource::new(vec![
            TestEntry::file("kept", text(1, 9_000)).stamped(),
            TestEntry::file("new", random(seed, 6_000)).stamped(),
        ])
    };
    let mut snapshots = vec![(setup.store(&source(1)).await, source(1).expected())];
    // Packs without a segment; then packs and a segment without a snapshot.
    for (seed, below) in [(2, "index/"), (3, "snapshots/")] {
        failing.set_faults([Fault::at(1).of(Operation::Put).below(below).from_then_on()]);
        setup.backup(&source(seed)).await.unwrap_err();
    }
    failing.set_faults([]);
    snapshots.push((setup.store(&source(4)).await, source(4).expected()));
    let session = SnapshotId::random(&SystemRandom).unwrap();
    let repository = setup.protection.repository();
    let fence = FenceDocument { fence: true, session, repository, time: setup.job.now() };
    let sealed = document::seal(&*setup.protection, ObjectType::Snapshot, [3; 32], &fence).unwrap();
    sink.put(&ObjectKey::new(format!("snapshots/{session}")).unwrap(), sealed).await.unwrap();
    for foreign in ["README", "notes/data", "control/later/than-version-1"] {
        sink.put(&ObjectKey::new(foreign).unwrap(), "no part of the repository".into()).await.unwrap();
    }
    snapshots
}

// Writing.

fn kind_of(kind: &EntryKind) -> Value {
    match kind {
        EntryKind::Symlink { target } => json!([kind.as_str(), hex::encode(target)]),
        EntryKind::HardLink { to } => json!([kind.as_str(), hex::encode(to.as_bytes())]),
        EntryKind::CharDevice { device } | EntryKind::BlockDevice { device } => {
            json!([kind.as_str(), device.0, device.1])
        }
        _ => json!([kind.as_str()]),
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

/// A line about an entry. Names are hexadecimal, as not all of them are text.
fn line_of(found: &Collected) -> Value {
    let Collected { entry, content, .. } = found;
    json!({
        "name": hex::encode(entry.name.as_bytes()),
        "kind": kind_of(&entry.kind),
        "posix": entry.posix.map(|p| json!([p.mode, p.uid, p.gid, p.modified.seconds(), p.modified.nanoseconds()])),
        "attributes": entry.attributes.iter().map(|a| (hex::encode(&a.name), hex::encode(&a.value))).collect::<BTreeMap<_, _>>(),
        "sparse": entry.sparse,
        "bytes": content.len(),
        "sha256": sha256(content),
    })
}

fn lines_of(snapshots: &Snapshots) -> String {
    let mut lines = String::new();
    for (id, entries) in snapshots {
        lines += &format!("{}\n", json!({"snapshot": id.to_string(), "entries": entries.len()}));
        entries.values().for_each(|found| lines += &format!("{}\n", line_of(found)));
    }
    lines
}

async fn write(name: &str) {
    let folder = folder(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::create(folder.join("repository")).unwrap());
    let snapshots = match name {
        "unencrypted" => unencrypted(sink).await,
        "encrypted" => encrypted(sink).await,
        "hmac" => hmac(sink).await,
        _ => history(sink).await,
    };
    if name == "encrypted" {
        fs::write(folder.join("password"), format!("{PASSWORD}\n")).unwrap();
    }
    if ["encrypted", "hmac"].contains(&name) {
        fs::write(folder.join("key"), format!("{KEY}\n")).unwrap();
    }
    fs::write(folder.join("expected.jsonl"), lines_of(&snapshots)).unwrap();
    // Git keeps no empty directories.
    let _ = fs::remove_dir_all(folder.join("repository/.tmp"));
}

// Reading.

/// What stands in `expected.jsonl`: by snapshot the lines of its entries.
fn expected(name: &str) -> BTreeMap<String, Vec<Value>> {
    let text = fs::read_to_string(folder(name).join("expected.jsonl")).unwrap();
    let mut all = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        match line["snapshot"].as_str() {
            Some(id) => {
                last = id.to_owned();
                all.insert(last.clone(), Vec::new());
            }
            None => all.get_mut(&last).unwrap().push(line),
        }
    }
    assert!(all.len() >= 2 && all.values().all(|entries| !entries.is_empty()), "{name}");
    all
}

/// All ways in which a golden repository can be opened.
async fn protections(name: &str, sink: &Arc<dyn Sink>) -> Vec<Arc<dyn Protection>> {
    if ["unencrypted", "history"].contains(&name) {
        let header = backup_core::repository::peek_config(&**sink).await.unwrap();
        return vec![Arc::new(Unprotected::new(header.repository))];
    }
    let mut all: Vec<Arc<dyn Protection>> = Vec::new();
    for (file, recipient) in [("password", passphrase()), ("key", key_file())] {
        if folder(name).join(file).exists() {
            all.push(Keyring::unlock(sink, &[recipient], &job()).await.unwrap());
        }
    }
    all
}

/// Whether golden repositories are to be written now; then nobody reads them.
fn writing() -> bool {
    std::env::var_os("BACKUP_WRITE_GOLDEN").is_some()
}

#[tokio::test]
async fn golden_repositories_are_written_when_that_is_asked_for() {
    if writing() {
        for name in NAMES {
            write(name).await;
        }
    }
    let there = fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap());
    let there =
        there.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), NAMES.map(str::to_owned).into());
}

#[tokio::test]
async fn the_engine_reads_every_golden_repository() {
    if writing() {
        return;
    }
    let (mut restored, mut bytes) = (0, 0);
    for name in NAMES {
        let sink: Arc<dyn Sink> = Arc::new(LocalSink::open(folder(name).join("repository")).unwrap());
        for protection in protections(name, &sink).await {
            let job = job();
            let opened = Repository::open(sink.clone(), protection.clone(), TransformSet::builtin(), &job)
                .await
                .unwrap();
            let setup = Setup { repository: opened, protection, job };
            setup.assert_clean().await;
            let expected = expected(name);
            let listed = setup.repository.snapshots(&setup.job).await.unwrap();
            let listed: BTreeSet<_> = listed.iter().map(|info| info.id.to_string()).collect();
            assert_eq!(listed, expected.keys().cloned().collect(), "{name}");
            let mut named = 0;
            for (id, lines) in expected {
                let snapshot = setup.repository.snapshot(id.parse().unwrap(), &setup.job).await.unwrap();
                named += usize::from(*snapshot.owner_names() == owners());
                let (found, report) = setup.restore(id.parse().unwrap()).await.unwrap();
                assert!(report.failed.is_empty(), "{name}: {report:?}");
                assert_eq!(found.values().map(line_of).collect::<Vec<_>>(), lines, "{name}: {id}");
                restored += found.len();
                bytes += found.values().map(|found| found.content.len()).sum::<usize>();
            }
            assert_eq!(named, usize::from(name == "unencrypted"), "{name}: snapshots with names of owners");
        }
    }
    println!("{} golden repositories: {restored} entries, {bytes} bytes restored", NAMES.len());
}

// The other decoder.

fn decode(name: &str, key: &[&str], arguments: &[&OsStr]) -> Value {
    let python = std::env::var_os("BACKUP_TEST_PYTHON").expect(
        "BACKUP_TEST_PYTHON must name a Python with the packages of backup-core/tests/decoder/requirements.txt; \
         .ci/test makes one",
    );
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decoder/decode.py"));
    command.arg(folder(name).join("repository"));
    if let [option, file] = key {
        command.arg(option).arg(folder(name).join(file));
    }
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() }
}

/// Compares what was extracted with the lines about it; what only root can make and set, only as root.
fn assert_extracted(root: &Path, lines: &[Value], what: &str) {
    let is_root = rustix::process::geteuid().is_root();
    let bytes_of = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    for line in lines {
        let path = root.join(OsStr::from_bytes(&bytes_of(&line["name"])));
        let kind = line["kind"][0].as_str().unwrap();
        if !is_root && kind.ends_with("-device") {
            continue;
        }
        let there = path.symlink_metadata().unwrap_or_else(|e| panic!("{what}: {}: {e}", path.display()));
        let is = there.file_type();
        let device = (rustix::fs::major(there.rdev()), rustix::fs::minor(there.rdev()));
        let wanted = (line["kind"][1].as_u64(), line["kind"][2].as_u64());
        let device = (Some(u64::from(device.0)), Some(u64::from(device.1)));
        let right = match kind {
            "directory" => is.is_dir(),
            "symlink" => {
                is.is_symlink()
                    && fs::read_link(&path).unwrap().as_os_str().as_bytes() == bytes_of(&line["kind"][1])
            }
            "hardlink" => {
                let first = root.join(OsStr::from_bytes(&bytes_of(&line["kind"][1])));
                first.symlink_metadata().unwrap().ino() == there.ino()
            }
            "fifo" => is.is_fifo(),
            "socket" => is.is_socket(),
            "char-device" => is.is_char_device() && device == wanted,
            "block-device" => is.is_block_device() && device == wanted,
            _ => is.is_file() && sha256(&fs::read(&path).unwrap()) == line["sha256"].as_str().unwrap(),
        };
        assert!(right, "{what}: {} is not what it was: {line}", path.display());
        if line["posix"].is_array() && is_root {
            let time = (there.mtime(), there.mtime_nsec());
            let found = json!([there.mode() & 0o7777, there.uid(), there.gid(), time.0, time.1]);
            let mut wanted = line["posix"].clone();
            if is.is_symlink() {
                wanted[0] = json!(0o777);
            }
            assert_eq!(found, wanted, "{what}: {}", path.display());
        }
    }
}

#[test]
fn the_decoder_lists_and_extracts_every_golden_repository_byte_for_byte() {
    if writing() {
        return;
    }
    for name in NAMES {
        let keys: &[&[&str]] = match name {
            "encrypted" => &[&["--password-file", "password"], &["--key-file", "key"]],
            "hmac" => &[&["--key-file", "key"]],
            _ => &[&[]],
        };
        for key in keys {
            let expected = expected(name);
            let list = decode(name, key, &["list".as_ref()]);
            let listed = list["snapshots"].as_array().unwrap().iter();
            let listed: BTreeSet<_> = listed.map(|info| info["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(listed, expected.keys().cloned().collect(), "{name}");
            assert_eq!(list["sets"].as_array().unwrap().len(), usize::from(name == "unencrypted"), "{list}");
            let logs = if name == "encrypted" { json!(["7000000000000000001/00000001"]) } else { json!([]) };
            assert_eq!(list["logs"], logs);
            for (id, lines) in &expected {
                let scratch = tempfile::tempdir().unwrap();
                decode(name, key, &["extract".as_ref(), id.as_ref(), scratch.path().as_os_str()]);
                assert_extracted(scratch.path(), lines, &format!("{name}: {id}"));
            }
            let checked = decode(name, key, &["check".as_ref()]);
            assert_eq!(
                (&checked["problems"], &checked["repeated_nonces"]),
                (&json!([]), &json!(0)),
                "{name}"
            );
            println!("{name} with {key:?}: {checked}");
        }
    }
}
