//! restore(backup(x)) == x, for whatever x and however it is read, cut, protected and asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use backup_core::chunker::ChunkerParameters;
use backup_core::repository::{BackupOptions, ChangeKind, ParentChoice, RestoreOptions, Selection};
use backup_core::{
    Attribute, Entry, EntryKind, EntryName, ErrorKind, PosixMetadata, Resources, Source, Timestamp, limits,
};
use common::{
    BOTH, Body, Collected, CollectingTarget, Protect, Rng, SMALL, SequentialTarget, Setup, TINY, TestEntry,
    TestSource, assert_same, in_memory, long, mixed, random, text, tree,
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

fn name(text: &str) -> EntryName {
    EntryName::new(text).unwrap()
}

fn runtimes() -> [tokio::runtime::Runtime; 2] {
    [
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if long() { 400 } else { 24 }, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_comes_back_as_it_was(
        seed: u64,
        count in 0_usize..60,
        max in prop::sample::select(vec![10_usize, 3000, 70_000, 2_200_000]),
        encrypted: bool,
        tiny: bool,
        unsorted: bool,
        trailing in 0_usize..4,
        batch in prop::sample::select(vec![1_usize, 3, usize::MAX]),
        workers in 1_usize..4,
        multi_thread: bool,
    ) {
        let max = if count > 20 { max.min(70_000) } else { max };
        let protect = if encrypted { Protect::Encrypted } else { Protect::Plain };
        let chunker = if tiny && max < 70_000 { TINY } else { SMALL };
        let [single, multi] = runtimes();
        let runtime = if multi_thread { &multi } else { &single };
        runtime.block_on(async {
            let (mut setup, sink) = in_memory(protect, chunker).await;
            setup.job = setup.job.with_resources(Resources::new().with_workers(workers));
            let mut source = TestSource::new(tree(seed, count, max)).with_trailing(
                (0..trailing).map(|n| TestEntry::file(&format!("~{}", 9 - n), text(seed, n * 700))).collect(),
            );
            source.batch = batch;
            source.position = vec![("lsn".into(), seed.to_string())];
            if unsorted {
                source = source.shuffled(seed);
            }
            let report = setup.backup(&source).await.unwrap();
            assert_eq!(report.entries, (source.entries.len() + trailing) as u64);
            let logical: u64 = source.expected().values().map(|found| found.content.len() as u64).sum();
            assert_eq!((report.bytes_logical, report.bytes_read), (logical, logical));
            let id = report.snapshot.unwrap();
            // The handle that wrote, and one that knows nothing.
            let opened = setup.reopen(Arc::new(sink)).await.unwrap();
            for setup in [&setup, &opened] {
                setup.assert_restores(id, &source).await;
            }
            opened.assert_clean().await;
            // Backed up again it is the same, however much of it is taken from the parent.
            let again = setup.backup(&source).await.unwrap();
            assert_eq!((again.bytes_added, again.bytes_logical), (0, logical));
            setup.assert_restores(again.snapshot.unwrap(), &source).await;
            let a = setup.repository.snapshot(id, &setup.job).await.unwrap();
            let b = setup.repository.snapshot(again.snapshot.unwrap(), &setup.job).await.unwrap();
            assert!(setup.repository.diff(&a, &b, &setup.job).await.unwrap().next().await.unwrap().is_none());
        });
    }
}

#[test]
fn the_engine_runs_in_both_kinds_of_runtime() {
    for runtime in runtimes() {
        for protect in BOTH {
            runtime.block_on(async {
                let (setup, _) = in_memory(protect, SMALL).await;
                let mut entries = tree(1, 200, 50_000);
                entries.push(TestEntry::file("zz", mixed(1, 9_000_000)).body(Body::Async));
                let source = TestSource::new(entries);
                let id = setup.store(&source).await;
                setup.assert_restores(id, &source).await;
                setup.assert_clean().await;
            });
        }
    }
}

#[tokio::test]
async fn nothing_at_all_is_a_snapshot_too() {
    for protect in BOTH {
        for unsorted in [false, true] {
            let (setup, _) = in_memory(protect, SMALL).await;
            let mut source = TestSource::new(Vec::new());
            source.unsorted = unsorted;
            for _ in 0..2 {
                let id = setup.store(&source).await;
                setup.assert_restores(id, &source).await;
                let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
                let mut entries = snapshot.entries(None, &setup.job).await.unwrap();
                assert!(entries.next().await.unwrap().is_none());
                assert!(snapshot.entry(&name("a"), &setup.job).await.unwrap().is_none());
            }
            let only_trailing = source.clone().with_trailing(vec![TestEntry::file("label", text(1, 9000))]);
            let id = setup.store(&only_trailing).await;
            setup.assert_restores(id, &only_trailing).await;
            setup.assert_clean().await;
        }
    }
}

#[tokio::test]
async fn extreme_entries_come_back() {
    let (setup, _) = in_memory(Protect::Encrypted, SMALL).await;
    let mut entries = Vec::new();
    let long_name = vec!["component"; 6000].join("/");
    for number in 0..40 {
        entries.push(TestEntry::file(&format!("{long_name}/{number}"), text(number, 200)));
    }
    entries.push(TestEntry::file(&"n".repeat(limits::NAME_BYTES_MAX), text(1, 20)));
    let bytes: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    entries.push(TestEntry::other(Entry::directory(bytes).unwrap()));
    for (number, seconds) in [i64::MIN, -1, 0, i64::MAX].into_iter().enumerate() {
        let posix = PosixMetadata {
            mode: 0o7777,
            uid: u32::MAX,
            gid: 0,
            modified: Timestamp::new(seconds, 999_999_999),
        };
        let entry = Entry::directory(format!("t{number}")).unwrap().with_posix(posix);
        entries.push(TestEntry::other(entry));
    }
    let mut attributes = TestEntry::file("attributes", &b""[..]);
    attributes.entry.attributes = (0..20_u8)
        .map(|n| Attribute {
            name: format!("xattr:user.{n:03}").into_bytes().into(),
            value: random(u64::from(n), 60_000).into(),
        })
        .collect();
    entries.push(attributes);
    let source = TestSource::new(entries);
    let id = setup.store(&source).await;
    setup.assert_restores(id, &source).await;
    setup.assert_clean().await;
}

#[tokio::test]
async fn what_exceeds_the_format_is_skipped_and_never_stored_unreadable() {
    for megabytes in [3, 9, 17] {
        let (setup, _) = in_memory(Protect::Plain, SMALL).await;
        let mut heavy = TestEntry::file("heavy", &b"content"[..]);
        heavy.entry.attributes = (0..megabytes * 8_u32)
            .map(|n| Attribute {
                name: format!("xattr:user.{n:05}").into_bytes().into(),
                value: random(u64::from(n), 128 * 1024).into(),
            })
            .collect();
        let entries = (0..2000).map(|n| TestEntry::file(&format!("i{n:06}"), text(n, 200)));
        let mut source = TestSource::new(entries.chain([heavy]).collect());
        let report = setup.backup(&source).await.unwrap();
        let skipped: Vec<_> = report.skipped.named().iter().map(|item| item.name.as_str()).collect();
        if megabytes > 3 {
            assert_eq!(skipped, ["heavy"]);
            source.entries.retain(|test| test.entry.name.as_bytes() != b"heavy");
        } else {
            assert_eq!(skipped, [""; 0]);
        }
        setup.assert_restores(report.snapshot.unwrap(), &source).await;
        common::delete_all(&**setup.repository.sink(), "index/").await;
        let opened = setup.reopen(setup.repository.sink().clone()).await.unwrap();
        opened.assert_restores(report.snapshot.unwrap(), &source).await;
    }
}

#[tokio::test]
async fn names_out_of_order_or_twice_fail_the_job() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let file = |name: &str| TestEntry::file(name, text(1, 3000));
    let mut out_of_order = TestSource::new(vec![file("a"), file("b")]);
    out_of_order.entries.swap(0, 1);
    let twice = TestSource::new(vec![file("a"), file("a")]);
    let twice_unsorted = TestSource::new(vec![file("a"), file("b"), file("a")]).shuffled(3);
    let twice_trailing = TestSource::new(Vec::new()).with_trailing(vec![file("a"), file("a")]);
    for source in [out_of_order, twice, twice_unsorted, twice_trailing] {
        let error = setup.backup(&source).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.entry().is_some());
    }
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stored_file_reads_from_any_position() {
    let (setup, _) = in_memory(Protect::Encrypted, SMALL).await;
    let contents = [
        ("empty", Vec::new()),
        ("inline", text(1, 90)),
        ("one-chunk", text(2, 900)),
        ("few-chunks", random(3, 60_000)),
        // More than 32 chunks: the list is paged; far more: in levels.
        ("paged", random(4, 400_000)),
        ("long", mixed(5, 12_000_000)),
    ];
    let entries = contents.iter().map(|(name, content)| TestEntry::file(name, content.clone()));
    let id = setup.store(&TestSource::new(entries.collect())).await;
    let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
    let mut rng = Rng::new(1);
    for (entry, content) in &contents {
        let stored = snapshot.entry(&name(entry), &setup.job).await.unwrap().unwrap();
        let mut file = snapshot.open(&stored, &setup.job).await.unwrap();
        assert_eq!((file.len(), file.is_empty()), (content.len() as u64, content.is_empty()));
        let mut all = Vec::new();
        file.read_to_end(&mut all).await.unwrap();
        assert!(all == *content, "{entry}");
        for round in 0..60 {
            let len = content.len() as u64;
            let at = if round < 4 { [0, len, len + 5, len / 2][round] } else { rng.below(len + 1) };
            let seek = match round % 3 {
                0 => SeekFrom::Start(at),
                1 => SeekFrom::End(at as i64 - len as i64),
                _ => SeekFrom::Current(at as i64 - file.stream_position().await.unwrap() as i64),
            };
            assert_eq!(file.seek(seek).await.unwrap(), at);
            let want = rng.below(40_000) as usize;
            let mut part = vec![0; want];
            let mut got = 0;
            while got < want {
                match file.read(&mut part[got..]).await.unwrap() {
                    0 => break,
                    count => got += count,
                }
            }
            let start = (at as usize).min(content.len());
            let end = (start + want).min(content.len());
            assert!(part[..got] == content[start..end], "{entry} at {at}");
        }
        assert!(file.seek(SeekFrom::End(-1 - content.len() as i64)).await.is_err());
    }
}

#[tokio::test]
async fn entries_are_found_by_name_and_below_a_name() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let mut entries = Vec::new();
    for dir in 0..40 {
        entries.push(TestEntry::other(Entry::directory(format!("d{dir:02}")).unwrap()));
        for file in 0..400 {
            entries.push(TestEntry::file(&format!("d{dir:02}/f{file:04}"), text(file, 30)));
            // Sorts between the directory and what is below it in plain byte order.
            entries.push(TestEntry::file(&format!("d{dir:02}-{file:04}"), &b""[..]));
        }
    }
    let source = TestSource::new(entries).with_trailing(vec![TestEntry::file("d05/label", text(1, 300))]);
    let id = setup.store(&source).await;
    let expected = source.expected();
    let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
    for (number, (name, expected)) in expected.iter().enumerate() {
        if number % 97 == 0 || name.to_string() == "d05/label" {
            let found = snapshot.entry(name, &setup.job).await.unwrap().unwrap();
            assert_eq!(found.entry, expected.entry);
        }
    }
    for missing in ["a", "d", "d05/f", "d99", "zzz", "d05/f0000/x"] {
        assert!(snapshot.entry(&name(missing), &setup.job).await.unwrap().is_none(), "{missing}");
    }
    for below in ["d00", "d05", "d39", "d05/f0007", "d05-0007", "d", "zzz"] {
        let below = name(below);
        let mut stream = snapshot.entries(Some(&below), &setup.job).await.unwrap();
        let mut found = Vec::new();
        while let Some(stored) = stream.next().await.unwrap() {
            found.push(stored.entry.name);
        }
        let mut wanted: Vec<_> = expected.keys().filter(|name| name.is_within(&below)).cloned().collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{below}");
    }
    // Selections of a restore are the same question.
    let target = CollectingTarget::default();
    let select = Selection::Names(vec![name("d05"), name("d07/f0001")]);
    let options = RestoreOptions { select };
    setup.repository.restore(&snapshot, &target, &options, &setup.job).await.unwrap();
    let wanted: BTreeMap<EntryName, Collected> = expected
        .into_iter()
        .filter(|(n, _)| n.is_within(&name("d05")) || n.is_within(&name("d07/f0001")))
        .collect();
    assert_same(&target.take(), &wanted);
}

#[tokio::test]
async fn a_snapshot_is_a_source_and_a_copy_of_it_restores_equal() {
    for (from, to) in [(Protect::Encrypted, Protect::Plain), (Protect::Plain, Protect::Encrypted)] {
        let (origin, _) = in_memory(from, SMALL).await;
        let (copy, _) = in_memory(to, TINY).await;
        let mut entries = tree(8, 120, 40_000);
        entries.push(TestEntry::file("large", random(1, 5_000_000)));
        let mut source = TestSource::new(entries).with_trailing(vec![TestEntry::file("label", text(1, 500))]);
        source.position = vec![("lsn".into(), "0/1".into())];
        let id = origin.store(&source).await;
        let snapshot = origin.repository.snapshot(id, &origin.job).await.unwrap();
        let read = snapshot.source();
        assert_eq!(read.info().kind, "test");
        let options = BackupOptions::default();
        let report = copy.repository.backup(&read, &options, &copy.job).await.unwrap();
        let copied = copy.repository.snapshot(report.snapshot.unwrap(), &copy.job).await.unwrap();
        assert_eq!(copied.info().position, snapshot.info().position);
        assert_eq!(copied.info().bytes_logical, snapshot.info().bytes_logical);
        assert_eq!(copied.info().entries, snapshot.info().entries);
        copy.assert_restores(copied.info().id, &source).await;
        copy.assert_clean().await;
        // Once more: stamped entries are not even opened.
        let again = copy.repository.backup(&read, &options, &copy.job).await.unwrap();
        assert_eq!(again.bytes_added, 0);
    }
}

#[tokio::test]
async fn a_sequential_target_gets_one_entry_after_the_other_in_order() {
    let (setup, _) = in_memory(Protect::Encrypted, SMALL).await;
    let source = TestSource::new(tree(9, 150, 60_000));
    let id = setup.store(&source).await;
    let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
    let target = SequentialTarget::default();
    let options = RestoreOptions::default();
    let report = setup.repository.restore(&snapshot, &target, &options, &setup.job).await.unwrap();
    assert!(report.failed.is_empty());
    let entries = target.entries.lock().unwrap();
    assert!(entries.is_sorted_by(|a, b| a.entry.name < b.entry.name));
    let found = entries.iter().map(|found| (found.entry.name.clone(), found.clone())).collect();
    assert_same(&found, &source.expected());
}

#[tokio::test]
async fn a_second_restore_writes_only_what_differs() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let files: Vec<_> = (0..30).map(|n| TestEntry::file(&format!("f{n}"), random(n, 50_000))).collect();
    let source = TestSource::new(files);
    let id = setup.store(&source).await;
    let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
    let target = CollectingTarget::default();
    let mut there = source.expected();
    there.get_mut(&name("f3")).unwrap().content[20_000] ^= 1;
    there.get_mut(&name("f4")).unwrap().content.truncate(30_000);
    target.put(there);
    let options = RestoreOptions::default();
    let report = setup.repository.restore(&snapshot, &target, &options, &setup.job).await.unwrap();
    assert_same(&target.take(), &source.expected());
    assert!(report.bytes_written < 80_000, "{}", report.bytes_written);
    assert_eq!(report.bytes_written + report.bytes_unchanged, 30 * 50_000);
    assert_eq!((report.entries_written, report.entries_unchanged), (2, 28));
}

#[tokio::test]
async fn a_single_long_file_is_written_by_all_workers_at_once() {
    let (setup, _) = in_memory(Protect::Encrypted, ChunkerParameters::default()).await;
    // More than one worker takes at once.
    let source = TestSource::new(vec![TestEntry::file("long", random(5, 48 * limits::MIB))]);
    let id = setup.store(&source).await;
    let snapshot = setup.repository.snapshot(id, &setup.job).await.unwrap();
    let target = CollectingTarget::default();
    target.gate.close_at(1);
    // A thread of its own: what waits for a lock may hold up the runtime, too.
    let gate = target.gate.clone();
    let second = std::thread::spawn(move || {
        let began = (0..20_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            gate.passed() >= 2
        });
        gate.open();
        began
    });
    let options = RestoreOptions::default();
    let restored = setup.repository.restore(&snapshot, &target, &options, &setup.job).await;
    assert!(second.join().unwrap(), "no second write begins while the first one is under way");
    assert!(restored.unwrap().failed.is_empty());
    assert_same(&target.take(), &source.expected());
}

#[tokio::test]
async fn a_diff_names_what_changed_and_how() {
    let (setup, _) = in_memory(Protect::Encrypted, SMALL).await;
    let mut entries: Vec<_> =
        (0..3000).map(|n| TestEntry::file(&format!("f{n:05}"), text(n, 300)).stamped()).collect();
    let a = setup.store(&TestSource::new(entries.clone())).await;
    entries[100] = TestEntry::file("f00100", text(9999, 300)).stamped();
    entries[200].entry.posix = Some(PosixMetadata { mode: 0o600, ..PosixMetadata::default() });
    entries[300] = TestEntry::other(Entry::new("f00300", EntryKind::Fifo).unwrap());
    entries[400].entry.stamp = None;
    entries.remove(2000);
    entries.push(TestEntry::file("new", text(1, 10)));
    let b = setup.store(&TestSource::new(entries)).await;
    let forth = changes(&setup, a, b).await;
    let wanted = [
        ("f00100", ChangeKind::Modified),
        ("f00200", ChangeKind::Metadata),
        ("f00300", ChangeKind::Modified),
        ("f02000", ChangeKind::Removed),
        ("new", ChangeKind::Added),
    ];
    assert_eq!(forth, wanted.map(|(name, kind)| (name.to_owned(), kind)));
    let back = changes(&setup, b, a).await;
    assert_eq!(back.iter().filter(|(_, kind)| *kind == ChangeKind::Added).count(), 1);
    assert_eq!(back.len(), 5);
}

async fn changes(
    setup: &Setup,
    a: backup_core::SnapshotId,
    b: backup_core::SnapshotId,
) -> Vec<(String, ChangeKind)> {
    let a = setup.repository.snapshot(a, &setup.job).await.unwrap();
    let b = setup.repository.snapshot(b, &setup.job).await.unwrap();
    let mut stream = setup.repository.diff(&a, &b, &setup.job).await.unwrap();
    let mut found = Vec::new();
    while let Some(change) = stream.next().await.unwrap() {
        found.push((change.name.to_string(), change.kind));
    }
    found
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_stored_and_stores_nothing() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let source = TestSource::new(tree(11, 80, 50_000));
    let before = sink.len();
    let options = BackupOptions { dry_run: true, ..BackupOptions::default() };
    let planned = setup.repository.backup(&source, &options, &setup.job).await.unwrap();
    assert_eq!((sink.len(), planned.snapshot), (before, None));
    let options = BackupOptions { parent: ParentChoice::None, ..BackupOptions::default() };
    let done = setup.repository.backup(&source, &options, &setup.job).await.unwrap();
    assert_eq!((planned.entries, planned.bytes_added), (done.entries, done.bytes_added));
    assert_eq!((planned.bytes_logical, planned.bytes_read), (done.bytes_logical, done.bytes_read));
}

#[tokio::test]
async fn short_content_is_the_same_whether_it_stands_in_its_entry_or_in_chunks() {
    for protect in BOTH {
        let (setup, _) = in_memory(protect, TINY).await;
        let stored = async |len: usize, seed: u64, body: Body| {
            let id =
                setup.store(&TestSource::new(vec![TestEntry::file("a", random(seed, len)).body(body)])).await;
            setup.repository.snapshot(id, &setup.job).await.unwrap()
        };
        for len in [0, 1, 50, 90, 96, 97] {
            let inline = stored(len, 1, Body::Blocking).await;
            let chunked = stored(len, 1, Body::Async).await;
            for (a, b) in [(&inline, &chunked), (&chunked, &inline)] {
                let mut diff = setup.repository.diff(a, b, &setup.job).await.unwrap();
                assert_eq!(diff.next().await.unwrap(), None, "{len} bytes");
            }
            for other in [stored(len, 2, Body::Async).await, stored(len + 1, 1, Body::Async).await] {
                let mut diff = setup.repository.diff(&inline, &other, &setup.job).await.unwrap();
                let change = diff.next().await.unwrap();
                let same = len == 0 && other.info().bytes_logical == 0;
                assert_eq!(
                    change.map(|change| change.kind),
                    (!same).then_some(ChangeKind::Modified),
                    "{len}"
                );
            }
        }
    }
}
