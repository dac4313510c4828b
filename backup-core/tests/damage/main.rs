//! Damage on purpose: whatever is changed in the store is found, harms only what needs it, and is never restored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod random;
mod repair;
mod victim;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::JobContext;
use backup_core::repository::{RestoreOptions, VerifyLevel, VerifyOptions, verify_keyless};
use backup_sinks::MemorySink;
use common::{
    BOTH, Body, Protect, SMALL, Setup, TestEntry, TestSource, assert_same, delete_all, in_memory, long,
    objects, random, replace, sink_of, text, tree,
};
use victim::{Damage, Victim, judge, try_all, unreferenced};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_changed_byte_is_detected_and_never_restored() {
    let bytes = if long() { 40_000 } else { 6000 };
    for protect in BOTH {
        let victim = Victim::make(protect, bytes).await;
        let mut damages = Vec::new();
        for (key, bytes) in victim.keys() {
            for at in 0..bytes.len() {
                // One bit or several, not always the same ones.
                let masks: &[u8] =
                    if long() { &[1, 2, 4, 8, 16, 32, 64, 128, 255] } else { &[1, 0x80, 0xff, 0x10] };
                let masks = if long() { masks } else { &masks[at % masks.len()..][..1] };
                for mask in masks {
                    let mut changed = bytes.to_vec();
                    changed[at] ^= mask;
                    damages.push(Damage::Replace(key.clone(), Some(changed.into())));
                }
            }
        }
        try_all(format!("{protect:?} byte change"), victim, damages, 40).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_truncation_and_extension_is_detected_and_never_restored() {
    for protect in BOTH {
        let victim = Victim::make(protect, 5000).await;
        let mut damages = Vec::new();
        for (key, bytes) in victim.keys() {
            let step = if long() { 1 } else { 17 };
            let near_the_ends = (0..40).chain(bytes.len().saturating_sub(40)..bytes.len());
            let lens: BTreeSet<usize> = near_the_ends.chain((0..bytes.len()).step_by(step)).collect();
            for len in lens.into_iter().filter(|len| *len < bytes.len()) {
                damages.push(Damage::Replace(key.clone(), Some(bytes.slice(..len))));
            }
            for more in [&[0][..], &[0xff; 3], &bytes[bytes.len() - 19..], bytes] {
                damages.push(Damage::Replace(key.clone(), Some([bytes, more].concat().into())));
                damages.push(Damage::Replace(key.clone(), Some([more, bytes].concat().into())));
            }
        }
        try_all(format!("{protect:?} truncation or extension"), victim, damages, 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_deletion_and_swap_is_detected_and_never_restored() {
    for protect in BOTH {
        let victim = Victim::make(protect, 5000).await;
        let mut damages = Vec::new();
        for (key, bytes) in victim.keys() {
            if !unreferenced(key) {
                damages.push(Damage::Replace(key.clone(), None));
            }
            for (other, _) in victim.keys().filter(|(other, _)| *other > key) {
                damages.push(Damage::Swap(key.clone(), other.clone()));
            }
            // A copy of another object in its place.
            for (other, copy) in victim.keys() {
                if other != key && copy != bytes {
                    damages.push(Damage::Replace(key.clone(), Some(copy.clone())));
                }
            }
        }
        // The set knows which snapshot it needs.
        let needed = format!("snapshots/{}", victim.snapshots[0].0);
        damages.push(Damage::Replace(needed, None));
        try_all(format!("{protect:?} deletion or swap"), victim, damages, 2).await;
    }
}

#[tokio::test]
async fn an_object_of_another_repository_is_not_taken_for_ones_own() {
    for protect in BOTH {
        let victim = Victim::make(protect, 3000).await;
        let other = Victim::make(protect, 3000).await;
        for prefix in ["config", "data/", "meta/", "index/", "snapshots/", "sets/", "control/sessions/"] {
            let mine = victim.keys().find(|(key, _)| key.starts_with(prefix)).unwrap().0.clone();
            let theirs = other.keys().find(|(key, _)| key.starts_with(prefix)).unwrap().1.clone();
            victim
                .try_out(&Damage::Replace(mine.clone(), Some(theirs)), true)
                .await
                .map_err(|e| panic!("{mine}: {e}"))
                .ok();
        }
    }
}

#[tokio::test]
async fn trap_18_with_every_index_object_deleted_everything_restores() {
    for protect in BOTH {
        let victim = Victim::make(protect, 20_000).await;
        let sink = sink_of(&victim.objects).await;
        assert_eq!(delete_all(&sink, "index/").await, 2);
        let setup = victim.setup.reopen(Arc::new(sink.clone())).await.unwrap();
        for (id, expected) in &victim.snapshots {
            let (found, report) = setup.restore(*id).await.unwrap();
            assert!(report.failed.is_empty());
            assert_same(&found, expected);
        }
        // The index is all that verify complains about, and repairing it is all that it takes.
        let report = setup.verify(VerifyLevel::Content).await.unwrap();
        assert!(report.damaged_entries.is_empty(), "{:?}", report.damaged_entries);
        assert_eq!(report.damaged_objects.len(), 1);
        repair_and_check(&setup, &sink, &victim).await;
    }
}

#[tokio::test]
async fn a_repaired_index_is_whole_whatever_was_damaged_in_it() {
    for protect in BOTH {
        let victim = Victim::make(protect, 5000).await;
        let segments: Vec<_> = victim.keys().filter(|(key, _)| key.starts_with("index/")).collect();
        for (key, bytes) in &segments {
            for at in (0..bytes.len()).step_by(37) {
                let mut changed = bytes.to_vec();
                changed[at] ^= 0x20;
                let sink = sink_of(&victim.objects).await;
                replace(&sink, key, Some(changed.into())).await;
                let setup = victim.setup.reopen(Arc::new(sink.clone())).await.unwrap();
                repair_and_check(&setup, &sink, &victim).await;
            }
            let sink = sink_of(&victim.objects).await;
            replace(&sink, key, None).await;
            let setup = victim.setup.reopen(Arc::new(sink.clone())).await.unwrap();
            repair_and_check(&setup, &sink, &victim).await;
        }
    }
}

async fn repair_and_check(setup: &Setup, sink: &MemorySink, victim: &Victim) {
    let planned = setup.repository.repair_index(true, &setup.job).await.unwrap();
    let before = objects(sink).await;
    let done = setup.repository.repair_index(false, &setup.job).await.unwrap();
    assert_eq!(planned, done, "a dry run says what would be done");
    assert!(done.rebuilt > 0 && done.lost.is_empty());
    let after = objects(sink).await;
    assert!(before.keys().all(|key| key.starts_with("index/") || after.contains_key(key)));
    let again = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    for setup in [setup, &again] {
        setup.assert_clean().await;
        for (id, expected) in &victim.snapshots {
            assert_same(&setup.restore(*id).await.unwrap().0, expected);
        }
    }
    assert_eq!(again.repository.repair_index(true, &setup.job).await.unwrap().rebuilt, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_every_change_of_packs_and_index_is_detected() {
    for protect in BOTH {
        let victim = Victim::make(protect, 3000).await;
        let job = JobContext::new();
        let options = VerifyOptions::default();
        let sink = sink_of(&victim.objects).await;
        assert!(verify_keyless(&sink, &options, &job).await.unwrap().is_clean());
        let mut count = 0;
        for (key, bytes) in victim.keys() {
            if !["data/", "meta/", "index/"].iter().any(|prefix| key.starts_with(prefix)) {
                continue;
            }
            let mut found = Vec::new();
            for at in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] ^= 0x04;
                found.push(changed);
            }
            found.push(bytes[..bytes.len() - 1].to_vec());
            found.push([bytes, &b"x"[..]].concat());
            found.push(Vec::new());
            for changed in found {
                replace(&sink, key, Some(changed.into())).await;
                let report = verify_keyless(&sink, &options, &job).await.unwrap();
                assert_eq!(report.damaged_objects.len(), 1);
                assert_eq!(&report.damaged_objects[0].object, key);
                count += 1;
            }
            replace(&sink, key, Some(bytes.clone())).await;
        }
        println!("{protect:?}: {count} damages detected without a key");
    }
}

#[tokio::test]
async fn trap_17_one_bad_pack_harms_only_the_entries_that_need_it() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, SMALL).await;
        let mut entries = Vec::new();
        let mut packs = Vec::new();
        for number in 0..4 {
            let before = objects(&sink).await;
            for file in 0..5 {
                let name = format!("{number}-{file}");
                entries.push(TestEntry::file(&name, random(number * 10 + file, 20_000)).stamped());
            }
            setup.store(&TestSource::new(entries.clone())).await;
            let new = objects(&sink).await.into_keys().filter(|key| !before.contains_key(key));
            packs.push(new.filter(|key| key.starts_with("data/")).collect::<Vec<_>>());
        }
        let source = TestSource::new(entries);
        let id = setup.store(&source).await;
        let whole = objects(&sink).await;
        for (number, packs) in packs.iter().enumerate() {
            for gone in [false, true] {
                let sink = sink_of(&whole).await;
                for pack in packs {
                    let mut bytes = whole[pack].to_vec();
                    // Past the header, so that some frames may survive.
                    let at = bytes.len() / 2;
                    bytes[at] ^= 1;
                    replace(&sink, pack, (!gone).then(|| bytes.into())).await;
                }
                let opened = setup.reopen(Arc::new(sink)).await.unwrap();
                let (found, report) = opened.restore(id).await.unwrap();
                let failed: BTreeSet<_> =
                    report.failed.named().iter().map(|item| item.name.clone()).collect();
                judge(&found, &source.expected(), &failed).unwrap();
                assert!(!failed.is_empty());
                let harmed = format!("{number}-");
                assert!(failed.iter().all(|name| name.starts_with(&harmed)), "{failed:?}");
                let verified = opened.verify(VerifyLevel::Content).await.unwrap();
                let named: BTreeSet<_> = verified
                    .damaged_entries
                    .iter()
                    .filter(|entry| entry.snapshot == id)
                    .map(|entry| entry.name.clone())
                    .collect();
                assert_eq!(named, failed, "verify and restore agree");
                assert_eq!(verified.damaged_objects.len(), packs.len());
            }
        }
    }
}

#[tokio::test]
async fn a_chunk_with_two_places_survives_the_loss_of_either() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let source = TestSource::new(vec![
        TestEntry::file("a", random(1, 50_000)),
        TestEntry::file("b", random(2, 50_000)).body(Body::Async),
    ]);
    let id = setup.store(&source).await;
    let first = objects(&sink).await;
    // Another writer, who knew nothing of the first, stored the same.
    let other = sink_of(
        &first
            .iter()
            .filter(|(key, _)| {
                !unreferenced(key)
                    && !key.starts_with("data/")
                    && !key.starts_with("meta/")
                    && !key.starts_with("index/")
            })
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    )
    .await;
    let writer = setup.reopen(Arc::new(other.clone())).await.unwrap();
    writer.store(&source).await;
    let second = objects(&other).await;
    let mut both = first.clone();
    both.extend(second.clone());
    for lost in [&first, &second] {
        for change in [false, true] {
            let sink = sink_of(&both).await;
            for (key, bytes) in
                lost.iter().filter(|(key, _)| key.starts_with("data/") || key.starts_with("meta/"))
            {
                let mut bytes = bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                replace(&sink, key, change.then(|| bytes.into())).await;
            }
            let opened = setup.reopen(Arc::new(sink)).await.unwrap();
            opened.assert_restores(id, &source).await;
            let snapshot = opened.repository.snapshot(id, &opened.job).await.unwrap();
            let target = common::SequentialTarget::default();
            let options = RestoreOptions::default();
            let report = opened.repository.restore(&snapshot, &target, &options, &opened.job).await.unwrap();
            assert!(report.failed.is_empty(), "{:?}", report.failed);
            let verified = opened.verify(VerifyLevel::Content).await.unwrap();
            assert!(!verified.damaged_objects.is_empty());
            assert!(verified.damaged_entries.is_empty(), "{:?}", verified.damaged_entries);
        }
    }
}

#[tokio::test]
async fn damage_is_found_also_by_a_handle_that_read_everything_before() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let source = TestSource::new(tree(5, 60, 30_000));
    let id = setup.store(&source).await;
    setup.assert_restores(id, &source).await;
    let whole = objects(&sink).await;
    for (key, _) in whole.iter().filter(|(key, _)| key.starts_with("meta/") || key.starts_with("data/")) {
        replace(&sink, key, None).await;
        for level in [VerifyLevel::Structure, VerifyLevel::Checksum, VerifyLevel::Content] {
            let report = setup.verify(level).await.unwrap();
            assert!(report.damaged_objects.iter().any(|object| object.object == *key), "{level:?} {key}");
            assert!(!report.damaged_entries.is_empty(), "{level:?} {key}");
        }
        replace(&sink, key, Some(whole[key].clone())).await;
    }
    setup.assert_clean().await;
}

#[tokio::test]
async fn a_damaged_snapshot_keeps_nobody_from_the_others() {
    for protect in BOTH {
        let victim = Victim::make(protect, 3000).await;
        let (bad, good) = (&victim.snapshots[1], &victim.snapshots[0]);
        let key = format!("snapshots/{}", bad.0);
        let bytes = &victim.objects[&key];
        for at in 0..=bytes.len() {
            let sink = sink_of(&victim.objects).await;
            let mut changed = bytes.to_vec();
            match changed.get_mut(at) {
                Some(byte) => *byte ^= 0x11,
                None => changed.resize(17 << 20, 0),
            }
            replace(&sink, &key, Some(changed.into())).await;
            let setup = victim.setup.reopen(Arc::new(sink)).await.unwrap();
            let (read, damaged) = setup.repository.snapshots_and_damage(&setup.job).await.unwrap();
            assert_eq!((read.len(), damaged.len()), (1, 1), "{at}");
            assert_eq!(damaged[0].0.as_str(), key);
            if at % 40 == 0 || (12..20).contains(&at) || at == bytes.len() {
                let source = TestSource::new(vec![TestEntry::file("new", text(5, 2000))]);
                let id = setup.store(&source).await;
                setup.assert_restores(id, &source).await;
                assert_same(&setup.restore(good.0).await.unwrap().0, &good.1);
            }
        }
    }
}
