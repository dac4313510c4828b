//! What plans and backups see of an archive.

use backup_core::SinkExt;

use super::*;
use crate::postgres::recovery::SegmentState;

const AT: [u64; 3] = [3, 4, 5];

/// An archive in two places with three segments in a row.
async fn two_places() -> (WalArchive, Vec<(SegmentName, Bytes)>) {
    let archive = WalArchive::new(vec![place().await, place().await]).unwrap();
    let all = segments(3);
    for segment in &all {
        put(&archive, segment).await.unwrap();
    }
    (archive, all)
}

async fn states(archive: &WalArchive, from: u64, look: LogLook) -> Vec<(SegmentState, Option<String>)> {
    let inventory = archive.inventory(Lsn::new(from * MIB), look, &job()).await.unwrap();
    let log = &inventory.lineages[&SYSTEM].timelines[&Timeline::FIRST];
    assert!(log.segments.keys().copied().eq(AT));
    let ended = |segment: &crate::postgres::recovery::LogSegment| {
        (segment.state.clone(), segment.facts.as_ref().map(|facts| facts.ended.to_string()))
    };
    log.segments.values().map(ended).collect()
}

#[tokio::test]
async fn outlines_tell_what_happens_in_segments_without_their_bytes() {
    let (archive, all) = two_places().await;
    let whole = |ended: &str| (SegmentState::Whole, Some(ended.to_owned()));
    let expected = states(&archive, 0, LogLook::Contents).await;
    assert_eq!(expected, [whole("700"), whole("701"), whole("702")]);
    assert_eq!(states(&archive, 0, LogLook::Outlines).await, expected);
    // What lies before the place that is asked for is named, and not looked into.
    let later = states(&archive, 4, LogLook::Outlines).await;
    assert_eq!(later[0], (SegmentState::Whole, None));
    assert_eq!(later[1..], expected[1..]);
    // Whole inventories are alike, but for what lies between two segments.
    let job = job();
    let outlines = archive.inventory(Lsn::new(0), LogLook::Outlines, &job).await.unwrap();
    let contents = archive.inventory(Lsn::new(0), LogLook::Contents, &job).await.unwrap();
    assert_eq!(outlines, contents);
    drop(all);
}

#[tokio::test]
async fn outlines_know_pieces_by_how_far_they_go() {
    let archive = archive().await;
    let all = segments(2);
    put(&archive, &all[0]).await.unwrap();
    let mut summary = Summary::of_segment(&all[1].1[..300_000], all[1].0, size());
    for range in [0..100_000, 100_000..300_000] {
        let content = all[1].1.slice(range.clone());
        archive.put_piece(all[1].0, range.start as u64, content, &summary, &job()).await.unwrap();
        summary.ended.insert(4711);
    }
    let inventory = archive.inventory(Lsn::new(0), LogLook::Outlines, &job()).await.unwrap();
    let last = &inventory.lineages[&SYSTEM].timelines[&Timeline::FIRST].segments[&4];
    assert_eq!(last.state, SegmentState::Beginning(300_000));
    assert!(last.facts.as_ref().unwrap().ended.contains(4711), "the last piece tells of all before it");
}

#[tokio::test]
async fn damage_within_a_segment_is_found_by_reading_it() {
    let sink = Arc::new(MemorySink::new());
    let archive = WalArchive::new(vec![repository_on(sink.clone()).await]).unwrap();
    for segment in &segments(3) {
        put(&archive, segment).await.unwrap();
    }
    let second = segments(2).remove(1).0.to_string();
    let stored = sink.list_all("").await.unwrap();
    let key = stored.into_iter().find(|meta| meta.key.as_str().contains(&second)).unwrap().key;
    let mut bytes = sink.get_whole(&key, 1 << 30).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    sink.delete(&key).await.unwrap();
    sink.put(&key, bytes.into()).await.unwrap();
    let read = states(&archive, 0, LogLook::Contents).await;
    assert!(matches!(read[1].0, SegmentState::Damaged(_)), "{read:?}");
    assert!(matches!((&read[0].0, &read[2].0), (SegmentState::Whole, SegmentState::Whole)), "{read:?}");
}

#[tokio::test]
async fn the_first_segment_that_any_place_lacks_is_missing() {
    let (archive, all) = two_places().await;
    let names: Vec<SegmentName> = all.iter().map(|(name, _)| *name).collect();
    let missing = |archive: WalArchive, names: Vec<SegmentName>| async move {
        archive.first_missing(&names, &job()).await.unwrap()
    };
    assert_eq!(missing(archive.clone(), names.clone()).await, None);
    assert_eq!(missing(archive.clone(), Vec::new()).await, None);
    let next = names[2].next(size()).unwrap();
    assert_eq!(missing(archive.clone(), [&names[..], &[next]].concat()).await, Some(next));
    // In part is not there; in one place only is not, either.
    archive.put_piece(next, 0, all[0].1.slice(..1000), &Summary::default(), &job()).await.unwrap();
    assert_eq!(missing(archive.clone(), vec![names[2], next]).await, Some(next));
    let empty = place().await;
    let third = WalArchive::new(vec![archive.places()[0].clone(), empty.clone()]).unwrap();
    assert_eq!(missing(third, names.clone()).await, Some(names[0]));
    // Nothing at all is archived.
    let nothing = WalArchive::new(vec![empty]).unwrap().of_system(SYSTEM);
    assert_eq!(missing(nothing.clone(), names.clone()).await, Some(names[0]));
    assert_eq!(missing(nothing, Vec::new()).await, None);
}

#[tokio::test]
async fn a_place_that_does_not_answer_hides_nothing_from_who_asks_what_is_missing() {
    let sink = Arc::new(FailingSink::new(MemorySink::new(), []));
    let archive = WalArchive::new(vec![place().await, repository_on(sink.clone()).await]).unwrap();
    let all = segments(1);
    put(&archive, &all[0]).await.unwrap();
    sink.set_faults(always(Operation::List));
    assert!(archive.first_missing(&[all[0].0], &job()).await.is_err());
    assert!(archive.inventory(Lsn::new(0), LogLook::Outlines, &job()).await.is_err());
    sink.set_faults(always(Operation::Get));
    let inventory = archive.inventory(Lsn::new(0), LogLook::Outlines, &job()).await.unwrap();
    let first = &inventory.lineages[&SYSTEM].timelines[&Timeline::FIRST].segments[&3];
    assert_eq!(first.state, SegmentState::Whole, "another place has it");
}

#[tokio::test]
async fn where_transactions_end_is_told_of_the_segments_that_are_asked_for() {
    let (archive, all) = two_places().await;
    let close = [all[1].0];
    let ends = |inventory: crate::postgres::recovery::LogInventory| {
        let segments = &inventory.lineages[&SYSTEM].timelines[&Timeline::FIRST].segments;
        AT.map(|number| segments[&number].facts.clone().unwrap().ended_at)
    };
    let looked = archive.inventory_with_ends(Lsn::new(0), LogLook::Contents, &close, &job()).await.unwrap();
    let [before, at, after] = ends(looked);
    assert!(before.is_empty() && after.is_empty());
    assert_eq!(at.keys().copied().collect::<Vec<_>>(), [701]);
    let end = at[&701];
    assert!(end > all[1].0.start(size()) && end < all[1].0.end(size()), "{end}");
    // Without reading, nobody knows.
    let outlines = archive.inventory_with_ends(Lsn::new(0), LogLook::Outlines, &close, &job()).await.unwrap();
    assert!(ends(outlines).iter().all(std::collections::BTreeMap::is_empty));
}
