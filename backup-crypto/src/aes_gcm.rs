//! AES-256-GCM as the sealing transform of one object.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::{Encoded, Error, FrameContext, ObjectType, RepositoryId, Result, Transform};

use crate::aead::{Aead, Nonce};
use crate::secret::Secret;

/// Seals or opens the frames of one object, under the key that derives from the object's salt.
///
/// A sealed frame is the ciphertext followed by the 16-byte tag. The nonce is the frame's ordinal: eight zero bytes, then
/// the ordinal as a 32-bit big-endian number; the associated data is [`FrameContext::associated_data`]. As every object has a
/// key of its own, no nonce is ever used twice under one key as long as no ordinal is: a sealer takes each ordinal
/// once, in rising order, and an error ends it for good: its object is given up, and the salt with it. An opener never
/// seals.
///
/// It is made by [`Keyring`](crate::Keyring) alone, one per object; there is no way to make one from a bare key.
pub struct AesGcm {
    aead: Aead,
    repository: RepositoryId,
    object_type: ObjectType,
    salt: [u8; 32],
    // The lowest ordinal that may still be sealed; NEVER once the object is closed to sealing.
    next: AtomicU64,
}

/// Beyond every ordinal.
const NEVER: u64 = u64::MAX;

impl AesGcm {
    /// The name in the format.
    pub const NAME: &'static str = "aes-256-gcm";

    /// Bytes that a sealed frame is longer than what was sealed.
    pub const OVERHEAD_BYTES: usize = crate::aead::TAG_BYTES;

    /// Seals (and reads back) the object with this fresh salt.
    pub(crate) fn sealer(
        key: &Secret,
        repository: RepositoryId,
        object_type: ObjectType,
        salt: [u8; 32],
    ) -> Result<Self> {
        Ok(Self { aead: Aead::new(key)?, repository, object_type, salt, next: AtomicU64::new(0) })
    }

    /// Opens an object that exists.
    pub(crate) fn opener(
        key: &Secret,
        repository: RepositoryId,
        object_type: ObjectType,
        salt: [u8; 32],
    ) -> Result<Self> {
        Ok(Self { next: AtomicU64::new(NEVER), ..Self::sealer(key, repository, object_type, salt)? })
    }

    fn check_object(&self, frame: &FrameContext<'_>) -> Result<()> {
        let same = *frame.repository == self.repository.0
            && frame.object_type == self.object_type
            && *frame.salt == self.salt;
        if same { Ok(()) } else { Err(Error::internal("a frame was given to the cipher of another object")) }
    }

    /// Takes `ordinal` for this call alone.
    fn claim(&self, ordinal: u32) -> Result<()> {
        let ordinal = u64::from(ordinal);
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            if ordinal >= next { ordinal.checked_add(1) } else { None }
        });
        taken.map(|_| ()).map_err(|next| {
            Error::internal(if next == NEVER {
                "the object is not open to sealing: it was read from the store, or sealing it failed before"
                    .to_owned()
            } else {
                format!("frame {ordinal} was to be sealed after a frame of that number or a higher one")
            })
        })
    }
}

impl Transform for AesGcm {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn encode(&self, frame: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        let sealed = self
            .check_object(frame)
            .and_then(|()| self.claim(frame.ordinal))
            .and_then(|()| self.aead.seal(nonce(frame.ordinal), frame.associated_data, input, output));
        match sealed {
            Ok(()) => Ok(Encoded::Applied),
            Err(error) => {
                self.next.store(NEVER, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn decode(&self, frame: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, max: usize) -> Result<()> {
        self.check_object(frame)?;
        if input.len().saturating_sub(Self::OVERHEAD_BYTES) > max {
            return Err(Error::corruption(format!("frame {} is longer than it claims", frame.ordinal)));
        }
        let opened = self.aead.open(nonce(frame.ordinal), frame.associated_data, input, output);
        opened.map_err(|_| Error::corruption(format!("frame {} is not what was sealed", frame.ordinal)))
    }
}

impl fmt::Debug for AesGcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AesGcm").field("object_type", &self.object_type).finish_non_exhaustive()
    }
}

fn nonce(ordinal: u32) -> Nonce {
    let [a, b, c, d] = ordinal.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use backup_core::{ErrorKind, SystemRandom};
    use proptest::prelude::*;

    use super::*;

    const REPOSITORY: RepositoryId = RepositoryId([1; 16]);
    const SALT: [u8; 32] = [2; 32];

    /// A sealer and an opener under a key of their own: the seal log of the whole test run must find no repeats.
    fn pair() -> (AesGcm, AesGcm) {
        let key = Secret::random(&SystemRandom).unwrap();
        let sealer = AesGcm::sealer(&key, REPOSITORY, ObjectType::Data, SALT).unwrap();
        (sealer, AesGcm::opener(&key, REPOSITORY, ObjectType::Data, SALT).unwrap())
    }

    fn frame(ordinal: u32, associated_data: &[u8]) -> FrameContext<'_> {
        FrameContext {
            chunks: 1,
            repository: &REPOSITORY.0,
            object_type: ObjectType::Data,
            salt: &SALT,
            ordinal,
            plain_len: 0,
            associated_data,
        }
    }

    #[test]
    fn trap_9_an_ordinal_is_sealed_once_and_in_rising_order_only() {
        let (sealer, _) = pair();
        let seal = |sealer: &AesGcm, ordinal| sealer.encode(&frame(ordinal, b""), b"x", &mut Vec::new());
        seal(&sealer, 0).unwrap();
        seal(&sealer, 1).unwrap();
        // Gaps are fine: a directory may stand at the highest ordinal.
        seal(&sealer, u32::MAX).unwrap();
        let error = seal(&sealer, u32::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("after a frame of that number or a higher one"), "{error}");

        let (sealer, _) = pair();
        seal(&sealer, 5).unwrap();
        assert!(seal(&sealer, 4).is_err());
        assert!(seal(&sealer, 6).is_err(), "an error discards the object and its salt");
    }

    #[test]
    fn trap_9_of_racing_seals_of_one_ordinal_at_most_one_succeeds() {
        for _ in 0..50 {
            let (sealer, _) = pair();
            let sealed: usize = std::thread::scope(|scope| {
                let tasks: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| sealer.encode(&frame(0, b""), b"x", &mut Vec::new()).is_ok()))
                    .collect();
                tasks.into_iter().map(|task| usize::from(task.join().unwrap())).sum()
            });
            assert_eq!(sealed, 1);
        }
    }

    #[test]
    fn it_keeps_the_contract_of_transforms() {
        use backup_core::testing::transform::{Object, conformance};

        let object = Object { repository: REPOSITORY.0, object_type: ObjectType::Data, salt: SALT };
        conformance(&pair().0, &object).unwrap();
    }

    #[test]
    fn an_opener_never_seals() {
        let (_, opener) = pair();
        let error = opener.encode(&frame(0, b""), b"x", &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("not open to sealing"), "{error}");
    }

    #[test]
    fn the_frame_of_another_object_is_refused_before_it_is_sealed() {
        let others: [fn(&mut FrameContext<'static>); 3] = [
            |frame| frame.repository = &[9; 16],
            |frame| frame.object_type = ObjectType::Meta,
            |frame| frame.salt = &[9; 32],
        ];
        for change in others {
            let (sealer, opener) = pair();
            let mut wrong = frame(0, b"");
            change(&mut wrong);
            assert_eq!(sealer.encode(&wrong, b"x", &mut Vec::new()).unwrap_err().kind(), ErrorKind::Internal);
            // It is the caller's mistake, and no damage of the object.
            let error = opener.decode(&wrong, &[0; 40], &mut Vec::new(), 40).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
        }
    }

    #[test]
    fn every_changed_bit_and_every_truncation_is_detected_and_nothing_is_released() {
        let (sealer, opener) = pair();
        let mut sealed = Vec::new();
        sealer.encode(&frame(3, b"aad"), b"a small frame of plaintext", &mut sealed).unwrap();
        let refused = |bytes: &[u8]| {
            let mut output = b"kept".to_vec();
            let error = opener.decode(&frame(3, b"aad"), bytes, &mut output, 1000).unwrap_err();
            assert!(error.is_corruption());
            assert_eq!(output, b"kept");
        };
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(&changed);
        }
        for len in 0..sealed.len() {
            refused(&sealed[..len]);
        }
        refused(&[&sealed[..], b"\0"].concat());
        let mut output = Vec::new();
        opener.decode(&frame(3, b"aad"), &sealed, &mut output, 1000).unwrap();
        assert_eq!(output, b"a small frame of plaintext");
    }

    #[test]
    fn trap_21_a_frame_longer_than_it_claims_is_refused_before_it_is_opened() {
        let (sealer, opener) = pair();
        let mut sealed = Vec::new();
        sealer.encode(&frame(0, b""), &[7; 100], &mut sealed).unwrap();
        let mut output = Vec::new();
        assert!(opener.decode(&frame(0, b""), &sealed, &mut output, 99).unwrap_err().is_corruption());
        assert_eq!(output.capacity(), 0);
        opener.decode(&frame(0, b""), &sealed, &mut output, 100).unwrap();
    }

    proptest! {
        #[test]
        fn decode_undoes_encode_and_needs_the_same_place(
            plain in proptest::collection::vec(any::<u8>(), 0..3000),
            aad in proptest::collection::vec(any::<u8>(), 0..100),
            other_aad in proptest::collection::vec(any::<u8>(), 0..100),
            ordinal: u32,
            other_ordinal: u32,
        ) {
            let (sealer, opener) = pair();
            let mut sealed = Vec::new();
            prop_assert_eq!(sealer.encode(&frame(ordinal, &aad), &plain, &mut sealed).unwrap(), Encoded::Applied);
            prop_assert_eq!(sealed.len(), plain.len() + AesGcm::OVERHEAD_BYTES);
            for reader in [&opener, &sealer] {
                let mut back = Vec::new();
                reader.decode(&frame(ordinal, &aad), &sealed, &mut back, plain.len()).unwrap();
                prop_assert_eq!(&back, &plain);
            }
            let mut back = Vec::new();
            if other_aad != aad {
                prop_assert!(opener.decode(&frame(ordinal, &other_aad), &sealed, &mut back, plain.len()).is_err());
            }
            if other_ordinal != ordinal {
                prop_assert!(opener.decode(&frame(other_ordinal, &aad), &sealed, &mut back, plain.len()).is_err());
            }
            prop_assert!(back.is_empty());
        }
    }
}
