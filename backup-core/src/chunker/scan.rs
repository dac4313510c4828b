//! The search for the first position whose hash is below a limit: where all the time of cutting goes.
//!
//! One hash is a chain of dependent additions, which leaves most of a processor idle. As a hash depends on 64 bytes
//! only, two halves of a stretch can be searched side by side, each with a chain of its own.

/// Bytes that a hash depends on.
pub(super) const WINDOW: usize = 64;

/// Bytes before a position, beside the last one, that its hash depends on.
const HISTORY: usize = WINDOW - 1;

/// Positions that each lane searches in one stretch. What lies behind a hit in an earlier lane is searched in vain, so
/// longer is not better.
const LANE: usize = 4096;

/// Positions of a lane below which lanes are not worth their start.
const LANE_MIN: usize = 256;

/// Bytes that each lane takes between two looks at what is left.
const STEP: usize = 16;

/// The first position in `from..end` at which the hash of the 64 bytes before it is below `limit`.
///
/// A position is the number of bytes before it. None if there is none, if `from` is less than 64 or if `data` is
/// shorter than `end`.
pub(super) fn first_below(
    gear: &[u64; 256],
    data: &[u8],
    from: usize,
    end: usize,
    limit: u64,
) -> Option<usize> {
    // The byte with index `position - 1` completes the hash of `position`.
    let mut rest = data.get(from.checked_sub(WINDOW)?..end.checked_sub(1)?)?;
    let mut position = from;
    loop {
        let lane = (rest.len().saturating_sub(HISTORY) / 2).min(LANE);
        if lane < LANE_MIN {
            return in_one_lane(gear, rest, limit).map(|found| position.saturating_add(found));
        }
        let stretch = lane.saturating_mul(2);
        if let Some(found) = in_two_lanes(gear, rest, lane, limit) {
            return Some(position.saturating_add(found));
        }
        rest = rest.get(stretch..)?;
        position = position.saturating_add(stretch);
    }
}

/// The number of positions before the first hit in `bytes`, the first [`HISTORY`] of which are only history.
fn in_one_lane(gear: &[u64; 256], bytes: &[u8], limit: u64) -> Option<usize> {
    let (history, bytes) = bytes.split_at_checked(HISTORY)?;
    let mut hash = hash_of(gear, history);
    bytes.iter().position(|&byte| {
        hash = roll(gear, hash, byte);
        hash < limit
    })
}

/// The number of positions before the first hit in the first `2 * lane` positions of `bytes`.
fn in_two_lanes(gear: &[u64; 256], bytes: &[u8], lane: usize, limit: u64) -> Option<usize> {
    let second = bytes.get(lane..)?;
    let searched = in_lanes(gear, bytes, second, lane, limit)?;
    // One of the lanes has a hit at or after `searched`; the earlier lane counts, however far in it is.
    let end = lane.saturating_add(HISTORY);
    if let Some(found) = in_one_lane(gear, bytes.get(searched..end)?, limit) {
        return Some(searched.saturating_add(found));
    }
    let found = in_one_lane(gear, second.get(searched..end)?, limit)?;
    Some(lane.saturating_add(searched).saturating_add(found))
}

/// Searches `lane` positions of both and stops in the step where one of them has a hit: the positions before that step.
fn in_lanes(gear: &[u64; 256], first: &[u8], second: &[u8], lane: usize, limit: u64) -> Option<usize> {
    let (history_a, a) = first.split_at_checked(HISTORY)?;
    let (history_b, b) = second.split_at_checked(HISTORY)?;
    let (mut a, mut b) = (a.get(..lane)?, b.get(..lane)?);
    let (mut hash_a, mut hash_b) = (hash_of(gear, history_a), hash_of(gear, history_b));
    let mut searched = 0_usize;
    while let (Some((step_a, rest_a)), Some((step_b, rest_b))) =
        (a.split_first_chunk::<STEP>(), b.split_first_chunk::<STEP>())
    {
        for (&byte_a, &byte_b) in step_a.iter().zip(step_b) {
            hash_a = roll(gear, hash_a, byte_a);
            hash_b = roll(gear, hash_b, byte_b);
            if hash_a < limit || hash_b < limit {
                return Some(searched);
            }
        }
        searched = searched.saturating_add(STEP);
        (a, b) = (rest_a, rest_b);
    }
    for (&byte_a, &byte_b) in a.iter().zip(b) {
        hash_a = roll(gear, hash_a, byte_a);
        hash_b = roll(gear, hash_b, byte_b);
        if hash_a < limit || hash_b < limit {
            return Some(searched);
        }
    }
    None
}

fn hash_of(gear: &[u64; 256], bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash, &byte| roll(gear, hash, byte))
}

// A byte's part leaves the hash by itself, 64 shifts later.
#[inline(always)]
fn roll(gear: &[u64; 256], hash: u64, byte: u8) -> u64 {
    // A table of 256 has an element for every byte: no check is compiled, and none can fail.
    hash.wrapping_shl(1).wrapping_add(gear[usize::from(byte)])
}
