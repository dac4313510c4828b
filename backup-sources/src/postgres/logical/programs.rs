//! `pg_dump`, `pg_dumpall`, `pg_restore`: found, and asked for their version.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use tokio::process::Command;

use crate::command::Call;
use crate::postgres::Connect;

/// Where packages put the programs of a major version.
const PACKAGES: [&str; 3] =
    ["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin"];
/// How many major versions later than a server's are looked for.
const LATER_MAJORS: u32 = 10;
/// How long a program may take to tell its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(30);

/// A version as `server_version_num` counts them: 150018 is 15.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32);

impl Version {
    pub(super) fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// From `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `18beta1`.
    fn parse(text: &str) -> Option<Self> {
        let (_, version) = text.trim().split_once(") ")?;
        let number =
            |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        let major: u32 = number(version)?;
        let minor: u32 = version.split_once('.').and_then(|(_, minor)| number(minor)).unwrap_or(0);
        let known = (7..1000).contains(&major) && minor < 10_000;
        known.then(|| major.checked_mul(10_000)?.checked_add(minor)).flatten().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.0 % 10_000)
    }
}

/// A program of PostgreSQL's clients.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

impl Tool {
    /// The program `name` in `directory`, or, without one, the oldest that is at least of the version `major`, where packages put it, or else
    /// in `PATH`.
    pub(super) async fn find(directory: Option<&Path>, name: &str, major: u32) -> Result<Self> {
        if let Some(directory) = directory {
            return Self::at(directory.join(name)).await;
        }
        let mut older = None;
        for place in places(major) {
            let program = place.join(name);
            if !program.is_file() {
                continue;
            }
            match Self::at(program).await {
                Ok(tool) if tool.version.major() >= major => return Ok(tool),
                Ok(tool) => older = Some(tool),
                Err(error) => tracing::debug!(%error, "is passed over"),
            }
        }
        match older {
            // Whoever looks at its version says what is wrong with it.
            Some(tool) => Ok(tool),
            None => {
                let message = format!(
                    "there is no `{name}` here: install the clients of PostgreSQL {major} or later, or say in which \
                     directory they are"
                );
                Err(Error::new(ErrorKind::NotFound, message))
            }
        }
    }

    async fn at(path: PathBuf) -> Result<Self> {
        let mut command = Command::new(&path);
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(VERSION_PATIENCE, command.output()).await {
            Ok(output) => output.map_err(|error| {
                let message = format!(
                    "`{}` cannot be run; give the directory that has the programs of PostgreSQL's clients",
                    path.display()
                );
                Error::io(message, error)
            })?,
            Err(_) => {
                let message = format!("`{}` does not tell its version", path.display());
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        let version = Version::parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
            let message = format!("`{}` does not tell its version", path.display());
            Error::new(ErrorKind::Unsupported, message)
        })?;
        Ok(Self { path, version })
    }

    /// Makes sure that the program understands what `other` is or has made.
    pub(super) fn check_at_least(&self, other: Version, what: &str) -> Result<()> {
        if self.version.major() >= other.major() {
            return Ok(());
        }
        let message = format!(
            "`{}` is of version {} and {what} of version {other}: it must be at least as new; install the clients of \
             PostgreSQL {} or later",
            self.path.display(),
            self.version,
            other.major()
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// A call that is led to a server by its environment, and by nothing else: it never asks for a password.
    pub(super) async fn call(
        &self,
        connect: &Connect,
        arguments: Vec<OsString>,
        timeout: Option<Duration>,
    ) -> Result<Call> {
        let mut environment = connect.libpq_environment().await?;
        // What it says is looked at.
        environment.push(("LC_ALL".into(), "C".into()));
        let arguments = std::iter::once("--no-password".into()).chain(arguments).collect();
        Ok(Call { program: self.path.clone().into(), arguments, environment, without: Some("PG"), timeout })
    }
}

/// Where programs may be, in this order.
fn places(major: u32) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for major in major..=major.saturating_add(LATER_MAJORS) {
        places.extend(PACKAGES.map(|place| PathBuf::from(place.replace("{}", &major.to_string()))));
    }
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_packages_write_them() {
        let parse = |text: &str| Version::parse(text).map(|version| version.0);
        assert_eq!(parse("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(150_018));
        assert_eq!(parse("pg_dump (PostgreSQL) 18beta1"), Some(180_000));
        assert_eq!(parse("pg_dump (PostgreSQL) 17devel"), Some(170_000));
        assert_eq!(parse("pg_dump (PostgreSQL) 9.6.24"), Some(90_006));
        assert_eq!((parse("pg_dump"), parse("pg_dump (PostgreSQL) x"), parse("")), (None, None, None));
        assert_eq!(Version(150_018).to_string(), "15.18");
    }
}
