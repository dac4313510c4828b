//! Decode and compare: whether what was encoded can be read again, while the original is still at hand.

use crate::transform::{FrameContext, Transform};
use crate::{Error, Result};

/// Whether a transform gives back `input` from what it made of it.
pub(super) fn check_step(
    transform: &dyn Transform,
    frame: &FrameContext<'_>,
    input: &[u8],
    encoded: &[u8],
    check: &mut Vec<u8>,
) -> Result<()> {
    check.clear();
    let wrong = |how: &str| {
        Error::internal(format!(
            "the transform `{}` encoded {} bytes and decoded them {how}: it, or this machine, is faulty; nothing of the \
             object was stored",
            transform.name(),
            input.len(),
        ))
    };
    transform
        .decode(frame, encoded, check, input.len())
        .map_err(|e| wrong("with an error").with_source(e))?;
    if check == input { Ok(()) } else { Err(wrong("to something else")) }
}
