//! Encryption for the backup engine: who can open a repository, which keys follow from that, and AES-256-GCM.
//!
//! ```
//! use std::sync::Arc;
//! use backup_core::{JobContext, Protection, Sink};
//! use backup_crypto::{Keyring, Recipient};
//!
//! # async fn example(sink: Arc<dyn Sink>) -> backup_core::Result<()> {
//! let job = JobContext::new();
//! let recipient = Recipient::passphrase("correct horse battery staple".to_owned())?.with_label("ops")?;
//! // Once, for a new repository:
//! let keyring: Arc<dyn Protection> = Keyring::create(&sink, &[recipient.clone()], &job).await?;
//! // Ever after:
//! let keyring: Arc<dyn Protection> = Keyring::unlock(&sink, &[recipient], &job).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it holds together
//! - A [`Recipient`] is someone who can open a repository: a passphrase or a key file.
//! - A **key slot** wraps the repository's secrets for one recipient and one epoch. [`Keyring::create`] writes the first,
//!   [`Keyring::add_recipient`] more, [`Keyring::unlock`] opens what it can.
//! - The [`Keyring`] is the engine's [`Protection`](backup_core::Protection): it names chunks with a keyed hash, and gives
//!   each object a cipher, [`AesGcm`], under a key of its own. [`hierarchy`] says how every key follows from the secrets.
//!
//! # Key slots
//! The object `keys/<epoch>/<recipient id>` has two lines: a JSON document, and a code that authenticates every byte of it to
//! all holders of the epoch's secret. The repository's `FORMAT.md` specifies both.
//!
//! # Features
//! - `aws-lc`: seals and opens with AWS-LC instead of the pure-Rust `aes-gcm`. The bytes are the same, the speed is a multiple.
//! - `seal-log`: for tests. Records every seal and makes a repeated pair of key and nonce an error.

mod aead;
mod aes_gcm;
pub mod hierarchy;
mod identity;
mod keyring;
pub mod limits;
mod passphrase;
mod recipient;
#[cfg(feature = "seal-log")]
pub mod seal_log;
mod secret;
mod slot;

pub use aes_gcm::AesGcm;
pub use identity::ChunkIdFunction;
pub use keyring::{Keyring, KeyringOptions, RecipientInfo, list_recipients};
pub use passphrase::PassphraseCost;
pub use recipient::{Recipient, generate_key_file};
pub use slot::RecipientId;
