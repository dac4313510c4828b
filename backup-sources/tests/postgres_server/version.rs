//! Which PostgreSQL is tested, and where its programs are.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Account;

/// A major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// What `BACKUP_TEST_POSTGRES` says; 15 otherwise.
    pub fn wanted() -> Self {
        let wanted = std::env::var("BACKUP_TEST_POSTGRES").unwrap_or_default();
        match wanted.as_str() {
            "" | "15" => Self(15),
            "16" => Self(16),
            "18" => Self(18),
            other => panic!("BACKUP_TEST_POSTGRES is `{other}`; tests know 15, 16 and 18"),
        }
    }

    /// The directory with its programs.
    pub fn bin(self) -> PathBuf {
        let package = PathBuf::from(format!("/usr/lib/postgresql/{}/bin", self.0));
        if package.join("postgres").exists() {
            return package;
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let unpacked = target.join("servers").join(format!("postgresql-{}", self.0)).join("bin");
        assert!(
            unpacked.join("postgres").exists(),
            "PostgreSQL {} is neither in {} nor in {}: install it by `.ci/servers postgresql`",
            self.0,
            package.display(),
            unpacked.display()
        );
        unpacked
    }

    /// The version whose `pg_verifybackup` judges what is restored for a server of this one: the packaged 18's tool crashes, even when it is only
    /// asked for its version. 15's knows our manifests, and not those that servers after 16 write.
    pub fn judging(self) -> Self {
        if self > Self(16) { Self(15) } else { self }
    }

    /// A program of this version, to be run as `account`.
    pub fn program(self, name: &str, account: &Account) -> Command {
        Self::prepared(account.command(self.bin().join(name)))
    }

    /// The same for a program that leaves a server behind: it does not inherit what this process was given open, as that may be the
    /// lock of somebody who runs tests.
    pub fn program_alone(self, name: &str, account: &Account) -> Command {
        let mut command = account.command("sh");
        command.args(["-c", r#"exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec "$@""#, "sh"]);
        command.arg(self.bin().join(name));
        Self::prepared(command)
    }

    fn prepared(mut command: Command) -> Command {
        // What the environment says of other servers must not lead there.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        command.env("LC_ALL", "C").env("PGAPPNAME", "test");
        command
    }

    /// Whether an extension can be created.
    pub fn has_extension(self, name: &str) -> bool {
        let places = [
            PathBuf::from(format!("/usr/share/postgresql/{}/extension", self.0)),
            self.bin().join("../share/extension"),
            self.bin().join("../share/postgresql/extension"),
        ];
        places.iter().any(|place| place.join(format!("{name}.control")).exists())
    }
}
