//! Retention goes by when the store first had a snapshot, whatever its writer says and however often it was copied.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use backup_core::report::{HealthStatus, Outcome};
use backup_core::repository::{
    BackupOptions, CollectOptions, Done, HealthOptions, Place, PlaceOptions, Places, ReplicateOptions,
    Repository, Slices, VerifyLevel,
};
use backup_core::time::ManualClock;
use backup_core::{
    Clock, ErrorKind, JobContext, ObjectKey, Origin, RetentionPolicy, Sink, SinkExt, SnapshotId,
    SnapshotInfo, Timestamp, limits,
};
use backup_retention::RetentionConfig;
use backup_sinks::MemorySink;
use common::{Body, Protect, SMALL, Setup, TestEntry, TestSource, create, objects, random, tree};

const DAY: i64 = 86_400;

/// A store and writers with one clock.
struct World {
    setup: Setup,
    sink: MemorySink,
    clock: Arc<ManualClock>,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::new(1_800_000_000, 0)));
        let sink = MemorySink::with_clock(clock.clone());
        let setup = create(Arc::new(sink.clone()), Protect::Plain, SMALL).await;
        let job = JobContext::with_clock(common::job(), clock.clone());
        Self { setup: Setup { job, ..setup }, sink, clock }
    }

    fn later(&self, seconds: i64) {
        self.clock.set(self.clock.now().saturating_add_seconds(seconds));
    }

    /// Backs up, with a time of the writer's choice.
    async fn store(&self, number: u64, time: Option<Timestamp>) -> SnapshotId {
        let source = TestSource::new(vec![TestEntry::file("a", random(number, 2_000)).stamped()]);
        let options = BackupOptions { time, ..BackupOptions::default() };
        let report = self.setup.repository.backup(&source, &options, &self.setup.job).await.unwrap();
        report.snapshot.unwrap()
    }

    /// A snapshot a day, for so many days.
    async fn days(&self, count: u64) -> Vec<SnapshotId> {
        let mut made = Vec::new();
        for number in 0..count {
            made.push(self.store(number, None).await);
            self.later(DAY);
        }
        made
    }
}

fn policy(text: &str) -> Arc<dyn RetentionPolicy> {
    let pairs = text.split(' ').map(|pair| pair.split_once('=').unwrap());
    let mut config = RetentionConfig::default();
    for (name, value) in pairs {
        match name {
            "last" => config.keep_last = Some(value.parse().unwrap()),
            "daily" => config.keep_daily = Some(backup_retention::Count::Some(value.parse().unwrap())),
            other => panic!("{other}"),
        }
    }
    config.build().unwrap()
}

async fn kept(
    repository: &Repository,
    policy: &dyn RetentionPolicy,
    job: &JobContext,
) -> BTreeSet<SnapshotId> {
    let snapshots = repository.snapshots(job).await.unwrap();
    let facts = repository.facts(&snapshots, job).await.unwrap();
    let decisions = policy.decide(&facts, job.now());
    decisions.into_iter().filter(|decision| decision.keep()).map(|decision| decision.id).collect()
}

#[tokio::test]
async fn a_snapshot_with_a_forged_time_displaces_nothing() {
    for rules in ["daily=7", "last=3", "daily=3 last=5"] {
        let world = World::new().await;
        let (repository, job) = (&world.setup.repository, &world.setup.job);
        world.days(12).await;
        let honest = kept(repository, &*policy(rules), job).await;
        assert!(honest.len() < 12);
        let now = world.clock.now();
        let mut forged = BTreeSet::new();
        // Of the future, of long ago, of the beginning and the end of time, and before each of the honest ones.
        let times = [2 * DAY, 40 * DAY, -20 * DAY, -1000 * DAY, i64::MIN, i64::MAX]
            .map(|s| now.saturating_add_seconds(s));
        for (number, time) in times.into_iter().enumerate() {
            forged.insert(world.store(100 + number as u64, Some(time)).await);
        }
        let with_forged = kept(repository, &*policy(rules), job).await;
        assert!(with_forged.is_superset(&honest), "{rules}: an honest one was displaced");
        assert!(with_forged.is_superset(&forged), "{rules}: what is doubtful is for somebody to look at");
        assert_eq!(with_forged.len(), honest.len() + forged.len());
    }
}

#[tokio::test]
async fn a_time_of_the_past_buys_no_place_there() {
    let world = World::new().await;
    let (repository, job) = (&world.setup.repository, &world.setup.job);
    let made = world.days(10).await;
    // Each pretends to be the newest of a day that is over.
    for back in 1..10 {
        let time = world.clock.now().saturating_add_seconds(-back * DAY + DAY / 3);
        world.store(200 + back.unsigned_abs(), Some(time)).await;
    }
    let kept = kept(repository, &*policy("daily=11"), job).await;
    assert!(made.iter().all(|id| kept.contains(id)), "each is still the newest of the day on which it came");
    assert_eq!(kept.len(), 11, "and of today one is kept");
}

#[tokio::test]
async fn a_repository_that_was_copied_object_by_object_keeps_its_times() {
    let world = World::new().await;
    let job = &world.setup.job;
    let made: BTreeSet<_> = world.days(9).await.into_iter().collect();
    world.setup.repository.collect(&CollectOptions::default(), job).await.unwrap();
    // A year later, by a program that keeps no times.
    world.later(365 * DAY);
    let copied = MemorySink::with_clock(world.clock.clone());
    for (key, bytes) in objects(&world.sink).await {
        copied.put(&ObjectKey::new(key).unwrap(), bytes).await.unwrap();
    }
    let there = world.setup.reopen(Arc::new(copied.clone())).await.unwrap();
    let all = kept(&there.repository, &*policy("daily=20"), job).await;
    assert_eq!(all, made, "they are of nine days");
    let facts = there.repository.facts(&there.repository.snapshots(job).await.unwrap(), job).await.unwrap();
    assert!(facts.iter().all(|facts| !facts.quarantined && facts.time < world.clock.now()));

    // Without what was written down they would be of one day, and as that is not what they say, they are all kept.
    for meta in copied.list_all("control/observed/").await.unwrap() {
        copied.delete(&meta.key).await.unwrap();
    }
    let facts = there.repository.facts(&there.repository.snapshots(job).await.unwrap(), job).await.unwrap();
    assert!(facts.iter().all(|facts| facts.quarantined));
    assert_eq!(kept(&there.repository, &*policy("last=1"), job).await, made);
}

#[tokio::test]
async fn what_was_written_down_stays_little_and_is_believed_only_if_it_is_earlier() {
    let world = World::new().await;
    let (repository, job) = (&world.setup.repository, &world.setup.job);
    let first = world.store(1, None).await;
    let mut most = 0;
    for number in 2..40 {
        repository.record_times(job).await.unwrap();
        // Once more has nothing new to say.
        let listed = world.sink.list_all("control/observed/").await.unwrap().len();
        repository.record_times(job).await.unwrap();
        let again = world.sink.list_all("control/observed/").await.unwrap().len();
        assert!(again <= listed);
        most = most.max(listed);
        world.later(DAY);
        world.store(number, None).await;
    }
    assert!((5..=10).contains(&most), "{most} objects");
    let snapshots = repository.snapshots(job).await.unwrap();
    let facts = repository.facts(&snapshots, job).await.unwrap();
    assert!(snapshots.iter().zip(&facts).all(|(info, facts)| info.stored == Some(facts.time)));
    assert_eq!(facts[0].id, first);

    // One that cannot be read stops retention, and collections do without.
    let key = world.sink.list_all("control/observed/").await.unwrap()[0].key.clone();
    let mut bytes = world.sink.get_whole(&key, 1 << 20).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    common::replace(&world.sink, key.as_str(), Some(bytes.into())).await;
    let error = repository.facts(&snapshots, job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains(key.as_str()), "{error}");
    repository.collect(&CollectOptions::default(), job).await.unwrap();
}

#[tokio::test]
async fn what_is_stored_again_here_has_its_originals_time_only_if_that_is_known() {
    let world = World::new().await;
    let (repository, job) = (&world.setup.repository, &world.setup.job);
    let made = world.days(5).await;
    let originals = repository.snapshots(job).await.unwrap();
    let again = |snapshot, stored, is_whole: bool| {
        let origin = Some(Origin { repository: repository.id(), snapshot, stored });
        let options = BackupOptions { time: Some(originals[2].time), origin, ..BackupOptions::default() };
        async move {
            let mut entries = vec![TestEntry::file("a", random(77, 2_000)).stamped()];
            if !is_whole {
                entries.push(TestEntry::file("lost", random(78, 2_000)).body(Body::FailsAfter(100)));
            }
            let source = TestSource::new(entries);
            repository.backup(&source, &options, job).await.unwrap().snapshot.unwrap()
        }
    };
    // Whatever it says of when the store had it.
    let repaired = again(made[2], world.clock.now(), false).await;
    let forged = again(SnapshotId::from_bytes([9; 16]), originals[2].time, false).await;
    // What is stored again because something is lost is not complete.
    let pretended = again(made[2], world.clock.now(), true).await;
    let facts = repository.facts(&repository.snapshots(job).await.unwrap(), job).await.unwrap();
    let of = |id| facts.iter().find(|facts| facts.id == id).unwrap();
    assert_eq!(of(repaired).time.seconds(), originals[2].stored.unwrap().seconds());
    assert_eq!((of(repaired).origin, of(repaired).quarantined), (None, false));
    assert!(of(forged).quarantined);
    assert!(facts.iter().all(|facts| facts.quarantined == [forged, pretended].contains(&facts.id)));

    // The original is left out, as by a filter, or is gone, and its time is known.
    let left: Vec<_> = repository.snapshots(job).await.unwrap();
    repository.record_times(job).await.unwrap();
    let left: Vec<_> = left.into_iter().filter(|info| info.id != made[2]).collect();
    let facts = repository.facts(&left, job).await.unwrap();
    assert!(facts.iter().all(|facts| facts.quarantined == [forged, pretended].contains(&facts.id)));
}

#[tokio::test]
async fn what_pretends_to_stand_for_snapshots_that_are_there_displaces_nothing() {
    for rules in ["daily=7", "last=3", "daily=3 last=5"] {
        let world = World::new().await;
        let (repository, job) = (&world.setup.repository, &world.setup.job);
        world.days(9).await;
        let honest = kept(repository, &*policy(rules), job).await;
        for original in repository.snapshots(job).await.unwrap() {
            for number in 0..4 {
                let source = TestSource::new(vec![TestEntry::file("a", random(number, 100)).stamped()]);
                let options = BackupOptions::copy_of(repository.id(), &original);
                repository.backup(&source, &options, job).await.unwrap();
            }
        }
        let with_forged = kept(repository, &*policy(rules), job).await;
        assert!(with_forged.is_superset(&honest), "{rules}: an honest one was displaced");
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_makes_nothing_old() {
    let world = World::new().await;
    let (repository, job) = (&world.setup.repository, &world.setup.job);
    world.days(9).await;
    world.store(9, None).await;
    let within = RetentionConfig { keep_within: Some("30d".parse().unwrap()), ..RetentionConfig::default() };
    let within = within.build().unwrap();
    let facts = repository.facts(&repository.snapshots(job).await.unwrap(), job).await.unwrap();
    for (ahead, expected) in [(0, 0), (-5 * DAY, -5 * DAY), (2 * 365 * DAY, 0), (1 << 40, 0)] {
        let now = world.clock.now();
        let clock = Arc::new(ManualClock::new(now.saturating_add_seconds(ahead)));
        let wrong = JobContext::with_clock(common::job(), clock);
        let found = repository.now(&wrong).await.unwrap();
        assert_eq!(found, now.saturating_add_seconds(expected), "{ahead}");
        assert!(within.decide(&facts, found).iter().all(|decision| decision.keep()), "{ahead}");
    }
    // A place that is to have the last month lacks none of it.
    let ahead = Arc::new(ManualClock::new(world.clock.now().saturating_add_seconds(2 * 365 * DAY)));
    let second = Arc::new(MemorySink::with_clock(ahead.clone()));
    let second = repository.create_place(second, job).await.unwrap();
    let place = |repository: &Repository, policy| Place {
        options: PlaceOptions { required: true, policy, ..PlaceOptions::default() },
        repository: Ok(repository.clone()),
    };
    let places = Places::new(vec![place(&second, Some(within)), place(repository, None)]).unwrap();
    let ahead = JobContext::with_clock(common::job(), ahead);
    let caught_up = places.catch_up(&ReplicateOptions::default(), &ahead).await.unwrap();
    assert_eq!(caught_up[0].result.as_ref().unwrap().snapshots.len(), 10);

    // Asking puts nothing: who may not delete would leave it there.
    let before = objects(&world.sink).await;
    repository.now(job).await.unwrap();
    assert!(objects(&world.sink).await == before);
}

#[tokio::test]
async fn a_copy_of_a_repaired_snapshot_is_none_of_its_original() {
    let world = World::new().await;
    let (repository, job) = (&world.setup.repository, &world.setup.job);
    let original = world.store(1, None).await;
    let listed = repository.snapshots(job).await.unwrap();
    let mut options = BackupOptions::copy_of(repository.id(), &listed[0]);
    options.tags.insert("repaired".to_owned(), original.to_string());
    let source = TestSource::new(vec![TestEntry::file("what is left", random(2, 500)).stamped()]);
    let repaired = repository.backup(&source, &options, job).await.unwrap().snapshot.unwrap();
    let listed = repository.snapshots(job).await.unwrap();
    let of = |id| listed.iter().filter(|info| info.id == id).cloned().collect::<Vec<_>>();

    // Copied while its original could not be read, which has been healed since.
    let there = create(Arc::new(MemorySink::new()), Protect::Plain, SMALL).await;
    let copied = async |chosen: &[SnapshotInfo]| {
        let report = repository.copy_to(&there.repository, chosen, job).await.unwrap();
        (report.copied.len(), report.already_there)
    };
    assert_eq!(copied(&of(repaired)).await, (1, 0));
    assert_eq!(copied(&of(original)).await, (1, 0), "only what is left of it was there");
    assert_eq!(copied(&listed).await, (0, 2));
}

#[tokio::test]
async fn damage_that_was_found_is_not_forgotten_because_something_else_is_whole() {
    let world = World::new().await;
    let (repository, job) = (&world.setup.repository, &world.setup.job);
    world.store(1, None).await;
    let after = async |passed: bool, verified: Option<(VerifyLevel, RangeInclusive<u8>)>| {
        world.later(3600);
        let done = Done {
            kind: "verify",
            time: world.clock.now(),
            seconds: 1.0,
            host: "db1",
            program: "a test",
            passed,
            verified: verified.map(|(level, slices)| (level, slices.collect::<Slices>())),
            report: &(),
        };
        repository.record(&done, job).await.unwrap();
        let all = |_: &SnapshotInfo| true;
        repository.health(&HealthOptions::default(), &all, job).await.unwrap().status
    };
    use {HealthStatus::*, VerifyLevel::*};
    assert_eq!(after(true, Some((Structure, 0..=255))).await, Ok);
    assert_eq!(after(false, Some((Checksum, 0..=25))).await, Critical);
    // The next tenth, the day after; all of it, but not as thoroughly.
    assert_eq!(after(true, Some((Checksum, 26..=51))).await, Critical);
    assert_eq!(after(true, Some((Structure, 0..=255))).await, Critical);
    assert_eq!(after(true, None).await, Critical);
    assert_eq!(after(true, Some((Content, 0..=25))).await, Ok);
    // A sample may have struck anything, and content can be wrong under the right hash.
    assert_eq!(after(false, None).await, Critical);
    assert_eq!(after(true, Some((Checksum, 0..=255))).await, Critical);
    assert_eq!(after(true, Some((Content, 0..=127))).await, Critical);
    assert_eq!(after(true, Some((Content, 128..=255))).await, Ok);

    // However much else is recorded, and whatever somebody puts there.
    assert_eq!(after(false, Some((Checksum, 0..=25))).await, Critical);
    for _ in 0..limits::EVIDENCE_READ_MAX {
        let done = Done {
            kind: "run",
            time: world.clock.now(),
            seconds: 1.0,
            host: "db1",
            program: "a test",
            passed: true,
            verified: None,
            report: &(),
        };
        repository.record(&done, job).await.unwrap();
    }
    let put = async |number: u8, bytes: Vec<u8>| {
        let key = ObjectKey::new(format!("evidence/verify/{}", SnapshotId::from_bytes([number; 16])));
        world.sink.put(&key.unwrap(), bytes.into()).await.unwrap();
    };
    put(1, random(1, 2 << 20)).await;
    put(2, random(2, 100)).await;
    assert_eq!(after(true, Some((Checksum, 26..=255))).await, Critical);
    let ledger = repository.ledger(Checksum, job).await.unwrap();
    assert!(ledger.last(26).is_some() && ledger.last(0).is_some());
    assert_eq!(after(true, Some((Checksum, 0..=25))).await, Ok);
}

/// A second repository with other chunks, and the snapshots of the first one copied into it on one day.
async fn copied(world: &World) -> (Setup, Vec<SnapshotInfo>) {
    let (repository, job) = (&world.setup.repository, &world.setup.job);
    let sink = MemorySink::with_clock(world.clock.clone());
    let there = create(Arc::new(sink), Protect::Encrypted, common::TINY).await;
    let there = Setup { job: job.clone(), ..there };
    let originals = repository.snapshots(job).await.unwrap();
    let report = repository.copy_to(&there.repository, &originals, job).await.unwrap();
    assert_eq!((report.copied.len(), report.already_there), (originals.len(), 0), "{report:?}");
    (there, originals)
}

#[tokio::test]
async fn copies_in_another_repository_count_by_their_originals_times() {
    let world = World::new().await;
    let job = &world.setup.job;
    world.days(9).await;
    world.later(100 * DAY);
    let (there, originals) = copied(&world).await;
    let copies = there.repository.snapshots(job).await.unwrap();
    assert_eq!(kept(&there.repository, &*policy("daily=9"), job).await.len(), 9);
    assert_eq!(kept(&there.repository, &*policy("daily=4"), job).await.len(), 4);
    for (copy, original) in copies.iter().zip(&originals) {
        let origin = copy.origin.unwrap();
        assert_eq!((origin.snapshot, Some(origin.stored)), (original.id, original.stored));
        assert_eq!((copy.time, &copy.host, &copy.tags), (original.time, &original.host, &original.tags));
    }
    // What is made there is a series of its own, which copies do not displace, nor it them.
    let source = TestSource::new(tree(3, 4, 500).into_iter().map(TestEntry::stamped).collect());
    let own = there.store(&source).await;
    let last = kept(&there.repository, &*policy("last=1"), job).await;
    assert!(last.contains(&own) && last.len() == 2, "{last:?}");

    // Copied again they say the same of where they come from.
    let third = create(Arc::new(MemorySink::with_clock(world.clock.clone())), Protect::Plain, SMALL).await;
    there.repository.copy_to(&third.repository, &copies, job).await.unwrap();
    let thirds = third.repository.snapshots(job).await.unwrap();
    assert!(thirds.iter().zip(&copies).all(|(third, copy)| third.origin == copy.origin));
    let report = world.setup.repository.copy_to(&third.repository, &originals, job).await.unwrap();
    assert_eq!((report.copied.len(), report.already_there), (0, 9), "however it came there");
}

#[tokio::test]
async fn copies_restore_and_cost_what_is_new() {
    let world = World::new().await;
    let (setup, job) = (&world.setup, &world.setup.job);
    let mut entries: Vec<_> = tree(9, 60, 5_000).into_iter().map(TestEntry::stamped).collect();
    entries.push(TestEntry::file("long", random(9, 900_000)).stamped());
    let source = TestSource::new(entries);
    setup.store(&source).await;
    setup.store(&source).await;
    let (there, originals) = copied(&world).await;
    for copy in there.repository.snapshots(job).await.unwrap() {
        assert_ne!(copy.id, originals[0].id);
        there.assert_restores(copy.id, &source).await;
    }
    there.assert_clean().await;
    let report = setup.repository.copy_to(&there.repository, &originals, job).await.unwrap();
    assert_eq!((report.copied.len(), report.already_there, report.bytes_copied), (0, 2, 0));
    setup.repository.copy_to(&setup.repository, &originals, job).await.unwrap_err();
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_everything_else_is_copied() {
    let world = World::new().await;
    let (setup, job) = (&world.setup, &world.setup.job);
    for number in 0..3 {
        let source = TestSource::new(vec![
            TestEntry::file("a", random(10 * number, 30_000)).stamped(),
            TestEntry::file("b", random(10 * number + 1, 30_000)).stamped(),
        ]);
        setup.store(&source).await;
    }
    let mut partial = 0;
    let mut failed = 0;
    for prefix in ["data/", "meta/"] {
        for meta in world.sink.list_all(prefix).await.unwrap() {
            let whole = world.sink.get_whole(&meta.key, 1 << 24).await.unwrap();
            let mut bytes = whole.to_vec();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            common::replace(&world.sink, meta.key.as_str(), Some(bytes.into())).await;
            let fresh = setup.reopen(Arc::new(world.sink.clone())).await.unwrap();
            let there = create(Arc::new(MemorySink::new()), Protect::Plain, SMALL).await;
            let originals = fresh.repository.snapshots(job).await.unwrap();
            let report = fresh.repository.copy_to(&there.repository, &originals, job).await.unwrap();
            assert_eq!(report.copied.len() + report.damaged_objects.len(), 3, "{report:?}");
            let harmed: Vec<_> =
                report.copied.iter().filter(|copied| copied.outcome == Outcome::Partial).collect();
            assert_eq!(harmed.len() + report.damaged_objects.len(), 1, "{} {report:?}", meta.key);
            assert!(harmed.iter().all(|copied| !copied.skipped.is_empty()));
            partial += harmed.len();
            failed += report.damaged_objects.len();
            there.assert_clean().await;
            common::replace(&world.sink, meta.key.as_str(), Some(whole)).await;
        }
    }
    assert!(partial > 0 && failed > 0, "{partial} {failed}");
}

#[tokio::test]
async fn evidence_goes_when_it_is_old_but_never_the_newest() {
    let world = World::new().await;
    let Setup { repository, job, .. } = &world.setup;
    let record = async |count: usize| {
        let done = Done {
            kind: "verify",
            time: world.clock.now(),
            seconds: 1.0,
            host: "db1",
            program: "a test",
            passed: true,
            verified: None,
            report: &(),
        };
        for _ in 0..count {
            repository.record(&done, job).await.unwrap();
        }
    };
    let left = async || world.sink.list_all("evidence/").await.unwrap().len();
    let collect = async |keep: Option<i64>| {
        let keep_evidence = keep.map(|days| Duration::from_secs((days * DAY).unsigned_abs()));
        let options = CollectOptions { keep_evidence, ..CollectOptions::default() };
        repository.collect(&options, job).await.unwrap().evidence_deleted
    };
    record(5).await;
    world.later(900 * DAY);
    record(limits::EVIDENCE_READ_MAX - 2).await;
    assert_eq!((collect(None).await, collect(Some(1000)).await), (0, 0));
    assert_eq!((collect(Some(800)).await, left().await), (3, limits::EVIDENCE_READ_MAX));
    assert_eq!(collect(Some(0)).await, 0, "the newest stay in any case");
}
