//! Real PostgreSQL servers for tests: [`Cluster`] makes, starts, kills and asks them, [`Load`] keeps them busy.
//!
//! `BACKUP_TEST_POSTGRES` chooses 15 (the default), 16 or 18. A server that is not installed is a failure that says what to do.
//! As root, which servers refuse to run as, everything is done as the user `postgres`, or else `nobody`.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod account;
mod build;
mod cluster;
mod copy;
mod guard;
mod load;
mod version;

pub use account::Account;
pub use build::Builder;
pub use cluster::{Cluster, PASSWORD, Stop};
pub use guard::Guard;
pub use load::Load;
pub use version::Version;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The output of a command that must succeed.
pub fn run(command: &mut Command) -> String {
    try_run(command).unwrap_or_else(|error| panic!("{error}"))
}

/// The output of a command, or what it was and what it complained of.
pub fn try_run(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{:?} does not start: {error}", command.get_program()))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() {
        Ok(stdout.trim_end_matches('\n').to_owned())
    } else {
        let called: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        Err(format!("{:?} {}: {status}\n{stdout}{stderr}", command.get_program(), called.join(" ")))
    }
}

/// Asks until something is there, and fails after a minute.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
