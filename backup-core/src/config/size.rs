//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// A number of bytes, written like `64MiB`, `10 GB`, `512K` or plain `4096`.
///
/// `KiB`, `MiB`, `GiB`, `TiB`, `PiB` and the bare letters `K` to `P` are powers of 1024; `kB`, `MB` and so on are powers of
/// 1000. Case does not matter. Fractions are not understood: write `1536MiB` for one and a half GiB.
///
/// ```
/// use backup_core::config::ByteSize;
///
/// assert_eq!("64MiB".parse::<ByteSize>()?.bytes(), 64 << 20);
/// assert_eq!("10 GB".parse::<ByteSize>()?.bytes(), 10_000_000_000);
/// assert_eq!(ByteSize::new(1 << 20).to_string(), "1MiB");
/// assert!("much".parse::<ByteSize>().is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

const UNITS: [(&str, u64); 17] = [
    ("pib", 1 << 50),
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("pb", 1_000_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("p", 1 << 50),
    ("t", 1 << 40),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("b", 1),
    ("", 1),
];

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid_input(format!("`{text}` is not a size; write it like 64MiB, 10GB or 4096"));
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(wrong)?;
        let unit = unit.trim_start().to_ascii_lowercase();
        let factor =
            UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let too_much = || Error::invalid_input(format!("`{text}` is more than 2^64 - 1 bytes"));
        number.checked_mul(factor).map(Self).ok_or_else(too_much)
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that says it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like \"64MiB\" or a number of bytes")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom("a size cannot be negative"))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1k", 1024),
            ("1kB", 1000),
            ("1 KiB", 1024),
            ("64MiB", 64 << 20),
            ("10gb", 10_000_000_000),
            (" 2T ", 2 << 40),
            ("3PiB", 3 << 50),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1 XB", "1K1", "18446744073709551616", "16384PiB", "١K", "∞"]
        {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 1025, 1 << 20, (1 << 20) + 1, 5 << 30, u64::MAX] {
            let size = ByteSize::new(bytes);
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
            let json = serde_json::to_string(&size).unwrap();
            assert_eq!(serde_json::from_str::<ByteSize>(&json).unwrap(), size);
        }
        assert_eq!(serde_json::from_str::<ByteSize>("4096").unwrap().bytes(), 4096);
        assert!(serde_json::from_str::<ByteSize>("-4096").is_err());
        assert!(serde_json::from_str::<ByteSize>("1.5").is_err());
    }
}
