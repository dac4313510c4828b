//! What every [`Transform`] must do, as a suite that anyone can run over their own.

use super::broken;
use crate::transform::{Encoded, FrameContext, ObjectType, Transform};
use crate::{ErrorKind, Result};

/// The object whose frames a transform is tried on. A transform that does not look at it takes the default.
#[derive(Debug, Clone, Copy)]
pub struct Object {
    /// The repository.
    pub repository: [u8; 16],
    /// The type of the object.
    pub object_type: ObjectType,
    /// The object's salt.
    pub salt: [u8; 32],
}

impl Default for Object {
    fn default() -> Self {
        Self { repository: [1; 16], object_type: ObjectType::Data, salt: [2; 32] }
    }
}

/// Checks the contract of [`Transform`] over frames of many lengths and kinds of content, and returns an error that names
/// the law that is broken:
/// - the name is one that the format can hold, and always the same;
/// - what was encoded decodes to what it was, in any order, as often as one likes, from several threads at once;
/// - both append to their output and leave alone what stands there;
/// - never more than `max` bytes are given out, and a frame that needs more is corruption;
/// - bytes that `encode` did not make never cause a panic, and an error about them is corruption.
///
/// Frames are encoded once each, with ascending ordinals, as one object's are; so the transform of a seal can be tried,
/// too: its object must be `object`, and must not be used for anything else. About 10 MiB are encoded.
///
/// ```
/// use backup_core::testing::transform::{Object, conformance};
/// use backup_core::transform::Zstd;
///
/// conformance(&Zstd::default(), &Object::default())?;
/// # Ok::<(), backup_core::Error>(())
/// ```
pub fn conformance(transform: &dyn Transform, object: &Object) -> Result<()> {
    check_name(transform)?;
    let mut frames = Vec::new();
    for (ordinal, plain) in (0_u32..).zip(contents()) {
        if let Some(encoded) = encode(transform, object, ordinal, &plain)? {
            frames.push(Frame { ordinal, plain, encoded });
        }
    }
    for frame in frames.iter().rev() {
        frame.check_round_trip(transform, object)?;
        frame.check_limit(transform, object)?;
        frame.check_damage(transform, object)?;
    }
    // After all those errors, and from several threads.
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| frames.iter().try_for_each(|frame| frame.check_round_trip(transform, object)))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(broken("no call panics", "a panic in one of several threads")))
        })
    })
}

/// A frame that the transform applied itself to.
struct Frame {
    ordinal: u32,
    plain: Vec<u8>,
    encoded: Vec<u8>,
}

/// What stands in the output before a call.
const BEFORE: &[u8] = b"what stands there";

impl Frame {
    fn decode(
        &self,
        transform: &dyn Transform,
        object: &Object,
        encoded: &[u8],
        max: usize,
    ) -> Result<Vec<u8>> {
        let mut output = BEFORE.to_vec();
        let context = context(object, self.ordinal, self.plain.len());
        let result = transform.decode(&context, encoded, &mut output, max);
        let Some(appended) = output.strip_prefix(BEFORE) else {
            return Err(broken("decode leaves alone what stands in its output", "other bytes there"));
        };
        if appended.len() > max && result.is_ok() {
            let found = format!("{} bytes where at most {max} were allowed", appended.len());
            return Err(broken("decode gives out no more than `max` bytes", found));
        }
        result.map(|()| appended.to_vec())
    }

    fn check_round_trip(&self, transform: &dyn Transform, object: &Object) -> Result<()> {
        let law = "decode gives back what was encoded";
        let decoded = self
            .decode(transform, object, &self.encoded, self.plain.len())
            .map_err(|error| broken(law, error))?;
        if decoded == self.plain {
            return Ok(());
        }
        Err(broken(law, format_args!("other bytes for a frame of {} bytes", self.plain.len())))
    }

    fn check_limit(&self, transform: &dyn Transform, object: &Object) -> Result<()> {
        let Some(max) = self.plain.len().checked_sub(1) else { return Ok(()) };
        match self.decode(transform, object, &self.encoded, max) {
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(()),
            Err(error) => Err(broken("a frame longer than `max` is corruption", error)),
            Ok(_) => Err(broken("a frame longer than `max` is corruption", "success")),
        }
    }

    fn check_damage(&self, transform: &dyn Transform, object: &Object) -> Result<()> {
        let len = self.encoded.len();
        let mut damaged = vec![Vec::new(), [&self.encoded[..], b"x"].concat()];
        for part in [len / 2, len.saturating_sub(1)] {
            damaged.push(self.encoded.get(..part).unwrap_or_default().to_vec());
        }
        for part in 0..16_usize {
            let mut flipped = self.encoded.clone();
            if let Some(byte) = flipped.get_mut(part.saturating_mul(len) / 16) {
                *byte ^= 1 << (part % 8);
            }
            damaged.push(flipped);
        }
        for bytes in damaged.iter().filter(|bytes| **bytes != self.encoded) {
            if let Err(error) = self.decode(transform, object, bytes, self.plain.len())
                && error.kind() != ErrorKind::Corruption
            {
                return Err(broken("what cannot be decoded is corruption", error));
            }
        }
        Ok(())
    }
}

fn check_name(transform: &dyn Transform) -> Result<()> {
    let name = transform.name();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 32 || !name.bytes().all(fits) {
        let found = format!("`{}`", name.escape_debug());
        return Err(broken("a name has 1 to 32 characters of [a-z0-9._-]", found));
    }
    if transform.name() == name {
        Ok(())
    } else {
        Err(broken("the name is always the same", transform.name()))
    }
}

/// The encoded bytes; none where the transform finds that it does not pay.
fn encode(transform: &dyn Transform, object: &Object, ordinal: u32, plain: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut output = BEFORE.to_vec();
    let context = context(object, ordinal, plain.len());
    let encoded = transform
        .encode(&context, plain, &mut output)
        .map_err(|error| broken(format_args!("{} bytes can be encoded", plain.len()), error))?;
    if encoded == Encoded::Skipped {
        return Ok(None);
    }
    match output.strip_prefix(BEFORE) {
        Some(appended) => Ok(Some(appended.to_vec())),
        None => Err(broken("encode leaves alone what stands in its output", "other bytes there")),
    }
}

fn context(object: &Object, ordinal: u32, plain_len: usize) -> FrameContext<'_> {
    FrameContext {
        chunks: 1,
        repository: &object.repository,
        object_type: object.object_type,
        salt: &object.salt,
        ordinal,
        plain_len,
        associated_data: b"associated data",
    }
}

/// Contents of every kind, of lengths around those at which things go wrong.
fn contents() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for len in [0, 1, 2, 15, 16, 17, 255, 4096, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1] {
        let mut noise = vec![0; len];
        blake3::Hasher::new_keyed(&[7; 32]).update(&len.to_le_bytes()).finalize_xof().fill(&mut noise);
        let text =
            b"the quick brown fox jumps over the lazy dog, ".iter().copied().cycle().take(len).collect();
        let mut half = noise.clone();
        half.iter_mut().take(len / 2).for_each(|byte| *byte = 0);
        all.extend([vec![0; len], noise, text, half]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::transform::Zstd;

    #[test]
    fn zstd_passes_at_every_level() {
        for level in [-3, 1, 3, 9] {
            conformance(&Zstd::new(level).unwrap(), &Object::default()).unwrap();
        }
    }

    /// Keeps bytes as they are, apart from one fault.
    #[derive(Debug)]
    struct Faulty(&'static str);

    impl Transform for Faulty {
        fn name(&self) -> &str {
            if self.0 == "name" { "X" } else { "x-faulty" }
        }

        fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
            if self.0 == "clears" {
                output.clear();
            }
            output.extend_from_slice(input);
            Ok(Encoded::Applied)
        }

        fn decode(
            &self,
            frame: &FrameContext<'_>,
            input: &[u8],
            output: &mut Vec<u8>,
            max: usize,
        ) -> Result<()> {
            if input.len() > max && self.0 != "limit" {
                let error = Error::corruption("longer than it claims");
                return Err(if self.0 == "kind" { error.with_kind(ErrorKind::Io) } else { error });
            }
            output.extend_from_slice(input);
            match self.0 {
                "last" if frame.plain_len == 4096 => output.pop().map(|_| ()),
                "overwrites" => output.first_mut().map(|byte| *byte = 0),
                _ => None,
            };
            Ok(())
        }
    }

    #[test]
    fn every_law_is_looked_at() {
        conformance(&Faulty("nothing"), &Object::default()).unwrap();
        for (fault, law) in [
            ("name", "a name has"),
            ("clears", "encode leaves alone"),
            ("overwrites", "decode leaves alone"),
            ("last", "decode gives back"),
            ("limit", "no more than `max`"),
            ("kind", "longer than `max` is corruption"),
        ] {
            let error = conformance(&Faulty(fault), &Object::default()).unwrap_err().to_string();
            assert!(error.contains(law), "{fault}: {error}");
        }
    }
}
