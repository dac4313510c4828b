//! Every bound of this crate in one place. Units come last in each name, where there are any.

/// Longest label of a recipient.
pub const LABEL_BYTES_MAX: usize = 256;
/// Longest passphrase.
pub const PASSPHRASE_BYTES_MAX: usize = 4096;
/// Most recipients that a repository can be created for; more can be added later.
pub const RECIPIENTS_AT_CREATION_MAX: usize = 64;
/// Largest key slot.
pub const SLOT_BYTES_MAX: usize = 16 * 1024;
/// Most objects under `keys/`, over all epochs.
pub const SLOTS_MAX: usize = 1024;
/// Most tries of a passphrase on a slot in one unlocking; each costs an Argon2id.
pub const TRIES_MAX: usize = 64;
/// Most memory that a passphrase may cost, in KiB: 1 GiB.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Most passes of Argon2id.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// Most lanes of Argon2id.
pub const ARGON2_LANES_MAX: u32 = 16;
