//! Both forms of an index: they answer the same, and the spilled one stays small.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use super::build::IndexBuilder;
use super::*;
use crate::format::directory::FrameRecord;
use crate::format::segment::PackRecord;
use crate::transform::ObjectType;
use crate::{ErrorKind, Resources, limits};

const FRAMES: u32 = 4;

fn record(number: u32) -> PackRecord {
    let frame = FrameRecord { stored_len: 1000 + number % 7, plain_len: 4000, mask: 1 };
    PackRecord {
        digest: *blake3::hash(&number.to_le_bytes()).as_bytes(),
        object_type: if number.is_multiple_of(5) { ObjectType::Meta } else { ObjectType::Data },
        object_len: 5000,
        header: vec![7; 120],
        frames: vec![frame; FRAMES as usize],
    }
}

fn row(id: u128, pack: u32, offset: u32, len: u32) -> IndexRow {
    IndexRow { id: ShortId(id), pack, frame: offset % FRAMES, offset, len }
}

/// Like an identity: uniform.
fn id(seed: u64, number: u64) -> u128 {
    let mut x = number.wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut half = || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(z ^ (z >> 31))
    };
    half() << 64 | half()
}

fn small() -> Resources {
    Resources::new().with_index_bytes(0)
}

fn build(resources: &Resources, packs: &[u32], committed: impl Fn(u32) -> bool, rows: &[IndexRow]) -> Index {
    let mut builder = IndexBuilder::new(resources);
    for (number, pack) in (0..).zip(packs) {
        assert_eq!(builder.push_pack(record(*pack), committed(*pack), false).unwrap(), number);
    }
    rows.iter().for_each(|row| builder.push_row(*row).unwrap());
    builder.finish().unwrap()
}

fn rows_of(index: &Index) -> Vec<IndexRow> {
    index.rows().collect::<Result<_>>().unwrap()
}

fn assert_same(a: &Index, b: &Index) {
    let rows = rows_of(a);
    assert_eq!(rows_of(b), rows);
    assert_eq!(a.pack_count(), b.pack_count());
    for number in 0..a.pack_count() {
        let (one, other) = (a.pack(number).unwrap(), b.pack(number).unwrap());
        assert_eq!((&one.record, &one.key), (&other.record, &other.key));
        assert_eq!(one.frame_range(2).unwrap(), other.frame_range(2).unwrap());
        assert!(one.frame_range(FRAMES).is_err() && other.frame_range(FRAMES).is_err());
        assert_eq!(b.number_of(&one.record.digest).unwrap(), Some(number));
        assert_eq!(a.number_of(&one.record.digest).unwrap(), Some(number));
        let is_data = one.record.object_type == ObjectType::Data;
        assert_eq!((a.is_data(number), b.is_data(number)), (is_data, is_data));
        assert_eq!(a.is_orphan(number), b.is_orphan(number));
    }
    assert!(a.pack(a.pack_count()).is_err() && b.pack(b.pack_count()).is_err());
    assert_eq!((a.number_of(&[0; 32]).unwrap(), b.number_of(&[0; 32]).unwrap()), (None, None));
    let there = rows.iter().flat_map(|row| [(row.id, row.len), (row.id, row.len + 1)]);
    let beside = rows.iter().flat_map(|row| {
        [row.id.0.wrapping_add(1), row.id.0.wrapping_sub(1), row.id.0 ^ 1 << 70]
            .map(|id| (ShortId(id), row.len))
    });
    let ends = [0, u128::MAX].map(|id| (ShortId(id), 1));
    for (id, len) in there.chain(beside).chain(ends) {
        let found = a.find(id, len).unwrap();
        let expected: Vec<_> = rows.iter().filter(|row| row.id == id && row.len == len).copied().collect();
        assert_eq!(*found, expected);
        assert_eq!(found, b.find(id, len).unwrap());
        assert_eq!(a.contains(id, len, &Bits::default()).unwrap(), !expected.is_empty());
        assert_eq!(b.contains(id, len, &Bits::default()).unwrap(), !expected.is_empty());
        let begin = rows.iter().position(|row| row.id == id).map(|at| at as u64);
        assert_eq!((a.position(id).unwrap(), b.position(id).unwrap()), (begin, begin));
    }
    let (adopted, other) = (a.adopted(&Bits::default()), b.adopted(&Bits::default()));
    assert!((0..a.pack_count()).all(|pack| adopted.contains(pack) == other.contains(pack)));
    let grouped = |index: &Index| {
        let mut by_pack = index.rows_by_pack(|pack| pack % 3 != 1, &small()).unwrap();
        std::iter::from_fn(|| by_pack.next().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(grouped(a), grouped(b));
    for (pack, group) in grouped(a) {
        let mut expected: Vec<_> = rows.iter().filter(|row| row.pack == pack).copied().collect();
        expected.sort_by_key(|row| (row.frame, row.offset, row.len, row.id));
        assert_eq!(group, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_answer_the_same(
        seed: u64,
        packs in 1_u32..40,
        count in 600_u64..2500,
        // How many rows a chunk has, about, and from how few prefixes identities come.
        places in prop::sample::select(vec![1_u64, 2, 100]),
        prefixes in prop::sample::select(vec![u64::MAX, 2, 1]),
        added in 0_u32..60,
    ) {
        let packs: Vec<u32> = (0..packs).collect();
        let rows: Vec<IndexRow> = (0..count)
            .map(|number| {
                let hash = id(seed, number / places);
                let upper = u128::from(((hash >> 64) as u64) % prefixes);
                let id = if prefixes == u64::MAX { hash } else { upper << 64 | u128::from(hash as u64) };
                let other = (id ^ u128::from(number)) as u32;
                // Some rows are there twice, and some chunks have places of another length.
                row(id, other % packs.len() as u32, other % 3000, 1 + u32::from(other.is_multiple_of(11)))
            })
            .chain(std::iter::once(row(u128::MAX, 0, 0, 1)))
            .collect();
        let committed = |pack: u32| pack.is_multiple_of(2);
        let resident = build(&Resources::new(), &packs, committed, &rows);
        let spilled = build(&small(), &packs, committed, &rows);
        prop_assert!(!resident.is_spilled() && spilled.is_spilled());
        prop_assert_eq!(rows_of(&resident).into_iter().collect::<BTreeSet<_>>(), rows.iter().copied().collect());
        assert_same(&resident, &spilled);

        // The same with what was added later, alone and while others read it.
        let (resident, spilled) = (Arc::new(resident), Arc::new(spilled));
        let extend = |index: Arc<Index>, resources: &Resources| {
            let mut builder = IndexBuilder::extend(index, resources).unwrap();
            for number in 0..added {
                let pack = builder.push_pack(record(1000 + number), false, true).unwrap();
                builder.push_row(row(id(!seed, u64::from(number)), pack, 0, 9)).unwrap();
            }
            builder.finish().unwrap()
        };
        let shared = extend(spilled.clone(), &small());
        prop_assert_eq!(rows_of(&spilled), rows_of(&resident));
        assert_same(&extend(resident.clone(), &Resources::new()), &shared);
        let alone = extend(spilled, &small());
        prop_assert!(alone.is_spilled());
        assert_same(&extend(resident, &Resources::new()), &alone);
        prop_assert_eq!(alone.has_orphans(), added > 0);
    }
}

#[test]
fn a_pack_named_twice_is_one_pack_and_committed_if_any_session_committed_it() {
    for resources in [Resources::new(), small()] {
        let mut builder = IndexBuilder::new(&resources);
        for (number, committed) in [(1, false), (2, false), (1, true), (1, false)] {
            let pack = builder.push_pack(record(number), committed, false).unwrap();
            builder.push_row(row(u128::from(number), pack, 0, 5)).unwrap();
        }
        let index = builder.finish().unwrap();
        assert_eq!(index.pack_count(), 2);
        assert_eq!(rows_of(&index).len(), 2);
        let mut none = Bits::default();
        assert!(index.adopted(&none).is_empty());
        assert!(index.contains(ShortId(1), 5, &none).unwrap());
        assert!(index.adopted(&none).is_empty());
        assert!(index.contains(ShortId(2), 5, &none).unwrap());
        assert!(index.adopted(&none).contains(1) && !index.adopted(&none).contains(0));
        assert_eq!(index.used().unwrap().len(), 2);
        // What is barred counts as absent, and is not named again.
        none.insert(1);
        assert!(!index.contains(ShortId(2), 5, &none).unwrap());
        assert!(index.adopted(&none).is_empty());
        let name = SweptName::of_pack(&record(2).digest);
        assert_eq!(index.numbers_of(name).unwrap(), [1]);
        assert!(index.numbers_of(SweptName([0xee; 16])).unwrap().is_empty());
    }
}

#[test]
fn rows_that_come_twice_are_kept_once_however_far_apart_they_came() {
    let rows: Vec<_> = (0..3000).map(|number| row(id(7, number), 0, number as u32 % 3000, 5)).collect();
    let twice: Vec<_> = rows.iter().chain(&rows).copied().collect();
    for resources in [Resources::new(), small()] {
        let index = build(&resources, &[1], |_| true, &twice);
        assert_eq!(rows_of(&index).len(), rows.len());
        assert_eq!(index.find(rows[5].id, 5).unwrap().len(), 1);
        // Also where they were known before.
        let mut builder = IndexBuilder::extend(Arc::new(index), &resources).unwrap();
        rows.iter().for_each(|row| builder.push_row(*row).unwrap());
        assert_eq!(rows_of(&builder.finish().unwrap()).len(), rows.len());
    }
}

#[test]
fn chunks_of_one_short_identity_and_other_lengths_are_told_apart_and_their_places_bounded() {
    let places = u32::try_from(PLACES_MAX).unwrap();
    let rows: Vec<_> = (0..places + 3)
        .map(|place| row(7, 0, place, 5))
        .chain((0..places).map(|place| row(8, 0, place, 5)))
        .chain([row(7, 0, 1, 6)])
        .collect();
    for resources in [Resources::new(), small()] {
        let index = build(&resources, &[1], |_| true, &rows);
        for (id, len, found) in [(7, 5, PLACES_MAX), (7, 6, 1), (7, 4, 0), (8, 5, PLACES_MAX), (8, 6, 0)] {
            let places = index.find(ShortId(id), len).unwrap();
            assert_eq!(places.len(), found, "{id} {len}");
            assert!(places.iter().all(|row| row.id.0 == id && row.len == len));
        }
    }
}

#[test]
fn packs_whose_names_begin_alike_are_told_apart() {
    let alike =
        |last| PackRecord { digest: [[7; 31].as_slice(), &[last]].concat().try_into().unwrap(), ..record(1) };
    for resources in [Resources::new(), small()] {
        let mut builder = IndexBuilder::new(&resources);
        for last in 0..50 {
            assert_eq!(builder.push_pack(alike(last), true, false).unwrap(), u32::from(last));
        }
        let index = builder.finish().unwrap();
        for last in 0..50 {
            assert_eq!(index.number_of(&alike(last).digest).unwrap(), Some(u32::from(last)));
        }
        assert_eq!(index.number_of(&alike(50).digest).unwrap(), None);
        assert!(!index.has_orphans());
    }
}

#[test]
fn rows_of_packs_that_are_passed_over_are_gone_and_a_pack_has_only_so_many() {
    let most = u32::try_from(limits::PACK_CHUNKS_MAX).unwrap();
    let rows = (0..=most).map(|number| row(id(3, number.into()), 2, number, 5));
    let rows: Vec<_> = [row(1, 0, 0, 5), row(2, 1, 0, 5), row(3, 3, 0, 5)].into_iter().chain(rows).collect();
    let index = build(&Resources::new(), &[10, 11, 12, 13], |_| true, &rows);
    let mut by_pack = index.rows_by_pack(|_| true, &Resources::new()).unwrap();
    assert_eq!(by_pack.of(1).unwrap(), [row(2, 1, 0, 5)]);
    assert_eq!(by_pack.of(0).unwrap(), []);
    assert_eq!(by_pack.of(2).unwrap().len(), limits::PACK_CHUNKS_MAX);
    assert_eq!(by_pack.of(3).unwrap(), [row(3, 3, 0, 5)]);
}

#[test]
fn what_an_index_holds_in_memory_is_measured_and_bounded() {
    let packs: Vec<u32> = (0..300).collect();
    let rows: Vec<_> = (0..60_000).map(|number| row(id(1, number), number as u32 % 300, 1, 5)).collect();
    let held = rows.len() * size_of::<IndexRow>();
    let resident = build(&Resources::new(), &packs, |_| true, &rows);
    let beside = resident.bytes().checked_sub(held).expect("every row is counted");
    // At most a quarter of spare room, and the packs' records.
    let records = packs.len() * (120 + 32 + FRAMES as usize * 12);
    assert!((records..held / 4 + 4 * records).contains(&beside), "{held} {records} {beside}");
    let spilled = build(&small(), &packs, |_| true, &rows);
    assert!(spilled.is_spilled() && !resident.is_spilled());
    // A filter and where each page begins; caches are empty.
    assert!((rows.len()..held / 8).contains(&spilled.bytes()), "{held} {}", spilled.bytes());
    // Where there is room for all but a part, that goes to the disk, too.
    let tight = build(&Resources::new().with_index_bytes(held), &packs, |_| true, &rows);
    assert!(tight.is_spilled() && tight.bytes() < held);
}

#[test]
fn an_empty_index_knows_nothing() {
    for resources in [Resources::new(), small()] {
        let index = build(&resources, &[], |_| true, &[]);
        assert!(index.find(ShortId(0), 0).unwrap().is_empty());
        assert!(!index.contains(ShortId(u128::MAX), 1, &Bits::default()).unwrap());
        assert_eq!(rows_of(&index), []);
    }
}

#[test]
fn a_scratch_directory_that_is_not_there_fails_the_building_and_is_named() {
    let resources = small().with_scratch_directory("/nonexistent/scratch");
    let mut builder = IndexBuilder::new(&resources);
    let pack = builder.push_pack(record(1), true, false).unwrap();
    let error = (0..1000)
        .find_map(|number| builder.push_row(row(id(1, number), pack, 0, 1)).err())
        .expect("a thousand rows do not fit in 16 KiB");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("/nonexistent/scratch"), "{error}");
}

/// Rows and packs in the proportion of 100 million to 3 million, and what they need.
fn measure(rows: u64, resources: &Resources) -> Index {
    let packs = u32::try_from(rows * 3 / 100).unwrap();
    let mut builder = IndexBuilder::new(resources);
    for pack in 0..packs {
        assert_eq!(builder.push_pack(record(pack), true, false).unwrap(), pack);
        let first = u64::from(pack) * rows / u64::from(packs);
        let next = u64::from(pack + 1) * rows / u64::from(packs);
        for number in first..next {
            builder.push_row(row(id(0, number), pack, (number - first) as u32, 4000)).unwrap();
        }
    }
    let index = builder.finish().unwrap();
    let mut wrong = 0;
    for number in (0..rows).step_by((rows / 100_000) as usize) {
        let found = index.find(ShortId(id(0, number)), 4000).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(index.pack(found[0].pack).unwrap().record, record(found[0].pack));
        wrong += usize::from(index.contains(ShortId(id(1, number)), 4000, &Bits::default()).unwrap());
    }
    assert_eq!(wrong, 0);
    index
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const CHILD: &str = "BACKUP_INDEX_ROWS";

/// A hundred million chunks with BACKUP_LONG, otherwise as many as quickly show the same proportions. The index is built in
/// a process of its own, whose peak the system counts.
#[cfg(target_os = "linux")]
#[test]
fn trap_13_a_hundred_million_chunks_need_less_than_256_mib() {
    if let Some(rows) = std::env::var_os(CHILD) {
        let rows: u64 = rows.into_string().unwrap().parse().unwrap();
        let resources = match rows {
            100_000_000.. => Resources::new(),
            _ => Resources::new().with_index_bytes(limits::MIB),
        };
        let index = measure(rows, &resources);
        assert!(index.is_spilled());
        println!("index: {} KiB", index.bytes() / 1024);
        println!("peak: {} KiB", peak_kib());
        return;
    }
    let rows: u64 = if std::env::var_os("BACKUP_LONG").is_some() { 100_000_000 } else { 500_000 };
    let name = "repository::index::tests::trap_13_a_hundred_million_chunks_need_less_than_256_mib";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, rows.to_string())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    let figure = |what: &str| -> u64 {
        let behind = output.split_once(what).unwrap().1;
        behind.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (index, peak) = (figure("index: "), figure("peak: "));
    println!("{rows} rows: index {index} KiB, peak {peak} KiB");
    // The caches, which do not grow, and 2 bytes a row.
    assert!(index * 1024 <= 10 * limits::MIB as u64 + rows * 2, "the index holds {index} KiB");
    let peak_max = if rows >= 100_000_000 { 256 * 1024 } else { 48 * 1024 };
    assert!(peak < peak_max, "the peak is {peak} KiB");
}
