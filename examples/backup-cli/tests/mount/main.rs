//! Mounting, by the real program and the kernel: everything is shown as it was, damage costs what it damaged, and whatever
//! ends the mount ends it cleanly.

#![cfg(all(feature = "mount", target_os = "linux"))]
#![allow(unreachable_pub, reason = "nobody else sees a test")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/dump.rs"]
mod dump;
mod mount;
mod mounted;
#[cfg(feature = "s3")]
#[path = "../../../../backup-sinks/tests/common/mod.rs"]
mod stores;
