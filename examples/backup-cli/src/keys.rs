//! What unlocks the repository: passphrases and key files from options, the environment and the configuration.

use std::path::Path;
use std::str::FromStr;

use backup_core::config::{Config, KeyKind, Secret, SecretRef};
use backup_core::{Error, Result};
use backup_crypto::Recipient;

use crate::args::Global;
use crate::exit::{Failure, Outcome};

/// What to say when nothing is given that could unlock.
pub const HOW: &str = "give --password-file FILE or --key-file FILE, or set BACKUP_PASSWORD_FILE, BACKUP_KEY_FILE or BACKUP_PASSWORD";

/// A recipient named on the command line: `passphrase:REFERENCE` or `key-file:PATH`.
#[derive(Debug, Clone)]
pub struct RecipientArg {
    kind: KeyKind,
    secret: SecretRef,
}

impl FromStr for RecipientArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("passphrase", reference)) => {
                Ok(Self { kind: KeyKind::Passphrase, secret: reference.parse()? })
            }
            Some(("key-file", path)) if !path.is_empty() => {
                Ok(Self { kind: KeyKind::KeyFile, secret: SecretRef::File(path.into()) })
            }
            // What was given may be a passphrase: it is not repeated.
            _ => Err(Error::invalid_input(
                "a recipient is passphrase:env:NAME, passphrase:file:PATH, passphrase:command:PROGRAM… or key-file:PATH",
            )),
        }
    }
}

impl RecipientArg {
    /// Finds the secret.
    pub async fn resolve(&self) -> Outcome<Recipient> {
        recipient(self.kind, &self.secret, None).await
    }
}

/// The recipients that options, environment and the keys named in the configuration give.
pub async fn recipients(global: &Global, config: Option<(&Config, &[String])>) -> Outcome<Vec<Recipient>> {
    let mut all = Vec::new();
    if let Some(path) = &global.password_file {
        all.push(recipient(KeyKind::Passphrase, &SecretRef::File(path.clone()), None).await?);
    } else if std::env::var_os("BACKUP_PASSWORD").is_some() {
        all.push(recipient(KeyKind::Passphrase, &SecretRef::Env("BACKUP_PASSWORD".into()), None).await?);
    }
    if let Some(path) = &global.key_file {
        all.push(recipient(KeyKind::KeyFile, &SecretRef::File(path.clone()), None).await?);
    }
    if let Some((config, names)) = config {
        for name in names {
            let missing = || Failure::usage(format!("the configuration has no key `{name}`"));
            let key = config.keys.get(name).ok_or_else(missing)?;
            all.push(recipient(key.kind, &key.secret, config.base()).await?.with_label(name.as_str())?);
        }
    }
    Ok(all)
}

async fn recipient(kind: KeyKind, reference: &SecretRef, base: Option<&Path>) -> Outcome<Recipient> {
    let secret = reference.resolve(base).await.map_err(Failure::input)?;
    let made = match kind {
        KeyKind::KeyFile => Recipient::key_file(secret.expose()),
        _ => passphrase(&secret),
    };
    // Which of several secrets does not fit is worth saying; what it is, is not.
    made.map_err(|e| Failure::input(Error::new(e.kind(), format!("{reference}: {}", e.message()))))
}

fn passphrase(secret: &Secret) -> Result<Recipient> {
    match std::str::from_utf8(secret.expose()) {
        Ok(text) => Recipient::passphrase(text.to_owned()),
        // Bytes are taken as they are; the line ending was dropped already.
        Err(_) => Recipient::passphrase_file(secret.expose()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_references_and_never_repeat_what_they_refuse() {
        assert!("passphrase:env:X".parse::<RecipientArg>().is_ok());
        assert!("key-file:/etc/key".parse::<RecipientArg>().is_ok());
        for text in ["", "hunter2", "passphrase:hunter2", "key-file:", "age1hunter2"] {
            let error = text.parse::<RecipientArg>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
