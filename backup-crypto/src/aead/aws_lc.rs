//! The fast back end: AWS-LC, which interleaves encryption and authentication in assembly.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as AwsNonce, UnboundKey};

use super::{Backend, Nonce, NotAuthentic};

pub(super) struct Cipher(LessSafeKey);

impl Backend for Cipher {
    fn new(key: &[u8; 32]) -> Result<Self, NotAuthentic> {
        UnboundKey::new(&AES_256_GCM, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| NotAuthentic)
    }

    fn seal_in_place(&self, nonce: Nonce, aad: &[u8], bytes: &mut [u8]) -> Result<[u8; 16], NotAuthentic> {
        let nonce = AwsNonce::assume_unique_for_key(nonce);
        let tag =
            self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), bytes).map_err(|_| NotAuthentic)?;
        tag.as_ref().try_into().map_err(|_| NotAuthentic)
    }

    fn open_in_place(
        &self,
        nonce: Nonce,
        aad: &[u8],
        bytes: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), NotAuthentic> {
        let nonce = AwsNonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, bytes);
        opened.map(|_| ()).map_err(|_| NotAuthentic)
    }
}
