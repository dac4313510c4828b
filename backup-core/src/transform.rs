//! Reversible changes to frames: compression, encryption, a user's own.
//!
//! A [`Transform`] is synchronous, keeps no state between frames and may be called from several threads. Chains are
//! named in the header of every object, so a reader knows what to undo; which of the optional ones were applied to a
//! frame is a bit mask beside it, covered by the frame's authentication.

use std::fmt;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result, limits};

mod looks;
mod zstd;

pub use zstd::Zstd;

/// What a stored object is; part of every key derivation and of everything authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum ObjectType {
    /// The repository's parameters.
    Config = 1,
    /// A pack of content.
    Data = 2,
    /// A pack of entry pages and chunk-list pages.
    Meta = 3,
    /// An index segment.
    Index = 4,
    /// A session's outcome: its snapshot, or a fence.
    Snapshot = 5,
    /// A set of snapshots.
    Set = 6,
    /// A log segment.
    Log = 7,
    /// A writer's registered activity.
    Session = 8,
    /// A collection's step.
    Collection = 9,
    /// Evidence of a verification or a drill.
    Evidence = 10,
    /// An audit record.
    Audit = 11,
}

impl ObjectType {
    /// The type with this number in an object's header.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Config,
            2 => Self::Data,
            3 => Self::Meta,
            4 => Self::Index,
            5 => Self::Snapshot,
            6 => Self::Set,
            7 => Self::Log,
            8 => Self::Session,
            9 => Self::Collection,
            10 => Self::Evidence,
            11 => Self::Audit,
            _ => return None,
        })
    }

    /// The number in an object's header.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Where a frame stands, and the bytes that must be authenticated with it.
#[derive(Debug, Clone, Copy)]
pub struct FrameContext<'a> {
    /// The repository.
    pub repository: &'a [u8; 16],
    /// The type of the object.
    pub object_type: ObjectType,
    /// The object's random salt.
    pub salt: &'a [u8; 32],
    /// The frame's number within its object: unique under the object's key.
    pub ordinal: u32,
    /// Bytes of plaintext in the frame, before every transform.
    pub plain_len: usize,
    /// How many chunks the frame holds: many short ones are small files beside each other. 0 for what is not content, and
    /// while a frame is decoded.
    pub chunks: usize,
    /// Everything above `chunks` and the object's header, in the form that the format specifies for associated data.
    pub associated_data: &'a [u8],
}

/// Whether so many chunks of so many bytes are of long content, and not small files beside each other.
pub fn is_long_content(bytes: usize, chunks: usize) -> bool {
    bytes.checked_div(chunks).unwrap_or_default() >= limits::LONG_CHUNK_BYTES
}

/// What [`Transform::encode`] decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoded {
    /// The output replaces the input.
    Applied,
    /// It does not pay: the input stands as it is, and the output is ignored.
    Skipped,
}

/// A reversible, stateless change of a frame's bytes. `decode(encode(x)) == x`, checked by the conformance suite.
pub trait Transform: fmt::Debug + Send + Sync + 'static {
    /// The name in the format: `[a-z0-9._-]`, at most 32 bytes. A user's own start with `x-`.
    fn name(&self) -> &str;

    /// Appends the changed `input` to `output`, or says that it does not pay.
    fn encode(&self, frame: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded>;

    /// Appends the original of `input` to `output`, at most `max` bytes; anything else than what `encode` made is
    /// [`ErrorKind::Corruption`]. `input` is authentic only where an authenticating transform stands after this one.
    fn decode(&self, frame: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, max: usize) -> Result<()>;
}

/// The transforms that this process can undo, by name.
#[derive(Debug, Clone)]
pub struct TransformSet(Vec<Arc<dyn Transform>>);

impl TransformSet {
    /// The built-in transforms.
    pub fn builtin() -> Self {
        Self(vec![Arc::new(Zstd::default())])
    }

    /// The same set with one more; a later one of the same name replaces the earlier.
    #[must_use]
    pub fn with(mut self, transform: Arc<dyn Transform>) -> Self {
        self.0.retain(|known| known.name() != transform.name());
        self.0.push(transform);
        self
    }

    /// The transform called `name`.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Transform>> {
        self.0.iter().find(|transform| transform.name() == name).ok_or_else(|| {
            let message = format!(
                "the transform `{name}` is not known here; register it before opening the repository"
            );
            Error::new(ErrorKind::Unsupported, message)
        })
    }
}

impl Default for TransformSet {
    fn default() -> Self {
        Self::builtin()
    }
}
