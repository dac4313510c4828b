//! AES-256-GCM (NIST SP 800-38D) with 96-bit nonces and 128-bit tags, over whichever back end is built in.
//!
//! Every seal of this crate goes through [`Aead::seal`], so that the seal log misses none.

use backup_core::{Error, Result};
use zeroize::Zeroize;

use crate::secret::Secret;

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(test, not(feature = "aws-lc")))]
mod rust_crypto;

#[cfg(feature = "aws-lc")]
use self::aws_lc::Cipher;
#[cfg(not(feature = "aws-lc"))]
use self::rust_crypto::Cipher;

/// Bytes that a seal is longer than its plaintext.
pub(crate) const TAG_BYTES: usize = 16;

/// A 96-bit nonce.
pub(crate) type Nonce = [u8; 12];

/// A key with its schedule set up.
pub(crate) struct Aead {
    cipher: Cipher,
    #[cfg(feature = "seal-log")]
    key_digest: [u8; 32],
}

impl Aead {
    pub(crate) fn new(key: &Secret) -> Result<Self> {
        Ok(Self {
            cipher: Cipher::new(&key.0).map_err(|_| Error::internal("the cipher refused its key"))?,
            #[cfg(feature = "seal-log")]
            key_digest: <sha2::Sha256 as sha2::Digest>::digest(key.0).into(),
        })
    }

    /// Appends ciphertext and tag to `output`; on an error `output` is as it was.
    pub(crate) fn seal(&self, nonce: Nonce, aad: &[u8], plain: &[u8], output: &mut Vec<u8>) -> Result<()> {
        #[cfg(feature = "seal-log")]
        crate::seal_log::record(&self.key_digest, &nonce)?;
        seal_with(&self.cipher, nonce, aad, plain, output)
    }

    /// Appends the plaintext of `sealed` to `output`. Nothing that is not authentic is left in `output`'s memory.
    pub(crate) fn open(
        &self,
        nonce: Nonce,
        aad: &[u8],
        sealed: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        open_with(&self.cipher, nonce, aad, sealed, output)
    }
}

/// What was to be opened was not sealed under this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// What a back end does, in place and with the tag apart.
trait Backend: Sized {
    fn new(key: &[u8; 32]) -> Result<Self, NotAuthentic>;
    fn seal_in_place(&self, nonce: Nonce, aad: &[u8], bytes: &mut [u8]) -> Result<[u8; 16], NotAuthentic>;
    fn open_in_place(
        &self,
        nonce: Nonce,
        aad: &[u8],
        bytes: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), NotAuthentic>;
}

fn seal_with(
    cipher: &impl Backend,
    nonce: Nonce,
    aad: &[u8],
    plain: &[u8],
    output: &mut Vec<u8>,
) -> Result<()> {
    let start = output.len();
    output.reserve(plain.len().saturating_add(TAG_BYTES));
    output.extend_from_slice(plain);
    let sealed = match output.get_mut(start..) {
        Some(bytes) => cipher.seal_in_place(nonce, aad, bytes),
        None => Err(NotAuthentic),
    };
    match sealed {
        Ok(tag) => output.extend_from_slice(&tag),
        Err(NotAuthentic) => {
            wipe(output, start);
            return Err(Error::internal("the cipher refused to seal a frame"));
        }
    }
    Ok(())
}

fn open_with(
    cipher: &impl Backend,
    nonce: Nonce,
    aad: &[u8],
    sealed: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), NotAuthentic> {
    let (bytes, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(NotAuthentic)?;
    let start = output.len();
    output.extend_from_slice(bytes);
    let opened = match output.get_mut(start..) {
        Some(bytes) => cipher.open_in_place(nonce, aad, bytes, tag),
        None => Err(NotAuthentic),
    };
    if opened.is_err() {
        wipe(output, start);
    }
    opened
}

/// Cuts `output` back to `start` and overwrites what stood there: a back end that decrypts before it has checked the
/// tag leaves nothing for a later reader of the buffer.
fn wipe(output: &mut Vec<u8>, start: usize) {
    if let Some(bytes) = output.get_mut(start..) {
        bytes.zeroize();
    }
    output.truncate(start);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // NIST CAVP gcmEncryptExtIV256 and the GCM specification's test cases 13 to 16: key, nonce, associated data,
    // plaintext, ciphertext with tag.
    const VECTORS: [[&str; 5]; 4] = [
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "",
            "530f8afbc74536b9a963b4f1c4cb738b",
        ],
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "00000000000000000000000000000000",
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
        ],
        [
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad\
             b094dac5d93471bdec1a502270e3cc6c",
        ],
        [
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662\
             76fc6ece0f4e1768cddf8853bb2d551b",
        ],
    ];

    fn check_vectors<B: Backend>() {
        for vector in VECTORS {
            let [key, nonce, aad, plain, sealed] = vector.map(|text| hex::decode(text).unwrap());
            let cipher = B::new(&key.try_into().unwrap()).unwrap();
            let nonce: Nonce = nonce.try_into().unwrap();
            let mut output = b"before".to_vec();
            seal_with(&cipher, nonce, &aad, &plain, &mut output).unwrap();
            assert_eq!(hex::encode(&output[6..]), hex::encode(&sealed));
            let mut back = b"before".to_vec();
            open_with(&cipher, nonce, &aad, &sealed, &mut back).unwrap();
            assert_eq!(&back[6..], &plain[..]);
        }
    }

    fn check_refusal<B: Backend>() {
        let cipher = B::new(&[3; 32]).unwrap();
        let mut sealed = Vec::new();
        seal_with(&cipher, [1; 12], b"aad", b"a plaintext of some length", &mut sealed).unwrap();
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            let mut output = b"kept".to_vec();
            output.reserve(64);
            assert_eq!(open_with(&cipher, [1; 12], b"aad", &changed, &mut output), Err(NotAuthentic));
            assert_eq!(output, b"kept");
        }
        for len in 0..sealed.len() {
            let mut output = Vec::new();
            assert_eq!(open_with(&cipher, [1; 12], b"aad", &sealed[..len], &mut output), Err(NotAuthentic));
            assert!(output.is_empty());
        }
    }

    #[test]
    fn pure_rust_agrees_with_nist() {
        check_vectors::<rust_crypto::Cipher>();
        check_refusal::<rust_crypto::Cipher>();
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn aws_lc_agrees_with_nist() {
        check_vectors::<aws_lc::Cipher>();
        check_refusal::<aws_lc::Cipher>();
    }

    proptest! {
        #[cfg(feature = "aws-lc")]
        #[test]
        fn both_back_ends_make_the_same_bytes_and_read_each_other(
            key: [u8; 32],
            nonce: Nonce,
            aad in proptest::collection::vec(any::<u8>(), 0..200),
            plain in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let (rust, aws) = (rust_crypto::Cipher::new(&key).unwrap(), aws_lc::Cipher::new(&key).unwrap());
            let (mut by_rust, mut by_aws) = (Vec::new(), Vec::new());
            seal_with(&rust, nonce, &aad, &plain, &mut by_rust).unwrap();
            seal_with(&aws, nonce, &aad, &plain, &mut by_aws).unwrap();
            prop_assert_eq!(&by_rust, &by_aws);
            let (mut from_rust, mut from_aws) = (Vec::new(), Vec::new());
            open_with(&rust, nonce, &aad, &by_aws, &mut from_rust).unwrap();
            open_with(&aws, nonce, &aad, &by_rust, &mut from_aws).unwrap();
            prop_assert_eq!(&from_rust, &plain);
            prop_assert_eq!(&from_aws, &plain);
        }

        #[test]
        fn what_was_sealed_opens_and_nothing_before_it_is_touched(
            key: [u8; 32],
            nonce: Nonce,
            aad in proptest::collection::vec(any::<u8>(), 0..100),
            plain in proptest::collection::vec(any::<u8>(), 0..2000),
            before in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let cipher = Cipher::new(&key).unwrap();
            let mut sealed = before.clone();
            seal_with(&cipher, nonce, &aad, &plain, &mut sealed).unwrap();
            prop_assert_eq!(sealed.len(), before.len() + plain.len() + TAG_BYTES);
            prop_assert_eq!(&sealed[..before.len()], &before[..]);
            let mut back = before.clone();
            open_with(&cipher, nonce, &aad, &sealed[before.len()..], &mut back).unwrap();
            prop_assert_eq!(&back[before.len()..], &plain[..]);
        }
    }
}
