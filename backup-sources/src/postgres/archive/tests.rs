//! The archive over stores in memory: what goes in comes out, and nothing else.

#![allow(clippy::indexing_slicing)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use backup_core::testing::{FailingSink, Fault, Operation};
use backup_core::{CreateOptions, ErrorKind, RepositoryId, Sink, Unprotected};
use backup_sinks::MemorySink;

use super::*;
use crate::postgres::Lsn;
use crate::postgres::receive::{Position, ReceivedLog};
use crate::postgres::wal::made::{Made, SYSTEM};
use crate::postgres::wal::{SegmentName, TimelineHistory};

const MIB: u64 = 1 << 20;

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn job() -> JobContext {
    JobContext::new()
}

async fn repository_on(sink: Arc<dyn Sink>) -> Repository {
    let protection = Arc::new(Unprotected::new(RepositoryId([7; 16])));
    Repository::create(sink, protection, CreateOptions::default(), &job()).await.unwrap()
}

async fn place() -> Repository {
    repository_on(Arc::new(MemorySink::new())).await
}

fn always(operation: Operation) -> Vec<Fault> {
    (1..100).map(|nth| Fault::at(nth).of(operation)).collect()
}

async fn archive() -> WalArchive {
    WalArchive::new(vec![place().await]).unwrap()
}

/// So many segments in a row from number 3 on.
fn segments(count: u64) -> Vec<(SegmentName, Bytes)> {
    let mut made = Made::new(3, size());
    for number in 0..count {
        made.commit(700 + number as u32, number as i64);
        made.load();
    }
    made.segments().into_iter().take(count as usize).collect()
}

fn on(segment: SegmentName, timeline: u32) -> SegmentName {
    segment.on(Timeline::new(timeline))
}

async fn put(archive: &WalArchive, segment: &(SegmentName, Bytes)) -> Result<Archived> {
    archive.put(WalFile::Segment(segment.0), segment.1.clone(), None, &job()).await
}

async fn put_history(archive: &WalArchive, timeline: u32, text: &'static str) -> Result<Archived> {
    let file = WalFile::History(Timeline::new(timeline));
    archive.put(file, Bytes::from_static(text.as_bytes()), None, &job()).await
}

async fn get(archive: &WalArchive, file: &str) -> Result<Fetched> {
    archive.get(file.parse().unwrap(), &job()).await
}

async fn missing(archive: &WalArchive, file: &str) -> String {
    let error = get(archive, file).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    error.to_string()
}

#[tokio::test]
async fn trap_22_the_same_again_is_a_success_and_anything_else_an_error() {
    let archive = archive().await;
    let all = segments(2);
    assert_eq!(put(&archive, &all[0]).await.unwrap(), Archived::Stored);
    assert_eq!(put(&archive, &all[0]).await.unwrap(), Archived::AlreadyThere);
    let mut other = all[0].1.to_vec();
    other[500_000] ^= 1;
    let error = put(&archive, &(all[0].0, other.into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(get(&archive, &all[0].0.to_string()).await.unwrap(), Fetched::Found(all[0].1.clone()));
}

#[tokio::test]
async fn trap_22_of_two_that_race_one_fails() {
    for round in 0..20 {
        let archive = archive().await;
        let one = segments(1).remove(0);
        let mut bytes = one.1.to_vec();
        bytes[100_000 + round] ^= 1;
        let other = (one.0, Bytes::from(bytes));
        let (first, second) = tokio::join!(put(&archive, &one), put(&archive, &other));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        let kept = if first.is_ok() { &one.1 } else { &other.1 };
        assert_eq!(get(&archive, &one.0.to_string()).await.unwrap(), Fetched::Found(kept.clone()));
        let kept = (one.0, kept.clone());
        let (again, also) = tokio::join!(put(&archive, &kept), put(&archive, &kept));
        assert!(again.is_ok() && also.is_ok());
    }
}

#[tokio::test]
async fn trap_23_nothing_is_acknowledged_unless_every_place_has_it() {
    let sink = Arc::new(FailingSink::new(MemorySink::new(), []));
    let places = vec![place().await, repository_on(sink.clone()).await];
    let archive = WalArchive::new(places.clone()).unwrap();
    let all = segments(1);
    sink.set_faults(always(Operation::Put));
    assert!(put(&archive, &all[0]).await.is_err());
    sink.set_faults([]);
    // The other place may have had it before the failure was known.
    let first = WalArchive::new(places[..1].to_vec()).unwrap();
    let is_there = matches!(get(&first, &all[0].0.to_string()).await, Ok(Fetched::Found(_)));
    let is_sound = archive.clone().audit(None, &job()).await.unwrap().is_sound();
    assert_eq!(is_sound, !is_there, "one place is behind");
    assert_eq!(put(&archive, &all[0]).await.unwrap(), Archived::Stored);
    for place in places {
        let alone = WalArchive::new(vec![place]).unwrap();
        assert_eq!(get(&alone, &all[0].0.to_string()).await.unwrap(), Fetched::Found(all[0].1.clone()));
    }
}

#[tokio::test]
async fn trap_24_another_cluster_is_refused_without_any_collision() {
    let archive = archive().await;
    put(&archive, &segments(1)[0]).await.unwrap();
    let mut made = Made::new(9, size());
    made.system = SYSTEM + 1;
    made.load();
    let other = made.segments().remove(0);
    for archive in [&archive, &WalArchive::new(archive.places().to_vec()).unwrap()] {
        let error = put(archive, &other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&SYSTEM.to_string()), "{error}");
        let history = (WalFile::History(Timeline::new(2)), Bytes::from_static(b"1\t0/3000000\t\n"));
        let error = archive.put(history.0, history.1, Some(SYSTEM + 1), &job()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let admitting = WalArchive::new(archive.places().to_vec()).unwrap().admitting_new_systems();
    put(&admitting, &other).await.unwrap();
    let undecided = WalArchive::new(archive.places().to_vec()).unwrap();
    let error = get(&undecided, "00000002.history").await.unwrap_err();
    assert!(error.to_string().contains("several clusters"), "{error}");
    let said = undecided.of_system(SYSTEM + 1);
    assert_eq!(get(&said, &other.0.to_string()).await.unwrap(), Fetched::Found(other.1));
    assert!(put(&said, &segments(1)[0]).await.is_err(), "it was said which cluster it is");
}

#[tokio::test]
async fn trap_24_histories_labels_and_partial_segments_are_archived_too() {
    let archive = archive().await;
    let all = segments(1);
    let history = put_history(&archive, 2, "1\t0/400000\twhy\n").await.unwrap_err();
    assert!(history.to_string().contains("system identifier"), "{history}: of which cluster would it be?");
    put(&archive, &all[0]).await.unwrap();
    put_history(&archive, 2, "1\t0/400000\twhy\n").await.unwrap();
    let label = Bytes::from_static(b"START WAL LOCATION: 0/300028\n");
    let names = [format!("{}.00000028.backup", all[0].0), format!("{}.partial", all[0].0)];
    for (name, content) in names.iter().zip([label.clone(), all[0].1.clone()]) {
        let file: WalFile = name.parse().unwrap();
        archive.put(file, content.clone(), None, &job()).await.unwrap();
        assert_eq!(get(&archive, name).await.unwrap(), Fetched::Found(content));
    }
    let listed = archive.places()[0].list_log(&SYSTEM.to_string(), &job()).await.unwrap();
    let timeline = |listed: &backup_core::ListedLog| listed.name.timeline.clone();
    assert!(listed.iter().all(|listed| listed.name.segment.starts_with(&timeline(listed))), "{listed:?}");
    let error = put_history(&archive, 3, "not a history").await.unwrap_err();
    assert!(error.is_corruption());
    let wrong = (all[0].0.next(size()).unwrap(), all[0].1.clone());
    assert!(put(&archive, &wrong).await.unwrap_err().is_corruption(), "a segment under another's name");
}

#[tokio::test]
async fn trap_26_beyond_the_end_is_never_archived_and_a_gap_is_an_error() {
    let archive = archive().await;
    let all = segments(4);
    let error = get(&archive, &all[0].0.to_string()).await.unwrap_err();
    assert!(error.to_string().contains("right repository"), "an empty archive proves nothing: {error}");
    for index in [0, 1, 3] {
        put(&archive, &all[index]).await.unwrap();
    }
    let beyond = all[3].0.next(size()).unwrap().to_string();
    assert_eq!(get(&archive, &beyond).await.unwrap(), Fetched::NeverArchived);
    assert_eq!(get(&archive, "00000002.history").await.unwrap(), Fetched::NeverArchived);
    assert_eq!(get(&archive, "00000001.history").await.unwrap(), Fetched::NeverArchived);
    assert!(missing(&archive, &all[2].0.to_string()).await.contains(&all[3].0.to_string()));
    let before = all[0].0.previous(size()).unwrap().to_string();
    assert!(missing(&archive, &before).await.contains("first"));
    assert!(missing(&archive, &on(all[3].0, 5).to_string()).await.contains("nothing of timeline"));
    let audit = archive.audit(Some(Lsn::new(9 * MIB)), &job()).await.unwrap();
    assert!(!audit.is_sound());
    assert_eq!(audit.timelines[0].gaps, [Gap { first: all[2].0, last: all[2].0, segments: 1 }]);
    assert_eq!((audit.frontier, audit.lag_bytes), (Some(Lsn::new(7 * MIB)), Some(2 * MIB)));
}

#[tokio::test]
async fn trap_26_a_place_that_fails_proves_nothing() {
    let sink = Arc::new(FailingSink::new(MemorySink::new(), []));
    let archive = WalArchive::new(vec![place().await, repository_on(sink.clone()).await]).unwrap();
    let all = segments(1);
    put(&archive, &all[0]).await.unwrap();
    let beyond = all[0].0.next(size()).unwrap().to_string();
    assert_eq!(get(&archive, &beyond).await.unwrap(), Fetched::NeverArchived);
    for operation in [Operation::List, Operation::Get] {
        sink.set_faults(always(operation));
        let got = get(&archive, &beyond).await;
        // What only lists needs no gets; what is proven then is proven.
        assert!(got.is_err() || operation == Operation::Get, "{got:?}");
        let found = get(&archive, &all[0].0.to_string()).await.unwrap();
        assert_eq!(found, Fetched::Found(all[0].1.clone()), "another place has it");
    }
}

#[tokio::test]
async fn trap_26_where_a_place_does_not_answer_nothing_is_the_end_of_the_log() {
    let archive = archive().await;
    let all = segments(2);
    put(&archive, &all[0]).await.unwrap();
    let (last, part) = (all[1].0, all[1].1.slice(..300_000));
    archive.put_piece(last, 0, part, &Summary::default(), &job()).await.unwrap();
    let (beyond, last) = (last.next(size()).unwrap().to_string(), last.to_string());
    assert!(matches!(get(&archive, &last).await.unwrap(), Fetched::Found(_)));
    let lacking = archive.clone().lacking("the other place is on fire");
    // The whole of the last segment, or what comes after it, may be where nobody can look.
    for file in [last, beyond, "00000002.history".to_owned(), format!("{}.partial", all[0].0)] {
        let error = get(&lacking, &file).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{file}");
        assert!(error.to_string().contains("on fire"), "{error}");
    }
    let whole = get(&lacking, &all[0].0.to_string()).await.unwrap();
    assert_eq!(whole, Fetched::Found(all[0].1.clone()), "what is whole needs no proof");
    assert_eq!(
        get(&lacking, "00000001.history").await.unwrap(),
        Fetched::NeverArchived,
        "no place can have it"
    );
}

#[tokio::test]
async fn trap_26_a_younger_timeline_shows_that_the_older_one_went_on() {
    let archive = archive().await;
    let all = segments(5);
    put(&archive, &all[0]).await.unwrap();
    // It was left in segment 5, which is a file of the younger timeline.
    put_history(&archive, 2, "1\t0/580000\t\n").await.unwrap();
    assert!(missing(&archive, &all[1].0.to_string()).await.contains("timeline 00000002 came from there"));
    assert_eq!(get(&archive, &all[2].0.to_string()).await.unwrap(), Fetched::NeverArchived);
    assert_eq!(get(&archive, &on(all[2].0, 2).to_string()).await.unwrap(), Fetched::NeverArchived);
    put(&archive, &(on(all[3].0, 2), all[3].1.clone())).await.unwrap();
    assert!(missing(&archive, &on(all[2].0, 2).to_string()).await.contains("began before"));
    assert_eq!(get(&archive, &on(all[1].0, 2).to_string()).await.unwrap(), Fetched::NeverArchived);
    // A segment of a timeline whose history is missing, and a history that others name.
    put_history(&archive, 9, "1\t0/580000\t\n4\t0/780000\t\n").await.unwrap();
    assert!(missing(&archive, "00000004.history").await.contains("timeline 00000009"));
    put(&archive, &(on(all[4].0, 6), all[4].1.clone())).await.unwrap();
    assert!(missing(&archive, "00000006.history").await.contains("is there"));
    assert_eq!(get(&archive, "00000007.history").await.unwrap(), Fetched::NeverArchived);
}

#[tokio::test]
async fn the_beginning_of_the_last_segment_is_filled_up_and_no_other_is() {
    let archive = archive().await;
    let all = segments(3);
    put(&archive, &all[0]).await.unwrap();
    let summary = Summary::default();
    let piece = |range: std::ops::Range<usize>| {
        let (archive, content) = (archive.clone(), all[1].1.slice(range.clone()));
        let (name, summary) = (all[1].0, summary.clone());
        async move { archive.put_piece(name, range.start as u64, content, &summary, &job()).await }
    };
    piece(0..100_000).await.unwrap();
    piece(100_000..300_000).await.unwrap();
    let Fetched::Found(bytes) = get(&archive, &all[1].0.to_string()).await.unwrap() else {
        panic!("never archived")
    };
    assert_eq!((&bytes[..300_000], bytes.len() as u64), (&all[1].1[..300_000], MIB));
    assert!(bytes[300_000..].iter().all(|byte| *byte == 0));
    let history = TimelineHistory::root(Timeline::FIRST);
    let standing = archive.standing(SYSTEM, &history, size(), &job()).await.unwrap().unwrap();
    assert_eq!(standing.frontier.lsn, Lsn::new(4 * MIB + 300_000));
    put(&archive, &all[2]).await.unwrap();
    assert!(missing(&archive, &all[1].0.to_string()).await.contains(&all[2].0.to_string()));
    let standing = archive.standing(SYSTEM, &history, size(), &job()).await.unwrap().unwrap();
    assert_eq!(standing.frontier.lsn, Lsn::new(4 * MIB + 300_000), "what is missing can still be had");
    assert_eq!(standing.furthest.lsn, Lsn::new(6 * MIB));
    // The other way in brings the whole; pieces of it are there, then.
    assert_eq!(put(&archive, &all[1]).await.unwrap(), Archived::Stored);
    assert_eq!(piece(100_000..300_000).await.unwrap(), Archived::AlreadyThere);
    assert!(archive.audit(None, &job()).await.unwrap().is_sound());
}

#[tokio::test]
async fn trap_27_a_place_that_has_only_the_older_timeline_is_behind_however_far_that_goes() {
    let places = [place().await, place().await];
    let both = WalArchive::new(places.to_vec()).unwrap();
    let all = segments(2);
    put(&both, &all[0]).await.unwrap();
    let left = "1\t0/400100\t\n";
    put_history(&both, 2, left).await.unwrap();
    let history = TimelineHistory::parse(Timeline::new(2), left.as_bytes()).unwrap();
    let older = all[1].1.slice(..300_000);
    both.put_piece(all[1].0, 0, older, &Summary::default(), &job()).await.unwrap();
    // A part of the younger one came into one of the places.
    let one = WalArchive::new(vec![places[1].clone()]).unwrap();
    one.standing(SYSTEM, &history, size(), &job()).await.unwrap();
    let younger = all[1].1.slice(..1000);
    one.put_piece(on(all[1].0, 2), 0, younger, &Summary::default(), &job()).await.unwrap();
    for places in [[0, 1], [1, 0]] {
        let places = places.map(|place: usize| both.places()[place].clone());
        let archive = WalArchive::new(places.to_vec()).unwrap();
        let standing = archive.standing(SYSTEM, &history, size(), &job()).await.unwrap().unwrap();
        let expected = Position { timeline: Timeline::FIRST, lsn: Lsn::new(4 * MIB + 300_000) };
        assert_eq!(standing.frontier, expected);
    }
}

#[tokio::test]
async fn segments_longer_than_an_object_go_in_and_come_out() {
    let size = SegmentSize::new(64 * MIB).unwrap();
    let mut made = Made::new(1, size);
    made.commit(5, 5);
    made.other(100);
    made.fill();
    let (name, content) = made.segments().remove(0);
    let archive = archive().await;
    assert_eq!(put(&archive, &(name, content.clone())).await.unwrap(), Archived::Stored);
    assert_eq!(put(&archive, &(name, content.clone())).await.unwrap(), Archived::AlreadyThere);
    assert_eq!(get(&archive, &name.to_string()).await.unwrap(), Fetched::Found(content));
    assert_eq!(archive.audit(None, &job()).await.unwrap().timelines[0].segments, 1);
    assert_eq!(archive.summary(name, &job()).await.unwrap().unwrap().ended.to_string(), "5");
}

#[tokio::test]
async fn segments_longer_than_an_object_that_grew_in_many_pieces_become_whole() {
    let size = SegmentSize::new(64 * MIB).unwrap();
    let mut made = Made::new(1, size);
    made.commit(5, 5);
    made.other(100);
    made.fill();
    let (name, content) = made.segments().remove(0);
    let archive = archive().await;
    let history = TimelineHistory::root(Timeline::FIRST);
    // The archive knows its cluster by a segment before it.
    let mut before = Made::new(0, size);
    before.commit(4, 4);
    before.fill();
    put(&archive, &before.segments().remove(0)).await.unwrap();
    archive.standing(SYSTEM, &history, size, &job()).await.unwrap();
    // More of them than looks that archiving takes, some across the end of an object.
    let step = 2 * MIB as usize + 8192;
    for start in (0..content.len() - step).step_by(step) {
        let part = content.slice(start..start + step);
        archive.put_piece(name, start as u64, part, &Summary::default(), &job()).await.unwrap();
    }
    assert_eq!(put(&archive, &(name, content.clone())).await.unwrap(), Archived::Stored);
    assert_eq!(get(&archive, &name.to_string()).await.unwrap(), Fetched::Found(content.clone()));
    assert_eq!(put(&archive, &(name, content)).await.unwrap(), Archived::AlreadyThere);
    assert!(archive.audit(None, &job()).await.unwrap().is_sound());
}

#[tokio::test]
async fn trap_28_what_was_lost_is_recorded_and_not_crossed() {
    let archive = archive().await;
    let all = segments(4);
    put(&archive, &all[0]).await.unwrap();
    let gap = Lsn::new(4 * MIB + 5);
    for reason in ["the slot lost it", "in other words"] {
        archive.put_gap(Timeline::FIRST, gap, reason, &job()).await.unwrap();
    }
    assert!(missing(&archive, &all[0].0.next(size()).unwrap().to_string()).await.contains("was lost"));
    assert_eq!(archive.audit(None, &job()).await.unwrap().timelines[0].lost, [gap]);
    // What comes after it ends the log in its turn; the gap stays one.
    put(&archive, &all[2]).await.unwrap();
    put(&archive, &all[3]).await.unwrap();
    let beyond = all[3].0.next(size()).unwrap().to_string();
    assert_eq!(get(&archive, &beyond).await.unwrap(), Fetched::NeverArchived);
    missing(&archive, &all[1].0.to_string()).await;
    let audit = archive.audit(None, &job()).await.unwrap();
    assert_eq!((audit.timelines[0].lost.clone(), audit.is_sound()), (vec![gap], false));
    // The other way into the archive may bring it after all.
    put(&archive, &all[1]).await.unwrap();
    let audit = archive.audit(None, &job()).await.unwrap();
    assert!(audit.is_sound() && audit.timelines[0].lost.is_empty(), "{audit:?}");
    assert_eq!(get(&archive, &beyond).await.unwrap(), Fetched::NeverArchived);
}

/// A directory like a server's, with these segments ready.
fn server(all: &[(SegmentName, Bytes)]) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let status = data.path().join("pg_wal/archive_status");
    fs::create_dir_all(&status).unwrap();
    fs::create_dir(data.path().join("global")).unwrap();
    fs::write(data.path().join("global/pg_control"), SYSTEM.to_le_bytes()).unwrap();
    for (name, content) in all {
        fs::write(data.path().join("pg_wal").join(name.to_string()), content).unwrap();
        fs::write(status.join(format!("{name}.ready")), "").unwrap();
    }
    data
}

fn status(data: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(data.path().join("pg_wal/archive_status")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn trap_25_what_is_ready_is_archived_together_and_marked_as_the_server_would() {
    let archive = archive().await;
    let all = segments(5);
    let data = server(&all);
    let pg_wal = data.path().join("pg_wal");
    fs::write(pg_wal.join("00000002.history"), "1\t0/700000\t\n").unwrap();
    fs::write(pg_wal.join("archive_status/00000002.history.ready"), "").unwrap();
    assert_eq!(queue_length(&pg_wal).unwrap(), 6);
    let options = PushOptions { files_max: 4, ..PushOptions::default() };
    let report = push(&archive, &pg_wal, &all[0].0.to_string(), options, &job()).await.unwrap();
    let expected = ["00000002.history".to_owned(), all[1].0.to_string(), all[2].0.to_string()];
    assert_eq!((report.others, report.left), (expected.to_vec(), 2));
    let mut marks = vec!["00000002.history.done".to_owned(), format!("{}.ready", all[0].0)];
    marks.extend([1, 2].map(|index| format!("{}.done", all[index].0)));
    marks.extend([3, 4].map(|index| format!("{}.ready", all[index].0)));
    marks.sort();
    let mut there = status(&data);
    there.sort();
    assert_eq!(there, marks, "what was asked for is the server's to mark");
    let report = push(&archive, &pg_wal, &all[1].0.to_string(), options, &job()).await.unwrap();
    assert_eq!(report.outcome, Archived::AlreadyThere, "a mark that was lost does no harm");
    // Time that is over keeps nothing back of what was asked for, and of what goes along with it.
    let late = PushOptions { begun_within: Duration::ZERO, ..PushOptions::default() };
    let more = server(&segments(7));
    let pg_wal = more.path().join("pg_wal");
    let report = push(&archive, &pg_wal, &all[0].0.to_string(), late, &job()).await.unwrap();
    assert_eq!((report.others, report.left), (vec![all[1].0.to_string()], 5));
    assert_eq!(status(&more).iter().filter(|name| name.ends_with(".done")).count(), 1);
    // A restored server has none of the marks, and archives what it has again.
    let restored = server(&all);
    let report =
        push(&archive, &restored.path().join("pg_wal"), &all[4].0.to_string(), options, &job()).await;
    assert_eq!(report.unwrap().left, 1);
}

#[tokio::test]
async fn trap_25_what_is_durable_is_marked_while_the_call_goes_on() {
    let sink = Arc::new(FailingSink::new(MemorySink::new(), []));
    let archive = WalArchive::new(vec![repository_on(sink.clone()).await]).unwrap();
    let all = segments(7);
    let data = server(&all);
    // The third wave begins once the first has ended.
    sink.set_faults([Fault::at(5).of(Operation::Put).below("logs").hanging()]);
    let (job, pg_wal, name) = (job(), data.path().join("pg_wal"), all[0].0.to_string());
    let pushing = push(&archive, &pg_wal, &name, PushOptions::default(), &job);
    let seen = async {
        while !status(&data).contains(&format!("{}.done", all[1].0)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        job.cancellation().cancel();
    };
    let (pushed, seen) = tokio::join!(pushing, tokio::time::timeout(Duration::from_secs(60), seen));
    seen.unwrap();
    assert!(pushed.unwrap_err().is_cancelled());
    sink.set_faults([]);
    let marked: Vec<_> = status(&data).into_iter().filter(|name| name.ends_with(".done")).collect();
    assert!((1..6).contains(&marked.len()), "{marked:?}");
    for name in marked.iter().map(|name| name.trim_end_matches(".done")).chain([&name[..]]) {
        assert!(matches!(get(&archive, name).await.unwrap(), Fetched::Found(_)), "{name}");
    }
}

#[tokio::test]
async fn trap_23_what_fails_beside_the_file_does_not_stop_it_and_is_not_marked() {
    let archive = archive().await;
    let all = segments(4);
    let data = server(&all);
    let pg_wal = data.path().join("pg_wal");
    fs::write(pg_wal.join(all[1].0.to_string()), vec![0; MIB as usize]).unwrap();
    let mut other = all[2].1.to_vec();
    other[900_000] ^= 1;
    put(&archive, &(all[2].0, other.into())).await.unwrap();
    let name = all[0].0.to_string();
    let report = push(&archive, &pg_wal, &name, PushOptions::default(), &job()).await.unwrap();
    assert_eq!(get(&archive, &name).await.unwrap(), Fetched::Found(all[0].1.clone()));
    let failed: Vec<_> = report.failed.iter().map(|failed| failed.file.clone()).collect();
    assert_eq!(failed, [all[1].0.to_string(), all[2].0.to_string()]);
    assert!(report.failed[1].why.contains("other content"), "{report:?}");
    // The rest of the batch is archived, and marked; what was asked for is the server's to mark.
    assert_eq!(report.others, [all[3].0.to_string()]);
    assert_eq!(get(&archive, &all[3].0.to_string()).await.unwrap(), Fetched::Found(all[3].1.clone()));
    let mut marks: Vec<_> = [0, 1, 2].iter().map(|index| format!("{}.ready", all[*index].0)).collect();
    marks.push(format!("{}.done", all[3].0));
    assert_eq!(status(&data), marks);
    assert!(push(&archive, &pg_wal, &all[1].0.to_string(), PushOptions::default(), &job()).await.is_err());
    assert!(push(&archive, &pg_wal, "../x", PushOptions::default(), &job()).await.is_err());
    fs::write(data.path().join("global/pg_control"), 5_u64.to_le_bytes()).unwrap();
    let error = push(&archive, &pg_wal, &name, PushOptions::default(), &job()).await.unwrap_err();
    assert!(error.to_string().contains("is of 5"), "{error}");
}

#[tokio::test]
async fn trap_23_when_a_place_fails_nothing_is_marked() {
    let sink = Arc::new(FailingSink::new(MemorySink::new(), []));
    let archive = WalArchive::new(vec![place().await, repository_on(sink.clone()).await]).unwrap();
    let all = segments(3);
    let data = server(&all);
    let pg_wal = data.path().join("pg_wal");
    for strike in 1..7 {
        sink.set_faults([Fault::at(strike).of(Operation::Put)]);
        let pushed = push(&archive, &pg_wal, &all[0].0.to_string(), PushOptions::default(), &job()).await;
        let marked = status(&data).iter().filter(|name| name.ends_with(".done")).count();
        for (name, content) in all.iter().take(if pushed.is_ok() { 1 + marked } else { 0 }) {
            let (name, job) = (log_name(SYSTEM, WalFile::Segment(*name)), job());
            let read = archive.places()[1].read_log(&name, &job).await.unwrap().unwrap();
            assert_eq!(read.content, *content);
        }
        if pushed.is_err() {
            assert_eq!(marked, 0);
        }
    }
}

#[tokio::test]
async fn trap_23_of_a_batch_into_a_store_that_fails_now_and_then_only_what_is_durable_is_marked() {
    let sink = Arc::new(FailingSink::new(MemorySink::new(), []));
    let archive = WalArchive::new(vec![repository_on(sink.clone()).await]).unwrap();
    let all = segments(5);
    for strike in 1..12 {
        let data = server(&all);
        let pg_wal = data.path().join("pg_wal");
        sink.set_faults([Fault::at(strike).of(Operation::Put), Fault::at(strike + 2).of(Operation::Put)]);
        let pushed = push(&archive, &pg_wal, &all[0].0.to_string(), PushOptions::default(), &job()).await;
        sink.set_faults([]);
        let marked: Vec<_> = status(&data).into_iter().filter(|name| name.ends_with(".done")).collect();
        let Ok(report) = pushed else {
            assert_eq!(marked, Vec::<String>::new());
            continue;
        };
        assert_eq!(report.others.len() + report.failed.len(), 4, "{report:?}");
        assert_eq!(marked, report.others.iter().map(|name| format!("{name}.done")).collect::<Vec<_>>());
        for name in report.others.iter().chain([&all[0].0.to_string()]) {
            assert!(matches!(get(&archive, name).await.unwrap(), Fetched::Found(_)), "{name}");
        }
    }
}

mod looks;
mod meanwhile;
mod spool;
