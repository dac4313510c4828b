//! Records out of pages made by hand, whole and damaged.

#![allow(clippy::indexing_slicing)]

use backup_core::Timestamp;

use super::super::made::{Made, SYSTEM};
use super::super::{SegmentName, Summary, WalRecord, check_segment};
use super::*;

fn small() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn read(made: &Made, part: usize) -> (Vec<WalEvent>, WalReader) {
    let mut reader = WalReader::new(made.start, made.size);
    let mut events = Vec::new();
    made.bytes.chunks(part).for_each(|bytes| reader.feed(bytes, &mut events));
    (events, reader)
}

fn sample() -> (Made, Vec<Lsn>) {
    let mut made = Made::new(5, small());
    let mut starts = vec![made.commit(730, 10), made.other(20_000), made.point("before the change", 11)];
    starts.push(made.record(1, 0x20, 731, &12_000_000_i64.to_le_bytes()));
    let mut checkpoint = Lsn::new(77).get().to_le_bytes().to_vec();
    checkpoint.extend([3, 0, 0, 0, 1, 0, 0, 0]);
    checkpoint.resize(88, 0);
    starts.push(made.record(0, 0x10, 0, &checkpoint));
    starts.push(made.commit(732, 13));
    (made, starts)
}

#[test]
fn records_are_found_however_the_bytes_come() {
    let (made, starts) = sample();
    let (events, reader) = read(&made, usize::MAX);
    assert_eq!(events.iter().map(|event| event.lsn).collect::<Vec<_>>(), starts);
    assert_eq!(reader.end(), None);
    assert_eq!(reader.valid_to().get(), made.at().next_multiple_of(8));
    let since_2000 = |seconds: i64| Timestamp::new(946_684_800 + seconds, 0);
    assert_eq!(events[0].record, WalRecord::Commit { xid: Some(730), time: since_2000(10) });
    assert_eq!(events[1].record, WalRecord::Other);
    let name = "before the change".to_owned();
    assert_eq!(events[2].record, WalRecord::RestorePoint { name, time: since_2000(11) });
    assert_eq!(events[3].record, WalRecord::Abort { xid: Some(731), time: since_2000(12) });
    let (timeline, previous) = (Timeline::new(3), Timeline::FIRST);
    let checkpoint = WalRecord::Checkpoint { redo: Lsn::new(77), shutdown: false, timeline, previous };
    assert_eq!(events[4].record, checkpoint);
    for part in [1, 3, 7, 24, 40, 8191, 8192, 8193] {
        assert_eq!(read(&made, part).0, events, "in parts of {part}");
    }
}

#[test]
fn a_log_goes_on_over_segments_and_after_a_switch() {
    let mut made = Made::new(1, small());
    made.commit(1, 1);
    made.load();
    made.commit(2, 2);
    made.switch();
    let third = made.commit(3, 3);
    assert_eq!(made.size.number_of(third), 3);
    let (events, reader) = read(&made, 100_000);
    let commits = events.iter().filter(|event| matches!(event.record, WalRecord::Commit { .. }));
    assert_eq!(commits.count(), 3);
    assert_eq!(reader.end(), None);
    // From the second segment on, what is left of the record before is passed over.
    let mut from = WalReader::new(Lsn::new(2 << 20), made.size);
    let mut events = Vec::new();
    from.feed(&made.bytes[1 << 20..], &mut events);
    assert_eq!(from.end(), None);
    assert_eq!(events.iter().filter(|event| matches!(event.record, WalRecord::Commit { .. })).count(), 2);
}

#[test]
fn a_record_that_a_crash_cut_is_passed_over() {
    let mut made = Made::new(1, small());
    made.commit(1, 1);
    while made.at() % 8192 < 8192 - 200 {
        made.other(50);
    }
    let before = made.at();
    made.other(5000);
    made.bytes.truncate((before - made.start.get()) as usize + 100);
    made.overwrite();
    let next = made.commit(2, 2);
    let (events, reader) = read(&made, 1000);
    assert_eq!(reader.end(), None);
    assert_eq!(events.last().map(|event| event.lsn), Some(next));
}

#[test]
fn the_log_ends_where_a_byte_is_wrong() {
    let (made, starts) = sample();
    for position in (0..made.bytes.len()).step_by(13) {
        let mut damaged = made.clone();
        damaged.bytes[position] ^= 0x41;
        let at = made.start.get() + position as u64;
        let (events, reader) = read(&damaged, 5000);
        // Padding after a record, and in headers, is what nobody looks at.
        if let Some(end) = reader.end() {
            assert!(end.at.get() <= at, "{position}: {end:?}");
        }
        let before = starts.iter().filter(|start| start.get() + 10_000 < at.saturating_sub(20_000)).count();
        assert!(events.len() >= before, "{position}");
        let known: Vec<_> = events.iter().map(|event| event.lsn).collect();
        assert!(starts.starts_with(&known), "{position}: nothing is made up");
    }
}

#[test]
fn the_log_ends_where_nothing_was_written() {
    let (mut made, _) = sample();
    let end = made.at().next_multiple_of(8);
    made.fill();
    let (events, reader) = read(&made, 4096);
    assert_eq!(events.len(), 6);
    let stopped = reader.end().unwrap();
    assert_eq!((stopped.at.get(), reader.valid_to().get()), (end, end));
    assert!(stopped.reason.contains("nothing was written"), "{}", stopped.reason);
}

#[test]
fn a_recycled_segment_is_not_taken_for_the_log() {
    let mut made = Made::new(1, small());
    made.load();
    let old = made.bytes[..1 << 20].to_vec();
    let mut new = Made::new(2, small());
    new.commit(9, 9);
    let len = new.bytes.len().next_multiple_of(8192);
    new.fill_page();
    new.bytes.extend(&old[len..]);
    let (events, reader) = read(&new, 10_000);
    assert_eq!(events.len(), 1);
    assert!(reader.end().is_some());
}

#[test]
fn any_bytes_end_the_log_and_nothing_more() {
    for seed in 0..200_u64 {
        let mut value = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let noise: Vec<u8> = (0..20_000)
            .map(|_| {
                value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (value >> 56) as u8
            })
            .collect();
        let (mut made, _) = sample();
        made.bytes.extend(noise);
        let (events, _) = read(&made, 1 + seed as usize * 37);
        assert_eq!(events.len(), 6);
    }
}

#[test]
fn a_tablespace_that_is_made_is_told_with_its_directory() {
    let mut made = Made::new(1, small());
    let data = |directory: &str| [&16_400_u32.to_le_bytes()[..], directory.as_bytes(), &[0]].concat();
    let long = format!("/srv/{}", "x".repeat(600));
    let first = made.record(5, 0x00, 730, &data("/srv/fast"));
    made.record(5, 0x10, 730, &16_400_u32.to_le_bytes());
    // In the data directory itself.
    made.record(5, 0x00, 731, &data(""));
    let second = made.record(5, 0x00, 732, &data(&long));
    made.commit(732, 13);
    let told = |directory: &str| WalRecord::TablespaceMade { oid: 16_400, directory: directory.into() };
    for part in [1, 7, 8192, usize::MAX] {
        let records: Vec<_> = read(&made, part).0.into_iter().map(|event| event.record).collect();
        assert_eq!(
            records[..4],
            [told("/srv/fast"), WalRecord::Other, WalRecord::Other, told(&long)],
            "{part}"
        );
    }
    let name = SegmentName::numbered(made.timeline, 1, made.size);
    let summary = Summary::of_segment(&made.bytes, name, made.size);
    let found: Vec<_> = summary.tablespaces.iter().map(|made| (made.lsn, made.directory.as_str())).collect();
    assert_eq!(found, [(first, "/srv/fast"), (second, long.as_str())]);
    assert_eq!(Summary::of_positions(&summary.to_positions()), summary);
    for _ in 0..20 {
        made.record(5, 0x00, 733, &data("/srv/more"));
    }
    assert_eq!(Summary::of_segment(&made.bytes, name, made.size).tablespaces.len(), 8);
}

#[test]
fn prepared_transactions_have_the_number_of_the_transaction() {
    for (major, stats) in [(15, 12), (18, 16)] {
        let mut made = Made::new(1, small());
        made.version = Version::of_major(major).unwrap();
        let mut data = 5_000_000_i64.to_le_bytes().to_vec();
        data.extend(0x11B_u32.to_le_bytes());
        data.extend([0; 8]);
        data.extend(2_u32.to_le_bytes());
        data.extend([1; 8]);
        data.extend(1_u32.to_le_bytes());
        data.extend(vec![2; stats]);
        data.extend(1_u32.to_le_bytes());
        data.extend([3; 16]);
        data.extend(4711_u32.to_le_bytes());
        made.record(1, 0x30 | 0x80, 0, &data);
        let (events, _) = read(&made, 1000);
        assert!(matches!(events[0].record, WalRecord::Commit { xid: Some(4711), .. }), "{events:?}");
    }
}

#[test]
fn trap_24_a_segment_is_what_its_name_says_or_refused() {
    let mut made = Made::new(3, small());
    made.timeline = Timeline::new(2);
    made.load();
    let (name, bytes) = made.segments().remove(0);
    let header = check_segment(&bytes, name, Some(small())).unwrap();
    assert_eq!((header.system_identifier, header.version.major()), (SYSTEM, 15));
    let refused = |bytes: &[u8], name: SegmentName, size, why: &str| {
        let error = check_segment(bytes, name, size).unwrap_err();
        assert!(error.is_corruption() && error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains(&name.to_string()), "{error}");
    };
    refused(&bytes, name.next(small()).unwrap(), None, "belongs at 0/300000");
    refused(&bytes, name.on(Timeline::FIRST), None, "timeline 00000002");
    // The first segment of a younger timeline begins with its ancestor's pages.
    assert!(check_segment(&bytes, name.on(Timeline::new(7)), None).is_ok());
    refused(&bytes, name, Some(SegmentSize::default()), "1048576 bytes, not 16777216");
    refused(&bytes[..bytes.len() - 1], name, None, "1048575 bytes");
    refused(&[0; 1 << 20], name, None, "nothing in it");
    refused(&bytes[8192..], name, None, "does not begin as a segment");
    refused(&bytes[..30], name, None, "cut short");
    refused(&[], name, None, "cut short");
    for position in 0..LongHeader::LEN {
        let mut other = bytes.to_vec();
        other[position] ^= 0x10;
        let checked = check_segment(&other, name, Some(small()));
        // The identifier is compared by who knows it; the rest of a record, and padding, is not looked at here.
        let free = (24..32).contains(&position) || (16..24).contains(&position);
        let page_bytes = (36..40).contains(&position);
        assert!(free || page_bytes || checked.is_err(), "{position}");
    }
}

#[test]
fn a_summary_has_the_moments_and_survives_being_stored() {
    let (mut made, _) = sample();
    made.load();
    let (name, bytes) = made.segments().remove(0);
    let summary = Summary::of_segment(&bytes, name, made.size);
    assert_eq!(summary.ended.to_string(), "730-732");
    assert_eq!(summary.points.len(), 1);
    assert_eq!(summary.last_time.unwrap().seconds() - summary.first_time.unwrap().seconds(), 3);
    assert_eq!(Summary::of_positions(&summary.to_positions()), summary);
    let empty = Summary::of_segment(&[0; 1 << 20], name, made.size);
    assert_eq!((empty.first_time, empty.valid_to), (None, name.start(made.size)));
}
