//! The server's programs.

use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result};
use tokio::process::Command;

use crate::system;

/// Where packages put the programs of a major version.
const PACKAGES: [&str; 3] =
    ["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin"];
/// How much of what a program complains of an error tells.
const COMPLAINT_BYTES: usize = 2000;

/// The programs of one version of PostgreSQL: `postgres`, `pg_ctl`, and those that check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    bin: PathBuf,
    major: u32,
}

impl Programs {
    /// Those in a directory.
    ///
    /// # Errors
    ///
    /// There is no `postgres` in it that tells its version.
    pub async fn at(bin: impl Into<PathBuf>) -> Result<Self> {
        let bin = bin.into();
        let program = bin.join("postgres");
        let output = Command::new(&program).arg("--version").current_dir("/").output().await;
        let output = output.map_err(|error| {
            Error::io(
                format!("`{}` cannot be run; give the directory of the server's programs", program.display()),
                error,
            )
        })?;
        // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_once(") ").map(|(_, version)| version);
        let major: String = version.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        let major = major.parse().map_err(|_| {
            Error::new(ErrorKind::Unsupported, format!("`{}` does not tell its version", program.display()))
        })?;
        Ok(Self { bin, major })
    }

    /// Those of a major version, where packages put them, or else in `PATH`.
    ///
    /// # Errors
    ///
    /// There are none of that version.
    pub async fn find(major: u32) -> Result<Self> {
        let packaged = PACKAGES.iter().map(|place| PathBuf::from(place.replace("{}", &major.to_string())));
        let path = std::env::var_os("PATH").unwrap_or_default();
        for place in packaged.chain(std::env::split_paths(&path)) {
            if place.join("postgres").is_file()
                && let Ok(found) = Self::at(&place).await
                && found.major == major
            {
                return Ok(found);
            }
        }
        let message =
            format!("PostgreSQL {major} is not installed; install it, or say where its programs are");
        Err(Error::new(ErrorKind::NotFound, message))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.bin
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Whether a program is there: not all packages have all.
    pub fn has(&self, name: &str) -> bool {
        self.bin.join(name).is_file()
    }

    /// A program to be run as this user, as far as this process may choose; it knows nothing of other servers.
    pub(in crate::postgres) fn command(&self, name: &str, owner: (u32, u32)) -> Command {
        let mut command = std::process::Command::new(self.bin.join(name));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        // What it says is looked at.
        command.env("LC_ALL", "C").current_dir("/").stdin(std::process::Stdio::null());
        if system::is_root() && owner.0 != 0 {
            use std::os::unix::process::CommandExt;
            command.uid(owner.0).gid(owner.1);
        }
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        command
    }

    /// Runs a program to its end and returns what it wrote.
    ///
    /// # Errors
    ///
    /// It cannot be started, or fails; the error has what it complained of.
    pub(in crate::postgres) async fn run(
        &self,
        name: &str,
        owner: (u32, u32),
        arguments: &[&std::ffi::OsStr],
    ) -> Result<String> {
        let output = self.command(name, owner).args(arguments).output().await;
        let output = output.map_err(|error| Error::io(format!("`{name}` cannot be started"), error))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned() + &said;
        let complaint: String = complaint.trim().chars().take(COMPLAINT_BYTES).collect();
        Err(Error::new(ErrorKind::Io, format!("`{name}` failed ({}): {complaint}", output.status)))
    }
}
