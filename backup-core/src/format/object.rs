//! The envelope of every object: header, frames, sealed directory, signature block, trailer.

mod check;
mod header;
mod opener;
mod sealing;
mod trailer;
mod writer;

pub use header::ObjectHeader;
pub use opener::ObjectOpener;
pub use sealing::Scratch;
pub use trailer::Trailer;
pub use writer::{ObjectWriter, SealedObject};

/// The first bytes of every object.
pub const MAGIC: [u8; 8] = *b"\x89BKP\r\n\x1a\n";
/// The last bytes of every object.
pub const END_MAGIC: [u8; 4] = *b"BKPE";
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 19;
/// The signature block of an object that nobody signed: no writer, no signature.
pub const UNSIGNED: [u8; 3] = [0, 0, 0];
/// Longest header.
pub const HEADER_BYTES_MAX: usize = 4096;
