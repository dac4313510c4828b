//! How long chunks are.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Error, Result};

/// The lengths of chunks that are cut by content. A repository keeps the ones it was created with: others would cut the
/// same content elsewhere and find none of it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChunkerParameters {
    /// Bytes that every chunk has at least, except the last of its content.
    pub min_bytes: u32,
    /// Bytes that chunks have on average, or a little more; a power of two.
    pub avg_bytes: u32,
    /// Bytes that no chunk exceeds.
    pub max_bytes: u32,
}

impl ChunkerParameters {
    /// Checks the lengths against each other and against [`limits`], and returns them as they are used.
    pub fn validate(&self) -> Result<(usize, usize, usize)> {
        let Self { min_bytes, avg_bytes, max_bytes } = *self;
        let wrong = |what: String| Err(Error::invalid_input(format!("chunk sizes: {what}")));
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (min, avg, max) = (size(min_bytes), size(avg_bytes), size(max_bytes));
        if min < limits::CHUNK_BYTES_MIN {
            return wrong(format!("the minimum of {min} bytes is below {}", limits::CHUNK_BYTES_MIN));
        }
        if max > limits::CHUNK_BYTES_MAX {
            return wrong(format!("the maximum of {max} bytes is above {}", limits::CHUNK_BYTES_MAX));
        }
        if !avg_bytes.is_power_of_two() {
            return wrong(format!("the average of {avg} bytes is not a power of two"));
        }
        if min >= avg || avg >= max {
            return wrong(format!(
                "the average of {avg} bytes is not between minimum {min} and maximum {max}"
            ));
        }
        Ok((min, avg, max))
    }
}

impl Default for ChunkerParameters {
    /// 128 KiB, 512 KiB, 2 MiB.
    fn default() -> Self {
        Self { min_bytes: 128 * 1024, avg_bytes: 512 * 1024, max_bytes: 2 * 1024 * 1024 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_make_no_sense_are_refused_with_a_reason() {
        let parameters =
            |min_bytes, avg_bytes, max_bytes| ChunkerParameters { min_bytes, avg_bytes, max_bytes };
        for (wrong, reason) in [
            (parameters(0, 128, 256), "below 64"),
            (parameters(63, 128, 256), "below 64"),
            (parameters(64, 128, 16 << 20), "above 8388608"),
            (parameters(64, 128, u32::MAX), "above 8388608"),
            (parameters(64, 129, 256), "power of two"),
            (parameters(64, 0, 256), "power of two"),
            (parameters(128, 128, 256), "not between"),
            (parameters(64, 128, 128), "not between"),
        ] {
            let message = wrong.validate().unwrap_err().to_string();
            assert!(message.contains(reason), "{wrong:?}: {message}");
        }
        ChunkerParameters::default().validate().unwrap();
        parameters(64, 128, 129).validate().unwrap();
        parameters(64, 1 << 22, 8 << 20).validate().unwrap();
    }
}
