//! Snapshots stored again without what is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::repository::VerifyLevel;
use backup_core::testing::{FailingSink, Fault, Manner, Operation};
use backup_core::{Entry, EntryKind, EntryName, ErrorKind};

use crate::common::{
    BOTH, SMALL, TestEntry, TestSource, assert_same, in_memory, objects, random, replace, sink_of, text,
};

fn source(changed: u64) -> TestSource {
    let mut entries: Vec<TestEntry> = (0..40)
        .map(|number| TestEntry::file(&format!("d/{number:02}"), random(number, 3_000)).stamped())
        .collect();
    entries.push(TestEntry::other(Entry::directory("d").unwrap()));
    // So many that their pages are several, and most of them the same in both versions.
    let many =
        (0..3_000).map(|number| TestEntry::file(&format!("many/{number:05}"), random(number, 60)).stamped());
    entries.extend(many);
    entries.push(TestEntry::file("changed", random(100 + changed, 20_000)).stamped());
    entries.push(TestEntry::file("fixed", text(7, 20_000)).fixed(1024));
    let link = |name, to| {
        let kind = EntryKind::HardLink { to: EntryName::new(to).unwrap() };
        TestEntry::other(Entry::new(name, kind).unwrap())
    };
    entries.extend([link("e-link", "changed"), link("f-link", "changed"), link("g-link", "d/07")]);
    TestSource::new(entries).with_trailing(vec![TestEntry::file("label", text(changed, 500))])
}

#[tokio::test]
async fn a_damaged_snapshot_is_stored_again_without_what_is_lost_and_the_original_stays() {
    let (mut lost_entries, mut lost_pages, mut nothing_left) = (0, 0, 0);
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, SMALL).await;
        let sources = [source(1), source(2)];
        let ids = [setup.store(&sources[0]).await, setup.store(&sources[1]).await];
        let whole = objects(&sink).await;
        assert_eq!(setup.repository.repair_snapshots(false, &setup.job).await.unwrap(), Default::default());
        assert_eq!(objects(&sink).await, whole, "where nothing is damaged, nothing is stored");
        for (key, bytes) in
            whole.iter().filter(|(key, _)| key.starts_with("data/") || key.starts_with("meta/"))
        {
            for tenth in [None, Some(4)] {
                let sink = sink_of(&whole).await;
                let damaged = tenth.map(|tenth| {
                    let mut bytes = bytes.to_vec();
                    let at = bytes.len() * tenth / 10;
                    bytes[at] ^= 1;
                    bytes.into()
                });
                replace(&sink, key, damaged).await;
                let opened = setup.reopen(Arc::new(sink.clone())).await.unwrap();
                let planned = opened.repository.repair_snapshots(true, &opened.job).await.unwrap();
                let before = objects(&sink).await;
                let done = opened.repository.repair_snapshots(false, &opened.job).await.unwrap();
                let after = objects(&sink).await;
                // But for what sessions that are over left behind.
                let stays = |key: &String| !key.starts_with("control/sessions/");
                let mut before = before.iter().filter(|(key, _)| stays(key));
                assert!(before.all(|(key, bytes)| after.get(key) == Some(bytes)), "nothing goes");
                assert_eq!((planned.rebuilt, &planned.lost), (done.rebuilt, &done.lost));
                assert_eq!(done.rebuilt as usize, done.snapshots.len());
                for (id, source) in ids.iter().zip(&sources) {
                    let expected = source.expected();
                    let lost: BTreeSet<&str> = (done.lost.iter())
                        .filter(|lost| lost.object == format!("snapshots/{id}"))
                        .map(|lost| lost.reason.split(": ").next().unwrap())
                        .collect();
                    let Some(new) = done.snapshots.iter().find(|new| new.original == *id) else {
                        nothing_left += usize::from(!lost.is_empty());
                        continue;
                    };
                    let (found, report) = opened.restore(new.repaired.unwrap()).await.unwrap();
                    assert!(report.failed.is_empty(), "{key} {tenth:?}: {:?}", report.failed);
                    let pages_lost = lost.iter().any(|name| name.starts_with("a page of"));
                    lost_pages += usize::from(pages_lost);
                    let mut kept = expected.clone();
                    kept.retain(|name, expected| {
                        let name = name.to_string();
                        let file = match &expected.entry.kind {
                            EntryKind::HardLink { to } => to.to_string(),
                            _ => name.clone(),
                        };
                        !lost.contains(&name[..]) && !lost.contains(&file[..])
                    });
                    lost_entries += expected.len() - kept.len();
                    if pages_lost {
                        kept.retain(|name, _| found.contains_key(name));
                    }
                    assert_same(&found, &kept);
                    let info = opened.repository.snapshot(new.repaired.unwrap(), &opened.job).await.unwrap();
                    let original = opened.repository.snapshot(*id, &opened.job).await.unwrap();
                    assert_eq!(info.info().time, original.info().time);
                    assert_eq!(info.info().tags["repaired"], id.to_string());
                    assert!(info.info().skipped_count > 0, "{key} {tenth:?}");
                }
                // Only the originals are damaged now, and they are not stored again.
                let verified = opened.verify(VerifyLevel::Content).await.unwrap();
                assert!(verified.damaged_entries.iter().all(|entry| ids.contains(&entry.snapshot)));
                let again = opened.repository.repair_snapshots(false, &opened.job).await.unwrap();
                assert_eq!(again.rebuilt, 0, "{again:?}");
                // What was lost comes back, and with it the originals.
                replace(&sink, key, Some(bytes.clone())).await;
                let opened = setup.reopen(Arc::new(sink)).await.unwrap();
                opened.assert_clean().await;
                for (id, source) in ids.iter().zip(&sources) {
                    opened.assert_restores(*id, source).await;
                }
            }
        }
    }
    println!(
        "{lost_entries} entries and pages of {lost_pages} snapshots lost and named; of {nothing_left} nothing was left"
    );
    assert!(lost_entries > 100 && lost_pages > 0);
}

#[tokio::test]
async fn a_store_that_does_not_answer_loses_nothing() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, SMALL).await;
        setup.store(&source(1)).await;
        let (key, bytes) =
            objects(&sink).await.into_iter().find(|(key, _)| key.starts_with("data/")).unwrap();
        let mut changed = bytes.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        replace(&sink, &key, Some(changed.into())).await;
        let stored = objects(&sink).await;
        let mut failed = 0;
        // Each of the first, then some: what is read of each entry is alike.
        for nth in (1..40).chain((40..).step_by(13)) {
            let sink = sink_of(&stored).await;
            let failing = FailingSink::new(sink.clone(), [Fault::at(nth).of(Operation::Get).from_then_on()]);
            let Ok(opened) = setup.reopen(Arc::new(failing.clone())).await else { continue };
            match opened.repository.repair_snapshots(false, &opened.job).await {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
                    failed += 1;
                    let snapshots =
                        objects(&sink).await.keys().filter(|key| key.starts_with("snapshots/")).count();
                    assert_eq!(snapshots, 1, "nothing was stored without what merely was not answered");
                }
                Ok(report) => {
                    assert_eq!((failing.struck(), report.rebuilt), (0, 1));
                    break;
                }
            }
        }
        println!("{protect:?}: {failed} gets failed");
        assert!(failed > 5);
    }
}

#[tokio::test]
async fn what_is_misread_once_is_not_lost() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, SMALL).await;
        setup.store(&source(1)).await;
        let stored = objects(&sink).await;
        let mut misread = 0;
        for nth in 1.. {
            let sink = sink_of(&stored).await;
            let short = Fault::at(nth).of(Operation::Get).in_manner(Manner::CutShort);
            let failing = FailingSink::new(sink.clone(), [short]);
            let Ok(opened) = setup.reopen(Arc::new(failing.clone())).await else { continue };
            let repaired = opened.repository.repair_snapshots(false, &opened.job).await;
            let snapshots = objects(&sink).await.keys().filter(|key| key.starts_with("snapshots/")).count();
            assert_eq!(snapshots, 1, "the {nth}th get: {repaired:?}");
            if failing.struck() == 0 {
                break;
            }
            misread += 1;
        }
        println!("{protect:?}: {misread} gets misread");
        assert!(misread > 5);
    }
}
