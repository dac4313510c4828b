//! Whom a repository's secrets are wrapped for: passphrases and key files.

use std::fmt;

use backup_core::{Error, ErrorKind, Random, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::limits::{LABEL_BYTES_MAX, PASSPHRASE_BYTES_MAX};
use crate::passphrase::PassphraseCost;
use crate::secret::Secret;

/// Someone who can open a repository, by what they know or hold.
///
/// ```
/// use backup_crypto::{Recipient, generate_key_file};
///
/// let alice = Recipient::passphrase("correct horse battery staple".to_owned())?.with_label("alice")?;
/// let contents = generate_key_file(&backup_core::SystemRandom)?;
/// let vault = Recipient::key_file(contents.as_bytes())?;
/// assert_eq!(vault.kind(), "key-file");
/// assert!(!format!("{alice:?}").contains("horse"));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Recipient {
    label: String,
    pub(crate) means: Means,
}

/// What a recipient opens its slots with. Later kinds (public keys, key management services, commands) come here.
#[derive(Clone)]
pub(crate) enum Means {
    Passphrase(Zeroizing<Vec<u8>>, PassphraseCost),
    KeyFile(Secret),
}

impl Recipient {
    /// Someone who knows `passphrase`, byte for byte. An empty one is refused.
    pub fn passphrase(passphrase: impl Into<Zeroizing<String>>) -> Result<Self> {
        let text: Zeroizing<String> = passphrase.into();
        Self::from_passphrase_bytes(text.as_bytes())
    }

    /// Someone who knows the passphrase that a file holds: all of `contents` but one line end at their end, if there
    /// is one.
    pub fn passphrase_file(contents: &[u8]) -> Result<Self> {
        let line = contents.strip_suffix(b"\n").unwrap_or(contents);
        Self::from_passphrase_bytes(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Someone who holds a key file with these contents: 32 bytes in base64 (RFC 4648, with padding), then nothing or
    /// a line end. [`generate_key_file`] makes one.
    pub fn key_file(contents: &[u8]) -> Result<Self> {
        let wrong = || {
            let message = "a key file holds 32 random bytes in base64 and nothing else; this one does not";
            Error::new(ErrorKind::InvalidInput, message)
        };
        let text = contents.trim_ascii_end();
        // A byte of room beyond the secret, as a wrong file may hold more.
        let mut bytes = Zeroizing::new([0_u8; 33]);
        if text.len() != 44 {
            return Err(wrong());
        }
        let len = STANDARD.decode_slice(text, &mut *bytes).map_err(|_| wrong())?;
        let mut secret = Secret::zero();
        let decoded = bytes.get(..len).filter(|decoded| decoded.len() == secret.0.len()).ok_or_else(wrong)?;
        secret.0.copy_from_slice(decoded);
        Ok(Self { label: String::new(), means: Means::KeyFile(secret) })
    }

    /// The same recipient with a name for listings, which anyone who reads the store can read.
    pub fn with_label(mut self, label: impl Into<String>) -> Result<Self> {
        let label = label.into();
        if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
            let message = format!("a label has at most {LABEL_BYTES_MAX} bytes and no control characters");
            return Err(Error::invalid_input(message));
        }
        self.label = label;
        Ok(self)
    }

    /// The same recipient with another cost of guessing, if it is a passphrase. It matters when a slot is made; a slot
    /// that exists says its own.
    #[must_use]
    pub fn with_cost(mut self, cost: PassphraseCost) -> Self {
        if let Means::Passphrase(_, own) = &mut self.means {
            *own = cost;
        }
        self
    }

    /// The name for listings; empty if none was given.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The kind in the format: `passphrase` or `key-file`; later versions add more.
    pub fn kind(&self) -> &'static str {
        match self.means {
            Means::Passphrase(..) => "passphrase",
            Means::KeyFile(_) => "key-file",
        }
    }

    fn from_passphrase_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() || bytes.len() > PASSPHRASE_BYTES_MAX {
            let message =
                format!("a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes; this one has {}", bytes.len());
            return Err(Error::invalid_input(message));
        }
        let secret = Zeroizing::new(bytes.to_vec());
        Ok(Self { label: String::new(), means: Means::Passphrase(secret, PassphraseCost::default()) })
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient")
            .field("kind", &self.kind())
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

/// The contents of a new key file: 32 random bytes in base64, and a line end. Whoever has them has the repository: write
/// them to a file that only its owner can read, and keep a copy apart from the backups.
pub fn generate_key_file(random: &dyn Random) -> Result<Zeroizing<String>> {
    let secret = Secret::random(random)?;
    // Room for all of it, so that nothing is moved and left behind.
    let mut text = Zeroizing::new(String::with_capacity(64));
    STANDARD.encode_string(secret.0, &mut text);
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use backup_core::SystemRandom;

    use super::*;

    fn key_file_secret(contents: &[u8]) -> Result<[u8; 32]> {
        match &Recipient::key_file(contents)?.means {
            Means::KeyFile(secret) => Ok(secret.0),
            Means::Passphrase(..) => unreachable!(),
        }
    }

    #[test]
    fn a_generated_key_file_reads_back_with_any_line_end() {
        let contents = generate_key_file(&SystemRandom).unwrap();
        let secret = key_file_secret(contents.as_bytes()).unwrap();
        assert_eq!(format!("{}\n", STANDARD.encode(secret)), *contents);
        assert_eq!(key_file_secret(contents.trim_end().as_bytes()).unwrap(), secret);
        assert_eq!(key_file_secret(format!("{}\r\n", contents.trim_end()).as_bytes()).unwrap(), secret);
    }

    #[test]
    fn what_is_no_key_file_is_refused_without_repeating_it() {
        let short = STANDARD.encode([1; 31]);
        let long = STANDARD.encode([1; 33]);
        let unpadded = STANDARD.encode([1; 32]).replace('=', "");
        let leading = format!(" {}", STANDARD.encode([1; 32]));
        for contents in ["", "\n", "hunter2", &short, &long, &unpadded, &leading] {
            let error = Recipient::key_file(contents.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(contents.trim().is_empty() || !error.to_string().contains(contents.trim()));
        }
    }

    #[test]
    fn a_passphrase_file_ends_before_its_one_line_end() {
        let bytes = |contents: &[u8]| match Recipient::passphrase_file(contents).unwrap().means {
            Means::Passphrase(bytes, _) => bytes.to_vec(),
            Means::KeyFile(_) => unreachable!(),
        };
        assert_eq!(bytes(b"pass phrase"), b"pass phrase");
        assert_eq!(bytes(b"pass phrase\n"), b"pass phrase");
        assert_eq!(bytes(b"pass phrase\r\n"), b"pass phrase");
        assert_eq!(bytes(b" pass \n\n"), b" pass \n");
        assert!(Recipient::passphrase_file(b"\n").is_err());
        assert!(Recipient::passphrase(String::new()).is_err());
        Recipient::passphrase("x".repeat(PASSPHRASE_BYTES_MAX)).unwrap();
        assert!(Recipient::passphrase("x".repeat(PASSPHRASE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn debug_shows_neither_passphrase_nor_key() {
        let passphrase = Recipient::passphrase("sesame".to_owned()).unwrap();
        assert!(!format!("{passphrase:?}").contains("sesame"));
        let contents = generate_key_file(&SystemRandom).unwrap();
        let shown = format!("{:?}", Recipient::key_file(contents.as_bytes()).unwrap());
        assert!(!shown.contains(contents.trim_end()));
        assert!(!shown.contains('['), "no bytes are listed: {shown}");
    }

    #[test]
    fn labels_are_short_and_of_one_line() {
        let recipient = || Recipient::passphrase("x".to_owned()).unwrap();
        assert!(recipient().with_label("a\nb").is_err());
        assert!(recipient().with_label("x".repeat(LABEL_BYTES_MAX + 1)).is_err());
        recipient().with_label("x".repeat(LABEL_BYTES_MAX)).unwrap();
        assert_eq!(recipient().with_label("alice").unwrap().label(), "alice");
    }
}
