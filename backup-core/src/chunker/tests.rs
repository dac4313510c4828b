//! The chunker against its definition, and the properties that deduplication needs.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::Random;
use crate::random::SeededRandom;

const KEY: [u8; 32] = [3; 32];

fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes).unwrap();
    bytes
}

fn all_cuts(chunker: &Chunker, content: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    assert_eq!(chunker.cuts(content, true, &mut ends), content.len());
    ends
}

/// The cuts when the content arrives in pieces of the given lengths, over and over.
fn cuts_of_pieces(chunker: &Chunker, content: &[u8], pieces: &[usize]) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut consumed, mut arrived) = (0, 0);
    for piece in pieces.iter().cycle() {
        arrived = content.len().min(arrived + piece);
        let at_end = arrived == content.len();
        let mut found = Vec::new();
        let used = chunker.cuts(&content[consumed..arrived], at_end, &mut found);
        assert_eq!(found.last().copied().unwrap_or(0), used);
        ends.extend(found.iter().map(|end| consumed + end));
        consumed += used;
        if at_end {
            assert_eq!(consumed, content.len());
            return ends;
        }
        assert!(arrived - consumed < chunker.max, "a chunk of the greatest length was not cut");
    }
    ends
}

fn parameters() -> impl Strategy<Value = ChunkerParameters> {
    (7_u32..12, 0_u32..4000, 1_u32..4000).prop_map(|(bits, less, more)| {
        let avg_bytes = 1_u32 << bits;
        let min_bytes = avg_bytes.saturating_sub(1 + less).max(64);
        ChunkerParameters { min_bytes, avg_bytes, max_bytes: avg_bytes + more }
    })
}

/// Random bytes, few different bytes, repeated patterns and runs of one byte.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let random = vec(any::<u8>(), 0..20_000);
    let few = (1_u8..4, vec(any::<u8>(), 0..20_000))
        .prop_map(|(kinds, bytes)| bytes.into_iter().map(|byte| byte % kinds).collect());
    let pattern = (vec(any::<u8>(), 1..300), 0_usize..100).prop_map(|(pattern, times)| pattern.repeat(times));
    let runs = vec((any::<u8>(), 0_usize..2000), 0..20)
        .prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| vec![byte; len]).collect());
    prop_oneof![random, few, pattern, runs]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn cuts_are_those_of_the_definition(
        key in any::<[u8; 32]>(), parameters in parameters(), content in content(),
    ) {
        let chunker = Chunker::new(&key, parameters).unwrap();
        prop_assert_eq!(all_cuts(&chunker, &content), reference::cuts(&key, parameters, &content));
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_content_arrives(
        parameters in parameters(), content in content(), pieces in vec(1_usize..5000, 1..20),
    ) {
        let chunker = Chunker::new(&KEY, parameters).unwrap();
        prop_assert_eq!(cuts_of_pieces(&chunker, &content, &pieces), all_cuts(&chunker, &content));
    }
}

#[test]
fn long_chunks_are_cut_as_defined() {
    // Long enough that hits lie in both lanes, near their ends, and behind a hit in the other lane.
    let parameters = ChunkerParameters { min_bytes: 5000, avg_bytes: 16 * 1024, max_bytes: 100_000 };
    let content = random_bytes(1, 3 << 20);
    let chunker = Chunker::new(&KEY, parameters).unwrap();
    assert_eq!(all_cuts(&chunker, &content), reference::cuts(&KEY, parameters, &content));
}

#[test]
fn the_default_parameters_cut_as_defined() {
    let content = random_bytes(2, 8 << 20);
    let chunker = Chunker::new(&KEY, ChunkerParameters::default()).unwrap();
    assert_eq!(all_cuts(&chunker, &content), reference::cuts(&KEY, ChunkerParameters::default(), &content));
}

#[test]
fn known_content_is_cut_where_it_always_was() {
    // Other numbers mean that repositories in the field no longer recognise what they hold.
    let chunker = Chunker::new(&KEY, ChunkerParameters::default()).unwrap();
    let ends = all_cuts(&chunker, &random_bytes(3, 4 << 20));
    assert_eq!(ends, [140_078, 728_396, 1_402_815, 2_024_179, 2_622_134, 3_222_613, 3_884_940, 4_194_304]);
}

#[test]
fn lengths_lie_between_minimum_and_maximum_and_near_the_average() {
    let parameters = ChunkerParameters { min_bytes: 2048, avg_bytes: 8192, max_bytes: 32_768 };
    let chunker = Chunker::new(&KEY, parameters).unwrap();
    let content = random_bytes(4, 16 << 20);
    let ends = all_cuts(&chunker, &content);
    let starts = std::iter::once(&0).chain(&ends);
    let lengths: Vec<_> = ends.iter().zip(starts).map(|(end, start)| end - start).collect();
    let (_, whole) = lengths.split_last().unwrap();
    assert!(whole.iter().all(|len| (2048..=32_768).contains(len)));
    let mean = content.len() / lengths.len();
    assert!((8192..8192 * 5 / 4).contains(&mean), "{mean}");
}

#[test]
fn runs_of_one_byte_end_at_the_maximum_or_evenly() {
    let chunker = Chunker::new(&KEY, ChunkerParameters::default()).unwrap();
    for byte in 0..=255 {
        let ends = all_cuts(&chunker, &vec![byte; 5 << 20]);
        let first = ends[0];
        assert!(ends.iter().enumerate().all(|(n, end)| *end == (5 << 20).min(first * (n + 1))), "{byte}");
    }
}

#[test]
fn an_inserted_byte_changes_only_chunks_near_it() {
    let size = if cfg!(debug_assertions) { 16 << 20 } else { 64 << 20 };
    let before = random_bytes(5, size);
    let chunker = Chunker::new(&KEY, ChunkerParameters::default()).unwrap();
    let known: HashSet<_> = chunks(&before, &all_cuts(&chunker, &before)).map(blake3::hash).collect();
    for place in [0, 1, 3_000_000] {
        let mut after = before.clone();
        after.insert(place, 0xaa);
        let ends = all_cuts(&chunker, &after);
        let new: Vec<_> =
            chunks(&after, &ends).filter(|chunk| !known.contains(&blake3::hash(chunk))).collect();
        let bytes: usize = new.iter().map(|chunk| chunk.len()).sum();
        assert!(!new.is_empty() && new.len() <= 6 && bytes <= 8 << 20, "{} chunks, {bytes} bytes", new.len());
    }
}

#[test]
fn another_key_cuts_elsewhere() {
    let content = random_bytes(6, 16 << 20);
    let cuts = |key| all_cuts(&Chunker::new(&key, ChunkerParameters::default()).unwrap(), &content);
    let (one, other): (HashSet<_>, HashSet<_>) =
        (cuts([1; 32]).into_iter().collect(), cuts([2; 32]).into_iter().collect());
    // Only the end of the content is common.
    assert_eq!(one.intersection(&other).count(), 1);
}

#[test]
fn the_key_does_not_show() {
    let shown = format!("{:?}", Chunker::new(&KEY, ChunkerParameters::default()).unwrap());
    assert!(shown.starts_with("Chunker { parameters: ChunkerParameters {") && shown.len() < 140, "{shown}");
}

#[test]
fn what_cannot_be_told_yet_is_not_cut() {
    let chunker = Chunker::new(&KEY, ChunkerParameters::default()).unwrap();
    let content = random_bytes(7, 4 << 20);
    let cut = chunker.next_cut(&content, false).unwrap();
    assert_eq!(chunker.next_cut(&content[..cut], false), None);
    assert_eq!(chunker.next_cut(&content[..cut], true), Some(cut));
    assert_eq!(chunker.next_cut(&content[..cut + 1], false), Some(cut));
    assert_eq!(chunker.next_cut(&[], true), None);
    assert_eq!(chunker.next_cut(&[], false), None);
    assert_eq!(chunker.next_cut(&[1], true), Some(1));
}

fn chunks<'a>(content: &'a [u8], ends: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(&0).chain(ends);
    ends.iter().zip(starts).map(|(end, start)| &content[*start..*end])
}
