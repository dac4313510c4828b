//! The back end in pure Rust: the `aes-gcm` crate, with AES-NI and carry-less multiplication where the processor has
//! them.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

use super::{Backend, Nonce, NotAuthentic};

pub(super) struct Cipher(Aes256Gcm);

impl Backend for Cipher {
    fn new(key: &[u8; 32]) -> Result<Self, NotAuthentic> {
        Ok(Self(Aes256Gcm::new(key.into())))
    }

    fn seal_in_place(&self, nonce: Nonce, aad: &[u8], bytes: &mut [u8]) -> Result<[u8; 16], NotAuthentic> {
        let tag = self.0.encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(bytes));
        tag.map(Into::into).map_err(|_| NotAuthentic)
    }

    fn open_in_place(
        &self,
        nonce: Nonce,
        aad: &[u8],
        bytes: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), NotAuthentic> {
        let opened = self.0.decrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(bytes), tag.into());
        opened.map_err(|_| NotAuthentic)
    }
}
