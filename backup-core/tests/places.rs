//! Several places of one repository: catching up, reading from whichever has it, healing one from another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use backup_core::report::{CollectionOutcome, PlacesReport};
use backup_core::repository::{
    CollectOptions, ForgetOptions, Place, PlaceOptions, Places, RepackOptions, Repository, VerifyLevel,
    VerifyOptions,
};
use backup_core::testing::{FailingSink, Fault, Manner, Operation};
use backup_core::{
    Decision, Error, ErrorKind, JobContext, ObjectKey, PutOutcome, RetentionPolicy, Sink, SinkExt,
    SnapshotFacts, SnapshotId, Timestamp,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{BOTH, Protect, SMALL, Setup, TestEntry, TestSource, in_memory, objects, random, tree};

/// Small files, some of which differ from version to version, and a long one, the list of whose chunks has pages.
fn version(number: u64) -> TestSource {
    let mut entries: Vec<_> = tree(5, 40, 3_000).into_iter().map(TestEntry::stamped).collect();
    let own = |file: u64| TestEntry::file(&format!("own-{file}"), random(number * 100 + file, 20_000));
    entries.extend((0..10).map(|file| own(file).stamped()));
    let mut long = random(7, 1_500_000);
    long.extend(random(number, 100_000));
    entries.push(TestEntry::file("long", long).stamped());
    TestSource::new(entries)
}

fn place(name: &str, repository: backup_core::Result<Repository>) -> Place {
    Place {
        options: PlaceOptions { name: name.into(), required: true, ..PlaceOptions::default() },
        repository,
    }
}

fn places(all: &[&Setup]) -> Places {
    let all = all.iter().zip(["first", "second", "third"]);
    Places::new(all.map(|(setup, name)| place(name, Ok(setup.repository.clone()))).collect()).unwrap()
}

/// The same repository in another place, empty.
async fn another(setup: &Setup) -> (Setup, MemorySink) {
    let sink = MemorySink::new();
    let repository = setup.repository.create_place(Arc::new(sink.clone()), &setup.job).await.unwrap();
    assert_eq!(repository.id(), setup.repository.id());
    (Setup { repository, ..setup.clone() }, sink)
}

/// Nothing is left in memory.
async fn anew(setup: &Setup) -> Setup {
    setup.reopen(setup.repository.sink().clone()).await.unwrap()
}

async fn catch_up(places: &Places, job: &JobContext) -> Vec<usize> {
    let all = places.catch_up(&Default::default(), job).await.unwrap();
    all.into_iter()
        .map(|place| {
            let report = place.result.unwrap();
            assert!(report.is_complete(), "{}: {report:?}", place.name);
            report.snapshots.len()
        })
        .collect()
}

fn lacking(report: &PlacesReport) -> Vec<u64> {
    report.places.iter().map(|place| place.missing).collect()
}

async fn damage(sink: &MemorySink, key: &str) {
    let key = ObjectKey::new(key).unwrap();
    let mut bytes = sink.get_whole(&key, usize::MAX).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    sink.delete(&key).await.unwrap();
    assert_eq!(sink.put(&key, Bytes::from(bytes)).await.unwrap(), PutOutcome::Created);
}

async fn packs(sink: &MemorySink) -> Vec<String> {
    objects(sink)
        .await
        .into_keys()
        .filter(|key| key.starts_with("data/") || key.starts_with("meta/"))
        .collect()
}

#[tokio::test]
async fn what_a_place_lacks_is_brought_there_byte_for_byte() {
    for protect in BOTH {
        let (first, _) = in_memory(protect, SMALL).await;
        let mut ids = Vec::new();
        for number in 0..3 {
            ids.push(first.store(&version(number)).await);
        }
        let (second, sink) = another(&first).await;
        let both = places(&[&first, &second]);
        let report = both.report(&first.job).await.unwrap();
        assert_eq!((lacking(&report), report.copies, report.snapshots), (vec![0, 3], 1, 3), "{report:?}");
        assert!(report.places[1].lag_seconds.is_some() && report.places[1].missing_bytes > 1_000_000);

        assert_eq!(catch_up(&both, &first.job).await, [0, 3]);
        let report = both.report(&first.job).await.unwrap();
        assert_eq!((lacking(&report), report.copies), (vec![0, 0], 2), "{report:?}");
        assert_eq!(report.places[1].lag_seconds, Some(0));
        assert_eq!(catch_up(&both, &first.job).await, [0, 0]);
        let second = anew(&second).await;
        second.assert_clean().await;
        for (number, id) in (0..).zip(&ids) {
            second.assert_restores(*id, &version(number)).await;
        }
        let there = second.repository.snapshots(&second.job).await.unwrap();
        let here = first.repository.snapshots(&first.job).await.unwrap();
        assert_eq!(there.iter().map(|info| info.id).collect::<Vec<_>>(), ids);
        assert!(
            there
                .iter()
                .zip(&here)
                .all(|(there, here)| there.origin == here.origin && there.tags == here.tags)
        );

        // What follows costs what changed, and goes the other way as well.
        let before = sink.list_all("").await.unwrap().iter().map(|meta| meta.len).sum::<u64>();
        let newest = second.store(&version(3)).await;
        let added = sink.list_all("").await.unwrap().iter().map(|meta| meta.len).sum::<u64>() - before;
        let both = places(&[&first, &second]);
        let brought = both.catch_up(&Default::default(), &first.job).await.unwrap();
        let report = brought[0].result.as_ref().unwrap();
        assert_eq!((report.snapshots.len(), report.packs_copied_in_part), (1, 0), "{report:?}");
        assert!(report.packs_copied > 0 && report.bytes_copied < added + 2_000, "{report:?} of {added}");
        let first = anew(&first).await;
        first.assert_restores(newest, &version(3)).await;
        first.assert_clean().await;
    }
}

#[tokio::test]
async fn each_place_forgets_for_itself_and_what_it_forgot_does_not_come_back() {
    let (first, _) = in_memory(Protect::Encrypted, SMALL).await;
    let old = first.store(&version(0)).await;
    let new = first.store(&version(1)).await;
    let (second, sink) = another(&first).await;
    let both = places(&[&first, &second]);
    assert_eq!(catch_up(&both, &first.job).await, [0, 2]);
    second.repository.forget(&[old], &ForgetOptions::default(), &second.job).await.unwrap();
    assert_eq!(lacking(&both.report(&first.job).await.unwrap()), [0, 0]);
    let swept = second.repository.collect(&CollectOptions::default(), &second.job).await.unwrap();
    assert_eq!(swept.outcome, CollectionOutcome::Swept);
    assert_eq!(catch_up(&both, &first.job).await, [0, 0]);
    assert!(!objects(&sink).await.contains_key(&format!("snapshots/{old}")));
    second.assert_restores(new, &version(1)).await;
    first.assert_restores(old, &version(0)).await;
    second.assert_clean().await;

    // What was swept there comes back under other names when something needs it again.
    let again = first.store(&version(0)).await;
    assert_eq!(catch_up(&both, &first.job).await, [0, 1]);
    let second = anew(&second).await;
    second.assert_restores(again, &version(0)).await;
    second.assert_clean().await;
}

#[derive(Debug)]
struct Newest(usize);

impl RetentionPolicy for Newest {
    fn decide(&self, snapshots: &[SnapshotFacts], _: Timestamp) -> Vec<Decision> {
        let mut by_age: Vec<_> = snapshots.iter().map(|facts| (facts.time, facts.id)).collect();
        by_age.sort_unstable_by(|a, b| b.cmp(a));
        let kept: Vec<SnapshotId> = by_age.iter().take(self.0).map(|(_, id)| *id).collect();
        let reasons = |id| if kept.contains(&id) { vec!["newest".to_owned()] } else { Vec::new() };
        snapshots.iter().map(|facts| Decision { id: facts.id, reasons: reasons(facts.id) }).collect()
    }
}

#[tokio::test]
async fn a_place_gets_what_it_is_for() {
    let (first, _) = in_memory(Protect::Plain, SMALL).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(first.store(&version(number)).await);
    }
    let (second, _) = another(&first).await;
    let (archive, _) = another(&first).await;
    let mut all = vec![place("first", Ok(first.repository.clone()))];
    all.push(place("newest", Ok(second.repository.clone())));
    all[1].options.policy = Some(Arc::new(Newest(1)));
    all.push(place("archive", Ok(archive.repository.clone())));
    all[2].options.older_than = Some(Duration::from_secs(3600));
    let places = Places::new(all).unwrap();
    assert_eq!(lacking(&places.report(&first.job).await.unwrap()), [0, 1, 0]);
    assert_eq!(catch_up(&places, &first.job).await, [0, 1, 0]);
    second.assert_restores(ids[2], &version(2)).await;
    assert_eq!(second.repository.snapshots(&second.job).await.unwrap().len(), 1);
    let report = places.report(&first.job).await.unwrap();
    assert_eq!((lacking(&report), report.copies), (vec![0, 0, 0], 2), "an archive is no copy of everything");
}

#[tokio::test]
async fn of_three_places_one_is_destroyed_and_one_damaged_and_all_become_whole() {
    for protect in BOTH {
        let (first, sink) = in_memory(protect, SMALL).await;
        let mut ids = Vec::new();
        for number in 0..4 {
            ids.push(first.store(&version(number)).await);
        }
        let (second, destroyed) = another(&first).await;
        let (third, _) = another(&first).await;
        assert_eq!(catch_up(&places(&[&first, &second, &third]), &first.job).await, [0, 4, 4]);

        for key in objects(&destroyed).await.into_keys() {
            destroyed.delete(&ObjectKey::new(key).unwrap()).await.unwrap();
        }
        let struck: Vec<String> = packs(&sink).await.into_iter().step_by(2).collect();
        for key in &struck {
            damage(&sink, key).await;
        }
        let snapshot = format!("snapshots/{}", ids[1]);
        damage(&sink, &snapshot).await;
        let gone = packs(&sink).await.into_iter().nth(1).unwrap();
        sink.delete(&ObjectKey::new(gone.clone()).unwrap()).await.unwrap();

        // The damaged one alone cannot, and with others it can.
        let alone = anew(&first).await;
        assert!(!alone.verify(VerifyLevel::Content).await.unwrap().is_clean());
        let (_, report) = alone.restore(ids[3]).await.unwrap();
        assert!(!report.failed.is_empty());
        let others = [alone.repository.at(Arc::new(destroyed.clone())), third.repository.clone()];
        let together = Setup { repository: alone.repository.with_others(others).unwrap(), ..alone.clone() };
        for (number, id) in (0..).zip(&ids) {
            together.assert_restores(*id, &version(number)).await;
        }
        assert_eq!(together.repository.snapshots(&first.job).await.unwrap().len(), 4);

        // Verification is of this place alone, and healing brings back what it names.
        let found = together.verify(VerifyLevel::Checksum).await.unwrap();
        assert!(found.damaged_objects.len() >= struck.len() + 2, "{found:?}");
        let healed = together.repository.heal(&found.damaged_objects, "host", &first.job).await.unwrap();
        assert!(healed.lost.is_empty() && healed.rewritten.is_empty(), "{healed:?}");
        assert!(healed.healed.contains(&snapshot) && healed.healed.contains(&gone), "{healed:?}");
        let first = anew(&first).await;
        first.assert_clean().await;

        // The destroyed one is made anew.
        let second = first.repository.create_place(Arc::new(destroyed.clone()), &first.job).await.unwrap();
        let second = Setup { repository: second, ..first.clone() };
        let all = places(&[&first, &second, &third]);
        assert_eq!(lacking(&all.report(&first.job).await.unwrap()), [0, 4, 0]);
        assert_eq!(catch_up(&all, &first.job).await, [0, 4, 0]);
        let report = all.report(&first.job).await.unwrap();
        assert_eq!((lacking(&report), report.copies), (vec![0, 0, 0], 3));
        assert!(report.places.iter().all(|place| place.lag_seconds == Some(0)));
        let second = anew(&second).await;
        second.assert_clean().await;
        for (number, id) in (0..).zip(&ids) {
            first.assert_restores(*id, &version(number)).await;
            second.assert_restores(*id, &version(number)).await;
        }
    }
}

#[tokio::test]
async fn a_pack_that_no_place_has_as_it_was_is_packed_anew() {
    let (first, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let old = first.store(&version(0)).await;
    let kept = first.store(&version(1)).await;
    let (second, other) = another(&first).await;
    // There everything stands in other packs: what was forgotten was freed out of them.
    let both = places(&[&first, &second]);
    assert_eq!(catch_up(&both, &first.job).await, [0, 2]);
    second.repository.forget(&[old], &ForgetOptions::default(), &second.job).await.unwrap();
    let options = CollectOptions {
        repack: RepackOptions { max_unused_percent: 0, ..RepackOptions::default() },
        ..CollectOptions::default()
    };
    second.repository.collect(&options, &second.job).await.unwrap();
    let there = packs(&other).await;
    let only_here: Vec<String> =
        packs(&sink).await.into_iter().filter(|pack| !there.contains(pack)).collect();
    assert!(!only_here.is_empty());
    for key in &only_here {
        damage(&sink, key).await;
    }
    let first = anew(&first).await;
    let together = first.repository.with_others([second.repository.clone()]).unwrap();
    let options = VerifyOptions { level: VerifyLevel::Checksum, ..VerifyOptions::default() };
    let found = together.verify(&options, &first.job).await.unwrap();
    let healed = together.heal(&found.damaged_objects, "host", &first.job).await.unwrap();
    // What only the old snapshot needed is nowhere.
    assert!(healed.healed.is_empty(), "{healed:?}");
    assert!(healed.lost.iter().all(|lost| only_here.contains(&lost.object)), "{healed:?}");
    let first = anew(&first).await;
    first.assert_restores(kept, &version(1)).await;
    let packs_now = packs(&sink).await;
    assert!(healed.rewritten.iter().all(|pack| !packs_now.contains(pack)), "{healed:?}");
    assert_eq!(healed.rewritten.len() + healed.lost.len(), only_here.len(), "{healed:?}");
}

#[tokio::test]
async fn what_is_gone_together_with_the_index_that_named_it_comes_back() {
    for is_damaged in [true, false] {
        let (first, sink) = in_memory(Protect::Encrypted, SMALL).await;
        let id = first.store(&version(0)).await;
        let (second, _) = another(&first).await;
        assert_eq!(catch_up(&places(&[&first, &second]), &first.job).await, [0, 1]);
        for key in objects(&sink).await.into_keys().filter(|key| key.starts_with("index/")) {
            match is_damaged {
                true => damage(&sink, &key).await,
                false => sink.delete(&ObjectKey::new(key).unwrap()).await.unwrap(),
            }
        }
        let all = packs(&sink).await;
        // Without an index, and without pages, nobody could tell that packs are missing.
        for prefix in &["data/", "meta/"][..if is_damaged { 2 } else { 1 }] {
            let gone = all.iter().find(|key| key.starts_with(prefix)).unwrap();
            sink.delete(&ObjectKey::new(gone.clone()).unwrap()).await.unwrap();
        }
        let first = anew(&first).await;
        let together = first.repository.with_others([second.repository.clone()]).unwrap();
        let found = first.verify(VerifyLevel::Checksum).await.unwrap();
        let healed = together.heal(&found.damaged_objects, "host", &first.job).await.unwrap();
        assert!(healed.lost.is_empty(), "{healed:?}");
        let first = anew(&first).await;
        first.assert_clean().await;
        first.assert_restores(id, &version(0)).await;
    }
}

#[tokio::test]
async fn wherever_bringing_a_snapshot_breaks_off_the_next_time_completes_it() {
    let (first, _) = in_memory(Protect::Plain, SMALL).await;
    let mut ids = Vec::new();
    for number in 0..2 {
        ids.push(first.store(&version(number)).await);
    }
    let mut tried = 0;
    for manner in [Manner::Before, Manner::AfterEffect, Manner::Last { after_effect: false }] {
        for (operation, step) in [(Operation::Put, 1), (Operation::List, 2), (Operation::Get, 5)] {
            if !manner.applies_to(operation) {
                continue;
            }
            for nth in (1..).step_by(step) {
                let (second, sink) = another(&first).await;
                let failing = Arc::new(FailingSink::new(
                    sink.clone(),
                    [Fault::at(nth).of(operation).in_manner(manner)],
                ));
                let broken_off = async {
                    let struck = second.reopen(failing.clone()).await.ok()?;
                    places(&[&first, &struck]).catch_up(&Default::default(), &first.job).await.ok()
                };
                let ended = tokio::select! {
                    ended = broken_off => ended,
                    () = failing.ended() => None,
                };
                if failing.struck() == 0 {
                    break;
                }
                tried += 1;
                let what = format!("{manner:?} {operation:?} {nth}: {ended:?}");
                // What is shown there is whole.
                let second = anew(&second).await;
                for info in second.repository.snapshots(&second.job).await.unwrap() {
                    let number = ids.iter().position(|id| *id == info.id).expect(&what) as u64;
                    second.assert_restores(info.id, &version(number)).await;
                }
                let both = places(&[&first, &second]);
                catch_up(&both, &first.job).await;
                let report = both.report(&first.job).await.unwrap();
                assert_eq!(lacking(&report), [0, 0], "{what}");
                let there: Vec<SnapshotId> = second
                    .repository
                    .snapshots(&second.job)
                    .await
                    .unwrap()
                    .iter()
                    .map(|info| info.id)
                    .collect();
                assert_eq!(there, ids, "{what}");
                second.assert_clean().await;
                // What was left behind goes, and nothing else.
                second.repository.collect(&CollectOptions::default(), &second.job).await.unwrap();
                second.assert_restores(ids[0], &version(0)).await;
                second.assert_restores(ids[1], &version(1)).await;
            }
        }
    }
    assert!(tried > 40, "{tried}");
}

#[tokio::test]
async fn a_place_that_does_not_answer_is_reported_and_caught_up_later() {
    let (first, _) = in_memory(Protect::Encrypted, SMALL).await;
    let id = first.store(&version(0)).await;
    let (second, _) = another(&first).await;
    let down = || Err(Error::new(ErrorKind::Transient, "the cable is cut"));
    let some =
        Places::new(vec![place("first", Ok(first.repository.clone())), place("second", down())]).unwrap();
    let report = some.report(&first.job).await.unwrap();
    assert_eq!((report.copies, report.places[1].lag_seconds), (1, None), "{report:?}");
    assert!(report.places[1].error.as_ref().unwrap().contains("cable"));
    let caught_up = some.catch_up(&Default::default(), &first.job).await.unwrap();
    assert!(caught_up[0].result.is_ok() && caught_up[1].result.as_ref().unwrap_err().contains("cable"));
    assert_eq!(some.first().unwrap().id(), first.repository.id());

    let both = places(&[&first, &second]);
    assert_eq!(catch_up(&both, &first.job).await, [0, 1]);
    second.assert_restores(id, &version(0)).await;
    let none = Places::new(vec![place("second", down())]).unwrap();
    assert!(none.first().unwrap_err().to_string().contains("cable"));
}

#[tokio::test]
async fn while_the_index_of_a_place_cannot_be_read_others_are_asked_for_everything() {
    let (first, sink) = in_memory(Protect::Encrypted, SMALL).await;
    let id = first.store(&version(0)).await;
    let (second, _) = another(&first).await;
    catch_up(&places(&[&first, &second]), &first.job).await;
    let fault = Fault::at(1).of(Operation::List).below("index/").from_then_on();
    let failing = first.reopen(Arc::new(FailingSink::new(sink, [fault]))).await.unwrap();
    assert_eq!(failing.restore(id).await.unwrap_err().kind(), ErrorKind::Transient);
    let together = failing.repository.with_others([second.repository.clone()]).unwrap();
    Setup { repository: together.clone(), ..failing }.assert_restores(id, &version(0)).await;
    // Who relies upon what is here does not.
    assert!(together.verify(&VerifyOptions::default(), &first.job).await.is_err());
    assert!(together.backup(&version(1), &Default::default(), &first.job).await.is_err());
}

#[tokio::test]
async fn another_repository_is_no_place_of_this_one() {
    let (one, _) = in_memory(Protect::Plain, SMALL).await;
    let (two, sink) = in_memory(Protect::Plain, SMALL).await;
    let refused = one.repository.with_others([two.repository.clone()]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(
        Places::new(vec![place("one", Ok(one.repository.clone())), place("two", Ok(two.repository.clone()))])
            .is_err()
    );
    let refused = one.repository.create_place(Arc::new(sink.clone()), &one.job).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(one.repository.heal(&[], "host", &one.job).await.is_err());
}

#[tokio::test]
async fn times_are_carried_along() {
    let (first, _) = in_memory(Protect::Plain, SMALL).await;
    let id = first.store(&version(0)).await;
    first.repository.record_times(&first.job).await.unwrap();
    let stored = first.repository.snapshots(&first.job).await.unwrap()[0].stored.unwrap();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let (second, _) = another(&first).await;
    catch_up(&places(&[&first, &second]), &first.job).await;
    let listed = second.repository.snapshots(&second.job).await.unwrap();
    assert!(listed[0].stored.unwrap() > stored && listed[0].id == id);
    let facts = second.repository.facts(&listed, &second.job).await.unwrap();
    assert_eq!(facts[0].time.seconds(), stored.seconds());
    assert!(facts[0].origin.is_none() && !facts[0].quarantined);
}
