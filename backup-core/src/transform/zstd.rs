//! Compression with Zstandard (RFC 8878).

use std::cell::RefCell;

use ::zstd::bulk::{Compressor, Decompressor};
use ::zstd::zstd_safe::CParameter;

use super::text::looks_like_text;
use super::{Encoded, FrameContext, Transform, is_long_content};
use crate::{Error, Result};

/// Zstandard; frames that it does not shrink by a thirty-second are left as they are.
///
/// By default each frame has the level that suits it: 2 where it is long text (SQL, JSON, logs), which takes a quarter less time
/// than 3 and loses nothing or little; and 3 where it looks like machine code or numbers, or where small files stand beside each
/// other, which would lose more. The level is a matter of the writer alone: every reader reads every level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zstd {
    level: Option<i32>,
}

/// Levels by default.
const LONG_TEXT_LEVEL: i32 = 2;
const OTHER_LEVEL: i32 = 3;
/// Contexts that a thread keeps, those used last.
const CONTEXTS_MAX: usize = 2;
/// By themselves the faster levels look back less far than a frame is long. As a power of two.
const WINDOW_LOG: u32 = 22;

/// Contexts and their levels, the one used last at the end.
type Contexts = Vec<(i32, Compressor<'static>)>;

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

    /// The level; none if it depends on the content.
    pub fn level(self) -> Option<i32> {
        self.level
    }
}

fn suitable(frame: &FrameContext<'_>, input: &[u8]) -> i32 {
    match is_long_content(input.len(), frame.chunks) && looks_like_text(input) {
        true => LONG_TEXT_LEVEL,
        false => OTHER_LEVEL,
    }
}

/// The thread's context for a level, moved to the end of those it keeps.
fn compressor(kept: &mut Contexts, level: i32) -> Result<&mut Compressor<'static>> {
    if let Some(at) = kept.iter().position(|(of, _)| *of == level) {
        let last = kept.len().saturating_sub(1);
        kept.swap(at, last);
    } else {
        let failed = |e| Error::io("no zstd context could be made", e);
        let mut made = Compressor::new(level).map_err(failed)?;
        if (1..=OTHER_LEVEL).contains(&level) {
            made.set_parameter(CParameter::WindowLog(WINDOW_LOG)).map_err(failed)?;
        }
        if kept.len() >= CONTEXTS_MAX {
            kept.remove(0);
        }
        kept.push((level, made));
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
        let level = self.level.unwrap_or_else(|| suitable(frame, input));
        COMPRESSORS.with_borrow_mut(|kept| {
            let compressor = compressor(kept, level)?;
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
    fn long_texts_have_the_faster_level_and_all_else_the_smaller_one() {
        let text: Vec<u8> =
            (0..40_000_u64).flat_map(|n| format!("{} and {};\n", n * n, n % 77).into_bytes()).collect();
        let numbers: Vec<u8> = (0..200_000_u32).flat_map(|n| (n % 70_001).to_le_bytes()).collect();
        for (input, chunks, expected) in [
            (&text, 1, 2),
            (&text, 5, 2),
            (&text, 1000, 3),
            (&text, 0, 3),
            (&numbers, 1, 3),
            (&numbers, 1000, 3),
        ] {
            let frame = FrameContext {
                chunks,
                repository: &[0; 16],
                object_type: crate::ObjectType::Data,
                salt: &[0; 32],
                ordinal: 0,
                plain_len: input.len(),
                associated_data: &[],
            };
            let encoded = |zstd: Zstd| {
                let mut output = Vec::new();
                assert_eq!(zstd.encode(&frame, input, &mut output).unwrap(), Encoded::Applied);
                output
            };
            let (faster, smaller) = (encoded(Zstd::new(2).unwrap()), encoded(Zstd::new(3).unwrap()));
            assert_ne!(faster, smaller);
            let chosen = if encoded(Zstd::default()) == faster { 2 } else { 3 };
            assert_eq!(
                (chosen, encoded(Zstd::default()) == smaller),
                (expected, expected == 3),
                "{chunks} chunks"
            );
        }
    }

    #[test]
    fn a_thread_keeps_the_contexts_used_last() {
        let mut kept = Vec::new();
        for (level, expected) in [
            (2, vec![2]),
            (3, vec![2, 3]),
            (2, vec![3, 2]),
            (3, vec![2, 3]),
            (7, vec![3, 7]),
            (7, vec![3, 7]),
        ] {
            compressor(&mut kept, level).unwrap();
            assert_eq!(kept.iter().map(|(level, _)| *level).collect::<Vec<_>>(), expected);
        }
    }
}
