//! What guessing a passphrase costs: Argon2id (RFC 9106) and its bounds.

use argon2::{Algorithm, Argon2, Params, Version};
use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::limits::{ARGON2_LANES_MAX, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX};
use crate::secret::Secret;

/// The cost of one try at a passphrase.
///
/// The default, 64 MiB, 3 passes and 4 lanes, is the second recommendation of RFC 9106. A slot is read from a store that nobody
/// need trust, so its cost is bounded before any memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct PassphraseCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PassphraseCost {
    /// `memory_kib` KiB of memory (8 per lane to 1,048,576), passed over `passes` times (1 to 16) in `lanes` lanes (1
    /// to 16).
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        let within = (1..=ARGON2_LANES_MAX).contains(&lanes)
            && (1..=ARGON2_PASSES_MAX).contains(&passes)
            && (lanes.saturating_mul(8)..=ARGON2_MEMORY_KIB_MAX).contains(&memory_kib);
        if within {
            Ok(Self { memory_kib, passes, lanes })
        } else {
            let message = format!(
                "Argon2id with {memory_kib} KiB, {passes} passes, {lanes} lanes is out of bounds: at most \
                 {ARGON2_MEMORY_KIB_MAX} KiB (at least 8 per lane), {ARGON2_PASSES_MAX} passes, {ARGON2_LANES_MAX} lanes"
            );
            Err(Error::new(ErrorKind::LimitExceeded, message))
        }
    }

    /// Memory in KiB.
    pub fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    pub fn passes(self) -> u32 {
        self.passes
    }

    /// Lanes.
    pub fn lanes(self) -> u32 {
        self.lanes
    }

    /// Argon2id version 0x13 of `passphrase` and `salt`. Takes a good part of a second: blocking. Lanes run
    /// side by side on the process-wide threads of the crate `rayon`, as many as there are processors.
    pub(crate) fn stretch(self, passphrase: &[u8], salt: &[u8; 32]) -> Result<Secret> {
        let refused = |e: argon2::Error| {
            Error::new(ErrorKind::Io, format!("Argon2id with {} KiB failed: {e}", self.memory_kib))
        };
        let mut secret = Secret::zero();
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(secret.0.len())).map_err(refused)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(passphrase, salt, &mut secret.0).map_err(refused)?;
        Ok(secret)
    }
}

impl Default for PassphraseCost {
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

/// As a slot says it, before its bounds are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl TryFrom<Unchecked> for PassphraseCost {
    type Error = Error;

    fn try_from(cost: Unchecked) -> Result<Self> {
        Self::new(cost.memory_kib, cost.passes, cost.lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretching_agrees_with_the_reference_implementation() {
        // Computed with OpenSSL: pyca/cryptography's Argon2id(salt=b"\x02" * 32, length=32, iterations=3, lanes=4,
        // memory_cost=32 * 1024).derive(b"password").
        let cost = PassphraseCost::new(32 * 1024, 3, 4).unwrap();
        let secret = cost.stretch(b"password", &[2; 32]).unwrap();
        assert_eq!(hex::encode(secret.0), "555eae4144ce209dcb6b79bd16a1ae61d6dae7f35bd7819316cf822d76b6a13b");
    }

    #[test]
    fn the_default_cost_is_64_mib_three_passes_and_four_lanes() {
        // The second choice of RFC 9106, section 4.
        let cost = PassphraseCost::default();
        assert_eq!((cost.memory_kib(), cost.passes(), cost.lanes()), (65_536, 3, 4));
    }

    #[test]
    fn trap_21_costs_out_of_bounds_are_refused() {
        PassphraseCost::new(1024 * 1024, 16, 16).unwrap();
        PassphraseCost::new(8, 1, 1).unwrap();
        for (memory, passes, lanes) in [
            (1024 * 1024 + 1, 1, 1),
            (u32::MAX, 3, 4),
            (65_536, 17, 4),
            (65_536, u32::MAX, 4),
            (65_536, 3, 17),
            (65_536, 3, u32::MAX),
            (65_536, 0, 4),
            (65_536, 3, 0),
            (31, 3, 4),
            (0, 0, 0),
        ] {
            assert!(PassphraseCost::new(memory, passes, lanes).is_err(), "{memory} {passes} {lanes}");
        }
    }
}
