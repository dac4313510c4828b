//! Cutting content where the content says so, so that an insertion moves no other cut.
//!
//! The scheme is FastCDC (Xia et al., USENIX ATC 2016) with a table that depends on a key: without the key nobody can
//! tell from the lengths of chunks which known content they came from. The definition, which does not depend on how the
//! data arrives:
//!
//! - `gear` is a table of 256 numbers of 64 bits, the first 2048 bytes of BLAKE3's output for the key in its mode for
//!   deriving keys (context [`GEAR_CONTEXT`]), little-endian.
//! - The hash at a position is the sum of `gear[byte] << age` over the 64 bytes before it, modulo 2^64; the byte just
//!   before the position has age 0. It depends on nothing else, least of all on where the chunk began.
//! - A chunk ends at the first position from `min_bytes` on where the hash is below a limit, or at `max_bytes`, or with
//!   the content. The limit is 2^64 / (4 avg) before `avg_bytes` and 2^64 / (avg / 4) from there on ("normalised
//!   chunking"), which draws the lengths together around the average.
//!
//! Positions before `min_bytes` are never looked at, so cutting begins 64 bytes before it.
//!
//! ```
//! use backup_core::chunker::{Chunker, ChunkerParameters};
//!
//! let chunker = Chunker::new(&[7; 32], ChunkerParameters::default())?;
//! let content = vec![42; 5_000_000];
//! let mut ends = Vec::new();
//! chunker.cuts(&content, true, &mut ends);
//! assert_eq!(ends.last(), Some(&content.len()));
//! # Ok::<(), backup_core::Error>(())
//! ```

use std::fmt;

use crate::Result;

mod parameters;
#[cfg(any(test, feature = "testing"))]
pub mod reference;
mod scan;
#[cfg(test)]
mod tests;

pub use self::parameters::ChunkerParameters;
use self::scan::WINDOW;

/// The context string with which the table derives from the key.
pub const GEAR_CONTEXT: &str = "backup-core 2026 chunker gear table v1";

/// Bits that the limit is stricter before the average and laxer from there on.
const NORMALISATION: u32 = 2;

/// Cuts content into chunks. Immutable and without state between calls: share it among threads.
#[derive(Clone)]
pub struct Chunker {
    parameters: ChunkerParameters,
    min: usize,
    avg: usize,
    max: usize,
    // A cut is where the hash is below these, before the average and from there on.
    strict: u64,
    lax: u64,
    gear: Box<[u64; 256]>,
}

impl Chunker {
    /// A chunker with the table of `key`; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for parameters
    /// that make no sense.
    pub fn new(key: &[u8; 32], parameters: ChunkerParameters) -> Result<Self> {
        let (min, avg, max) = parameters.validate()?;
        let bits = avg.trailing_zeros();
        let limit = |bits: u32| 1_u64.checked_shl(64_u32.saturating_sub(bits)).unwrap_or(u64::MAX);
        Ok(Self {
            parameters,
            min,
            avg,
            max,
            strict: limit(bits.saturating_add(NORMALISATION)),
            lax: limit(bits.saturating_sub(NORMALISATION)),
            gear: gear_table(key),
        })
    }

    /// The parameters.
    pub fn parameters(&self) -> ChunkerParameters {
        self.parameters
    }

    /// The length of the first chunk of `data`, which starts where a chunk starts and ends with the content if `at_end`.
    ///
    /// None if that cannot be told yet because more data follows, or if there is no data. With at least `max_bytes` of
    /// data there is always an answer; asking with less repeats the search later.
    pub fn next_cut(&self, data: &[u8], at_end: bool) -> Option<usize> {
        let middle = self.avg.min(data.len());
        let end = self.max.min(data.len());
        let found = scan::first_below(&self.gear, data, self.min, middle, self.strict)
            .or_else(|| scan::first_below(&self.gear, data, self.avg, end, self.lax));
        match found {
            Some(cut) => Some(cut),
            None if data.len() >= self.max => Some(self.max),
            None if at_end && !data.is_empty() => Some(data.len()),
            None => None,
        }
    }

    /// Every cut that can be told in `data`, which starts where a chunk starts and ends with the content if `at_end`.
    ///
    /// Appends the ends of whole chunks to `cuts`, as offsets in `data`, and returns the last of them: the bytes
    /// consumed. With `at_end` that is all of them; otherwise the rest, less than `max_bytes`, is for the next call.
    pub fn cuts(&self, data: &[u8], at_end: bool, cuts: &mut Vec<usize>) -> usize {
        let mut start = 0_usize;
        while let Some(len) = data.get(start..).and_then(|rest| self.next_cut(rest, at_end)) {
            start = start.saturating_add(len);
            cuts.push(start);
        }
        start
    }
}

impl fmt::Debug for Chunker {
    // The table is as good as the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunker").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

fn gear_table(key: &[u8; 32]) -> Box<[u64; 256]> {
    let mut output = blake3::Hasher::new_derive_key(GEAR_CONTEXT).update(key).finalize_xof();
    let mut gear = Box::new([0; 256]);
    for number in gear.iter_mut() {
        let mut bytes = [0; 8];
        output.fill(&mut bytes);
        *number = u64::from_le_bytes(bytes);
    }
    gear
}

// The skip to the minimum must leave room for the window.
const _: () = assert!(crate::limits::CHUNK_BYTES_MIN >= WINDOW);
