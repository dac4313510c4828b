//! The form of a slot: two lines, each ended by 0x0A.
//!
//! The first is a JSON document (RFC 8259), whose only secret is inside `wrapped`; the second is `mac `, then
//! HMAC-SHA256 of the first line with its line end under the epoch's slot MAC key, in lower-case hexadecimal. So whoever
//! has the epoch's secret, by whichever slot, can tell that every byte of every slot of the epoch is as it was made.

use backup_core::{Error, ErrorKind, RepositoryId, Result, Timestamp};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{RecipientId, SlotName};
use crate::hierarchy;
use crate::limits::{LABEL_BYTES_MAX, SLOT_BYTES_MAX};
use crate::passphrase::PassphraseCost;
use crate::secret::Secret;

/// The version of this form.
pub(crate) const FORMAT: u32 = 1;

/// What this object is.
pub(crate) const TYPE: &str = "key-slot";

/// The first line of a slot of a kind that this version knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) format: u32,
    #[serde(rename = "type")]
    pub(crate) object: String,
    pub(crate) repository: RepositoryId,
    pub(crate) epoch: u32,
    pub(crate) recipient: RecipientPart,
    pub(crate) kdf: Kdf,
    #[serde(with = "hex_bytes")]
    pub(crate) commitment: [u8; 32],
    pub(crate) wrapped: String,
}

/// Whom a slot is for. Readable by anyone who reads the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipientPart {
    pub(crate) id: RecipientId,
    pub(crate) kind: String,
    pub(crate) label: String,
    pub(crate) created: Timestamp,
}

/// How a recipient's means become the slot key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Kdf {
    /// For passphrases.
    Argon2id {
        #[serde(with = "hex_bytes")]
        salt: [u8; 32],
        cost: PassphraseCost,
    },
    /// For key files.
    HkdfSha256 {
        #[serde(with = "hex_bytes")]
        salt: [u8; 32],
    },
}

impl Kdf {
    pub(crate) fn salt(&self) -> &[u8; 32] {
        match self {
            Self::Argon2id { salt, .. } | Self::HkdfSha256 { salt } => salt,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Argon2id { .. } => "passphrase",
            Self::HkdfSha256 { .. } => "key-file",
        }
    }
}

/// What every slot says, of whatever kind.
#[derive(Debug, Clone, Deserialize)]
struct Envelope {
    format: u32,
    #[serde(rename = "type")]
    object: String,
    repository: RepositoryId,
    epoch: u32,
    recipient: RecipientPart,
}

/// A slot as read, before anything about it is known to be authentic.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// The repository that the slot says it belongs to.
    pub(crate) repository: RepositoryId,
    pub(crate) recipient: RecipientPart,
    /// `None` for kinds that this version does not know.
    pub(crate) document: Option<Document>,
    line: Vec<u8>,
    mac_line: Vec<u8>,
}

impl Slot {
    /// Reads the slot that stands at `name`. Costs out of bounds are refused here, before anyone pays them.
    pub(crate) fn parse(name: SlotName, bytes: &[u8]) -> Result<Self> {
        let (line, mac_line) = split(bytes)?;
        let envelope: Envelope = serde_json::from_slice(line).map_err(|e| not_a_document(&e))?;
        if envelope.object != TYPE {
            return Err(Error::corruption("the object is not a key slot"));
        }
        if envelope.format != FORMAT {
            let message = format!("the key slot has format {}; this version reads {FORMAT}", envelope.format);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let said = SlotName { epoch: envelope.epoch, recipient: envelope.recipient.id };
        if said != name {
            return Err(Error::corruption(
                "the key slot belongs to another epoch or recipient than its key says",
            ));
        }
        let label = &envelope.recipient.label;
        if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
            return Err(Error::corruption("the key slot's label is not what a label may be"));
        }
        let document = match envelope.recipient.kind.as_str() {
            "passphrase" | "key-file" => {
                let document: Document = serde_json::from_slice(line).map_err(|e| not_a_document(&e))?;
                if document.kdf.kind() != document.recipient.kind {
                    return Err(Error::corruption("the key slot's key derivation does not fit its kind"));
                }
                Some(document)
            }
            _ => None,
        };
        let Envelope { repository, recipient, .. } = envelope;
        Ok(Self { repository, recipient, document, line: line.to_vec(), mac_line: mac_line.to_vec() })
    }

    /// Checks that every byte is as a holder of the epoch's secret made it.
    pub(crate) fn check_mac(
        &self,
        epoch_secret: &Secret,
        repository: RepositoryId,
        epoch: u32,
    ) -> Result<()> {
        check_mac(&self.line, &self.mac_line, epoch_secret, repository, epoch)
    }
}

/// Checks that the slot at `name` is, byte for byte, what a holder of the epoch's secret made for that name in that
/// repository.
pub(crate) fn check(
    name: SlotName,
    bytes: &[u8],
    epoch_secret: &Secret,
    repository: RepositoryId,
) -> Result<()> {
    // Before anything is parsed: what is not authentic is damage, whatever it says.
    let (line, mac_line) = split(bytes)?;
    check_mac(line, mac_line, epoch_secret, repository, name.epoch)?;
    if Slot::parse(name, bytes)?.repository == repository {
        Ok(())
    } else {
        Err(Error::corruption("the key slot belongs to another repository"))
    }
}

/// The bytes of a slot.
pub(crate) fn write(document: &Document, epoch_secret: &Secret) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(document)
        .map_err(|e| Error::internal("a key slot could not be written as JSON").with_source(e))?;
    bytes.push(b'\n');
    let mac_line = mac_line(&bytes, epoch_secret, document.repository, document.epoch)?;
    bytes.extend_from_slice(mac_line.as_bytes());
    Ok(bytes)
}

/// The first line with its end, and the rest.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    if bytes.len() > SLOT_BYTES_MAX {
        return Err(Error::corruption(format!("the key slot is longer than {SLOT_BYTES_MAX} bytes")));
    }
    let end = bytes.iter().position(|&byte| byte == b'\n').and_then(|end| end.checked_add(1));
    end.and_then(|end| bytes.split_at_checked(end))
        .ok_or_else(|| Error::corruption("the key slot does not have two lines"))
}

fn check_mac(
    line: &[u8],
    mac: &[u8],
    epoch_secret: &Secret,
    repository: RepositoryId,
    epoch: u32,
) -> Result<()> {
    let expected = mac_line(line, epoch_secret, repository, epoch)?;
    if bool::from(expected.as_bytes().ct_eq(mac)) {
        Ok(())
    } else {
        Err(Error::corruption("the key slot is not as it was made: its authentication code does not fit"))
    }
}

pub(crate) fn mac_line(
    line: &[u8],
    epoch_secret: &Secret,
    repository: RepositoryId,
    epoch: u32,
) -> Result<String> {
    let key = hierarchy::slot_mac_key(epoch_secret, repository, epoch)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0)
        .map_err(|_| Error::internal("HMAC refused a key of 32 bytes"))?;
    mac.update(line);
    Ok(format!("mac {}\n", hex::encode(mac.finalize().into_bytes())))
}

/// What a parser said of untrusted text, made safe to show.
fn not_a_document(error: &serde_json::Error) -> Error {
    let said: String = error.to_string().chars().take(200).flat_map(char::escape_debug).collect();
    Error::corruption(format!("the first line is not that of a key slot: {said}"))
}

/// Bytes as lower-case hexadecimal.
mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| serde::de::Error::custom("64 hexadecimal digits are expected"))?;
        Ok(bytes)
    }
}
