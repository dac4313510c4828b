//! Logs: archived once whatever is asked how often, read back whole or not at all, kept as long as any moment needs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use backup_core::log::position;
use backup_core::report::{CollectReport, CollectionOutcome};
use backup_core::repository::{CollectOptions, ForgetOptions, Place, PlaceOptions, Places};
use backup_core::testing::{FailingSink, Fault, Manner, Operation, RecordingSink};
use backup_core::time::ManualClock;
use backup_core::{
    Archived, Clock, ErrorKind, LogName, LogPiece, LogRetention, ObjectKey, Sink, SinkExt, SnapshotId,
    Timestamp,
};
use backup_sinks::MemorySink;
use bytes::Bytes;
use common::{
    BOTH, Protect, SMALL, Setup, TestEntry, TestSource, create, in_memory, objects, random, sink_of,
};

const DAY: i64 = 86_400;

const MANNERS: [Manner; 5] =
    [Manner::Before, Manner::AfterEffect, Manner::Late { calls: 3 }, Manner::Repeated, Manner::CutShort];

fn name(number: u32) -> LogName {
    LogName::new("7412", "00000001", format!("0000000100000000{number:08X}"))
}

fn content(number: u32) -> Bytes {
    let mut bytes = random(u64::from(number), 50_000);
    bytes.resize(200_000, 0);
    bytes.into()
}

fn segment(number: u32) -> LogPiece {
    LogPiece::whole("postgres", name(number), content(number))
}

fn piece(number: u32, range: std::ops::Range<usize>) -> LogPiece {
    let all = content(number);
    LogPiece::part("postgres", name(number), range.start as u64, Some(all.len() as u64), all.slice(range))
}

async fn archive(setup: &Setup, pieces: &[LogPiece]) -> Vec<Archived> {
    setup.repository.archive(pieces, &setup.job).await.unwrap()
}

async fn read(setup: &Setup, number: u32) -> Option<Bytes> {
    let read = setup.repository.read_log(&name(number), &setup.job).await.unwrap()?;
    assert!(read.is_whole(), "segment {number}");
    Some(read.content)
}

async fn collect(setup: &Setup, within: Option<i64>) -> CollectReport {
    let logs = within.map(|days| LogRetention { within: Duration::from_secs((days * DAY) as u64) });
    let options = CollectOptions { logs, ..CollectOptions::default() };
    setup.repository.collect(&options, &setup.job).await.unwrap()
}

/// A store's clock under the test's control.
async fn clocked() -> (Setup, MemorySink, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::new(1_800_000_000, 0)));
    let sink = MemorySink::with_clock(clock.clone());
    let setup = create(Arc::new(sink.clone()), Protect::Plain, SMALL).await;
    (Setup { job: common::job().with_clock(clock.clone()), ..setup }, sink, clock)
}

fn later(clock: &ManualClock, days: i64) {
    clock.set(clock.now().saturating_add_seconds(days * DAY));
}

/// A snapshot that needs the segments from one to another.
async fn base(setup: &Setup, first: u32, last: u32) -> SnapshotId {
    let mut source = TestSource::new(vec![TestEntry::file("base", random(u64::from(first), 10_000))]);
    let needs = [
        (position::LINEAGE, name(first).lineage),
        (position::TIMELINE, name(first).timeline),
        (position::FIRST, name(first).segment),
        (position::LAST, name(last).segment),
    ];
    source.position = needs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    setup.store(&source).await
}

#[tokio::test]
async fn a_segment_is_archived_once_and_read_back() {
    for protect in BOTH {
        let (setup, sink) = in_memory(protect, SMALL).await;
        let all: Vec<LogPiece> = (0..300).step_by(7).map(segment).collect();
        assert!(archive(&setup, &all).await.iter().all(|archived| *archived == Archived::Stored));
        let before = sink.list_all("").await.unwrap().len();
        assert!(archive(&setup, &all).await.iter().all(|archived| *archived == Archived::AlreadyThere));
        assert_eq!(sink.list_all("").await.unwrap().len(), before);
        assert_eq!(read(&setup, 7).await, Some(content(7)));
        assert_eq!(setup.repository.read_log(&name(8), &setup.job).await.unwrap(), None);
        let listed = setup.repository.list_log("7412", &setup.job).await.unwrap();
        assert_eq!(listed.len(), all.len());
        assert!(listed.iter().zip(&all).all(|(listed, piece)| listed.name == piece.name && listed.is_whole));
        setup.assert_clean().await;
    }
}

/// TRAPS 22.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_name_with_other_content_is_refused_also_at_the_same_moment() {
    let (setup, _sink) = in_memory(Protect::Encrypted, SMALL).await;
    let other = LogPiece { content: random(9, 200_000).into(), ..segment(1) };
    let racing: Vec<_> = (0..16)
        .map(|number| {
            let (setup, piece) = (setup.clone(), if number % 2 == 0 { segment(1) } else { other.clone() });
            tokio::spawn(async move { (piece.clone(), setup.repository.archive(&[piece], &setup.job).await) })
        })
        .collect();
    let mut ended = Vec::new();
    for racer in racing {
        ended.push(racer.await.unwrap());
    }
    let there = read(&setup, 1).await.unwrap();
    for (piece, result) in ended {
        match result {
            Ok(_) => assert!(piece.content == there, "acknowledged, and something else is there"),
            Err(error) => {
                assert!(piece.content != there, "{error}");
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                assert!(error.to_string().contains(&piece.name.segment), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_growing_segment_is_there_as_far_as_its_pieces_go() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    archive(&setup, &[piece(1, 0..1000), piece(1, 1000..50_000)]).await;
    // The process was killed before it was told, and begins anew where it knows that it had got to.
    assert_eq!(archive(&setup, &[piece(1, 1000..80_000)]).await, [Archived::Stored]);
    assert_eq!(archive(&setup, &[piece(1, 1000..60_000)]).await, [Archived::AlreadyThere]);
    archive(&setup, &[piece(1, 90_000..100_000)]).await;
    let tail = setup.repository.read_log(&name(1), &setup.job).await.unwrap().unwrap();
    assert_eq!((tail.content.len(), tail.segment_bytes, tail.is_whole()), (80_000, Some(200_000), false));
    assert!(tail.content == content(1).slice(..80_000));
    // Other bytes in a piece are refused, and so is a whole segment that has others.
    let wrong = LogPiece { content: random(8, 500).into(), ..piece(1, 0..500) };
    let error = setup.repository.archive(&[wrong], &setup.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let wrong = LogPiece { content: random(8, 200_000).into(), ..segment(1) };
    let error = setup.repository.archive(&[wrong], &setup.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let empty = setup.repository.archive(&[piece(1, 5..5)], &setup.job).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::InvalidInput, "{empty}");
    // The whole stands for the pieces, which the next collection deletes.
    archive(&setup, &[segment(1)]).await;
    assert_eq!(archive(&setup, &[piece(1, 1000..70_000)]).await, [Archived::AlreadyThere]);
    let report = collect(&setup, None).await;
    assert_eq!((report.outcome, report.log_objects_unneeded), (CollectionOutcome::Swept, 4), "{report:?}");
    assert_eq!(sink.list_all("logs/").await.unwrap().len(), 1);
    assert_eq!(read(&setup, 1).await, Some(content(1)));
    setup.assert_clean().await;
}

#[tokio::test]
async fn a_long_piece_goes_past_any_number_of_short_ones() {
    let (setup, _sink) = in_memory(Protect::Plain, SMALL).await;
    for start in (0..30_000).step_by(1000) {
        archive(&setup, &[piece(1, start..start + 1000)]).await;
    }
    assert_eq!(archive(&setup, &[piece(1, 0..29_500)]).await, [Archived::AlreadyThere]);
    let other = LogPiece { content: random(9, 29_500).into(), ..piece(1, 0..29_500) };
    let error = setup.repository.archive(&[other], &setup.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(archive(&setup, &[piece(1, 0..100_000)]).await, [Archived::Stored]);
    assert_eq!(archive(&setup, &[piece(1, 0..100_000)]).await, [Archived::AlreadyThere]);
    let read = setup.repository.read_log(&name(1), &setup.job).await.unwrap().unwrap();
    assert_eq!(read.content, content(1).slice(..100_000));
    let listed = setup.repository.list_log("7412", &setup.job).await.unwrap();
    assert_eq!(listed[0].pieces.len(), 31, "only what was missing was stored");
}

#[tokio::test]
async fn a_long_segment_is_put_together_of_pieces() {
    let (setup, _sink) = in_memory(Protect::Plain, SMALL).await;
    let pieces: Vec<LogPiece> = (0..4).map(|at| piece(1, at * 50_000..(at + 1) * 50_000)).collect();
    archive(&setup, &pieces).await;
    assert_eq!(read(&setup, 1).await, Some(content(1)));
}

#[tokio::test]
async fn what_any_moment_of_the_last_days_needs_is_kept_and_the_rest_goes() {
    let (setup, _sink, clock) = clocked().await;
    let mut bases = Vec::new();
    for day in 0..30 {
        archive(&setup, &[segment(day)]).await;
        if day % 10 == 3 {
            bases.push(base(&setup, day, day).await);
        }
        later(&clock, 1);
    }
    // Nobody asked for anything to go.
    let report = collect(&setup, None).await;
    assert_eq!((report.outcome, report.log_objects_unneeded), (CollectionOutcome::Nothing, 0), "{report:?}");
    // A plan says what would go.
    let options = CollectOptions {
        logs: Some(LogRetention { within: Duration::from_secs(5 * DAY as u64) }),
        dry_run: true,
        ..CollectOptions::default()
    };
    let planned = setup.repository.collect(&options, &setup.job).await.unwrap();
    let report = collect(&setup, Some(5)).await;
    assert_eq!(report.outcome, CollectionOutcome::Swept);
    assert_eq!(planned.log_objects_unneeded, report.log_objects_unneeded);
    let kept: Vec<u32> = kept(&setup).await;
    let expected: Vec<u32> = [3, 13].into_iter().chain(23..30).collect();
    assert_eq!(kept, expected);
    // A base that is forgotten needs its log no more.
    let forget = ForgetOptions { undelete_seconds: 0, ..ForgetOptions::default() };
    setup.repository.forget(&bases[..1], &forget, &setup.job).await.unwrap();
    collect(&setup, Some(5)).await;
    assert_eq!(read(&setup, 3).await, None);
    assert_eq!(read(&setup, 13).await, Some(content(13)));
    setup.assert_clean().await;
}

async fn kept(setup: &Setup) -> Vec<u32> {
    let listed = setup.repository.list_log("7412", &setup.job).await.unwrap();
    listed.iter().map(|log| u32::from_str_radix(&log.name.segment[16..], 16).unwrap()).collect()
}

/// A name that was condemned is not used again: what is archived under it later would be swept.
#[tokio::test]
async fn what_was_swept_is_archived_under_another_name() {
    let (setup, sink, clock) = clocked().await;
    archive(&setup, &[segment(1), segment(2)]).await;
    later(&clock, 1);
    archive(&setup, &[segment(5)]).await;
    base(&setup, 5, 5).await;
    later(&clock, 10);
    collect(&setup, Some(1)).await;
    assert_eq!(kept(&setup).await, [5]);
    assert_eq!(archive(&setup, &[segment(1)]).await, [Archived::Stored]);
    let keys: Vec<String> =
        sink.list_all("logs/").await.unwrap().iter().map(|meta| meta.key.to_string()).collect();
    assert!(keys[0].ends_with("00000001/1"), "{keys:?}");
    collect(&setup, None).await;
    assert_eq!(read(&setup, 1).await, Some(content(1)));
}

/// A put that comes through late, when its name has been condemned and swept, does not count as archived.
#[tokio::test]
async fn a_put_that_comes_late_is_not_taken_for_archived() {
    let (setup, sink, clock) = clocked().await;
    archive(&setup, &[segment(1)]).await;
    later(&clock, 1);
    archive(&setup, &[segment(5)]).await;
    base(&setup, 5, 5).await;
    later(&clock, 10);
    let paused = Arc::new(RecordingSink::new(sink.clone()));
    let late = setup.reopen(paused.clone()).await.unwrap();
    let key = ObjectKey::new(format!("logs/7412/00000001/{}/0", name(1).segment)).unwrap();
    let bytes = sink.get_whole(&key, 1 << 20).await.unwrap();
    collect(&setup, Some(1)).await;
    assert_eq!(kept(&setup).await, [5]);
    // What was on its way all the time.
    sink.put(&key, bytes).await.unwrap();
    assert_eq!(archive(&late, &[segment(1)]).await, [Archived::Stored]);
    assert!(
        paused.keys_created().iter().any(|key| key.ends_with("00000001/1")),
        "{:?}",
        paused.keys_created()
    );
    collect(&setup, None).await;
    assert_eq!(read(&setup, 1).await, Some(content(1)));
}

#[tokio::test]
async fn whatever_becomes_of_one_call_what_is_acknowledged_is_there() {
    let (setup, sink) = in_memory(Protect::Plain, SMALL).await;
    archive(&setup, &[segment(1)]).await;
    let before = objects(&sink).await;
    let mut tried = 0;
    for operation in [Operation::Put, Operation::Get, Operation::List] {
        for manner in MANNERS.into_iter().filter(|manner| manner.applies_to(operation)) {
            for nth in 1..=12 {
                let sink = sink_of(&before).await;
                let failing = Arc::new(FailingSink::new(sink.clone(), []));
                let here = setup.reopen(failing.clone()).await.unwrap();
                failing.set_faults([Fault::at(nth).of(operation).in_manner(manner)]);
                let what = format!("{operation:?} {nth}: {manner:?}");
                let all = [segment(1), piece(2, 0..70_000), segment(3)];
                let archived = here.repository.archive(&all, &here.job).await;
                let struck = failing.struck();
                failing.set_faults([]);
                failing.settle().await;
                let fresh = setup.reopen(Arc::new(sink.clone())).await.unwrap();
                tried += u64::from(struck > 0);
                assert!(read(&fresh, 1).await == Some(content(1)), "{what}");
                if archived.is_ok() {
                    assert!(read(&fresh, 3).await == Some(content(3)), "{what}");
                }
                // The next try has it in any case, also beside what is there in part.
                fresh
                    .repository
                    .archive(&all, &fresh.job)
                    .await
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(read(&fresh, 3).await == Some(content(3)), "{what}");
                let tail = fresh.repository.read_log(&name(2), &fresh.job).await.unwrap().unwrap();
                assert!(tail.content == content(2).slice(..70_000), "{what}");
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

#[tokio::test]
async fn damage_is_named_and_another_place_helps() {
    let (setup, sink) = in_memory(Protect::Encrypted, SMALL).await;
    archive(&setup, &[segment(1), segment(2), piece(3, 0..1000)]).await;
    let there = MemorySink::new();
    let place = setup.repository.create_place(Arc::new(there.clone()), &setup.job).await.unwrap();
    let options = |name: &str| PlaceOptions { name: name.into(), ..PlaceOptions::default() };
    let places = Places::new(vec![
        Place { options: options("here"), repository: Ok(setup.repository.clone()) },
        Place { options: options("there"), repository: Ok(place.clone()) },
    ])
    .unwrap();
    let caught_up = places.catch_up(&Default::default(), &setup.job).await.unwrap();
    assert_eq!(caught_up[1].result.as_ref().unwrap().log_objects_copied, 3, "{caught_up:?}");
    let again = places.catch_up(&Default::default(), &setup.job).await.unwrap();
    assert_eq!(again[1].result.as_ref().unwrap().log_objects_copied, 0, "{again:?}");

    let key = ObjectKey::new(format!("logs/7412/00000001/{}/0", name(1).segment)).unwrap();
    let mut bytes = sink.get_whole(&key, 1 << 20).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    sink.delete(&key).await.unwrap();
    sink.put(&key, bytes.into()).await.unwrap();
    let alone = setup.reopen(Arc::new(sink.clone())).await.unwrap();
    let error = alone.repository.read_log(&name(1), &setup.job).await.unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains(&name(1).segment), "{error}");
    let both = alone.repository.with_others(vec![place]).unwrap();
    let read = both.read_log(&name(1), &setup.job).await.unwrap().unwrap();
    assert!(read.content == content(1));
    // That one place has nothing proves nothing as long as another does not answer.
    let silent = FailingSink::new(there, [Fault::at(1).of(Operation::List).from_then_on()]);
    let silent = setup.repository.at(Arc::new(silent));
    let doubtful = alone.repository.with_others(vec![silent]).unwrap();
    assert!(doubtful.read_log(&name(9), &setup.job).await.is_err());
    assert_eq!(both.read_log(&name(9), &setup.job).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_place_has_swept_does_not_come_back() {
    let (setup, _sink, clock) = clocked().await;
    let there = MemorySink::with_clock(clock.clone());
    let place = setup.repository.create_place(Arc::new(there.clone()), &setup.job).await.unwrap();
    for day in 0..10 {
        archive(&setup, &[segment(day)]).await;
        if day == 5 {
            base(&setup, 5, 5).await;
        }
        later(&clock, 1);
    }
    let options = |name: &str| PlaceOptions { name: name.into(), ..PlaceOptions::default() };
    let places = Places::new(vec![
        Place { options: options("here"), repository: Ok(setup.repository.clone()) },
        Place { options: options("there"), repository: Ok(place.clone()) },
    ])
    .unwrap();
    places.catch_up(&Default::default(), &setup.job).await.unwrap();
    let in_place = Setup { repository: place, ..setup.clone() };
    assert_eq!(kept(&in_place).await.len(), 10);
    later(&clock, 10);
    collect(&in_place, Some(1)).await;
    assert_eq!(kept(&in_place).await, [5, 6, 7, 8, 9]);
    places.catch_up(&Default::default(), &setup.job).await.unwrap();
    assert_eq!(kept(&in_place).await, [5, 6, 7, 8, 9]);
    assert_eq!(kept(&setup).await.len(), 10);
}

#[tokio::test]
async fn lineages_are_told_apart() {
    let (setup, _sink) = in_memory(Protect::Plain, SMALL).await;
    assert_eq!(setup.repository.log_lineages(&setup.job).await.unwrap(), [""; 0]);
    let of = |lineage: &str| LogPiece { name: LogName { lineage: lineage.into(), ..name(1) }, ..segment(1) };
    archive(&setup, &["74", "741", "7412", "74-1", "74.1"].map(of)).await;
    let lineages = setup.repository.log_lineages(&setup.job).await.unwrap();
    assert_eq!(lineages, ["74-1", "74.1", "74", "741", "7412"]);
    for lineage in lineages {
        assert_eq!(setup.repository.list_log(&lineage, &setup.job).await.unwrap().len(), 1, "{lineage}");
    }
    for wrong in ["", ".", "a/b", "ä"] {
        let error = setup.repository.list_log(wrong, &setup.job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[tokio::test]
async fn an_outline_says_what_is_there_without_reading_it() {
    for protect in BOTH {
        let (setup, _sink) = in_memory(protect, SMALL).await;
        let outline = async |number| setup.repository.outline_log(&name(number), &setup.job).await;
        assert_eq!(outline(1).await.unwrap(), None);
        archive(&setup, &[segment(1).with_position("wal_last_time", "2026-11-20T08:00:00Z")]).await;
        let whole = outline(1).await.unwrap().unwrap();
        assert!(whole.is_whole() && whole.bytes == 200_000);
        assert_eq!(whole.position["wal_last_time"], "2026-11-20T08:00:00Z");
        // In pieces, one of them short, with a gap after the second.
        let pieces = [
            piece(2, 0..60_000).with_position("wal_first_time", "a"),
            piece(2, 60_000..60_100).with_position("wal_last_time", "b"),
            piece(2, 70_000..80_000).with_position("wal_last_time", "c"),
        ];
        archive(&setup, &pieces).await;
        let part = outline(2).await.unwrap().unwrap();
        assert_eq!((part.bytes, part.segment_bytes, part.is_whole()), (60_100, Some(200_000), false));
        assert_eq!((&*part.position["wal_first_time"], &*part.position["wal_last_time"]), ("a", "b"));
        let read = setup.repository.read_log(&name(2), &setup.job).await.unwrap().unwrap();
        assert_eq!(read.content.len() as u64, part.bytes);
    }
}
