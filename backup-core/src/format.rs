//! The stored bytes: structures and codecs only, without any input or output. `docs/FORMAT.md` is their specification.

pub mod chunks;
pub mod codec;
pub mod control;
pub mod directory;
pub mod document;
pub mod entries;
pub mod evidence;
pub mod log;
pub mod object;
pub mod page;
pub mod segment;

/// The version of the format that this build writes.
pub const FORMAT_VERSION: u8 = 1;
