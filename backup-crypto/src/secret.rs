//! Thirty-two secret bytes that are wiped when dropped and never shown.

use std::fmt;

use backup_core::{Random, Result};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 256-bit secret. Neither its `Debug` nor any error shows it; equality takes the same time whatever differs.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

impl Secret {
    /// All zero, to be filled in.
    pub(crate) fn zero() -> Self {
        Self([0; 32])
    }

    /// 32 unpredictable bytes.
    pub(crate) fn random(random: &dyn Random) -> Result<Self> {
        let mut secret = Self::zero();
        random.fill(&mut secret.0)?;
        Ok(secret)
    }

    /// Whether both are the same, in constant time.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
