//! Compression with Zstandard (RFC 8878).

use std::cell::RefCell;

use ::zstd::bulk::{Compressor, Decompressor};

use super::{Encoded, FrameContext, Transform};
use crate::{Error, Result};

/// Zstandard at a level; frames that it does not shrink by a thirty-second are left as they are.
///
/// The level is a matter of the writer alone: every reader reads every level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zstd {
    level: i32,
}

thread_local! {
    // Contexts and their tables are made once per thread, never per frame.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

impl Zstd {
    /// The name in the format.
    pub const NAME: &'static str = "zstd";

    /// Compression at `level`: -7 (fast) to 22 (small).
    pub fn new(level: i32) -> Result<Self> {
        if (-7..=22).contains(&level) {
            Ok(Self { level })
        } else {
            Err(Error::invalid_input(format!("zstd has no level {level}; choose one from -7 to 22")))
        }
    }

    /// The level.
    pub fn level(self) -> i32 {
        self.level
    }
}

impl Default for Zstd {
    /// Level 3.
    fn default() -> Self {
        Self { level: 3 }
    }
}

impl Transform for Zstd {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        let start = output.len();
        COMPRESSOR.with_borrow_mut(|slot| {
            let fits = slot.as_ref().is_some_and(|(level, _)| *level == self.level);
            if !fits {
                let made =
                    Compressor::new(self.level).map_err(|e| Error::io("no zstd context could be made", e))?;
                *slot = Some((self.level, made));
            }
            let Some((_, compressor)) = slot.as_mut() else {
                return Err(Error::internal("the zstd context is gone"));
            };
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
