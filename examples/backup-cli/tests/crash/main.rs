//! The program killed while it backs up: at random moments, and at every system call that changes the repository, which
//! are also made to fail. What was acknowledged is there afterwards, byte for byte, and the next run succeeds.
//!
//! Acknowledged is a snapshot whose report was printed. With BACKUP_LONG there are 1,000 random kills, and every system
//! call is struck; without it 20 of each. [`between`] does the same to what brings something from one repository to another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
// System calls are told apart by their registers.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/trace.rs"]
mod trace;

mod between;
mod calls;
mod kills;
mod story;

fn long() -> bool {
    std::env::var_os("BACKUP_LONG").is_some()
}
