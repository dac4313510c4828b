//! As whom servers run: as whoever tests, unless that is root.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::run;

/// A user of this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Other than this process's.
    other: Option<(u32, u32)>,
}

impl Account {
    /// One that may run a server.
    pub fn unprivileged() -> Self {
        if !nix::unistd::geteuid().is_root() {
            return Self { other: None };
        }
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| nix::unistd::User::from_name(name).unwrap())
            .expect("root cannot run PostgreSQL, and there is neither a user `postgres` nor `nobody`");
        Self { other: Some((user.uid.as_raw(), user.gid.as_raw())) }
    }

    /// User and group, where they are not this process's own.
    pub fn other(&self) -> Option<(u32, u32)> {
        self.other
    }

    /// A command to be run as this user, somewhere that the user may be.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives this user a file, or a directory with all that is in it.
    pub fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.other {
            run(Command::new("chown").arg("-hR").arg(format!("{uid}:{gid}")).arg(path));
        }
    }
}
