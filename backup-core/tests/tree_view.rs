//! Looking around in a snapshot: directories, single names, ranges of contents; and what damage costs there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::repository::{SnapshotTree, TreeEntry};
use backup_core::testing::{Operation, RecordingSink};
use backup_core::{EntryName, ObjectKey, SnapshotId};
use common::{
    BOTH, Protect, SMALL, Setup, TINY, TestEntry, TestSource, in_memory, mixed, random, replace, tree,
};

fn name(text: &str) -> EntryName {
    EntryName::new(text).unwrap()
}

async fn open(setup: &Setup, id: SnapshotId) -> SnapshotTree {
    setup.repository.snapshot(id, &setup.job).await.unwrap().tree(&setup.job).await.unwrap()
}

async fn children(tree: &SnapshotTree, of: Option<&EntryName>, setup: &Setup) -> Vec<TreeEntry> {
    let mut children = tree.children(of, &setup.job);
    let mut all = Vec::new();
    while let Some(child) = children.next().await.unwrap() {
        all.push(child);
    }
    all
}

/// What the children of every directory must be, by a definition that reads everything.
fn expected(names: &[EntryName]) -> BTreeMap<Option<EntryName>, BTreeSet<EntryName>> {
    let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for name in names {
        let mut child = name.clone();
        loop {
            let parent = child.parent();
            all.entry(parent.clone()).or_default().insert(child);
            match parent {
                Some(parent) => child = parent,
                None => break,
            }
        }
    }
    all
}

#[tokio::test]
async fn every_directory_has_the_children_that_the_entries_tell_of() {
    for protect in BOTH {
        let (setup, _) = in_memory(protect, SMALL).await;
        // Names at the end of a component, before and behind a slash; and some that are known only at the end.
        let more = ["d0-", "d0/d1!", "d00", "e/f/g/h"].map(|name| TestEntry::file(name, random(1, 10)));
        let trailing = ["a-late", "d0/late", "late/in/its/own"];
        let trailing = trailing.map(|name| TestEntry::file(name, random(2, 200))).into();
        let entries = tree(7, 3_000, 40).into_iter().chain(more).collect();
        let source = TestSource::new(entries).with_trailing(trailing);
        let names: Vec<_> = source.expected().into_keys().collect();
        let id = setup.store(&source).await;
        let looked_at = open(&setup, id).await;
        for (directory, expected) in expected(&names) {
            let found = children(&looked_at, directory.as_ref(), &setup).await;
            assert!(found.is_sorted_by(|a, b| a.name < b.name), "{directory:?}");
            for child in &found {
                assert_eq!(child.stored.is_some(), names.contains(&child.name), "{}", child.name);
                let alone = looked_at.entry(&child.name, &setup.job).await.unwrap();
                assert_eq!(alone.as_ref(), Some(child));
            }
            let found: BTreeSet<_> = found.into_iter().map(|child| child.name).collect();
            assert_eq!(found, expected, "{directory:?}");
        }
        for missing in ["0", "d", "d0/d", "zzz", "d0/d1/nothing", "late/in/its/ow"] {
            assert_eq!(looked_at.entry(&name(missing), &setup.job).await.unwrap(), None, "{missing}");
            assert_eq!(children(&looked_at, Some(&name(missing)), &setup).await, []);
        }
    }
}

#[tokio::test]
async fn what_stands_below_a_child_is_not_read() {
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    let directory = |top: usize| (0..4_000).map(move |n| TestEntry::file(&format!("d{top}/{n:05}"), ""));
    let id = setup.store(&TestSource::new((0..10).flat_map(directory).collect())).await;
    let recording = Arc::new(RecordingSink::new(sink));
    let opened = setup.reopen(recording.clone()).await.unwrap();
    let looked_at = open(&opened, id).await;
    recording.take();
    assert_eq!(children(&looked_at, None, &setup).await.len(), 10);
    let gets = recording.count(Operation::Get);
    assert_eq!(recording.count(Operation::List), 0);
    let snapshot = opened.repository.snapshot(id, &setup.job).await.unwrap();
    let whole = setup.reopen(recording.clone()).await.unwrap();
    let mut entries = snapshot.entries(None, &setup.job).await.unwrap();
    let mut count = 0;
    while entries.next().await.unwrap().is_some() {
        count += 1;
    }
    drop(whole);
    assert_eq!(count, 40_000);
    println!("children of the top: {gets} reads; all: {}", recording.count(Operation::Get));
    assert!(gets <= 14, "{gets} reads");
}

#[tokio::test]
async fn ranges_of_contents_are_read_piece_by_piece() {
    // Inline, listed in the entry, and listed in pages.
    for len in [0, 50, 3_000, 400_000] {
        let (setup, _) = in_memory(Protect::Encrypted, TINY).await;
        let content = mixed(5, len);
        let id = setup.store(&TestSource::new(vec![TestEntry::file("f", content.clone())])).await;
        let looked_at = open(&setup, id).await;
        let stored = looked_at.entry(&name("f"), &setup.job).await.unwrap().unwrap().stored.unwrap();
        let file = looked_at.open(&stored, &setup.job);
        let len = len as u64;
        assert_eq!(file.pieces(len..len + 1).await.unwrap(), []);
        assert_eq!(file.pieces(u64::MAX..u64::MAX).await.unwrap(), []);
        let mut at = 0;
        while at < len {
            let pieces = file.pieces(at..u64::MAX).await.unwrap();
            assert_eq!(pieces[0].offset, at);
            for piece in pieces {
                assert_eq!(piece.offset, at);
                let bytes = file.read(&piece).await.unwrap();
                assert_eq!(bytes, content[at as usize..piece.end() as usize]);
                at = piece.end();
            }
        }
        for start in (0..len).step_by(3_331) {
            let pieces = file.pieces(start..start + 700).await.unwrap();
            assert!(pieces[0].offset <= start && pieces[0].end() > start);
            assert!(pieces.last().unwrap().end() >= (start + 700).min(len));
            assert!(pieces.last().unwrap().offset < start + 700);
        }
    }
}

#[tokio::test]
async fn damage_costs_a_piece_or_a_page_and_nothing_beside_it() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let content = random(3, 12_000_000);
    let mut entries = vec![TestEntry::file("big", content.clone())];
    entries.extend((0..3_000).map(|n| TestEntry::file(&format!("many/{n:05} {}", "n".repeat(200)), "")));
    let id = setup.store(&TestSource::new(entries)).await;
    let objects = common::objects(&sink).await;
    for (key, bytes) in objects.iter().filter(|(key, _)| key.starts_with("data/") || key.starts_with("meta/"))
    {
        let mut flipped = bytes.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        replace(&sink, key, Some(flipped.into())).await;
        let opened = setup.reopen(Arc::new(sink.clone())).await.unwrap();
        let looked_at = open(&opened, id).await;
        if key.starts_with("meta/") {
            let mut children = looked_at.children(Some(&name("many")), &setup.job);
            let (mut found, mut errors) = (0, 0);
            loop {
                match children.next().await {
                    Ok(Some(_)) => found += 1,
                    Ok(None) => break,
                    Err(error) => {
                        assert!(error.is_corruption(), "{error}");
                        assert_eq!(error.object(), Some(ObjectKey::new(key).unwrap().as_str()));
                        errors += 1;
                    }
                }
            }
            assert!(errors > 0 && found < 3_000, "{found} {errors}");
        } else {
            let stored = looked_at.entry(&name("big"), &setup.job).await.unwrap().unwrap().stored.unwrap();
            let file = looked_at.open(&stored, &setup.job);
            let (mut at, mut good, mut bad) = (0, 0_u64, 0_u64);
            while at < content.len() as u64 {
                for piece in file.pieces(at..u64::MAX).await.unwrap() {
                    at = piece.end();
                    match file.read(&piece).await {
                        Ok(bytes) => {
                            assert_eq!(bytes, content[piece.offset as usize..piece.end() as usize]);
                            good += u64::from(piece.len);
                        }
                        Err(error) => {
                            assert!(error.is_corruption(), "{error}");
                            bad += u64::from(piece.len);
                        }
                    }
                }
            }
            assert!(bad > 0 && bad < 6_000_000 && good + bad == content.len() as u64, "{good} {bad}");
        }
        replace(&sink, key, Some(bytes.clone())).await;
    }
}
