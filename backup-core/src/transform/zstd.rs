//! Compression with Zstandard (RFC 8878).

use std::cell::RefCell;

use ::zstd::bulk::{Compressor, Decompressor};
use ::zstd::zstd_safe::CParameter;

use super::looks::Looks;
use super::{Encoded, FrameContext, ObjectType, Transform, is_long_content};
use crate::{Error, Result};

/// Zstandard; frames that it does not shrink by a thirty-second are left as they are.
///
/// By default each frame is compressed in the way that suits it, about as small as level 3 makes it and faster; how is a matter of
/// the writer alone, as every reader reads them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zstd {
    level: Option<i32>,
}

/// How a frame is compressed. What was measured stands in the decision on levels and frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// As the library does it at this level.
    Level(i32),
    /// Long rows of numbers and words, as dumps and logs have: what repeats is near, so a small table finds it, which stays in
    /// the processor's caches.
    Records,
    /// Other long text.
    Text,
    /// Segments of logs: what repeats is near, in pages and records alike, so the tables of the usual level are made small enough
    /// for the processor's caches.
    Log,
    /// Machine code, small files beside each other, and everything else.
    Other,
}

/// Contexts that a thread keeps, those used last: one for each manner but a level of one's own.
const CONTEXTS_MAX: usize = 4;
/// By themselves the faster levels look back less far than a frame is long. As a power of two.
const WINDOW_LOG: u32 = 22;

/// Contexts and what they are for, the one used last at the end.
type Contexts = Vec<(Manner, Compressor<'static>)>;

thread_local! {
    // Contexts and their tables are made once per thread, never per frame.
    static COMPRESSORS: RefCell<Contexts> = const { RefCell::new(Vec::new()) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

impl Zstd {
    /// The name in the format.
    pub const NAME: &'static str = "zstd";

    /// Compression of everything at `level`: -7 (fast) to 22 (small).
    ///
    /// # Errors
    ///
    /// There is no such level.
    pub fn new(level: i32) -> Result<Self> {
        if (-7..=22).contains(&level) {
            Ok(Self { level: Some(level) })
        } else {
            Err(Error::invalid_input(format!("zstd has no level {level}; choose one from -7 to 22")))
        }
    }

    /// The level; none if the manner depends on the content.
    pub fn level(self) -> Option<i32> {
        self.level
    }
}

impl Manner {
    fn of(frame: &FrameContext<'_>, input: &[u8]) -> Self {
        if frame.object_type == ObjectType::Log {
            return Self::Log;
        }
        let looks = is_long_content(input.len(), frame.chunks).then(|| Looks::of(input));
        match looks {
            Some(Looks::Records) => Self::Records,
            Some(Looks::Text) => Self::Text,
            Some(Looks::Other) | None => Self::Other,
        }
    }

    fn context(self) -> std::io::Result<Compressor<'static>> {
        use CParameter::{ChainLog, HashLog, MinMatch, WindowLog};
        let (level, parameters) = match self {
            Self::Level(level @ 1..=3) => (level, &[][..]),
            Self::Level(level) => return Compressor::new(level),
            Self::Records => (2, &[MinMatch(5), HashLog(14)][..]),
            Self::Text => (2, &[][..]),
            // The chain log is that of the table of short matches.
            Self::Log => (3, &[HashLog(15), ChainLog(14)][..]),
            Self::Other => (3, &[][..]),
        };
        let mut context = Compressor::new(level)?;
        context.set_parameter(WindowLog(WINDOW_LOG))?;
        for parameter in parameters {
            context.set_parameter(*parameter)?;
        }
        Ok(context)
    }
}

/// The thread's context for a manner, moved to the end of those it keeps.
fn compressor(kept: &mut Contexts, manner: Manner) -> Result<&mut Compressor<'static>> {
    if let Some(at) = kept.iter().position(|(of, _)| *of == manner) {
        let last = kept.len().saturating_sub(1);
        kept.swap(at, last);
    } else {
        let made = manner.context().map_err(|e| Error::io("no zstd context could be made", e))?;
        if kept.len() >= CONTEXTS_MAX {
            kept.remove(0);
        }
        kept.push((manner, made));
    }
    match kept.last_mut() {
        Some((_, compressor)) => Ok(compressor),
        None => Err(Error::internal("the zstd context is gone")),
    }
}

impl Transform for Zstd {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn encode(&self, frame: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        let start = output.len();
        let manner = self.level.map_or_else(|| Manner::of(frame, input), Manner::Level);
        COMPRESSORS.with_borrow_mut(|kept| {
            let compressor = compressor(kept, manner)?;
            // The engine gives an empty buffer; a caller who does not costs a copy.
            let mut separate = Vec::new();
            let space = if output.is_empty() { &mut *output } else { &mut separate };
            space.reserve(input.len());
            match compressor.compress_to_buffer(input, space) {
                Ok(len) if len < input.len().saturating_sub(input.len() / 32) => {
                    output.extend_from_slice(&separate);
                    Ok(Encoded::Applied)
                }
                // Too small a buffer is how zstd says that the input does not shrink.
                Ok(_) | Err(_) => {
                    output.truncate(start);
                    Ok(Encoded::Skipped)
                }
            }
        })
    }

    fn decode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, max: usize) -> Result<()> {
        let start = output.len();
        DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Some(Decompressor::new().map_err(|e| Error::io("no zstd context could be made", e))?);
            }
            let Some(decompressor) = slot.as_mut() else {
                return Err(Error::internal("the zstd context is gone"));
            };
            let damaged = || Error::corruption("a frame is not what zstd made, or longer than it claims");
            let mut separate = Vec::new();
            let space = if output.is_empty() { &mut *output } else { &mut separate };
            space.reserve(max);
            let len =
                decompressor.decompress_to_buffer(input, space).map_err(|e| damaged().with_source(e))?;
            if len > max {
                output.truncate(start);
                return Err(damaged());
            }
            output.extend_from_slice(&separate);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_is_compressed_in_the_manner_that_suits_it() {
        use Manner::{Log, Other, Records, Text};
        let rows: Vec<u8> =
            (0..40_000_u64).flat_map(|n| format!("{} and {};\n", n * n, n % 77).into_bytes()).collect();
        let words: Vec<u8> =
            rows.iter().map(|byte| if byte.is_ascii_digit() { byte + 49 } else { *byte }).collect();
        let numbers: Vec<u8> = (0..200_000_u32).flat_map(|n| (n % 70_001).to_le_bytes()).collect();
        let data = ObjectType::Data;
        for (object_type, input, chunks, expected) in [
            (data, &rows, 1, Records),
            (data, &rows, 5, Records),
            (data, &rows, 1000, Other),
            (data, &rows, 0, Other),
            (data, &words, 1, Text),
            (data, &words, 1000, Other),
            (data, &numbers, 1, Other),
            (data, &numbers, 1000, Other),
            (ObjectType::Log, &rows, 0, Log),
            (ObjectType::Log, &words, 0, Log),
        ] {
            let frame = FrameContext {
                chunks,
                repository: &[0; 16],
                object_type,
                salt: &[0; 32],
                ordinal: 0,
                plain_len: input.len(),
                associated_data: &[],
            };
            let by = |manner: Manner| manner.context().unwrap().compress(input).unwrap();
            let mut output = Vec::new();
            assert_eq!(Zstd::default().encode(&frame, input, &mut output).unwrap(), Encoded::Applied);
            let alike: Vec<_> =
                [Records, Text, Log, Other].into_iter().filter(|manner| by(*manner) == output).collect();
            assert_eq!(alike, [expected], "{object_type:?}, {chunks} chunks");
            let mut back = Vec::new();
            Zstd::default().decode(&frame, &output, &mut back, input.len()).unwrap();
            assert!(&back == input);
            // Somebody's own level is the library's, whatever the content.
            let mut own = Vec::new();
            Zstd::new(9).unwrap().encode(&frame, input, &mut own).unwrap();
            assert!(own == Compressor::new(9).unwrap().compress(input).unwrap());
        }
    }

    #[test]
    fn a_thread_keeps_the_contexts_used_last() {
        let mut kept = Vec::new();
        for (level, expected) in [
            (2, vec![2]),
            (3, vec![2, 3]),
            (2, vec![3, 2]),
            (4, vec![3, 2, 4]),
            (3, vec![4, 2, 3]),
            (5, vec![4, 2, 3, 5]),
            (7, vec![2, 3, 5, 7]),
            (7, vec![2, 3, 5, 7]),
        ] {
            compressor(&mut kept, Manner::Level(level)).unwrap();
            let levels: Vec<_> = kept.iter().map(|(manner, _)| *manner).collect();
            assert_eq!(levels, expected.into_iter().map(Manner::Level).collect::<Vec<_>>());
        }
    }
}
