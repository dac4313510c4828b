//! The definition of cutting, written down as plainly as possible: what [`Chunker`](super::Chunker) is tested against.

use super::{ChunkerParameters, GEAR_CONTEXT};

/// The ends of all chunks of `content`. Slow: it adds up 64 numbers for every byte.
pub fn cuts(key: &[u8; 32], parameters: ChunkerParameters, content: &[u8]) -> Vec<usize> {
    let gear = gear(key);
    let mut ends = Vec::new();
    let mut start = 0_usize;
    while start < content.len() {
        let chunk = content.get(start..).unwrap_or_default();
        start = start.saturating_add(first_chunk(&gear, parameters, chunk));
        ends.push(start);
    }
    ends
}

fn first_chunk(gear: &[u64], parameters: ChunkerParameters, content: &[u8]) -> usize {
    let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
    let longest = content.len().min(size(parameters.max_bytes));
    for position in size(parameters.min_bytes)..longest {
        let before = content.get(position.saturating_sub(64)..position).unwrap_or_default();
        // Below 2^64 / n is below 2^64 for one hash in n.
        let one_in = match position < size(parameters.avg_bytes) {
            true => u64::from(parameters.avg_bytes).saturating_mul(4),
            false => u64::from(parameters.avg_bytes) / 4,
        };
        if u128::from(hash(gear, before)) * u128::from(one_in) < 1 << 64 {
            return position;
        }
    }
    longest
}

fn hash(gear: &[u64], window: &[u8]) -> u64 {
    let parts = window.iter().rev().enumerate();
    parts.fold(0, |sum, (age, &byte)| {
        let number = gear.get(usize::from(byte)).copied().unwrap_or_default();
        sum.wrapping_add(u32::try_from(age).map_or(0, |age| number.wrapping_shl(age)))
    })
}

fn gear(key: &[u8; 32]) -> Vec<u64> {
    let mut bytes = [0; 2048];
    blake3::Hasher::new_derive_key(GEAR_CONTEXT).update(key).finalize_xof().fill(&mut bytes);
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|number| u64::from_le_bytes(*number)).collect()
}
