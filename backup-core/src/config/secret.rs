//! Where secrets are found, and what holds them once they are.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result};

/// Longest secret in bytes.
const SECRET_BYTES_MAX: usize = 64 * 1024;
/// How long a command may take to print a secret.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);

/// A secret's bytes: wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The secret made of `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Keep them out of messages and logs.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret without one line ending at its end, which editors and `echo` leave there.
    #[must_use]
    pub fn without_newline(mut self) -> Self {
        if self.0.last() == Some(&b'\n') {
            self.0.pop();
            if self.0.last() == Some(&b'\r') {
                self.0.pop();
            }
        }
        self
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret is found: `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENT…`.
///
/// A command is split into words as a shell does (quotes count), but run without one; it has a minute to print at most
/// 64 KiB and end with success. One line ending at the end of a secret is dropped, wherever it comes from.
///
/// ```
/// use backup_core::config::SecretRef;
///
/// let secret: SecretRef = "file:/etc/backup/passphrase".parse()?;
/// assert_eq!(secret.to_string(), "file:/etc/backup/passphrase");
/// // A secret written by mistake where a reference belongs is not repeated in the message.
/// let error = "hunter2".parse::<SecretRef>().unwrap_err();
/// assert!(!error.to_string().contains("hunter2"));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// The value of an environment variable.
    Env(String),
    /// The content of a file.
    File(PathBuf),
    /// What a program prints: the program and its arguments.
    Command(Vec<String>),
}

impl SecretRef {
    /// Finds the secret now; relative paths are taken from `base`, where there is one.
    ///
    /// Cancellation: dropping the future leaves a started command to its time limit.
    pub async fn resolve(&self, base: Option<&Path>) -> Result<Secret> {
        let this = self.clone();
        let base = base.map(Path::to_path_buf);
        tokio::task::spawn_blocking(move || this.resolve_blocking(base.as_deref()))
            .await
            .map_err(|e| Error::internal("the task that finds a secret failed").with_source(e))?
    }

    /// As [`resolve`](Self::resolve), on this thread.
    pub fn resolve_blocking(&self, base: Option<&Path>) -> Result<Secret> {
        let secret = match self {
            Self::Env(name) => from_env(name)?,
            Self::File(path) => from_file(&base.map_or_else(|| path.clone(), |base| base.join(path)))?,
            Self::Command(argv) => from_command(argv)?,
        };
        let secret = secret.without_newline();
        if secret.expose().is_empty() {
            return Err(Error::invalid_input(format!("the secret at `{self}` is empty")));
        }
        Ok(secret)
    }
}

impl FromStr for SecretRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The text may be a secret that someone put here by mistake: messages must not repeat it.
        let wrong = |what: &str| {
            Err(Error::invalid_input(format!(
                "{what}; give a reference: env:NAME, file:PATH or command:PROGRAM ARGUMENT…"
            )))
        };
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Env(name.into()))
            }
            Some(("file", path)) if !path.is_empty() && !path.contains('\0') => Ok(Self::File(path.into())),
            Some(("command", line)) => match shlex::split(line) {
                Some(argv) if !argv.is_empty() => Ok(Self::Command(argv)),
                _ => wrong("the command of this secret is empty or has an open quote"),
            },
            Some(("env" | "file", _)) => {
                wrong("the name in this reference to a secret is empty or malformed")
            }
            _ => wrong("a secret itself does not belong here"),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(argv) => {
                f.write_str("command:")?;
                f.write_str(&shlex::try_join(argv.iter().map(String::as_str)).unwrap_or_default())
            }
        }
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn from_env(name: &str) -> Result<Secret> {
    let missing = || Error::new(ErrorKind::NotFound, format!("the environment variable {name} is not set"));
    let value = std::env::var_os(name).ok_or_else(missing)?;
    Ok(Secret::new(value.into_encoded_bytes()))
}

fn from_file(path: &Path) -> Result<Secret> {
    let failed = |e| Error::io(format!("the secret in {} cannot be read", path.display()), e);
    let file = std::fs::File::open(path).map_err(failed)?;
    read_bounded(file, &format!("the secret in {}", path.display()))
}

fn from_command(argv: &[String]) -> Result<Secret> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Error::invalid_input("the command of a secret is empty"));
    };
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(
            |e| Error::io(format!("the command `{program}`, which prints a secret, cannot be started"), e),
        )?;
    let result = watch(&mut child, program);
    if result.is_err() {
        // It may have ended by itself; then there is nothing to kill.
        let _ = child.kill();
    }
    let _ = child.wait();
    result
}

fn watch(child: &mut Child, program: &str) -> Result<Secret> {
    let what = format!("the output of `{program}`");
    let stdout = child.stdout.take().ok_or_else(|| Error::internal("a child without output"))?;
    let reader = {
        let what = what.clone();
        std::thread::spawn(move || read_bounded(stdout, &what))
    };
    let deadline = Instant::now().checked_add(COMMAND_TIME_MAX);
    while !reader.is_finished() && deadline.is_some_and(|deadline| Instant::now() < deadline) {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !reader.is_finished() {
        let message = format!("`{program}` printed no secret within {} s", COMMAND_TIME_MAX.as_secs());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let secret = reader.join().map_err(|_| Error::internal("the reader of a secret failed"))??;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if deadline.is_some_and(|deadline| Instant::now() < deadline) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            None => return Err(Error::new(ErrorKind::LimitExceeded, format!("`{program}` does not end"))),
        }
    };
    if !status.success() {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("`{program}`, which prints a secret, failed: {status}"),
        ));
    }
    Ok(secret)
}

fn read_bounded(from: impl Read, what: &str) -> Result<Secret> {
    // Reserved at once: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX.saturating_add(1)));
    let limit = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    from.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io(format!("{what} cannot be read"), e))?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("{what} is longer than {SECRET_BYTES_MAX} bytes"),
        ));
    }
    Ok(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Vec<u8>> {
        text.parse::<SecretRef>()?.resolve_blocking(None).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn secrets_are_found_where_the_reference_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("with space");
        std::fs::write(&path, "two words\n\n").unwrap();
        // One line ending is dropped, not two.
        assert_eq!(resolve(&format!("file:{}", path.display())).unwrap(), b"two words\n");
        assert_eq!(resolve(&format!("command:cat '{}'", path.display())).unwrap(), b"two words\n");
        let relative: SecretRef = "file:with space".parse().unwrap();
        assert_eq!(relative.resolve_blocking(Some(directory.path())).unwrap().expose(), b"two words\n");
        assert_eq!(resolve("env:PATH").unwrap(), std::env::var("PATH").unwrap().as_bytes());
    }

    #[test]
    fn nonsense_is_refused_without_repeating_it() {
        for text in
            ["", "hunter2", "env:", "file:", "command:", "command:'hunter2", "pass:hunter2", "env:hunter2=1"]
        {
            let error = text.parse::<SecretRef>().unwrap_err().to_string();
            assert!(error.contains("env:NAME") && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn missing_failing_and_endless_secrets_are_errors() {
        assert_eq!(resolve("env:NO_SUCH_VARIABLE_HERE").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(resolve("file:/no/such/file").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(resolve("file:/").is_err());
        assert_eq!(resolve("file:/dev/null").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(resolve("file:/dev/zero").unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(resolve("command:cat /dev/zero").unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(resolve("command:no-such-program").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(resolve("command:sh -c 'echo almost; exit 3'").unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
